package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

const (
	// MaxFound is the greatest number of networks in status.foundNetworks of a HostSubnet.
	MaxFound = 128
	// carriers is the number of hosts whose HostSubnets have the networks of the whole
	// cluster: all agents have all HostSubnets, so that one would do. More would make each
	// change of a pool one of all HostSubnets.
	carriers = 3
)

// What has addresses in a network that an object names.
const (
	// UsePods: pods of any node.
	UsePods = v1.UsePods
	// UseNodePods: pods of one node.
	UseNodePods = v1.UseNodePods
	// UseServices: Services.
	UseServices = v1.UseServices
	// UseAPIServers: an API server, whose address is the whole network.
	UseAPIServers = v1.UseAPIServers
)

// Found is a network that an object of the cluster names.
type Found struct {
	// Network is invalid if Written is no network; Problem says so then.
	Network netip.Prefix
	Written string
	// Source names the object, Use is one of the above.
	Source, Use string
	// Problem is why the network does not count by the object itself; "" for none.
	Problem string
}

// PublishFound returns what the status of each host must have, for hosts in order of name:
// networks of its own pods, and, for the first hosts, those of the whole cluster.
func PublishFound(hosts []string, found []NamedNetwork) map[string][]v1.FoundNetwork {
	published := make(map[string][]v1.FoundNetwork)
	var cluster []v1.FoundNetwork
	for _, f := range found {
		f.Source, f.Problem = cut(f.Source, maxSourceText), cut(f.Problem, maxSourceText)
		switch {
		case f.Use != v1.UseNodePods:
			cluster = append(cluster, f.FoundNetwork)
		case f.Node != "":
			published[f.Node] = append(published[f.Node], f.FoundNetwork)
		}
	}
	for _, host := range hosts[:min(len(hosts), carriers)] {
		published[host] = append(published[host], cluster...)
	}
	for host, networks := range published {
		slices.SortFunc(networks, func(a, b v1.FoundNetwork) int {
			return cmp.Or(cmp.Compare(a.Use, b.Use), cmp.Compare(a.CIDR, b.CIDR), cmp.Compare(a.Source, b.Source))
		})
		networks = slices.Compact(networks)
		if more := len(networks) - MaxFound + 1; more > 1 {
			networks = append(networks[:MaxFound-1], v1.FoundNetwork{
				Source: "objects of the cluster", Use: v1.UseNodePods, Problem: fmt.Sprintf("%d networks more than there is room for", more),
			})
		}
		published[host] = networks
	}
	return published
}

// sourceFormerAPIServer is the source of addresses that FormerAPIServers returns.
const sourceFormerAPIServer = "EndpointSlice default/kubernetes, a while ago"

// FormerAPIServers are the addresses of API servers that HostSubnets have published, that
// found has no more, and that is requested, or that a HostSubnet lists, as an egress IP. They must be
// published on: an API server that is down is not among the endpoints for that time, nor does
// it answer ARP, and comes back with its address.
//
// They are no more than users list, and none of them works as long as it is published. It
// ends when no object lists the address.
func FormerAPIServers(requested []string, hosts []*v1.HostSubnet, found []NamedNetwork) []NamedNetwork {
	former := make(map[netip.Addr]bool)
	for _, h := range hosts {
		for _, f := range readFound(h.Status.FoundNetworks) {
			if ip, ok := f.apiServer(); ok {
				former[ip] = true
			}
		}
	}
	for _, f := range found {
		if p, err := netip.ParsePrefix(f.CIDR); err == nil && f.Use == v1.UseAPIServers {
			delete(former, p.Addr())
		}
	}
	if len(former) == 0 {
		return nil
	}
	listed := make(map[netip.Addr]bool)
	for _, written := range requested {
		ip, _ := netip.ParseAddr(written)
		listed[ip] = true
	}
	for _, h := range hosts {
		for _, written := range h.AllEgressIPs() {
			ip, _ := parseClaim(written)
			listed[ip] = true
		}
	}
	var kept []NamedNetwork
	for ip := range former {
		if listed[ip] {
			kept = append(kept, NamedNetwork{FoundNetwork: v1.FoundNetwork{CIDR: single(ip).String(), Source: sourceFormerAPIServer, Use: v1.UseAPIServers}})
		}
	}
	return kept // PublishFound sorts them
}

