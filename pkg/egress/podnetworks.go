package egress

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

const (
	// MaxPodNetworks is the greatest number of networks of its pods that a host publishes,
	// and that are read of one.
	MaxPodNetworks = 128
	// widestPodNetwork is the length of the shortest prefix that counts as a network of one
	// host's pods, widestPodNetwork6 that of IPv6. What is inside leaves with the node's
	// address: of a wider network, such as one that a VPN has too, most would not be pods.
	widestPodNetwork  = 20
	widestPodNetwork6 = 64
)

// tooWideForPods reports whether a network is too wide to be one of one host's pods.
func tooWideForPods(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < widestPodNetwork
	}
	return p.Bits() < widestPodNetwork6
}

// PodRoute is how a host's kernel leads to one of its pods.
type PodRoute struct {
	IP netip.Addr
	// Network is the destination of the route, or of one that leads what remains of a
	// network around it nowhere.
	Network netip.Prefix
	// Outward: the route leads out of the host. The address is not that of its pod then.
	Outward bool
}

// foundPodNetworks are the networks of hosts' pods that are inside because the hosts found
// them. Nothing else may say where pods are, as with a CNI that gives addresses out of
// pools of its own.
//
// As with nodeAddresses, one party is not believed. The agent says that the kernel leads
// there to pods; and the API server has a Pod of the Node there, by the word of the kubelet,
// or an object of the CNI that gives the network to the Node.
func foundPodNetworks(c Cluster) []netip.Prefix {
	return believed(c, "")
}

// believed are those of one host, or of all if that is "".
func believed(c Cluster, name string) []netip.Prefix {
	var found []netip.Prefix
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if !host.Confirmed || host.Gone || host.Shadowed || name != "" && name != host.Name {
			continue
		}
		for _, network := range host.PodNetworks {
			if host.hasPods(network) {
				found = append(found, network)
			}
		}
	}
	return usablePodNetworks(c, found)
}

// usablePodNetworks are those that can be networks of pods, in order and none within
// another: no single address that is an egress IP, and no wider network with an address of a
// host or on its uplink, where there are other machines. Single addresses may be there. A host
// that serves no IPv6 does not report its uplink's networks of it, so that its address is all
// that shows them.
func usablePodNetworks(c Cluster, networks []netip.Prefix) []netip.Prefix {
	if len(networks) == 0 {
		return nil
	}
	singles := make(map[netip.Addr]bool)
	for _, network := range networks {
		if network.IsSingleIP() {
			singles[network.Addr()] = true
		}
	}
	withoutEgressIPs(c, singles)
	elsewhere := withOthers(c)
	usable := slices.DeleteFunc(slices.Clone(networks), func(p netip.Prefix) bool {
		if p.IsSingleIP() {
			return !singles[p.Addr()]
		}
		return elsewhere(p)
	})
	slices.SortFunc(usable, netip.Prefix.Compare)
	return outermost(usable)
}

// withOthers returns what reports whether a network has machines that are no pods: it has an
// address of a host, or one on its uplink.
func withOthers(c Cluster) func(netip.Prefix) bool {
	onUplinks, own := segments(c), ownAddresses(c)
	return func(p netip.Prefix) bool {
		return slices.ContainsFunc(onUplinks, p.Overlaps) || slices.ContainsFunc(own, p.Contains)
	}
}

// ownAddresses are those of confirmed hosts, of both families.
func ownAddresses(c Cluster) []netip.Addr {
	var own []netip.Addr
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if !host.Confirmed {
			continue
		}
		own = append(own, host.IP)
		for _, p := range host.addresses6() {
			own = append(own, p.Addr())
		}
	}
	return own
}

// segments are the networks of confirmed hosts' uplinks in which egress IPs can be.
func segments(c Cluster) []netip.Prefix {
	var networks []netip.Prefix
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if !host.Confirmed {
			continue
		}
		for _, network := range host.Networks {
			if (network.Addr().Is4() || host.ServesIPv6) && !slices.Contains(networks, network) {
				networks = append(networks, network)
			}
		}
	}
	return networks
}

// ClusterNetworks are the networks of all pods and services, as the tool that made the
// cluster has noted them.
type ClusterNetworks struct{ Pods, Services []netip.Prefix }

// widestClusterNetwork is the length of the shortest prefix that counts as one of
// ClusterNetworks, widestClusterNetwork6 that of IPv6: what a provider has, at most.
const (
	widestClusterNetwork  = 8
	widestClusterNetwork6 = 32
)

// usableClusterNetworks are those with no address of a host or its uplink, where there are
// other machines. Such a note may be wrong or out of date, and what is inside leaves with
// the node's address.
func usableClusterNetworks(c Cluster, n ClusterNetworks) (pods, services []netip.Prefix) {
	if len(n.Pods)+len(n.Services) == 0 {
		return nil, nil
	}
	why := whyUnusable(c)
	wrong := func(p netip.Prefix) bool { return why(p) != "" }
	return slices.DeleteFunc(slices.Clone(n.Pods), wrong), slices.DeleteFunc(slices.Clone(n.Services), wrong)
}

// whyUnusable returns what says why a network is no usable one of the cluster; "" if it is.
// An egress IP is on the uplink of its host, so that no network with one counts where that
// is known.
func whyUnusable(c Cluster) func(netip.Prefix) string {
	onUplinks, own := segments(c), ownAddresses(c)
	return func(p netip.Prefix) string {
		widest := widestClusterNetwork
		if !p.Addr().Is4() {
			widest = widestClusterNetwork6
		}
		switch {
		case invalidNetwork(p):
			return whyNoUnicast
		case p.Bits() < widest:
			return fmt.Sprintf("it is wider than /%d", widest)
		case slices.ContainsFunc(onUplinks, p.Overlaps):
			return whyOnUplink
		case slices.ContainsFunc(own, p.Contains):
			return whyHasHost
		}
		return ""
	}
}

// invalidNetwork reports whether a network is one of addresses that no pod can have.
func invalidNetwork(p netip.Prefix) bool {
	ip := p.Addr()
	return !p.IsValid() || ip.Is4In6() || ip.IsMulticast() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || p.Bits() > 0 && ip.IsUnspecified()
}

// outermost leaves out networks that are within another. They are in order, so that the
// outer one comes first.
func outermost(sorted []netip.Prefix) []netip.Prefix {
	var outer []netip.Prefix
	for _, p := range sorted {
		if last := len(outer) - 1; last < 0 || !outer[last].Contains(p.Addr()) {
			outer = append(outer, p)
		}
	}
	return outer
}

// foundPods is what a host finds about the networks of its pods.
type foundPods struct {
	// locate are the addresses in networks that nothing else says, all are their networks,
	// published is as much of these as others may read, and outside is a pod that is not
	// inside for others.
	locate         []netip.Addr
	all, published []netip.Prefix
	outside        Pod
}

// findPods finds them for the planned host. For the host itself they count at once: what
// its own kernel has needs no other's word.
func findPods(in HostInput, c Cluster, inside []netip.Prefix) foundPods {
	var f foundPods
	known := insideNetworks(c, in.Host, slices.Concat(inside, in.PodNetworks))
	self, _ := c.Host(in.Host)
	asked := candidates(self.ownNetworks(), known)
	pods := toLocate(in.Pods, hostAddresses(c, in.Host), known)
	f.locate = sortedUnique(slices.AppendSeq(slices.Clone(pods), maps.Keys(asked)))
	if len(f.locate) == 0 {
		return f
	}
	if f.all = ownPodNetworks(c, pods, asked, in.PodRoutes); len(in.PodRoutes) == 0 {
		f.all = believed(c, in.Host) // a restart changes nothing
	}
	f.published = f.all[:min(len(f.all), MaxPodNetworks)]
	f.outside = podOutside(in.Pods, pods, foundPodNetworks(c))
	return f
}

// wide are the networks in which there may be pods that are not known yet.
func (f foundPods) wide() []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(f.all), netip.Prefix.IsSingleIP)
}

// toLocate are the addresses of a host's pods that are in none of the networks: how the
// kernel leads to them must be known.
func toLocate(pods []Pod, hosts []netip.Addr, networks []netip.Prefix) []netip.Addr {
	var addresses []netip.Addr
	known := newNetworkSet(networks)
	for _, pod := range pods {
		_, isHost := slices.BinarySearchFunc(hosts, pod.IP, netip.Addr.Compare)
		if usablePod(pod.IP) && !isHost && !known.has(single(pod.IP)) {
			addresses = append(addresses, pod.IP)
		}
	}
	return sortedUnique(addresses)
}

// ownPodNetworks are the networks of pods with the given addresses, as the host's kernel
// leads to them, and those of candidates that it leads to pods exactly so.
func ownPodNetworks(c Cluster, addresses []netip.Addr, asked map[netip.Addr]netip.Prefix, routes []PodRoute) []netip.Prefix {
	elsewhere := withOthers(c)
	var networks []netip.Prefix
	for _, route := range routes {
		if route.Outward || !route.Network.Contains(route.IP) {
			continue
		}
		if candidate, ok := asked[route.IP]; ok && candidate == route.Network {
			networks = append(networks, candidate)
		}
		if _, isPod := slices.BinarySearchFunc(addresses, route.IP, netip.Addr.Compare); !isPod {
			continue
		}
		network := route.Network.Masked()
		if tooWideForPods(network) || elsewhere(network) {
			network = single(route.IP)
		}
		networks = append(networks, network)
	}
	return usablePodNetworks(c, networks)
}

// podOutside returns the pod with the least address that is not in the networks.
func podOutside(pods []Pod, outside []netip.Addr, networks []netip.Prefix) (found Pod) {
	known := newNetworkSet(networks)
	for _, pod := range pods {
		_, candidate := slices.BinarySearchFunc(outside, pod.IP, netip.Addr.Compare)
		if candidate && !known.has(single(pod.IP)) && (!found.IP.IsValid() || pod.IP.Less(found.IP)) {
			found = pod
		}
	}
	return found
}

// ListedPodNetworks are the networks for a host's status in which the API server has a
// Pod: those of the agent's that were so before, or that one of the pods' addresses is
// in. They stay as long as the agent has them, also while no pod runs there. It also
// reports whether these are all that can be.
func ListedPodNetworks(published, before []string, pods []netip.Addr) (listed []string, all bool) {
	listed, all = []string{}, true
	known := readPodNetworks(before)
	for _, network := range readPodNetworks(published) {
		if slices.Contains(known, network) || slices.ContainsFunc(pods, network.Contains) {
			listed = append(listed, network.String())
		} else {
			all = false
		}
	}
	return listed, all
}

// readPodNetworks reads a list of a HostSubnet's status. What is no usable network, or
// beyond the bound, does not count.
func readPodNetworks(written []string) []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range written[:min(len(written), MaxPodNetworks)] {
		p, err := netip.ParsePrefix(text)
		if err == nil && !tooWideForPods(p) && p == p.Masked() && usablePod(p.Addr()) && !LinkLocal().Overlaps(p) {
			networks = append(networks, p)
		}
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(networks)
}
