package egress

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// HostInput is everything that the decision about one host rests on.
type HostInput struct {
	// Host is the host's name.
	Host string
	// Cluster is what the API's objects say. The host itself may be missing.
	Cluster Cluster
	// HostIP is the host's own address as known without its HostSubnet, for the
	// time in which that is missing or has no usable address.
	HostIP netip.Addr
	// Uplink is the host's address with its prefix length as the kernel reported
	// it last. It is fresher than the Cluster; invalid if not known.
	Uplink netip.Prefix
	// Networks are those of other interfaces that the kernel had last, if NetworksKnown.
	Networks      []FurtherNetwork
	NetworksKnown bool
	// Addresses are those that the kernel has, or had a moment ago, on its interfaces.
	Addresses []netip.Addr
	// Pods are the host's own pods.
	Pods []Pod
	// Namespaces are the labels of namespaces, by name. They matter only if there are
	// EgressIPs.
	Namespaces map[string]labels.Set
	// Managed names the namespaces that have a NetNamespace, even an unusable
	// one.
	Managed map[string]bool
	// Inside are networks of the cluster in addition to the pod CIDRs of the
	// hosts, such as service CIDRs.
	Inside []netip.Prefix
	// Included are networks outside to which egress IPs apply, and to no others, as long as a group
	// does not say otherwise; none for all.
	Included []netip.Prefix
	// APIServers are the endpoints of the API server's own service. They may be no nodes.
	APIServers []netip.Addr
	// PodNetworks are the networks of the cluster's pods, for a host whose pod CIDRs are
	// not known, or are not where its pods are.
	PodNetworks []netip.Prefix
	// ClusterNetworks are the networks that the cluster was made with, by another's word than
	// the administrator's to us; see usableClusterNetworks.
	ClusterNetworks ClusterNetworks
	// PodRoutes are how the kernel leads to those of HostDecision.Locate of before.
	PodRoutes []PodRoute
	// Strict: an address of a pod network that belongs to no known pod must not
	// leave the cluster.
	Strict bool
	// Reach is what the host's own probes found, and whether the host is
	// withdrawn. Reach.Host is Host.
	Reach Reach
	// Memo remembers the decision before, if it is not nil.
	Memo *Memo
}

// HostDecision is what one host must do and report.
type HostDecision struct {
	Plan Plan
	// Result is what becomes of the host's claims.
	Result HostResult
	// Watched are the hosts whose health it must watch.
	Watched []Peer
	// Witnessed are those of Watched on whose health it votes.
	Witnessed []string
	// NoHostSubnet: the host is not in the Cluster. It hosts nothing then, and its
	// pods are still kept from leaving with its address.
	NoHostSubnet bool
	// Networks are those of other interfaces that the host publishes.
	Networks []FurtherNetwork
	// Addresses are those that the host publishes in addition to its hostIP, so that they
	// are inside for all; AddressesOmitted is how many more it has.
	Addresses        []netip.Addr
	AddressesOmitted int
	// Locate are the addresses of pods in networks that nothing but the kernel can say,
	// which must find out how it leads there; PodNetworks are those of them that the host
	// publishes, so that they are inside for all, and PodNetworksOmitted is how many more
	// there are.
	Locate             []netip.Addr
	PodNetworks        []netip.Prefix
	PodNetworksOmitted int
	// Outside is one of the host's pods whose address is not inside for all hosts; its IP
	// is invalid if there is none.
	Outside Pod
	// PodNetworksUnknown: strict classification has no effect, as nothing says
	// which addresses are those of the host's pods.
	PodNetworksUnknown bool
	// StrayIPv6 is an IPv6 address of a pod that must not send outside the cluster, and is
	// itself in no network that is known to be inside; invalid if there is none.
	StrayIPv6 netip.Addr
	// OutOfReach names egress hosts of namespaces with pods here to which the overlay does not
	// lead, as their hostIPs are of another family, in order. The pods use other egress IPs of
	// their namespaces, or are dropped.
	OutOfReach []string
	// Overlaps are pods of the host whose egress IPs two groups say.
	Overlaps []Overlap
	// Stray is one of the host's pods whose address is in no network that is known to be
	// one of pods; its IP is invalid if there is none. The network is not covered by strict
	// classification, and not inside.
	Stray Pod
}

