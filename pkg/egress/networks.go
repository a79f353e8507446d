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
	slices.SortFunc(all, func(a, b Network) int {
		return cmp.Or(a.Network.Compare(b.Network), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Source, b.Source))
	})
	return all
}

func single(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }
