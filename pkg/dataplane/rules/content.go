package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A table of iptables.
type table string

// The tables, in the order in which changes are made: nothing is marked
// before locks and source rewriting are there.
const (
	rawTable    table = "raw"
	filterTable table = "filter"
	natTable    table = "nat"
	mangleTable table = "mangle"
)

func tables() []table { return []table{rawTable, filterTable, natTable, mangleTable} }

// chainPrefix marks the chains that are ours.
const chainPrefix = "EGRESSIP-"

// Our chains. Each has the name of the chain that jumps to it, or of its job.
const (
	chainNotrack     = chainPrefix + "NOTRACK"
	chainPrerouting  = chainPrefix + "PREROUTING"
	chainForward     = chainPrefix + "FORWARD"
	chainFrom        = chainPrefix + "FROM-OVERLAY"
	chainTo          = chainPrefix + "TO-OVERLAY"
	chainPinned      = chainPrefix + "PINNED"
	chainInput       = chainPrefix + "INPUT"
	chainLocked      = chainPrefix + "LOCKED"
	chainReset       = chainPrefix + "RESET"
	chainAccept      = chainPrefix + "ACCEPT"
	chainPostrouting = chainPrefix + "POSTROUTING"
	chainSNAT        = chainPrefix + "SNAT"
)

// A jump leads from a chain of the kernel's into one of ours.
type jump struct {
	from, to string
	// last: the jump stands behind all rules of others, but before a final
	// rule that drops or rejects everything. All others stand first.
	last bool
}

// tableRules is all that is ours in one table.
type tableRules struct {
	// chains holds each chain's rules as iptables-save prints them, without
	// the leading "-A CHAIN ": this form is what observed rules are compared
	// with.
	chains map[string][]string
	jumps  []jump
}

// indices gives each hosted egress IP the index that its packets' mark bears.
type indices map[netip.Addr]int

// ruleInput is what the content of our chains depends on. Everything that
// changes with pods and hosts is in sets, so that rules stay as they are.
type ruleInput struct {
	marks Marks
	port  uint16
	// probePort is the hosts' probe port, 0 for none.
	probePort uint16
	indices   indices
	// reset: pods get resets for connections that have ended.
	reset bool
	// strict are the networks whose unclassified addresses go nowhere outside.
	strict []netip.Prefix
}

// buildRules gives the content of all our chains. The walk of a packet through
// them:
//
//	raw     the outer packets of the overlay need no connection tracking
//	mangle  PREROUTING marks: a pod's packet with its way, a reply with RETURN
//	        FORWARD locks: what is marked leaves by its way, or not at all
//	filter  RESET tells pods of connections that have ended;
//	        LOCKED is the lock that holds when mangle has been flushed;
//	        INPUT keeps others off the overlay and off the egress IPs
//	nat     index -> egress IP, before anybody else's source rewriting
func buildRules(in ruleInput) map[table]tableRules {
	return map[table]tableRules{
		rawTable:    rawRules(in),
		mangleTable: mangleRules(in),
		filterTable: filterRules(in),
		natTable:    natRules(in),
	}
}

// Matches, in the form and order in which iptables-save prints them.
const (
	original    = "-m conntrack --ctdir ORIGINAL"
	reply       = "-m conntrack --ctdir REPLY"
	unnatable   = "-m conntrack --ctstate INVALID,UNTRACKED"
	firstPacket = "-m conntrack ! --ctstatus CONFIRMED"
	fromOverlay = "-i " + overlayName
	toOverlay   = "-o " + overlayName
)

func inSet(set, dir string) string    { return "-m set --match-set " + set + " " + dir }
func notInSet(set, dir string) string { return "-m set ! --match-set " + set + " " + dir }

func marked(mark, mask uint32) string { return fmt.Sprintf("-m mark --mark %#x/%#x", mark, mask) }

func setMark(mark, mask uint32) string { return fmt.Sprintf("-j MARK --set-xmark %#x/%#x", mark, mask) }

func rule(parts ...string) string { return strings.Join(parts, " ") }

func overlayPacket(in ruleInput) string {
	return "-p udp -m udp --dport " + strconv.Itoa(int(in.port))
}

// hostPorts match the packets that are between hosts alone, one match a port.
func hostPorts(in ruleInput) []string {
	matches := []string{overlayPacket(in)}
	if in.probePort != 0 {
		matches = append(matches, "-p udp -m udp --dport "+strconv.Itoa(int(in.probePort)))
	}
	return matches
}

// rawRules spare the overlay's outer packets the connection tracking. Both
// ends must be hosts: a pod's own packet to that port anywhere else needs its
// source rewritten, which takes a tracked connection.
func rawRules(in ruleInput) tableRules {
	return tableRules{
		chains: map[string][]string{chainNotrack: {
			rule(overlayPacket(in), inSet(setHosts, "src"), inSet(setHosts, "dst"), "-j NOTRACK"),
		}},
		jumps: []jump{{from: "PREROUTING", to: chainNotrack}, {from: "OUTPUT", to: chainNotrack}},
	}
}

func mangleRules(in ruleInput) tableRules {
	m := in.marks
	ret, remote, index := m.Return(), m.Remote(), m.IndexMask()

	prerouting := []string{
		// A connection that comes over the overlay goes back over it: the
		// way is then the same in both directions, whatever the CNI.
		rule(fromOverlay, original, fmt.Sprintf("-j CONNMARK --set-xmark %#x/%#x", ret, ret)),
		rule(fromOverlay, "-j RETURN"),
		rule(reply, fmt.Sprintf("-m connmark --mark %#x/%#x", ret, ret), setMark(ret, m.Mask)),
		// Direction ORIGINAL alone: answers to NodePort, LoadBalancer and
		// direct clients take the way that they would take without us.
		rule(original, "-j SET --map-set "+setPods+" src --map-mark"),
		// Packets that no NAT will ever touch get the mark too, so that
		// FORWARD can drop them if they are bound for the outside.
		rule(unnatable, "-j SET --map-set "+setPods+" src --map-mark"),
	}
	for _, subnet := range in.strict {
		from := "-s " + subnet.String()
		for _, state := range []string{original, unnatable} {
			prerouting = append(prerouting, rule(from, state, notInSet(setPods, "src"), setMark(remote, m.Mask)))
		}
	}

	// Only hosts speak to the overlay's port; a pod that did would choose the
	// namespace that its packets seem to come from. And a host's masquerade
	// would make a pod's probe look like the host's.
	var forward []string
	for _, port := range hostPorts(in) {
		forward = append(forward, rule(port, inSet(setHosts, "dst"), notInSet(setHosts, "src"), "-j DROP"))
	}
	forward = append(forward,
		rule(fromOverlay, "-g "+chainFrom),
		rule(toOverlay, "-g "+chainTo),
		// Inside the cluster all is as without us. The way out is decided at
		// this point and the mark has served: a CNI's tunnel would inherit it.
		rule(fmt.Sprintf("-m mark ! --mark 0x0/%#x", m.Mask), inSet(setInside, "dst"), setMark(0, m.Mask)),
		rule(marked(0, m.Mask), "-j RETURN"),
		// Second lock: the overlay is the only way outside for REMOTE.
		rule(marked(remote, remote), "-j DROP"),
		rule(unnatable, "-j DROP"),
		rule("-g "+chainPinned),
	)
	from := []string{
		rule(toOverlay, "-j DROP"),
		rule(unnatable, "-j DROP"),
		rule(reply, "-j RETURN"),
		// A network without an egress IP here: never with this host's own.
		rule(marked(0, index), "-j DROP"),
		rule(inSet(setInside, "dst"), "-j DROP"),
		rule("-g " + chainPinned),
	}
	to := []string{
		rule(unnatable, "-j DROP"),
		rule(marked(0, remote|ret), "-j DROP"),
		// Where ICMP is filtered on the way, path MTU discovery fails.
		rule("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"),
		rule(marked(ret, ret), "-j RETURN"),
		// A pod that is not known yet: the programs would drop its packets too,
		// but then its connection would be known, and could never become that
		// of a pod that leaves another way.
		rule(notInSet(setPods, "src"), "-j DROP"),
		rule("-g " + chainPinned),
	}
	// A connection's source is chosen with its first packet and never again.
	// So that packet's way is noted in the connection's mark, and a later
	// packet with another way is dropped until the connection is forgotten.
	// With no bits of the packet's mark kept, restoring is an exclusive or:
	// zero where both are equal; the second time, it gives the mark back.
	way := remote | index
	xor := fmt.Sprintf("-j CONNMARK --restore-mark --nfmask 0x0 --ctmask %#x", way)
	pinned := []string{
		rule(firstPacket, fmt.Sprintf("-j CONNMARK --save-mark --nfmask %#x --ctmask %#x", way, way)),
		rule(xor),
		rule(fmt.Sprintf("-m mark ! --mark 0x0/%#x", way), "-j DROP"),
		rule(xor),
	}
	return tableRules{
		chains: map[string][]string{
			chainPrerouting: prerouting,
			chainForward:    forward,
			chainFrom:       from,
			chainTo:         to,
			chainPinned:     pinned,
		},
		jumps: []jump{{from: "PREROUTING", to: chainPrerouting}, {from: "FORWARD", to: chainForward}},
	}
}

func filterRules(in ruleInput) tableRules {
	m := in.marks
	unmarked := marked(0, m.Remote()|m.IndexMask())
	outside := notInSet(setInside, "dst")
	back := fmt.Sprintf("--mark %#x/%#x", m.Return(), m.Return())

	locked := []string{
		// The overlay begins no connection with a pod. Where one was forgotten here, what
		// the other end sends would: then the pod's packets were replies, with a source
		// that no NAT touches.
		rule(fromOverlay, original, inSet(setInside, "dst"), "-j DROP"),
		// Nor do its answers come any other way, where the pod's host could not tell
		// them from a new connection. mangle has noted it and sends them there, unless
		// it has been flushed.
		rule(fromOverlay, original, "-m connmark ! "+back, "-j DROP"),
		rule("! "+toOverlay, reply, "-m connmark "+back, "-j DROP"),
	}
	for _, state := range []string{original, unnatable} {
		locked = append(locked, rule(unmarked, state, inSet(setLocked, "src"), outside, "-j DROP"))
	}
	for _, subnet := range in.strict {
		from := "-s " + subnet.String()
		for _, state := range []string{original, unnatable} {
			locked = append(locked, rule(from, unmarked, state, notInSet(setPods, "src"), outside, "-j DROP"))
		}
	}
	// Nothing that the overlay carries is for the host itself.
	input := []string{rule(fromOverlay, "-j DROP")}
	for _, port := range hostPorts(in) {
		input = append(input, rule(port, notInSet(setHosts, "src"), "-j DROP"))
	}
	// Services of the host are not offered on egress IPs. And no RST for a
	// segment of a connection that is moving in.
	input = append(input, rule(inSet(setIPs, "dst"), "-m conntrack --ctstate INVALID,NEW,UNTRACKED", "-j DROP"))
	// A pod goes on with a connection that was forgotten here. New ones of the same
	// ports begin with a SYN, and are known from then on.
	var reset []string
	if in.reset {
		reset = []string{rule("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW",
			"-m set --match-set "+setResets+" src,src,dst", "-j REJECT --reject-with tcp-reset")}
	}
	return tableRules{
		chains: map[string][]string{
			chainLocked: locked,
			chainReset:  reset,
			chainInput:  input,
			chainAccept: {
				rule(fromOverlay, "-j ACCEPT"),
				rule(toOverlay, "-j ACCEPT"),
			},
		},
		jumps: []jump{
			{from: "FORWARD", to: chainReset},
			{from: "FORWARD", to: chainLocked},
			{from: "INPUT", to: chainInput},
			// For hosts whose FORWARD policy is DROP. A network policy that
			// drops a packet comes before.
			{from: "FORWARD", to: chainAccept, last: true},
		},
	}
}

// maxLinear is the greatest number of SNAT rules that stand in one chain; more
// become a tree. The first packet of each connection walks them.
const maxLinear = 32

func natRules(in ruleInput) tableRules {
	m := in.marks
	chains := map[string][]string{}
	first := m.Index(firstIndex(m))
	post := []string{
		// A CNI's MASQUERADE must not touch the inner packet.
		rule(toOverlay, "-j ACCEPT"),
		rule(marked(0, first), "-j RETURN"),
		// Packets of the host itself, whatever mark somebody gave them.
		rule(fmt.Sprintf("-m connmark --mark 0x0/%#x", first), "-j RETURN"),
		rule(inSet(setInside, "dst"), "-j RETURN"),
	}
	byIndex := make(map[int]netip.Addr, len(in.indices))
	for ip, i := range in.indices {
		byIndex[i] = ip
	}
	sorted := slices.Sorted(maps.Keys(byIndex))
	if len(sorted) <= maxLinear {
		for _, i := range sorted {
			post = append(post, snat(m, i, byIndex[i]))
		}
	} else {
		level := 0
		for sorted[len(sorted)-1]>>(4*(level+1)) > 0 {
			level++
		}
		snatTree(m, byIndex, sorted, level, chainSNAT, chains)
		post = append(post, "-j "+chainSNAT)
	}
	chains[chainPostrouting] = post
	return tableRules{chains: chains, jumps: []jump{{from: "POSTROUTING", to: chainPostrouting}}}
}

func snat(m Marks, index int, ip netip.Addr) string {
	return rule(marked(m.Index(index), m.IndexMask()), "-j SNAT --to-source "+ip.String())
}

// snatTree spreads the rules of the given indices, which are sorted and differ
// in their lowest level+1 nibbles only, over a tree of chains with at most 16
// rules in each.
func snatTree(m Marks, byIndex map[int]netip.Addr, sorted []int, level int, chain string, chains map[string][]string) {
	if level == 0 {
		for _, i := range sorted {
			chains[chain] = append(chains[chain], snat(m, i, byIndex[i]))
		}
		return
	}
	shift := 4 * level
	for len(sorted) > 0 {
		top := sorted[0] >> shift
		n := 1
		for n < len(sorted) && sorted[n]>>shift == top {
			n++
		}
		child := fmt.Sprintf("%s-%x", chain, top&0xf)
		mask := m.Index(m.MaxIndex() &^ (1<<shift - 1))
		chains[chain] = append(chains[chain], rule(marked(m.Index(top<<shift), mask), "-g "+child))
		snatTree(m, byIndex, sorted[:n], level-1, child, chains)
		sorted = sorted[n:]
	}
}