// DecideHost plans one host. It returns false where not even the host's address
// is known, so that there is nothing to be done yet.
func DecideHost(in HostInput) (HostDecision, bool) {
	cluster, noHostSubnet := withSelf(in)
	cluster.Included = in.Included
	resolution := in.Memo.Resolve(cluster)
	known, overlaps := grouped(cluster, in.Pods, in.Namespaces)
	reach := in.Reach
	reach.Host = in.Host
	pods, services := usableClusterNetworks(cluster, clusterNetworks(cluster, in.ClusterNetworks))
	in.PodNetworks = slices.Concat(in.PodNetworks, pods)
	inside := slices.Concat(in.Inside, pods, services, apiServers(cluster, in.APIServers))
	found := findPods(in, cluster, inside)
	paths, outOfReach := pathsFrom(cluster, resolution, reach)
	plan, ok := PlanFor(cluster, paths, in.Host, known, slices.Concat(inside, found.all))
	if !ok {
		return HostDecision{}, false
	}
	if !plan.HostIP.IsValid() {
		plan.HostIP = in.HostIP // of a HostSubnet whose hostIP is unusable, nothing else is taken
	}
	if !plan.HostIP.IsValid() {
		return HostDecision{}, false
	}
	if reach.Withdrawn {
		plan = GiveUp(plan)
	}
	// The Node may have no podCIDR, as with a CNI that gives addresses out of pools, or
	// is not known yet.
	var stray Pod
	plan.Subnets, stray = strictNetworks(withPodNetworks(slices.Concat(plan.Subnets, found.wide()), in.PodNetworks), in.PodNetworks, in.Pods, plan.Hosts, FamilyOf(plan.HostIP))
	if in.Strict {
		plan.Pods = append(plan.Pods, unmanagedPods(in.Managed, known)...)
		slices.SortStableFunc(plan.Pods, func(a, b PodPath) int { return a.IP.Compare(b.IP) })
	}
	result, _ := resolution.Host(in.Host)
	self, _ := cluster.Host(in.Host)
	addresses, omitted := toPublish(self, insideNetworks(cluster, in.Host, inside), in.Addresses)
	return HostDecision{
		Plan: plan, Result: result, Addresses: addresses, AddressesOmitted: omitted,
		Networks: publishFurther(cluster, in.Networks),
		Overlaps: overlaps[:min(len(overlaps), maxOverlaps)],
		Locate:   found.locate, PodNetworks: found.published, PodNetworksOmitted: len(found.all) - len(found.published), Outside: found.outside,
		Watched:            Watched(cluster, resolution, in.Host, known),
		Witnessed:          Witnessed(cluster, in.Host),
		NoHostSubnet:       noHostSubnet,
		PodNetworksUnknown: in.Strict && !slices.ContainsFunc(plan.Subnets, func(p netip.Prefix) bool { return FamilyOf(p.Addr()) == FamilyOf(plan.HostIP) }),
		OutOfReach:         usedOf(outOfReach, resolution, known),
		StrayIPv6:          strayIPv6(plan),
		Stray:              stray,
	}, true
}

// pathsFrom is the resolution that the packets of a host's pods follow. Hosts to which the
// overlay does not lead from there, which are returned, are offline for them, and may take
// their last egress IP: what is sent to such a host would be lost, and no probe can be wrong
// about it.
func pathsFrom(c Cluster, settled Resolution, r Reach) (paths Resolution, outOfReach []string) {
	outOfReach = c.OutOfReach(r.Host)
	if len(outOfReach) == 0 {
		return ResolveFrom(c, settled, r), nil
	}
	offline := make(map[string]bool, len(outOfReach))
	for _, name := range outOfReach {
		offline[name] = true
	}
	c = WithOffline(c, offline)
	return ResolveFrom(c, Resolve(c), r), outOfReach
}

// usedOf are those of the named hosts that pods would use.
func usedOf(names []string, r Resolution, pods []Pod) []string {
	if len(names) == 0 {
		return nil
	}
	used := usedHosts(r, pods)
	return slices.DeleteFunc(names, func(name string) bool { return !used[name] })
}

// withSelf returns the cluster with what the host knows better than the API: its
// uplink's network and, where it has no HostSubnet, itself as a host without
// claims. A node that is being added, or whose HostSubnet was deleted, must host
// nothing; but its pods' traffic must not leave with its address.
func withSelf(in HostInput) (_ Cluster, noHostSubnet bool) {
	c := in.Cluster
	c.Hosts = slices.Clone(c.Hosts)
	i, found := findHost(c.Hosts, in.Host)
	if !found {
		c.Hosts = slices.Insert(c.Hosts, i, Host{Name: in.Host, IP: in.HostIP, Online: true})
	}
	// A host need not be told that it has its address; without it, it cannot do anything.
	c.Hosts[i].Confirmed = c.Hosts[i].IP.IsValid()
	if u := in.Uplink; u.IsValid() && u.Addr() == c.Hosts[i].IP && u.Addr().Is4() {
		// An uplink with a /32, as clouds assign it, does not say which addresses
		// its segment carries.
		if u.Bits() < u.Addr().BitLen() && !c.Hosts[i].Cloud {
			c.Hosts[i].Networks = append([]netip.Prefix{u.Masked()}, c.Hosts[i].networksOf(IPv6)...)
		}
	}
	if in.NetworksKnown && !c.Hosts[i].Clouded {
		c.Hosts[i].FurtherNetworks = publishFurther(c, in.Networks)
	}
	return c, !found
}

// unmanagedPods returns paths for the pods of namespaces that have no NetNamespace
// at all: without one there is no egress IP, and they leave with the node's
// address. Strict classification would cut them off while the operator is being
// installed, or for as long as no controller runs.
//
// Three kinds of pods get no path here: those of a NetNamespace that is unusable, those that an
// EgressIP selects, which have theirs, and those that only the runtime has. Where this host does not reach the API server
// but the kubelet does, the NetNamespace of a new namespace may ask for egress IPs
// that are not known here.
func unmanagedPods(managed map[string]bool, pods []Pod) []PodPath {
	var paths []PodPath
	for _, p := range pods {
		if p.Group == "" && !managed[p.Namespace] && !p.RuntimeOnly {
			paths = append(paths, PodPath{IP: p.IP, Kind: PathNode})
		}
	}
	return paths
}
