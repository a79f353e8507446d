package conformance

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// InIPv6 is a cluster in which hosts, egress IPs and ranges have addresses of IPv6, and that
// looks like one of IPv4. The reference knows IPv4 alone; what it does with one family, we do
// with the other.
type InIPv6 struct{ Driver }

// network6 returns the network in which an address of IPv4 has its counterpart: the last 32 bits
// are the same, and so is the order of addresses.
func network6() netip.Prefix { return netip.MustParsePrefix("fd00:6::/96") }

// Do is part of Driver.
func (d InIPv6) Do(ctx context.Context, step Step) error {
	return d.Driver.Do(ctx, toIPv6(step))
}

// Until is part of Driver.
func (d InIPv6) Until(ctx context.Context, done func(State) []string) (State, []string, error) {
	state, wrong, err := d.Driver.Until(ctx, func(s State) []string { return done(fromIPv6(s)) })
	return fromIPv6(state), wrong, err
}

// toIPv6 is a step with the counterparts of its addresses. What is no address stays as it is.
func toIPv6(step Step) Step {
	all := func(list *[]string) *[]string {
		if list == nil {
			return nil
		}
		texts := make([]string, 0, len(*list))
		for _, text := range *list {
			texts = append(texts, textTo6(text))
		}
		return &texts
	}
	if step.HostIP != nil {
		step.HostIP = new(textTo6(*step.HostIP))
	}
	step.EgressIPs, step.EgressCIDRs = all(step.EgressIPs), all(step.EgressCIDRs)
	step.IP, step.Network = textTo6(step.IP), textTo6(step.Network)
	if step.CapacityKind == "" || step.CapacityKind == "ipv4" {
		step.CapacityKind = "ipv6"
	}
	return step
}

// textTo6 is the counterpart of an address or a prefix of IPv4, and else the text.
func textTo6(text string) string {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Is4() {
		return addressTo6(ip).String()
	}
	if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
		return netip.PrefixFrom(addressTo6(p.Addr()), network6().Bits()+p.Bits()).String()
	}
	return text
}

func addressTo6(ip netip.Addr) netip.Addr {
	b, low := network6().Addr().As16(), ip.As4()
	copy(b[12:], low[:])
	return netip.AddrFrom16(b)
}

// textFrom6 is the reverse of textTo6 for addresses, with what follows an at sign.
func textFrom6(text string) string {
	address, rest, at := strings.Cut(text, "@")
	ip, err := netip.ParseAddr(address)
	if err != nil || !network6().Contains(ip) {
		return text
	}
	b := ip.As16()
	address = netip.AddrFrom4([4]byte(b[12:])).String()
	if at {
		return address + "@" + rest
	}
	return address
}

// fromIPv6 is a state with the addresses of IPv4 that the scenario means.
func fromIPv6(s State) State {
	for name, active := range s.Active {
		if list, ok := active.([]string); ok {
			s.Active[name] = allFrom6(list)
		}
	}
	s.Assignments, s.Conflicts = keysFrom6(s.Assignments), keysFrom6(s.Conflicts)
	s.HostSubnets, s.Requests = valuesFrom6(s.HostSubnets), valuesFrom6(s.Requests)
	return s
}

func allFrom6(list []string) []string {
	if list == nil {
		return nil
	}
	texts := slices.Clone(list)
	for i := range texts {
		texts[i] = textFrom6(texts[i])
	}
	return texts
}

func keysFrom6(of map[string]string) map[string]string {
	all := make(map[string]string, len(of))
	for key, value := range of {
		all[textFrom6(key)] = value
	}
	return all
}

func valuesFrom6(of map[string][]string) map[string][]string {
	all := maps.Clone(of)
	for key, list := range all {
		all[key] = allFrom6(list)
	}
	return all
}
