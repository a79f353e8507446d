package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// kernel is all that the dataplane keeps in the kernel and changes with State:
// as it was observed, or as it should be. What stays the same, such as the
// overlay device and the policy routes, is not in it.
type kernel struct {
	// pods is set egress-pods: every pod, and the mark of its packets. The addresses of
	// IPv6 are in a set of their own. So it is with locked, hosts, ips and inside.
	pods map[netip.Addr]uint32
	// locked is set egress-locked: pods whose packets never leave unmarked.
	locked map[netip.Addr]struct{}
	// hosts is set egress-hosts, ips set egress-ips, inside set egress-inside.
	hosts, ips map[netip.Addr]struct{}
	inside     map[netip.Prefix]struct{}
	// excluded is set egress-excluded.
	excluded nftables.Excluded
	// routes is BPF map pods, served BPF map hosted.
	routes map[netip.Addr]bpf.Route
	served map[bpf.Network]uint32
	// addresses are those with our label on the uplink.
	addresses map[netip.Addr]struct{}
	// rules are those of each iptables backend that is installed, rules6 those for
	// IPv6.
	rules, rules6 map[Backend]iptables.Tables
	// table is the nftables table of our own, tableExists reports whether there is
	// one.
	table       nftables.Table
	tableExists bool
	// links is what links may send with, as observed.
	links nftables.LinkContent
	// warnings are findings of the observation, problem is what it could not read and
	// took as it was last seen.
	warnings []warning.Warning
	problem  error
	// former is what a backend holds that is no longer used: observed only.
	former former
}

// former is what is left of a backend that was used before, until it is removed.
type former struct {
	pods   map[netip.Addr]uint32
	locked map[netip.Addr]struct{}
	// ipsets are the names of our ipsets.
	ipsets []string
}

// withFormer is the kernel in whose eyes a pod has the way that any backend gave it.
func (k kernel) withFormer() kernel {
	if len(k.former.pods)+len(k.former.locked) == 0 {
		return k
	}
	pods, locked := maps.Clone(k.former.pods), maps.Clone(k.former.locked)
	maps.Copy(pods, k.pods)
	maps.Copy(locked, k.locked)
	k.pods, k.locked = pods, locked
	return k
}

func emptyKernel() kernel {
	return kernel{
		pods:      map[netip.Addr]uint32{},
		locked:    map[netip.Addr]struct{}{},
		hosts:     map[netip.Addr]struct{}{},
		ips:       map[netip.Addr]struct{}{},
		inside:    map[netip.Prefix]struct{}{},
		excluded:  nftables.Excluded{},
		routes:    map[netip.Addr]bpf.Route{},
		served:    map[bpf.Network]uint32{},
		addresses: map[netip.Addr]struct{}{},
		rules:     map[Backend]iptables.Tables{},
		rules6:    map[Backend]iptables.Tables{},
		former:    former{pods: map[netip.Addr]uint32{}, locked: map[netip.Addr]struct{}{}},
	}
}

// usable returns the part of a State that can be done, and what is wrong with the
// rest. What cannot be done drops packets, and never lets them take another path.
// known is the digest of the State, unusable are hosted IPs that the kernel refused, and
// why.
func usable(s State, known *digest, unusable map[netip.Addr]error) (State, []error) {
	var errs []error
	out := s
	out.Hosts, out.Inside = known.hosts, known.networks
	out.Subnets = masked(s.Subnets)

	out.Hosted = nil
	hosted := map[netip.Addr]bool{}
	networks := map[bpf.Network]netip.Addr{}
	for _, h := range s.Hosted {
		switch other, twice := networks[h.network()]; {
		case unusable[h.IP] != nil:
		case !isAddress(h.IP):
			errs = append(errs, fmt.Errorf("hosted egress IP %v: not an address of IPv4 or IPv6", h.IP))
		case hosted[h.IP]:
			errs = append(errs, fmt.Errorf("hosted egress IP %v: listed twice", h.IP))
		case twice:
			errs = append(errs, fmt.Errorf("hosted egress IP %v: network %d has %v already", h.IP, h.NetID, other))
		default:
			hosted[h.IP], networks[h.network()] = true, h.IP
			out.Hosted = append(out.Hosted, h)
		}
	}

	out.Standby = nil
	for _, h := range s.Standby {
		// What cannot be served is not prepared either; it is reported once it is
		// hosted.
		if unusable[h.IP] == nil && isAddress(h.IP) && !hosted[h.IP] {
			out.Standby = append(out.Standby, h)
		}
	}

	out.Pods = nil
	byIP := map[netip.Addr]int{}
	for _, p := range s.Pods {
		if !isAddress(p.IP) {
			errs = append(errs, fmt.Errorf("pod %v: not an address of IPv4 or IPv6", p.IP))
			continue
		}
		p = p.usable(hosted, s.overIPv6())
		if i, twice := byIP[p.IP]; twice {
			errs = append(errs, fmt.Errorf("pod %v: listed twice", p.IP))
			kind := Drop
			if p.Kind == closed || out.Pods[i].Kind == closed {
				kind = closed
			}
			out.Pods[i] = Pod{IP: p.IP, Kind: kind} // and nothing is excluded
			continue
		}
		byIP[p.IP] = len(out.Pods)
		out.Pods = append(out.Pods, p)
	}
	return out, errs
}