// readFound reads them back.
func readFound(written []v1.FoundNetwork) []Found {
	if len(written) == 0 {
		return nil
	}
	found := make([]Found, 0, min(len(written), MaxFound))
	for _, f := range written[:min(len(written), MaxFound)] {
		p, err := netip.ParsePrefix(f.CIDR)
		if err != nil {
			p, f.Problem = netip.Prefix{}, cmp.Or(f.Problem, problemNoNetwork)
		}
		found = append(found, Found{Network: p.Masked(), Written: f.CIDR, Source: f.Source, Use: f.Use, Problem: f.Problem})
	}
	return found
}

// clusterNetworks adds those that hosts carry for the whole cluster to those that are known
// otherwise. Any host may carry them: the controller alone writes there.
func clusterNetworks(c Cluster, known ClusterNetworks) ClusterNetworks {
	all := ClusterNetworks{Pods: slices.Clone(known.Pods), Services: slices.Clone(known.Services)}
	for i := range c.Hosts {
		for _, f := range c.Hosts[i].Found {
			switch {
			case f.Problem != "":
			case f.Use == v1.UsePods && !slices.Contains(all.Pods, f.Network):
				all.Pods = append(all.Pods, f.Network)
			case f.Use == v1.UseServices && !slices.Contains(all.Services, f.Network):
				all.Services = append(all.Services, f.Network)
			}
		}
	}
	return all
}

// ownNetworks are the networks that the CNI's objects name for the pods of the host.
func (h *Host) ownNetworks() []netip.Prefix {
	var own []netip.Prefix
	for _, f := range h.Found {
		if f.Use == v1.UseNodePods && f.Problem == "" && !tooWideForPods(f.Network) {
			own = append(own, f.Network)
		}
	}
	return own
}

// hasPods reports whether the API server says that pods of the host are in a network: by
// a Pod of its Node, or by an object of the CNI.
func (h *Host) hasPods(network netip.Prefix) bool {
	return slices.Contains(h.PodsListed, network) ||
		slices.ContainsFunc(h.ownNetworks(), func(p netip.Prefix) bool { return within(network, p) })
}

// NotFound are those of a host's published networks that no object of its CNI names: only
// for these Pods must be looked up.
func NotFound(published []string, found []v1.FoundNetwork) []string {
	host := Host{Found: readFound(found)}
	own := host.ownNetworks()
	return slices.DeleteFunc(slices.Clone(published), func(written string) bool {
		p, err := netip.ParsePrefix(written)
		return err == nil && slices.ContainsFunc(own, func(o netip.Prefix) bool { return within(p, o) })
	})
}

// candidates are addresses by which a host's kernel can say whether it leads the networks
// that the CNI's objects name to pods, before there is one: one address of each.
func candidates(own, inside []netip.Prefix) map[netip.Addr]netip.Prefix {
	asked := make(map[netip.Addr]netip.Prefix)
	known := newNetworkSet(inside)
	for _, network := range own {
		if network.Bits() <= network.Addr().BitLen()-2 && !known.has(network) {
			asked[nearLast(network)] = network
		}
	}
	return asked
}

// nearLast is the last address of a network but one, which of IPv4 is the broadcast address.
// The first may be that of a bridge.
func nearLast(network netip.Prefix) netip.Addr {
	bytes := network.Addr().AsSlice()
	for bit := network.Bits(); bit < 8*len(bytes)-1; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	ip, _ := netip.AddrFromSlice(bytes)
	return ip
}
