package agent

import (
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// input is everything that the decision about this node rests on.
type input struct {
	node          string
	netNamespaces []v1.NetNamespace
	egressIPs     []ovnv1.EgressIP
	hostSubnets   []v1.HostSubnet
	// namespaces are the labels of Namespaces, by name.
	namespaces map[string]labels.Set
	// pods are those of this node.
	pods         []localPod
	serviceCIDRs []networkingv1.ServiceCIDR
	// apiServers are the EndpointSlices of Service default/kubernetes.
	apiServers []discoveryv1.EndpointSlice
	// kubeadm are the networks that kubeadm made the cluster with.
	kubeadm egress.ClusterNetworks
	// inside are the networks that flags name as inside the cluster.
	inside []netip.Prefix
	// included are networks outside to which egress IPs apply alone, as flags name them.
	included []netip.Prefix
	// podNetworks are the cluster's pod networks, as flags name them.
	podNetworks []netip.Prefix
	strict      bool
	// reach is which hosts this node's probes reach, and whether this node is cut
	// off, so that it must have no egress IPs.
	reach egress.Reach
	// uplink is what the kernel reported last: this node's address with its
	// prefix length. It is fresher than what the API says of this node, and
	// invalid before the first pass.
	uplink netip.Prefix
	// networks are those of other interfaces that the kernel reported last, if networksKnown.
	networks      []dataplane.Network
	networksKnown bool
	// addresses are those that the kernel has, or had a moment ago.
	addresses []netip.Addr
	// podRoutes are how the kernel led to pods in networks that nothing else names.
	podRoutes []dataplane.PodRoute
	// hostIP is the node's address as known before, for the time in which the
	// HostSubnet is missing.
	hostIP netip.Addr
	// memo remembers the decision before; nil for none.
	memo *egress.Memo
}

// decision is what must be done and reported on this node.
type decision struct {
	state dataplane.State
	// result says what becomes of this node's claims.
	result egress.HostResult
	// problems are the parts of this node's HostSubnet that cannot be used.
	problems []egress.Problem
	// generation of the HostSubnet that state carries out.
	generation int64
	// noHostSubnet: there is no HostSubnet for this node. It hosts nothing then,
	// and its pods are still kept from leaving with the node's address.
	noHostSubnet bool
	// peers are the hosts that must be probed.
	peers []egress.Peer
	// servingPeers are those of peers that the API says are online, in order.
	servingPeers []string
	// witnessed are those of peers on whose health this node votes.
	witnessed []string
	// addresses are those of the node that are published. addressesUnknown: the kernel
	// has not said yet which there are.
	addresses        []netip.Addr
	addressesUnknown bool
	// networks are those of other interfaces that are published. networksUnknown: the kernel
	// has not said which there are.
	networks        []egress.FurtherNetwork
	networksUnknown bool
	// podNetworks are those that the node's pods were found in and that are published, and
	// outside is a pod that is in none that all nodes know; its IP is invalid if there is
	// none. podNetworksUnknown: the kernel has not said yet.
	podNetworks        []netip.Prefix
	outside            egress.Pod
	podNetworksOmitted int
	podNetworksUnknown bool
	// overlaps are pods whose egress IPs two objects say.
	overlaps []egress.Overlap
	// withdrawn: the node gives up its egress IPs.
	withdrawn bool
	// warnings are what the admin should know and what stops nothing.
	warnings []warning.Warning
	// mtus are the MTUs of other hosts' uplinks.
	mtus []warning.Peer
}

// decide converts the objects, has the brain decide, and converts its answer. It
// is pure. It returns false where not even the node's address is known, so that
// there is no state for the kernel.
func decide(in input) (decision, bool) {
	cluster, problems := in.memo.Snapshot(egress.Objects{
		NetNamespaces: in.netNamespaces,
		EgressIPs:     in.egressIPs,
		HostSubnets:   in.hostSubnets,
	})
	hostIP, known := hostIPOf(in.pods)
	if !known {
		hostIP = in.hostIP
	}
	decided, ok := egress.DecideHost(egress.HostInput{
		Host: in.node, Cluster: cluster, HostIP: hostIP, Uplink: in.uplink, Addresses: in.addresses,
		Networks: furtherOf(in.networks), NetworksKnown: in.networksKnown,
		Pods: podsOf(in.pods), Namespaces: in.namespaces, Managed: managedNamespaces(in.netNamespaces),
		Inside: insideNetworks(in.inside, in.serviceCIDRs), PodNetworks: in.podNetworks, ClusterNetworks: in.kubeadm,
		Included:   in.included,
		APIServers: endpointsOf(in.apiServers), PodRoutes: routesOf(in.podRoutes),
		Strict: in.strict, Reach: in.reach, Memo: in.memo,
	})
	if !ok {
		return decision{}, false
	}
	d := decision{
		state: stateOf(decided.Plan, in.strict), result: decided.Result, peers: decided.Watched, witnessed: decided.Witnessed,
		noHostSubnet: decided.NoHostSubnet, withdrawn: in.reach.Withdrawn, addresses: decided.Addresses,
		overlaps:         decided.Overlaps,
		addressesUnknown: len(in.addresses) == 0,
		networks:         decided.Networks, networksUnknown: !in.networksKnown,
		podNetworks: decided.PodNetworks, outside: decided.Outside, podNetworksOmitted: decided.PodNetworksOmitted,
		podNetworksUnknown: len(decided.Locate) > 0 && len(in.podRoutes) == 0,
	}
	d.state.Locate = decided.Locate
	for _, p := range problems {
		if p.Kind == "HostSubnet" && p.Name == in.node {
			d.problems = append(d.problems, p)
		}
	}
	if stray := decided.StrayIPv6; stray.IsValid() {
		d.warnings = append(d.warnings, warning.StrayIPv6(stray))
	}
	if decided.Stray.IP.IsValid() && !decided.PodNetworksUnknown {
		d.warnings = append(d.warnings, warning.PodOutside(decided.Stray.Namespace+"/"+decided.Stray.Name, decided.Stray.IP))
	}
	if decided.PodNetworksUnknown {
		d.warnings = append(d.warnings, warning.NoPodNetworks())
	}
	if len(decided.OutOfReach) > 0 {
		d.warnings = append(d.warnings, warning.OutOfReach(decided.OutOfReach, decided.Plan.HostIP))
	}
	for _, objects := range decided.Plan.NotExcluded {
		d.warnings = append(d.warnings, warning.TooManyExcluded(objects))
	}
	if decided.AddressesOmitted > 0 {
		d.warnings = append(d.warnings, warning.AddressesOmitted(decided.AddressesOmitted))
	}
	d.servingPeers = servingPeers(cluster, d.peers)
	for i := range in.hostSubnets {
		if h := &in.hostSubnets[i]; uplinkMTU(h) > 0 && h.Name != in.node {
			d.mtus = append(d.mtus, warning.Peer{Name: h.Name, MTU: int(uplinkMTU(h))})
		}
	}
	if own := ownHostSubnet(in.hostSubnets, in.node); own != nil {
		d.generation = own.Generation
	}
	return d, true
}

// servingPeers names the peers that are online by their published conditions, in order.
func servingPeers(c egress.Cluster, peers []egress.Peer) []string {
	var names []string
	for _, p := range peers {
		if h, ok := c.Host(p.Name); ok && h.Online {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// routesOf converts what the kernel said.
func routesOf(routes []dataplane.PodRoute) []egress.PodRoute {
	converted := make([]egress.PodRoute, 0, len(routes))
	for _, r := range routes {
		converted = append(converted, egress.PodRoute{IP: r.IP, Network: r.Network, Outward: r.Outward})
	}
	return converted
}

// furtherOf converts what the kernel said.
func furtherOf(networks []dataplane.Network) []egress.FurtherNetwork {
	converted := make([]egress.FurtherNetwork, 0, len(networks))
	for _, n := range networks {
		converted = append(converted, egress.FurtherNetwork{Interface: n.Interface, CIDR: n.CIDR, Gateway: n.Gateway})
	}
	return converted
}

// uplinkMTU returns the MTU of a host's uplink; 0 where its agent has not reported it.
func uplinkMTU(h *v1.HostSubnet) int32 {
	if h.Status.Agent == nil {
		return 0
	}
	return h.Status.Agent.UplinkMTU
}

// managedNamespaces returns the names of the namespaces that have a NetNamespace,
// whether that can be used or not.
func managedNamespaces(netNamespaces []v1.NetNamespace) map[string]bool {
	managed := make(map[string]bool, len(netNamespaces))
	for i := range netNamespaces {
		managed[netNamespaces[i].Name] = true
		if name := netNamespaces[i].NetName; name != netNamespaces[i].Name {
			managed[name] = true
		}
	}
	return managed
}

// insideNetworks returns the given networks and those of the ServiceCIDRs.
func insideNetworks(given []netip.Prefix, serviceCIDRs []networkingv1.ServiceCIDR) []netip.Prefix {
	inside := slices.Clone(given)
	for _, s := range serviceCIDRs {
		for _, cidr := range s.Spec.CIDRs {
			if p, err := netip.ParsePrefix(cidr); err == nil {
				inside = append(inside, p.Masked())
			}
		}
	}
	return inside
}

// endpointsOf returns the addresses of endpoints, ready or not: one that is not for a moment
// is an API server all the same.
func endpointsOf(endpointSlices []discoveryv1.EndpointSlice) []netip.Addr {
	var ips []netip.Addr
	for i := range endpointSlices {
		for _, endpoint := range endpointSlices[i].Endpoints {
			for _, address := range endpoint.Addresses {
				if ip, err := netip.ParseAddr(address); err == nil {
					ips = append(ips, ip)
				}
			}
		}
	}
	return ips
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
