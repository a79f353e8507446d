package warning

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What follows are warnings of single findings, each where it is found.

// UnreadableBackend is that of rules of others in iptables that cannot be read, where nothing
// of ours must be. The name is that of its commands, such as iptables-nft.
func UnreadableBackend(name string, err error) Warning {
	return Warning{
		Reason: RulesUnreadable, Object: name,
		Problem: fmt.Sprintf("the rules of %s cannot be read, so that rules of others there go unnoticed: %v", name, err),
		Remedy:  "load the kernel modules of that backend, or mend what the error names; ignore this where nothing on the host uses that backend",
	}
}

// NATElsewhere is that of a backend of iptables in which ours are not, as configured, and in
// which others translate sources. The name is as in UnreadableBackend.
func NATElsewhere(name string) Warning {
	return Warning{
		Reason: ForeignNATFirst, Object: name,
		Problem: "it has NAT rules but is not among the configured backends: a MASQUERADE there may come before our source NAT",
		Remedy:  "let all software on the host use one backend, and set --backend to that",
	}
}

// NATInBoth is that of both backends of iptables, if others translate sources in both.
// The program is iptables or ip6tables.
func NATInBoth(program string) Warning {
	return Warning{
		Reason: ForeignNATFirst, Object: program + "-nft and " + program + "-legacy",
		Problem: "both backends have NAT rules, so that ours are in both",
		Remedy:  "let all software on the host use one",
	}
}

// FilterBefore is that of a tc filter of others that comes before the guard, whose preference
// is given too.
func FilterBefore(filter, device string, preference, guard int) Warning {
	return Warning{
		Reason: FilterFirst, Object: "device " + device,
		Problem: fmt.Sprintf("the tc filter %s with preference %d at the egress of %s comes before the guard, which does not see the packets that it accepts",
			filter, preference, device),
		Remedy: fmt.Sprintf("give it a preference above %d", guard),
	}
}

// What an admin can do about connections that hang, and the setting that they are about.
const (
	resets        = "--reset-connections"
	restartHanged = "mend what the error names; restart pods that hang"
)

// NoResets is that of pods that get no resets at all.
func NoResets(err error) Warning {
	return Warning{
		Reason: NotReset, Object: resets, Problem: fmt.Sprintf("pods get no resets for connections that cannot go on: %v", err),
		Remedy: "load the kernel modules that the error names, or set --reset-connections=false",
	}
}

// LateResets is that of connections that are reset when their pods send, not at once.
func LateResets(err error) Warning {
	return Warning{
		Reason: NotReset, Object: resets,
		Problem: fmt.Sprintf("some connections that cannot go on are reset only when their pods send: %v", err), Remedy: restartHanged,
	}
}

// NothingExcluded is that of networks that pods cannot reach without their egress IPs.
func NothingExcluded(err error) Warning {
	return Warning{
		Reason: NotExcluded, Object: "exclude-cidrs, include-cidrs", Problem: fmt.Sprintf("pods use their egress IPs for excluded networks, too: %v", err),
		Remedy: "load kernel module ip_set_hash_netnet, or set --backend=nftables where the kernel can hold all rules there",
	}
}

// TooManyExcluded is that of objects whose lists of destinations together exclude more networks than
// can be excluded.
func TooManyExcluded(objects string) Warning {
	return Warning{
		Reason: NotExcluded, Object: objects,
		Problem: "pods use their egress IPs for all destinations: what is excluded for them by these together, and by what is included for all, is more than 1024 networks",
		Remedy:  "give fewer or larger networks in exclude-cidrs and include-cidrs, or select pods with one of them only",
	}
}

// SomeResets is that of connections that are not reset.
func SomeResets(err error) Warning {
	return Warning{
		Reason: NotReset, Object: resets,
		Problem: fmt.Sprintf("some connections that cannot go on are not reset: %v", err), Remedy: restartHanged,
	}
}

// NotWatching is that of a watch for other owners that does not work.
func NotWatching(uplink string, err error) Warning {
	return Warning{
		Reason: NotWatched, Object: "device " + uplink, Problem: fmt.Sprintf("other owners of egress IPs may go unnoticed: %v", err),
		Remedy: "mend what the error names; the agent needs the capability NET_RAW, and keeps trying",
	}
}

// NotAnnounced is that of egress IPs whose announcement failed.
func NotAnnounced(uplink string, err error) Warning {
	return Warning{
		Reason: NotWatched, Object: "device " + uplink,
		Problem: fmt.Sprintf("egress IPs are not announced although %s has changed: %v", uplink, err),
		Remedy:  "mend what the error names; neighbours that use the former MAC address learn the new one by arping -U, or when they ask again",
	}
}

