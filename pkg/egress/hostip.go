package egress

import (
	"net/netip"
	"slices"
)

// HostIPChoice is which address of a Node is its host's.
type HostIPChoice struct {
	// IP is the address to use; invalid if there is none.
	IP netip.Addr
	// Refused is the Node's first address if another one is used because of Why.
	Refused netip.Addr
	Why     string
}

// HostIPs are the InternalIPs of a Node that may be its hostIP, in the Node's order: those of
// IPv4, and of a Node that has none, those of IPv6 that other networks reach: global and unique
// local ones. The overlay leads only to hosts with a hostIP of one's own family, so a node with
// both has the one that nodes with IPv4 alone can have.
func HostIPs(internal []netip.Addr) []netip.Addr {
	if four := only(internal, netip.Addr.Is4); len(four) > 0 {
		return four
	}
	return only(internal, usableHost)
}

// StillIPv4 returns the choice for a host whose Node lists addresses of IPv6 alone, see HostIPs,
// while its agent finds the hostIP of IPv4 on the uplink, and is ready: that stays. A kubelet that
// starts before the machine has its route of IPv4 may list so for a while, and as a host of IPv6
// it would be out of reach of all that it works with. It returns false for any other host. An
// agent that does not find the address is not ready, and still publishes where it was last.
func (h *Host) StillIPv4(listed []netip.Addr) (HostIPChoice, bool) {
	if !h.IP.Is4() || !h.Confirmed || !h.AgentReady || len(listed) == 0 || listed[0].Is4() {
		return HostIPChoice{}, false
	}
	return HostIPChoice{IP: h.IP, Refused: listed[0], Why: "of IPv6, and the host still has its hostIP of IPv4"}, true
}

// ChooseHostIP chooses the hostIP of a host from the addresses that its Node lists, see
// HostIPs. present is the hostIP so far; invalid for none.
//
// It is the first address, which the kubelet considers the node's own, unless that
// belongs to someone else: a kubelet must not take the address of another host or an
// egress IP, and one that lists an egress IP that its machine has must not become a
// host with that address. taken names the owner of an address, "" if it has none. Then the
// present address stays as long as the Node lists it; otherwise it is the first that
// has no owner. If there is none, the present one stays.
func ChooseHostIP(listed []netip.Addr, present netip.Addr, taken func(netip.Addr) string) HostIPChoice {
	if len(listed) == 0 || listed[0] == present {
		return HostIPChoice{IP: present}
	}
	why := taken(listed[0])
	if why == "" {
		return HostIPChoice{IP: listed[0]}
	}
	choice := HostIPChoice{IP: present, Refused: listed[0], Why: why}
	if slices.Contains(listed, present) {
		return choice
	}
	for _, ip := range listed[1:] {
		if taken(ip) == "" {
			choice.IP = ip
			break
		}
	}
	return choice
}

// AddressOwners returns whose each address is that a Node must not take: an egress IP
// that a namespace requests or a host claims, or the address of a host that is
// established, by name.
func AddressOwners(c Cluster, established map[string]bool) map[netip.Addr]string {
	owners := make(map[netip.Addr]string, len(c.Groups)+len(c.Hosts))
	for _, n := range c.Groups {
		for _, ip := range n.Requests {
			owners[ip] = "an egress IP of " + Title(n.Name)
		}
	}
	for _, h := range c.Hosts {
		for _, ip := range h.Claims {
			owners[ip] = "an egress IP that host " + h.Name + " claims"
		}
	}
	for _, h := range c.Hosts {
		if established[h.Name] {
			owners[h.IP] = "the address of host " + h.Name
		}
	}
	return owners
}
