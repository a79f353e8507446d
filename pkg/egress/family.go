package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Family is a family of addresses. The egress IPs of each are decided by themselves; see
// Cluster.of.
type Family uint8

// The families.
const (
	IPv4 Family = iota
	IPv6
)

// FamilyOf returns the family of an address.
func FamilyOf(ip netip.Addr) Family {
	if ip.Is4() {
		return IPv4
	}
	return IPv6
}

// HostFamily returns the family by which others know a host with an address; IPv4 if it has
// none.
func HostFamily(ip netip.Addr) Family {
	if ip.Is6() {
		return IPv6
	}
	return IPv4
}

// String names the family as the API does.
func (f Family) String() string { return [...]string{familyIPv4, familyIPv6}[f] }

// other returns the other family.
func (f Family) other() Family { return IPv6 - f }

// familyOfText returns the family of what is written for an egress IP; not known if that is
// no address, or one of IPv4 in the form of IPv6.
func familyOfText(written string) (f Family, known bool) {
	text, _, _ := strings.Cut(written, "/")
	ip, err := netip.ParseAddr(text)
	return FamilyOf(ip), err == nil && !ip.Is4In6()
}

// textOf reports whether what is written is reported with those of a family: what is of
// neither is reported with IPv4.
func textOf(f Family, written string) bool {
	family, known := familyOfText(written)
	return (known && family == IPv6) == (f == IPv6)
}

// RequestFamily returns the family with which a request is reported, as it is written: what
// is no address at all is reported with IPv4.
func RequestFamily(written string) Family {
	if textOf(IPv6, written) {
		return IPv6
	}
	return IPv4
}

// OtherFamily is what becomes of the traffic of a family of which a namespace requests no
// egress IPs although it requests some of the other.
type OtherFamily uint8

// What becomes of it; see AnnotationOtherFamily of the API.
const (
	// OtherDropped: it is dropped.
	OtherDropped OtherFamily = iota
	// OtherNode: it leaves with the node's address.
	OtherNode
	// otherRequested: the namespace requests egress IPs of the other family too, which the
	// view does not have.
	otherRequested
)

// has reports whether the namespace's list has anything that is decided with a family.
func (n *Group) has(f Family) bool {
	return slices.ContainsFunc(n.Requests, func(ip netip.Addr) bool { return FamilyOf(ip) == f }) ||
		slices.ContainsFunc(n.Invalid, func(written string) bool { return textOf(f, written) })
}

// requests reports whether the namespace requests egress IPs of a family, usable or not.
// What is no address at all may have been meant for either.
func (n *Group) requests(f Family) bool {
	return n.has(f) || slices.ContainsFunc(n.Invalid, func(written string) bool {
		_, known := familyOfText(written)
		return !known
	})
}

// drops reports whether traffic of a family is dropped: without an active egress IP no
// family of which the namespace requests any leaves, and by default neither does the other.
func (n *Group) drops(f Family, active bool) bool {
	if active {
		return false
	}
	return n.requests(f) || n.Requesting() && n.Other == OtherDropped
}

// otherMessage says what becomes of the other family, if that is worth a word: pods without
// egress IPs of IPv6 are as good as pods without IPv6.
func (n *Group) otherMessage(f Family) string {
	switch {
	case !n.Requesting() || n.requests(f.other()):
		return ""
	case n.Other == OtherNode:
		return fmt.Sprintf(" %s leaves with the node's address, as annotation %s says.", f.other(), otherFamilyAnnotation)
	case n.Other == OtherDropped && f == IPv6:
		return " IPv4 traffic to the outside is dropped: no egress IP of IPv4 is requested."
	}
	return ""
}

// has reports whether the host's list has anything that is decided with a family.
func (h *Host) has(f Family) bool {
	return slices.ContainsFunc(h.Claims, func(ip netip.Addr) bool { return FamilyOf(ip) == f }) ||
		slices.ContainsFunc(h.Invalid, func(written string) bool { return textOf(f, written) })
}

// network is the uplink's network of IPv4; invalid if it is not known.
func (h *Host) network() netip.Prefix {
	if len(h.Networks) == 0 || !h.Networks[0].Addr().Is4() {
		return netip.Prefix{}
	}
	return h.Networks[0]
}

// networksOf are the uplink's networks of a family.
func (h *Host) networksOf(f Family) []netip.Prefix { return networksOf(h.Networks, f) }

func networksOf(networks []netip.Prefix, f Family) []netip.Prefix {
	return only(networks, func(p netip.Prefix) bool { return p.IsValid() && FamilyOf(p.Addr()) == f })
}

// maxListed is the greatest number of egress IPs that the list of a host can have.
const maxListed = 512

