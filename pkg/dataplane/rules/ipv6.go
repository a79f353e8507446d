package rules

import (
	"maps"
	"net/netip"
	"slices"
)

// suffix6 ends the names of sets and chains for IPv6, after that of the one for IPv4 that
// does the same.
const suffix6 = "6"

// Our chains in the rules for IPv6, where these only drop.
const (
	ChainLocked6  = ChainLocked + suffix6
	ChainLeaving6 = ChainLeaving + suffix6
)

// neighbourDiscovery are the types of ICMPv6 messages without which there is no IPv6
// on a link: solicitations and advertisements of routers and neighbours. Where bridged
// packets pass the rules, as with br_netfilter, they meet them, too.
func neighbourDiscovery() []ICMPv6Type { return []ICMPv6Type{133, 134, 135, 136} }

// onLink is the hop limit of packets that no router has forwarded, this host included.
const onLink HopLimit = 255

// Build6 gives the content of our chains for IPv6. Where egress IPs of IPv6 are served, these
// are the same as for IPv4, by other names; see ofIPv6. What differs:
//
//   - A pod's packet that must not leave unmarked is refused with an answer, so that its pod
//     goes on with IPv4 at once. So is one with all bits of a way in its mark, which no way has:
//     that of a pod that has none. Where nothing refuses it, it is led to the overlay, which
//     drops it. Chain LEAVING6, in hook postrouting, also drops what did not pass
//     forward, as with a load balancer in the kernel (IPVS).
//   - Neighbour discovery passes.
//   - In iptables, the second LOCKED, in table mangle, refuses nobody: only table filter can
//     answer. LEAVING6 drops what does not get there.
//   - Nothing is about the overlay's outer packets and probes, unless those are of IPv6.
//
// Elsewhere they only drop: a pod that must not leave with another address than its
// namespace's egress IPs does not leave at all.
//
//	filter  LOCKED6, in hook forward, refuses, and drops what comes over the overlay
//	mangle  LEAVING6 drops
func Build6(p Params) Content {
	b := newBuilder(p)
	b.six, b.Strict, b.Indices = true, p.Strict6, maps.Clone(p.Indices)
	maps.DeleteFunc(b.Indices, func(ip netip.Addr, _ int) bool { return ip.Is4() })
	leaving := Ruleset{
		Chains: map[string][]Rule{ChainLeaving6: b.closed([]Rule{when().then(Drop{})})},
		Jumps:  []HookJump{{From: Postrouting, To: ChainLeaving6, Late: p.Maps}}, // one hook for both families
	}
	if !p.Serve6 {
		// Hosts that do not know yet that this one serves no IPv6 send it packets, which
		// would leave as they are.
		overlay := when(b.fromOverlay).then(Drop{})
		return Content{
			Filter: {
				Chains: map[string][]Rule{ChainLocked6: append([]Rule{overlay}, b.closed(b.refusal())...)},
				Jumps:  []HookJump{{From: Forward, To: ChainLocked6}},
			},
			Mangle: leaving,
		}
	}
	content := ofIPv6(b.content())
	mangle := content[Mangle]
	restored, closed := ChainRestored+suffix6, leaving.Chains[ChainLeaving6]
	mangle.Chains[restored] = slices.Insert(mangle.Chains[restored], len(b.restored()), closed...)
	for _, chain := range []string{ChainLeaving6, ChainTaken + suffix6} {
		mangle.Chains[chain] = append(mangle.Chains[chain], closed...)
	}
	content[Mangle] = mangle
	return content
}

// refusal is what happens to packets that must not leave unmarked; nothing where that would be
// an answer, and the stage has none.
func (b builder) refusal() []Rule {
	switch {
	case !b.six:
		return []Rule{when().then(Drop{})}
	case b.mute:
		return nil
	}
	// An ICMPv6 error ends an attempt to connect, too, but the kernel sends one a second.
	segment := TCPFlags{Among: RST, Set: RST, Not: true}
	return []Rule{when(segment).then(ResetTCP{}), when().then(Prohibit{})}
}

// neighbours let neighbour discovery pass. What pods send to the outside in its name is
// forwarded, and has a lower hop limit then. Rules that only drop do not ask for it: not every
// ip6tables has a match for that.
func (b builder) neighbours() (rules []Rule) {
	if !b.six {
		return nil
	}
	for _, t := range neighbourDiscovery() {
		m := when(t)
		if b.Serve6 || b.Maps {
			m = when(t, onLink)
		}
		rules = append(rules, m.then(Return{}))
	}
	return rules
}

// closed stops what pods send to the outside, but for what is marked where egress IPs of
// IPv6 are served. A pod that is not classified yet is told nothing: it tries again, and is
// classified by then.
func (b builder) closed(stop []Rule) []Rule {
	rules := append(b.neighbours(), when(inSet(SetInside6, Destination)).then(Return{}))
	for _, r := range b.excludedThen(Return{}) {
		rules = append(rules, ruleOfIPv6(r))
	}
	var unmarked []Match
	if b.Serve6 {
		unmarked = []Match{b.unmarked()}
		if b.Senders {
			rules = append(rules, ruleOfIPv6(when(heir()...).then(Return{})))
		}
	}
	for _, state := range outbound() {
		for _, r := range stop {
			rules = append(rules, when(slices.Concat(r.Matches, unmarked, []Match{state, inSet(SetLocked6, Source)})...).then(r.Action))
		}
	}
	for _, subnet := range b.Strict {
		for _, state := range outbound() {
			rules = append(rules, when(slices.Concat(
				[]Match{SourceIn{subnet}}, unmarked, []Match{state, notInSet(SetPods6, Source), AgentPresent{Set: SetPresent6}},
			)...).then(Drop{}))
		}
	}
	return rules
}

// ofIPv6 has rules look at the sets for IPv6 and lead to the chains for it.
func ofIPv6(content Content) Content {
	six := Content{}
	for stage, set := range content {
		s := Ruleset{Chains: map[string][]Rule{}}
		for name, list := range set.Chains {
			for i, r := range list {
				list[i] = ruleOfIPv6(r)
			}
			s.Chains[name+suffix6] = list
		}
		for _, j := range set.Jumps {
			j.To += suffix6
			s.Jumps = append(s.Jumps, j)
		}
		six[stage] = s
	}
	return six
}

func ruleOfIPv6(r Rule) Rule {
	six := Rule{Action: actionOfIPv6(r.Action)}
	for _, m := range r.Matches {
		six.Matches = append(six.Matches, matchOfIPv6(m))
	}
	return six
}

func matchOfIPv6(m Match) Match {
	switch m := m.(type) {
	case InSet:
		m.Set += suffix6
		return m
	case AgentPresent:
		m.Set += suffix6
		return m
	case KnownSender:
		m.Set += suffix6
		return m
	case PairInSet:
		m.Set += suffix6
		return m
	case EndpointsInSet:
		m.Set += suffix6
		return m
	default:
		return m
	}
}

func actionOfIPv6(a Action) Action {
	switch a := a.(type) {
	case Jump:
		return Jump{a.Chain + suffix6}
	case Goto:
		return Goto{a.Chain + suffix6}
	case SetMarkFromSet:
		return SetMarkFromSet{a.Set + suffix6}
	case LearnSender:
		return LearnSender{Pairs: a.Pairs + suffix6, Addresses: a.Addresses + suffix6}
	default:
		return a
	}
}