// AnswersForAll is that of a machine that answers ARP requests for every address.
func AnswersForAll(mac, uplink string) Warning {
	return Warning{
		Reason: AnsweredForAll, Object: mac,
		Problem: fmt.Sprintf("%s on the segment of %s answers ARP requests for every address, as some networks of clouds and proxy ARP do: "+
			"its answers do not count, and another machine with an egress IP may go unnoticed", mac, uplink),
		Remedy: "list it in --arp-ignore-macs, or set --arp-probe=off",
	}
}

// FewPorts is that of an egress IP that has given most of its source ports to connections
// with one destination. The numbers are not in it: they change all the time.
func FewPorts(ip netip.Addr, to netip.AddrPort, protocol string) Warning {
	return Warning{
		Reason: PortsRunOut, Object: "egress IP " + ip.String(),
		Problem: fmt.Sprintf("connections to %s %v have most of its 64,512 source ports; when all are taken, no other connection to there comes about", protocol, to),
		Remedy:  "give the namespace more egress IPs in mode balanced, or have its pods keep connections open and use them again",
	}
}

// PortsPreserved is that of a backend of iptables that is too old for random source ports.
func PortsPreserved(backend string) Warning {
	return Warning{
		Reason: Incomplete, Object: "iptables-" + backend,
		Problem: "connections keep their source ports although --snat-ports=random asks for others: this version of iptables is older than 1.6.2",
		Remedy:  "install a newer one, or set --backend=nftables or --snat-ports=preserve",
	}
}

// Missing is that of something that could not be done yet and that nothing waits for.
func Missing(err error) Warning {
	return Warning{
		Reason: Incomplete, Object: "boot lock", Problem: err.Error(),
		Remedy: "the agent does the rest as soon as it runs: see condition AgentReady then",
	}
}

// NotSeen is that of a host that could not be seen: other warnings are as of before.
func NotSeen() Warning {
	return Warning{
		Reason: Unknown, Object: "kernel", Problem: "the kernel could not be observed: warnings are as of when it was seen last",
		Remedy: "see condition AgentReady",
	}
}

// NoPodNetworks is that of a node whose pod networks are not known.
func NoPodNetworks() Warning {
	return Warning{
		Reason: StrictWithoutEffect, Object: "--cluster-cidrs",
		Problem: "strict classification has no effect on this node: neither a podCIDR of the Node, nor --cluster-cidrs, nor a route of the node " +
			"says which addresses belong to pods, so a pod that sends before the agent knows it leaves with the node's address for a moment",
		Remedy: "set --cluster-cidrs (in the chart: clusterCIDRs)",
	}
}

// IPv6 is that of pods that are not kept from leaving by IPv6, and why.
func IPv6(err error) Warning {
	return Warning{
		Reason: IPv6NotDropped, Object: "ip6tables",
		Problem: fmt.Sprintf("pods of namespaces with egress IPs reach the outside with IPv6 addresses of their own or of the node: %v", err),
		Remedy:  "set --backend=nftables, or install ip6tables and its kernel modules",
	}
}

// NoIPv6 is that of a host with pods that have egress IPs of IPv6, which it cannot serve, and
// why.
func NoIPv6(why string) Warning {
	return Warning{
		Reason: IPv6NotServed, Object: "IPv6",
		Problem: "the IPv6 traffic to the outside of pods here whose namespaces have egress IPs of IPv6 is dropped: " + why,
		Remedy:  "mend that on the node, or run such pods on nodes whose status.agent.families has IPv6",
	}
}

// SourcesNotChecked is that of a host that cannot check which pod sends with which address,
// and why.
func SourcesNotChecked(err error) Warning {
	return Warning{
		Reason: SourcesUnchecked, Object: "nftables",
		Problem: fmt.Sprintf("a pod with the capability NET_RAW can send with another pod's address, and so get or lose an egress IP: %v", err),
		Remedy:  "load the kernel modules nf_tables and, where pods are at a bridge, nf_tables_bridge; or take NET_RAW from pods",
	}
}

// SourcesUnbound is that of pods of which it is not known which link has them. via is where
// the route of the first leads.
func SourcesUnbound(pods []netip.Addr, via string) Warning {
	more := ""
	if len(pods) > 1 {
		more = fmt.Sprintf(" and %d others", len(pods)-1)
	}
	where := "no route leads to it without a gateway"
	if via != "" {
		where = "its route leads to " + via
	}
	return Warning{
		Reason: SourcesUnchecked, Object: "pod " + pods[0].String(),
		Problem: fmt.Sprintf("it is not known which link leads to the pod with the address %v%s (%s): pods with the capability NET_RAW can send with "+
			"each other's addresses, and so get or lose an egress IP, unless the CNI prevents it", pods[0], more, where),
		Remedy: "see adr 22 for CNIs that prevent it themselves; or take NET_RAW from pods",
	}
}

