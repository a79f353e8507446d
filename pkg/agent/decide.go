package agent

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// input is everything that the decision about this node rests on.
type input struct {
	node          string
	netNamespaces []v1.NetNamespace
	hostSubnets   []v1.HostSubnet
	// pods of this node alone.
	pods         []corev1.Pod
	serviceCIDRs []networkingv1.ServiceCIDR
	// inside are the networks that flags name as inside the cluster.
	inside []netip.Prefix
	// podNetworks are the cluster's pod networks, as flags name them.
	podNetworks []netip.Prefix
	strict      bool
	// reach is whom this node's probes reach.
	reach egress.Reach
	// withdrawn: this node is cut off, and must bear no egress IPs.
	withdrawn bool
	// uplink is what the kernel reported last: this node's address with its
	// prefix length. It is fresher than what the API says of this node, and
	// invalid before the first pass.
	uplink netip.Prefix
	// hostIP is the node's address as known before, for the time in which the
	// HostSubnet is missing.
	hostIP netip.Addr
}

// decision is what is to be done and told on this node.
type decision struct {
	state dataplane.State
	// result says what becomes of this node's claims.
	result egress.HostResult
	// problems are the parts of this node's HostSubnet that cannot be used.
	problems []egress.Problem
	// generation of the HostSubnet that state carries out.
	generation int64
	// adopted: there is no HostSubnet for this node. It hosts nothing then, and
	// its pods are still kept from leaving with the node's address.
	adopted bool
	// peers are the hosts to be probed.
	peers []egress.Peer
	// withdrawn: the node gives up what it should bear.
	withdrawn bool
	// warning is what the admin should know and what stops nothing, or empty.
	warning string
}

// decide is pure. It returns false where not even the node's address is known,
// so that there is nothing to tell the kernel.
func decide(in input) (decision, bool) {
	cluster, problems := egress.Snapshot(egress.Objects{
		NetNamespaces: in.netNamespaces,
		HostSubnets:   in.hostSubnets,
	})
	hostIP, known := hostIPOf(in.pods)
	if !known {
		hostIP = in.hostIP
	}
	cluster, adopted := withSelf(cluster, in, hostIP)
	inside := slices.Clone(in.inside)
	for _, s := range in.serviceCIDRs {
		for _, cidr := range s.Spec.CIDRs {
			if p, err := netip.ParsePrefix(cidr); err == nil && p.Addr().Is4() {
				inside = append(inside, p.Masked())
			}
		}
	}
	resolution := egress.Resolve(cluster)
	pods := podsOf(in.pods)
	reach := in.reach
	reach.Host, reach.Withdrawn = in.node, in.withdrawn
	paths := egress.PathsFrom(cluster, resolution, reach)
	plan, ok := egress.PlanFor(cluster, paths, in.node, pods, inside)
	if in.withdrawn {
		plan = egress.GiveUp(plan)
	}
	if len(plan.Subnets) == 0 {
		// The Node has no podCIDR, as with a CNI that gives addresses out of pools, or
		// is not known yet: any address of the cluster's pods may be one of its own.
		plan.Subnets = slices.Clone(in.podNetworks)
	}
	if in.strict {
		plan.Pods = append(plan.Pods, leftAlone(in.netNamespaces, in.pods, pods)...)
		slices.SortStableFunc(plan.Pods, func(a, b egress.PodPath) int { return a.IP.Compare(b.IP) })
	}
	if !plan.HostIP.IsValid() {
		plan.HostIP = hostIP // of a HostSubnet whose hostIP is unusable, nothing else is taken
	}
	if !ok || !plan.HostIP.IsValid() {
		return decision{}, false
	}
	d := decision{
		state: stateOf(plan, in.strict), adopted: adopted, withdrawn: in.withdrawn,
		peers: egress.Watched(cluster, resolution, in.node, pods),
	}
	d.result, _ = resolution.Host(in.node)
	for _, p := range problems {
		if p.Kind == "HostSubnet" && p.Name == in.node {
			d.problems = append(d.problems, p)
		}
	}
	if in.strict && len(d.state.Subnets) == 0 {
		d.warning = "neither a podCIDR of the Node nor --cluster-cidrs tells which addresses are pods': a pod that is faster than the agent " +
			"leaves with the node's address for a moment; give --cluster-cidrs (in the chart: clusterCIDRs)"
	}
	if own := ownHostSubnet(in.hostSubnets, in.node); own != nil {
		d.generation = own.Generation
	}
	return d, true
}

// withSelf returns the cluster with what this node knows better than the API:
// its uplink's network and, where it has no HostSubnet, itself as a host without
// claims. A node that is being added, or whose HostSubnet was deleted, must host
// nothing; but its pods' traffic must not leave with its address.
func withSelf(c egress.Cluster, in input, hostIP netip.Addr) (_ egress.Cluster, adopted bool) {
	c.Hosts = slices.Clone(c.Hosts)
	i, found := slices.BinarySearchFunc(c.Hosts, in.node,
		func(h egress.Host, name string) int { return cmp.Compare(h.Name, name) })
	if !found {
		c.Hosts = slices.Insert(c.Hosts, i, egress.Host{Name: in.node, IP: hostIP, Online: true})
	}
	// An uplink with a /32, as clouds give it, does not tell which addresses
	// its segment carries.
	if u := in.uplink; u.IsValid() && u.Addr() == c.Hosts[i].IP && u.Bits() < u.Addr().BitLen() {
		c.Hosts[i].Network = u.Masked()
	}
	return c, !found
}

// ownHostSubnet returns the node's HostSubnet, or nil.
func ownHostSubnet(hostSubnets []v1.HostSubnet, node string) *v1.HostSubnet {
	for i := range hostSubnets {
		if hostSubnets[i].Name == node {
			return &hostSubnets[i]
		}
	}
	return nil
}