// isAddress reports whether an address is one of IPv4 or IPv6.
func isAddress(ip netip.Addr) bool { return ip.IsValid() && !ip.Is4In6() }

// usable is the pod with the part of its way that works. hosted are the egress IPs of the
// host, and overIPv6 is that of the State.
func (p Pod) usable(hosted map[netip.Addr]bool, overIPv6 bool) Pod {
	switch {
	case p.Kind == Local && (!hosted[p.EgressIP] || p.EgressIP.Is4() != p.IP.Is4()), p.Kind == Remote && !reachable(p.Via, overIPv6):
		return Pod{IP: p.IP, Kind: Drop, Excluded: p.Excluded}
	case p.Kind > closed:
		return Pod{IP: p.IP, Kind: Drop}
	default:
		return p
	}
}

// reachable reports whether the overlay leads to all of some hosts: their addresses are of its
// outer packets' family.
func reachable(via []netip.Addr, overIPv6 bool) bool {
	known := func(ip netip.Addr) bool { return isAddress(ip) && ip.Is6() == overIPv6 }
	return len(via) > 0 && len(via) <= MaxVia && len(only(via, known)) == len(via)
}

// only returns the addresses of which something holds.
func only(addrs []netip.Addr, holds func(netip.Addr) bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !holds(a) })
}

func masked4(prefixes []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(masked(prefixes), func(p netip.Prefix) bool { return !p.Addr().Is4() })
}

func masked6(prefixes []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(masked(prefixes), func(p netip.Prefix) bool { return p.Addr().Is4() })
}

// masked returns the networks in order, those of IPv4 first.
func masked(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		// hash:net cannot hold a prefix of length 0, which is no network.
		if p.IsValid() && p.Bits() > 0 && !p.Addr().Is4In6() {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(out)
}

// network is what packets that leave with the egress IP come over the overlay in.
func (h Hosted) network() bpf.Network { return bpf.Network{NetID: h.NetID, IPv6: h.IP.Is6()} }

// newRoute returns the overlay route of a remote pod.
func newRoute(p Pod) bpf.Route {
	r := bpf.Route{NetID: p.NetID, Via: p.Via, Sources: make([]netip.Addr, len(p.Via))}
	copy(r.Sources, p.Sources)
	return r
}

// desire returns the kernel that does what a usable State says. known is its digest. Its
// rules are those of the backends in use; others hold none.
func desire(s State, known *digest, m Marks, idx indices) kernel {
	k := emptyKernel()
	k.hosts, k.inside = known.hostSet, known.inside
	for _, h := range s.Hosted {
		k.ips[h.IP] = struct{}{}
		k.addresses[h.IP] = struct{}{}
		k.served[h.network()] = m.Index(idx[h.IP])
	}
	for _, p := range s.Pods {
		switch {
		case p.Kind == Node:
			k.pods[p.IP] = 0
			continue
		case p.Kind == Refuse && p.IP.Is6():
			k.pods[p.IP] = m.Refused()
		case p.Kind == closed:
			k.pods[p.IP] = 0
		case p.Kind == Local:
			k.pods[p.IP] = m.Index(idx[p.EgressIP])
		case p.Kind == Remote:
			k.pods[p.IP] = m.Remote()
			k.routes[p.IP] = newRoute(p)
		default:
			k.pods[p.IP] = m.Remote()
		}
		k.locked[p.IP] = struct{}{}
		if networks := p.excluded(); len(networks) > 0 {
			k.excluded[p.IP] = networks
		}
	}
	return k
}