// NotLocated is that of a host on which it cannot be seen where the routes to pods lead.
func NotLocated(err error) Warning {
	return Warning{
		Reason: Unknown, Object: "routes to pods", Problem: fmt.Sprintf("the networks of pods may not be found: %v", err),
		Remedy: "see the agent's log; the agent keeps trying",
	}
}

// StrayIPv6 is that of a pod that must not leave by IPv6, and has an address in no network
// that is known to be inside.
func StrayIPv6(ip netip.Addr) Warning {
	return Warning{
		Reason: IPv6NetworksUnknown, Object: "--cluster-cidrs",
		Problem: fmt.Sprintf("a pod of a namespace with egress IPs has the IPv6 address %v, which is in no network that is known to be "+
			"inside the cluster, so that such pods do not reach each other by IPv6", ip),
		Remedy: "add the IPv6 networks of pods to --cluster-cidrs (in the chart: clusterCIDRs)",
	}
}

// AddressesOmitted is that of a node with more addresses than it can publish, by their
// number.
func AddressesOmitted(n int) Warning {
	return Warning{
		Reason: AddressesOutside, Object: "--exclude-cidrs",
		Problem: fmt.Sprintf("this node has %d addresses more than it can publish: pods with egress IPs reach them by their egress hosts only", n),
		Remedy:  "name their networks in --exclude-cidrs (in the chart: excludeCIDRs)",
	}
}

// PodOutside is that of a pod with an address in no network that is known to be one of
// pods.
func PodOutside(pod string, ip netip.Addr) Warning {
	return Warning{
		Reason: AddressesOutside, Object: "pod " + pod,
		Problem: fmt.Sprintf("it has the address %v, which is neither in a podCIDR of the Node nor in --cluster-cidrs, nor in a network to which the node "+
			"has a route: strict classification does not cover new pods around it", ip),
		Remedy: "add its network to --cluster-cidrs (in the chart: clusterCIDRs)",
	}
}

// Peer is another node, and the MTU of its uplink; 0 where that is not known.
type Peer struct {
	Name string
	MTU  int
}

// maxNamed is how many nodes a warning names.
const maxNamed = 3

// Unreached returns the warning of hosts that do not answer probes of this one although
// others say that they are online. The names are in order.
func Unreached(hosts []string) []Warning {
	if len(hosts) == 0 {
		return nil
	}
	return []Warning{{
		Reason: HostUnreachable, Object: "host " + hosts[0],
		Problem: fmt.Sprintf("probes from this node are not answered by hosts that other hosts reach: %s: pods here use egress IPs elsewhere, as far as they have any",
			someOf(hosts)),
		Remedy: "allow UDP from this node to the overlay's port there, and back",
	}}
}

// OutOfReach is that of egress hosts whose hostIPs are of another family than that of this one,
// so that the overlay does not lead to them. The names are in order.
func OutOfReach(hosts []string, own netip.Addr) Warning {
	here, there := "IPv4", "IPv6"
	if own.Is6() {
		here, there = there, here
	}
	return Warning{
		Reason: HostUnreachable, Object: "host " + hosts[0],
		Problem: fmt.Sprintf("the hostIP %v of this node is one of %s, and those of these egress hosts are of %s: %s: the overlay does not lead there from here, "+
			"so that pods here use egress IPs elsewhere, or are dropped if they have none", own, here, there, someOf(hosts)),
		Remedy: "give all nodes an InternalIP of one family (--node-ip of the kubelet), or have the egress IPs on hosts of the node's family",
	}
}

// someOf lists the first few names, and how many more there are.
func someOf(names []string) string {
	text := strings.Join(names[:min(maxNamed, len(names))], ", ")
	if more := len(names) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d others", more)
	}
	return text
}

// MTUs returns the warning of nodes whose uplinks carry less than that of this one: the
// overlay's device here takes packets that are too large for them.
func MTUs(uplink string, own int, peers []Peer) []Warning {
	smaller := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.MTU == 0 || p.MTU >= own })
	if own == 0 || len(smaller) == 0 {
		return nil
	}
	slices.SortFunc(smaller, func(a, b Peer) int { return cmp.Or(a.MTU-b.MTU, cmp.Compare(a.Name, b.Name)) })
	var named []string
	for _, p := range smaller {
		named = append(named, fmt.Sprintf("%s with %d", p.Name, p.MTU))
	}
	return []Warning{{
		Reason: MTUDiffers, Object: "device " + uplink,
		Problem: fmt.Sprintf("its MTU is %d, and other nodes have less: %s: larger packets between pods here and egress IPs there are lost", own, someOf(named)),
		Remedy:  "give the uplinks of all nodes the same MTU",
	}}
}