// room is how many egress IPs of a family the host can have, as Host.Capacity is, while it
// has that many of each.
//
// Of a capacity for both together, each family can have what the other leaves: what it has
// is never taken by new ones of the other. Only if the host has more than the capacity,
// IPv4 keeps what it has, but for stays of the other family, which do not leave.
func (h *Host) room(f Family, counts [2]int, stays int) int {
	limit, both := h.Capacity, h.Capacity
	if h.IPv6Capacity != 0 {
		if both = maxListed; f == IPv6 {
			limit = h.IPv6Capacity
		}
	}
	if limit == 0 {
		return 0
	}
	room := both - counts[f.other()]
	if f == IPv4 {
		room = max(room, min(counts[IPv4], both-stays))
	}
	if room = min(room, limit); room <= 0 {
		return -1
	}
	return room
}

// of returns the cluster as it is for one family: all egress IPs, ranges and pod networks
// are of that. So all that decides about egress IPs knows one family only, and not which.
// Where no egress IP is of IPv6, that is the cluster itself.
func (c Cluster) of(f Family) Cluster { return c.view(f, nil) }

// leftBy returns the cluster as it is for IPv6 after IPv4 was allocated.
func (c Cluster) leftBy(ipv4 Allocation) Cluster {
	placed := make(map[string]int, len(ipv4.Hosts))
	for _, h := range ipv4.Hosts {
		placed[h.Host] = len(h.Claims) + len(h.Assigned)
	}
	return c.view(IPv6, placed)
}

// view is of. Of automatic hosts in placed, that many egress IPs of the other family count,
// and not those that they have.
func (c Cluster) view(f Family, placed map[string]int) Cluster {
	if !c.WithIPv6 && f == IPv4 {
		return c
	}
	view := Cluster{Groups: make([]Group, len(c.Groups)), Hosts: make([]Host, len(c.Hosts)), Included: c.Included, Family: f}
	for i := range c.Groups {
		view.Groups[i] = c.Groups[i].of(f)
	}
	for i := range c.Hosts {
		view.Hosts[i] = c.Hosts[i].of(f, placed)
	}
	return view
}

// of returns the namespace as it is for one family.
func (n Group) of(f Family) Group {
	if n.has(f.other()) && n.has(f) {
		n.Other = otherRequested
	}
	all := len(n.Requests)
	n.Requests = onlyFamily(n.Requests, f)
	n.Elsewhere = len(n.Requests) < all
	n.Invalid = only(n.Invalid, func(written string) bool { return textOf(f, written) })
	return n
}

func (h Host) of(f Family, placed map[string]int) Host {
	claims := onlyFamily(h.Claims, f)
	var counts [2]int
	counts[f], counts[f.other()] = len(claims), len(h.Claims)-len(claims)
	stays := 0 // of the administrator
	if h.Managed && !h.Automatic {
		stays = len(h.Claims) - len(h.Assigned) - len(claims) + len(onlyFamily(h.Assigned, f))
	}
	if count, known := placed[h.Name]; known {
		counts[f.other()] = count + stays
	}
	excess := onlyFamily(h.Excess, f)
	room := h.room(f, counts, stays)
	if !h.Managed && room != 0 {
		// Excess says which do not count; this is for messages.
		room = max(room, len(claims)-len(excess))
	}
	h.Capacity, h.IPv6Capacity = room, 0
	h.Claims, h.Excess, h.Awaited = claims, excess, onlyFamily(h.Awaited, f)
	h.Assigned = onlyFamily(h.Assigned, f)
	h.Invalid = only(h.Invalid, func(written string) bool { return textOf(f, written) })
	h.Ranges = networksOf(h.Ranges, f)
	if f == IPv6 {
		h.Subnets = h.podNetworks6()
	}
	return h
}

func onlyFamily(ips []netip.Addr, f Family) []netip.Addr {
	return only(ips, func(ip netip.Addr) bool { return FamilyOf(ip) == f })
}

// only returns what holds; the list itself if all does.
func only[T any](list []T, holds func(T) bool) []T {
	if !slices.ContainsFunc(list, func(t T) bool { return !holds(t) }) {
		return list
	}
	var kept []T
	for _, t := range list {
		if holds(t) {
			kept = append(kept, t)
		}
	}
	return kept
}

// addressesOf are the hosts with each own address of the cluster's family, in addition to
// those with each hostIP.
func addressesOf(c Cluster) map[netip.Addr][]int {
	byIP := hostsByIP(c.Hosts)
	if c.Family != IPv6 {
		return byIP
	}
	for h := range c.Hosts {
		for _, p := range c.Hosts[h].addresses6() {
			if ip := p.Addr(); ip != c.Hosts[h].IP {
				byIP[ip] = append(byIP[ip], h)
			}
		}
	}
	return byIP
}
