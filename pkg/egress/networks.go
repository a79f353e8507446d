package egress

import (
	"cmp"
	"net/netip"
	"slices"
)

// Network is one that a HostSubnet names, for reports.
type Network struct {
	Network netip.Prefix
	// Host is the host whose HostSubnet names it, Source is where it comes from.
	Host   string
	Source Source
	// Inside: traffic there is not egress traffic. Otherwise Why says what is missing.
	Inside bool
	Why    string
	// Written is what an object has in place of a network; "" where Network is valid.
	Written string
	// Services: the addresses are those of services.
	Services bool
}

// Source is where a network comes from.
type Source string

// The sources.
const (
	// SourcePodCIDR: the Node says that its pods are there.
	SourcePodCIDR Source = "podCIDR"
	// SourcePods: the host's agent found pods there.
	SourcePods Source = "pods"
	// SourceHostIP is the address of a host, SourceAddress a further one.
	SourceHostIP  Source = "hostIP"
	SourceAddress Source = "address"
)

// Why a network is not inside.
const (
	whyNotConfirmed = "the agent does not see hostIP on the node"
	whyOneWord      = "only the agent reports it"
	whyNotAlone     = "it has egress IPs, or other machines of a host's uplink"
	whyOnUplink     = "it has other machines of a host's uplink: add the part of it that pods have to clusterCIDRs"
	whyHasHost      = "it has the address of a host: add the part of it that pods have to clusterCIDRs"
	whyNoUnicast    = "no pod has such an address"
	whyNoRoute      = "only the CNI says so: the agent has no route to pods there, or knows the network otherwise"
	whyFormer       = "the API server there is gone or down: the address is only kept from being an egress IP"
)

// Networks lists the networks that HostSubnets name, in order. Those of flags, services
// and API servers are inside in addition.
func Networks(c Cluster) []Network {
	var all []Network
	pods, addresses := newNetworkSet(foundPodNetworks(c)), newNetworkSet(nodeAddresses(c))
	for i := range c.Hosts {
		host := &c.Hosts[i]
		add := func(p netip.Prefix, source Source, inside bool, why string) {
			if inside {
				why = ""
			}
			all = append(all, Network{Network: p, Host: host.Name, Source: source, Inside: inside, Why: why})
		}
		if host.IP.IsValid() {
			add(single(host.IP), SourceHostIP, host.Confirmed, whyNotConfirmed)
		}
		for _, p := range slices.Concat(host.Subnets, host.podNetworks6()) {
			add(p, SourcePodCIDR, true, "")
		}
		for _, p := range host.addresses6() {
			add(p, SourceAddress, host.Confirmed, whyNotConfirmed)
		}
		for _, p := range host.PodNetworks {
			why := whyNotAlone
			if !host.Confirmed {
				why = whyNotConfirmed
			} else if !slices.Contains(host.PodsListed, p) {
				why = whyOneWord
			}
			add(p, SourcePods, pods.has(p), why)
		}
		for _, ip := range host.Addresses {
			why := whyOneWord
			if !host.Confirmed {
				why = whyNotConfirmed
			}
			add(single(ip), SourceAddress, addresses.has(single(ip)), why)
		}
	}
	all = append(all, foundNetworks(c)...)
	slices.SortFunc(all, func(a, b Network) int {
		return cmp.Or(a.Network.Compare(b.Network), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Source, b.Source))
	})
	return all
}

// foundNetworks are those that objects of the cluster name, each once.
func foundNetworks(c Cluster) []Network {
	var all []Network
	unusable, pods := whyUnusable(c), knownPods(c)
	seen := make(map[Found]bool)
	for i := range c.Hosts {
		host := &c.Hosts[i]
		for _, f := range host.Found {
			n := Network{Network: f.Network, Host: host.Name, Source: Source(f.Source), Why: f.Problem, Services: f.Use == UseServices}
			if !f.Network.IsValid() {
				n.Written = f.Written
			}
			own := f.Use == UseNodePods
			if !own {
				if n.Host = ""; seen[f] {
					continue
				}
				seen[f] = true
			}
			switch {
			case n.Why != "", f.Source == SourceServiceFlag:
			case f.Use == UseAPIServers:
				if f.Source == sourceFormerAPIServer {
					n.Why = whyFormer
				}
			case own && pods.has(f.Network): // by whatever object
			case !own:
				n.Why = unusable(f.Network)
			default:
				n.Why = cmp.Or(unusable(f.Network), whyNoRoute)
			}
			n.Inside = n.Why == ""
			all = append(all, n)
		}
	}
	return all
}

// knownPods are the networks of pods that count.
func knownPods(c Cluster) networkSet {
	pods, _ := usableClusterNetworks(c, clusterNetworks(c, ClusterNetworks{}))
	pods = append(pods, foundPodNetworks(c)...)
	for i := range c.Hosts {
		pods = slices.Concat(pods, c.Hosts[i].Subnets, c.Hosts[i].podNetworks6())
	}
	return newNetworkSet(pods)
}

// ServicesKnown reports whether any network of services is known, and not only the address
// of one.
func ServicesKnown(networks []Network) bool {
	return slices.ContainsFunc(networks, func(n Network) bool { return n.Services && n.Inside && !n.Network.IsSingleIP() })
}

func single(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }
