package rules

import (
	"maps"
	"net/netip"
	"slices"
)

// Names of the sets that the rules refer to.
const (
	// SetPods: every classified pod, with its way as mark; 0 for pods without an
	// egress IP, to which the node's own rules apply.
	SetPods = "egress-pods"
	// SetLocked: pods whose namespaces request egress IPs; their unmarked
	// packets are dropped, in case marking fails.
	SetLocked = "egress-locked"
	// SetHosts: all hosts to which the overlay leads, of its outer packets' family.
	SetHosts = "egress-hosts"
	// SetInside: pod and service networks, and all hosts.
	SetInside = "egress-inside"
	// SetIPs: the egress IPs of this host.
	SetIPs = "egress-ips"
	// SetExcluded: pods whose namespaces request egress IPs, each with networks outside to
	// which its packets leave as without us.
	SetExcluded = "egress-excluded"
	// SetResets: TCP connections of this host's pods that have ended: pod, its
	// port, and the other end.
	SetResets = "egress-resets"

	// SetPresent has entries while an agent is at work: they end by themselves.
	SetPresent  = "egress-present"
	SetPresent6 = SetPresent + suffix6

	// SetSenders: addresses of SetLocked, each with the MAC of the pod that has sent with
	// it; SetBound: these addresses. The kernel learns them while an agent is present.
	SetSenders = "egress-senders"
	SetBound   = "egress-bound"

	// The like of some for IPv6.
	SetPods6     = SetPods + suffix6
	SetHosts6    = SetHosts + suffix6
	SetLocked6   = SetLocked + suffix6
	SetInside6   = SetInside + suffix6
	SetIPs6      = SetIPs + suffix6
	SetExcluded6 = SetExcluded + suffix6
	SetResets6   = SetResets + suffix6
	SetSenders6  = SetSenders + suffix6
	SetBound6    = SetBound + suffix6
)

// Our chains. Each has the name of the hook that leads to it, or of its job.
const (
	ChainNotrack     = ChainPrefix + "NOTRACK"
	ChainForged      = ChainPrefix + "FORGED"
	ChainForgery     = ChainPrefix + "FORGERY"
	ChainPrerouting  = ChainPrefix + "PREROUTING"
	ChainMarking     = ChainPrefix + "MARKING"
	ChainKept        = ChainPrefix + "KEPT"
	ChainReplies     = ChainPrefix + "REPLIES"
	ChainForeign     = ChainPrefix + "FOREIGN"
	ChainWay         = ChainPrefix + "WAY"
	ChainLeaving     = ChainPrefix + "LEAVING"
	ChainTaken       = ChainPrefix + "TAKEN"
	ChainRestored    = ChainPrefix + "RESTORED"
	ChainSame        = ChainPrefix + "SAME"
	ChainForward     = ChainPrefix + "FORWARD"
	ChainPorts       = ChainPrefix + "PORTS"
	ChainAgain       = ChainPrefix + "AGAIN"
	ChainOut         = ChainPrefix + "OUT"
	ChainFrom        = ChainPrefix + "FROM-OVERLAY"
	ChainTo          = ChainPrefix + "TO-OVERLAY"
	ChainPinned      = ChainPrefix + "PINNED"
	ChainInput       = ChainPrefix + "INPUT"
	ChainArrived     = ChainPrefix + "ARRIVED"
	ChainOutput      = ChainPrefix + "OUTPUT"
	ChainLocked      = ChainPrefix + "LOCKED"
	ChainCame        = ChainPrefix + "CAME"
	ChainStranger    = ChainPrefix + "STRANGER"
	ChainHeld        = ChainPrefix + "HELD"
	ChainReset       = ChainPrefix + "RESET"
	ChainAccept      = ChainPrefix + "ACCEPT"
	ChainPostrouting = ChainPrefix + "POSTROUTING"
	ChainSNAT        = ChainPrefix + "SNAT"
)

// Marks are the bits of the packet mark that the rules match and set: two flags
// and an index.
type Marks interface {
	// Remote is the flag of a packet that must take the overlay, Return that of
	// a reply that must take it back.
	Remote() uint32
	Return() uint32
	// IndexMask has the bits of the index, Index encodes one.
	IndexMask() uint32
	Index(i int) uint32
	// FirstIndex and MaxIndex are the least and the greatest index. All between
	// them have the highest bit of the least.
	FirstIndex() int
	MaxIndex() int
}

// Params are what the content of our chains depends on.
type Params struct {
	Marks Marks
	// Overlay is the name of the overlay device, OverlayPort its UDP port.
	Overlay     string
	OverlayPort uint16
	// ProbePort is the UDP port of the hosts' probes, 0 for none.
	ProbePort uint16
	// Indices gives each egress IP, hosted or prepared for, the index that the
	// marks of its packets hold.
	Indices map[netip.Addr]int
	// Resets: pods get resets for connections that have ended.
	Resets bool
	// Excluded: there are sets of pods with networks to which these leave as without us.
	Excluded bool
	// Strict are the networks of pods whose unclassified addresses may not send
	// outside while an agent is present, Strict6 those of IPv6.
	Strict, Strict6 []netip.Prefix
	// Senders: the backend learns the MACs of pods, so that another pod with the address of
	// one that has ended is not taken for it while there is no agent. Others cannot.
	Senders bool
	// IPv6: there are rules for IPv6, too. Serve6: they serve egress IPs of IPv6, and do not
	// only drop. OverIPv6: hosts have addresses of IPv6, or had them a
	// moment ago, and so have the outer packets of the overlay, and probes. It needs Serve6.
	IPv6, Serve6, OverIPv6 bool
	// RandomPorts: connections get random source ports.
	RandomPorts bool
	// Maps: the backend finds the egress IP of a mark in a map. Others get a tree of
	// chains.
	Maps bool
}

// Equal reports whether the content of our chains is the same with both.
func (p Params) Equal(o Params) bool {
	return p.Marks == o.Marks && p.Overlay == o.Overlay && p.OverlayPort == o.OverlayPort && p.ProbePort == o.ProbePort &&
		p.Resets == o.Resets && p.Excluded == o.Excluded && p.Senders == o.Senders && p.IPv6 == o.IPv6 && p.Serve6 == o.Serve6 && p.OverIPv6 == o.OverIPv6 && p.Maps == o.Maps && p.RandomPorts == o.RandomPorts &&
		maps.Equal(p.Indices, o.Indices) && slices.Equal(p.Strict, o.Strict) && slices.Equal(p.Strict6, o.Strict6)
}

// Build gives the content of all our chains. The walk of a packet through them:
//
//	raw     the outer packets of the overlay need no connection tracking
//	mangle  MARKING marks: a pod's packet with its way (WAY), a reply with RETURN (REPLIES), what
//	        came over the overlay as it came (KEPT); and takes bits of ours off what must have
//	        none (FOREIGN). It comes first in PREROUTING; in nftables last, after all that
//	        others do there
//	        ARRIVED takes the marks off what is for the host itself
//	        FORWARD keeps others off the ports of hosts (PORTS), marks again what pods with
//	        egress IPs send (AGAIN), and locks: what is marked leaves by its way, or not at
//	        all (OUT, PINNED);
//	        in iptables, LOCKED is here as well, in case others come first in filter;
//	        LEAVING sorts out what is none of ours; TAKEN, at the overlay, and RESTORED give
//	        back marks that others have changed meanwhile
//	filter  RESET answers pods that go on with connections that have ended;
//	        LOCKED, with CAME for what came over the overlay, HELD for pods with egress IPs and
//	        STRANGER for unknown pods, is the lock that holds when mangle has been flushed;
//	        OUTPUT locks what leaves past FORWARD, as by IPVS;
//	        INPUT keeps others off the overlay and off the egress IPs
//	nat     index -> egress IP, before the source NAT of other software
//
// Most packets meet few rules: what a rule of few words tells about most of them comes first, and
// what only some of them need is a chain of its own. A packet meets all that is here two or three
// times a hook, and each rule takes time.
func Build(p Params) Content { return newBuilder(p).content() }

func newBuilder(p Params) builder {
	return builder{
		Params:      p,
		fromOverlay: InInterface{Name: p.Overlay},
		toOverlay:   OutInterface{Name: p.Overlay},
	}
}

func (b builder) content() Content {
	return Content{
		Raw:    b.raw(),
		Mangle: b.mangle(),
		Filter: b.filter(),
		NAT:    b.nat(),
	}
}

// builder has the parameters, and the matches that depend on them alone.
type builder struct {
	Params
	fromOverlay InInterface
	toOverlay   OutInterface
	// six: the rules are for IPv6; see ofIPv6. mute: they are for a stage that drops packets
	// without an answer.
	six, mute bool
}

// matches are the conditions of a rule that gets its action by then.
type matches []Match

func when(m ...Match) matches { return m }

func (m matches) then(a Action) Rule { return Rule{Matches: m, Action: a} }

func inSet(set string, a Address) Match    { return InSet{Set: set, Addr: a} }
func notInSet(set string, a Address) Match { return InSet{Set: set, Addr: a, Not: true} }

// unnatable matches packets that no NAT touches.
func unnatable() Match { return ConnState{Invalid, Untracked} }

// outbound matches packets that could leave with a wrong source: those of a
// connection's original direction, and those that no NAT touches. Replies to
// NodePort, LoadBalancer and direct clients must stay on the way that they would
// take without us.
func outbound() []Match { return []Match{Original, unnatable()} }

// noted matches packets of connections that came over the overlay.
func (b builder) noted() ConnMark {
	return ConnMark{Value: b.Marks.Return(), Mask: b.Marks.Return()}
}

// ofNoWay matches packets of connections that began on no way of ours.
func (b builder) ofNoWay() ConnMark {
	return ConnMark{Value: 0, Mask: b.Marks.Return() | b.Marks.Remote() | b.first()}
}

// excludedThen are the rules, one or none, for what pods send to networks to which they leave as
// without us. A connection that began on a way of ours does not go on there: its source would be
// another one, or the pod's own.
func (b builder) excludedThen(a Action, also ...Match) []Rule {
	if !b.Excluded {
		return nil
	}
	m := slices.Clone(also)
	if !b.six || b.Serve6 { // else nothing has a way, and not every ip6tables can ask
		m = append(m, b.ofNoWay())
	}
	return []Rule{when(append(m, PairInSet{SetExcluded})...).then(a)}
}

// heir matches packets of a pod that has the address of another one, which has ended
// since there is no agent any more. The egress IP is not its own.
func heir() []Match {
	return []Match{AgentPresent{Set: SetPresent, Not: true}, inSet(SetBound, Source), KnownSender{Set: SetSenders, Not: true}}
}

// betweenHosts reports whether there are rules about what hosts send each other: the outer
// packets of the overlay, and probes. Those of IPv4 are always there: none but hosts reach the
// port of the overlay by it, and where hosts have addresses of IPv6, nobody.
func (b builder) betweenHosts() bool { return !b.six || b.OverIPv6 }

// hostPorts match the packets that only hosts may send, one match for each port.
func (b builder) hostPorts() []Match {
	if !b.betweenHosts() {
		return nil
	}
	ports := []Match{UDPPort(b.OverlayPort)}
	if b.ProbePort != 0 {
		ports = append(ports, UDPPort(b.ProbePort))
	}
	return ports
}

// raw exempts the overlay's outer packets from connection tracking. Both ends
// must be hosts: a pod's own packet to that port anywhere else needs its source
// rewritten, which takes a tracked connection.
func (b builder) raw() Ruleset {
	if !b.betweenHosts() {
		return Ruleset{}
	}
	r := Ruleset{
		Chains: map[string][]Rule{ChainNotrack: {
			when(UDPPort(b.OverlayPort), inSet(SetHosts, Source), inSet(SetHosts, Destination)).then(NoTrack{}),
		}},
		Jumps: []HookJump{{From: Prerouting, To: ChainNotrack}, {From: Output, To: ChainNotrack}},
	}
	if b.Maps {
		r.Chains[ChainForged] = []Rule{when(UDP{}, inSet(SetHosts, Source)).then(Goto{ChainForgery})}
		r.Chains[ChainForgery] = b.forgery()
		r.Jumps = append([]HookJump{{From: Prerouting, To: ChainForged}}, r.Jumps...)
	}
	return r
}

// forgery drops what a pod sends to hosts' ports with the address of another host as source,
// which the kernel's reverse path filter does only where it is strict. Pods come by a veth or
// over a bridge, and what hosts send comes by the device that leads to them. On other devices
// either way is right: a host may have two in one network.
func (b builder) forgery() (rules []Rule) {
	for _, port := range b.hostPorts() {
		for _, kind := range []InKind{"veth", "bridge"} {
			rules = append(rules, when(port, kind, inSet(SetHosts, Destination), WrongWay{}).then(Drop{}))
		}
	}
	return rules
}

func (b builder) mangle() Ruleset {
	r := Ruleset{
		Chains: map[string][]Rule{
			ChainMarking:  b.marking(),
			ChainKept:     {when(Original).then(RestoreMark{b.wayBits()})},
			ChainReplies:  {when(b.noted()).then(SetMark{b.Marks.Return(), b.allBits()})},
			ChainForeign:  b.foreign(),
			ChainWay:      b.way(),
			ChainSame:     b.same(),
			ChainLeaving:  b.leaving(),
			ChainTaken:    b.taken(),
			ChainRestored: slices.Concat(b.restored(), b.lost()),
			ChainForward:  b.forward(),
			ChainAgain:    b.again(),
			ChainOut:      b.out(),
			ChainFrom:     b.fromOverlayChain(),
			ChainTo:       b.toOverlayChain(),
			ChainPinned:   b.pinned(),
			ChainArrived:  b.arrived(),
		},
		Jumps: []HookJump{{From: Prerouting, To: ChainPrerouting}, {From: Input, To: ChainArrived}, {From: Forward, To: ChainForward}, {From: Postrouting, To: ChainLeaving, Late: b.Maps}},
	}
	if ports := b.ports(); len(ports) > 0 {
		r.Chains[ChainPorts] = ports
	}
	if b.Maps {
		r.Chains[ChainPrerouting] = b.arrival()
		r.Jumps = append(r.Jumps, HookJump{From: Prerouting, To: ChainMarking, Late: true})
		return r
	}
	r.Chains[ChainPrerouting] = append(b.arrival(), when().then(Jump{ChainMarking}))
	// In iptables, other software may put rules before ours, as Calico does in PREROUTING of
	// this table and in FORWARD of filter: what these accept is not marked, and does not meet
	// the lock there.
	b.mute = true
	maps.Copy(r.Chains, b.lock())
	r.Jumps = append(r.Jumps, HookJump{From: Forward, To: ChainLocked})
	return r
}

// arrived takes the marks off pods' packets that are for an address of the host itself.
// That of a service is one, where kube-proxy is in mode ipvs: from here on IPVS sends
// them out again, past hook forward. The mark would be inherited.
func (b builder) arrived() []Rule {
	return []Rule{when(b.marked(), inSet(SetPods, Source)).then(SetMark{0, b.allBits()})}
}
