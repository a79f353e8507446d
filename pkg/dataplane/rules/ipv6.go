package rules

import "slices"

// Our chains in the rules for IPv6.
const (
	ChainLocked6  = ChainPrefix + "LOCKED6"
	ChainLeaving6 = ChainPrefix + "LEAVING6"
)

// neighbourDiscovery are the types of ICMPv6 messages without which there is no IPv6
// on a link: solicitations and advertisements of routers and neighbours. Where bridged
// packets pass the rules, as with br_netfilter, they meet them, too.
func neighbourDiscovery() []ICMPv6Type { return []ICMPv6Type{133, 134, 135, 136} }

// Build6 gives the content of our chains for IPv6. There are no egress IPs of IPv6, so
// they only drop: a pod that must not leave with another address than its namespace's
// egress IPs does not leave at all.
//
// The walk of a packet:
//
//	filter  LOCKED6, in hook forward, refuses it with an answer, so that its pod goes on
//	        with IPv4 at once
//	mangle  LEAVING6, in hook postrouting, drops what did not pass forward, as with a
//	        load balancer in the kernel (IPVS)
func Build6(p Params) Content {
	// An ICMPv6 error ends an attempt to connect, too, but the kernel sends one a second.
	segment := TCPFlags{Among: RST, Set: RST, Not: true}
	refuse := []Rule{when(segment).then(ResetTCP{}), when().then(Prohibit{})}
	return Content{
		Filter: {
			Chains: map[string][]Rule{ChainLocked6: locked6(p, refuse)},
			Jumps:  []HookJump{{From: Forward, To: ChainLocked6}},
		},
		Mangle: {
			Chains: map[string][]Rule{ChainLeaving6: locked6(p, []Rule{when().then(Drop{})})},
			Jumps:  []HookJump{{From: Postrouting, To: ChainLeaving6}},
		},
	}
}

// locked6 stops what pods send to the outside. A pod that is not classified yet is told
// nothing: it tries again, and is classified by then.
func locked6(p Params, stop []Rule) []Rule {
	var rules []Rule
	for _, t := range neighbourDiscovery() {
		rules = append(rules, when(t).then(Return{}))
	}
	rules = append(rules, when(inSet(SetInside6, Destination)).then(Return{}))
	for _, state := range outbound() {
		for _, r := range stop {
			rules = append(rules, when(append(slices.Clone(r.Matches), state, inSet(SetLocked6, Source))...).then(r.Action))
		}
	}
	for _, subnet := range p.Strict6 {
		for _, state := range outbound() {
			rules = append(rules, when(SourceIn{subnet}, state, notInSet(SetPods6, Source), AgentPresent{Set: SetPresent6}).then(Drop{}))
		}
	}
	return rules
}
