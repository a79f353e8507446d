package iptables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Rendered is the content of all our chains as text.
type Rendered map[rules.Stage]RenderedTable

// RenderedTable is all that is ours in one table, as text: rules are as
// iptables-save prints them, without the leading "-A CHAIN ". This is the form
// that observed rules are compared with.
type RenderedTable struct {
	Chains map[string][]string
	Jumps  []Jump
}

// Jump leads from a base chain to one of ours, as rules.HookJump says.
type Jump struct {
	From, To string
	Last     bool
}

// Render writes rules as text.
func Render(content rules.Content) Rendered {
	rendered := make(Rendered, len(content))
	for stage, set := range content {
		table := RenderedTable{Chains: make(map[string][]string, len(set.Chains))}
		for chain, list := range set.Chains {
			var specs []string
			for _, r := range list {
				specs = append(specs, render(r)...)
			}
			table.Chains[chain] = specs
		}
		for _, j := range set.Jumps {
			table.Jumps = append(table.Jumps, Jump{From: strings.ToUpper(string(j.From)), To: j.To, Last: j.Last})
		}
		rendered[stage] = table
	}
	return rendered
}

// render writes a rule as one line or more.
func render(r rules.Rule) []string {
	var matches strings.Builder
	// iptables-save prints what is in the IP header and the interfaces first, the
	// modules in the order in which they were given.
	for _, m := range slices.SortedStableFunc(slices.Values(r.Matches), func(a, b rules.Match) int {
		return cmp.Compare(printOrder(a), printOrder(b))
	}) {
		matches.WriteString(renderMatch(m) + " ")
	}
	if a, ok := r.Action.(rules.DropIfMarksDiffer); ok {
		// No match compares two marks. With no bits of the packet's mark kept,
		// restoring is an exclusive or: zero where both are equal; the second
		// time, it gives the mark back.
		xor := fmt.Sprintf("-j CONNMARK --restore-mark --nfmask 0x0 --ctmask %#x", a.Mask)
		return []string{
			matches.String() + xor,
			matches.String() + renderMatch(rules.Mark{Value: 0, Mask: a.Mask, Not: true}) + " -j DROP",
			matches.String() + xor,
		}
	}
	return []string{matches.String() + renderAction(r.Action)}
}

func printOrder(m rules.Match) int {
	switch m.(type) {
	case rules.SourceIn:
		return 0
	case rules.InInterface:
		return 1
	case rules.OutInterface:
		return 2
	case rules.UDP, rules.UDPPort, rules.TCPPort, rules.TCPFlags, rules.ICMPv6Type:
		return 3
	default:
		return 4
	}
}

// carried matches what a packet carries, and how far.
func carried(m rules.Match) string {
	switch m := m.(type) {
	case rules.UDPPort:
		return fmt.Sprintf("-p udp -m udp --dport %d", m)
	case rules.TCPPort:
		return fmt.Sprintf("-p tcp -m tcp --dport %d", m)
	case rules.TCPFlags:
		return fmt.Sprintf("-p tcp -m tcp %s--tcp-flags %s %s", not(m.Not), flags(m.Among), flags(m.Set))
	case rules.ICMPv6Type:
		return fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d", m)
	case rules.HopLimit:
		return fmt.Sprintf("-m hl --hl-eq %d", m)
	default: // UDP
		return "-p udp"
	}
}

func renderMatch(m rules.Match) string {
	switch m := m.(type) {
	case rules.SourceIn:
		return "-s " + m.Network.String()
	case rules.InInterface:
		return not(m.Not) + "-i " + m.Name
	case rules.OutInterface:
		return not(m.Not) + "-o " + m.Name
	case rules.SourceLocal:
		return "-m addrtype --src-type LOCAL"
	case rules.UDP, rules.UDPPort, rules.TCPPort, rules.TCPFlags, rules.ICMPv6Type, rules.HopLimit:
		return carried(m)
	case rules.Mark:
		return fmt.Sprintf("-m mark %s--mark %#x/%#x", not(m.Not), m.Value, m.Mask)
	case rules.ConnMark:
		return fmt.Sprintf("-m connmark %s--mark %#x/%#x", not(m.Not), m.Value, m.Mask)
	case rules.Direction:
		return "-m conntrack --ctdir " + strings.ToUpper(string(m))
	case rules.ConnState:
		states := make([]string, len(m))
		for i, s := range m {
			states[i] = strings.ToUpper(string(s))
		}
		return "-m conntrack --ctstate " + strings.Join(states, ",")
	case rules.Unconfirmed:
		return "-m conntrack ! --ctstatus CONFIRMED"
	case rules.InSet:
		return fmt.Sprintf("-m set %s--match-set %s %s", not(m.Not), m.Set, side(m.Addr))
	case rules.AgentPresent:
		return fmt.Sprintf("-m set %s--match-set %s src", not(m.Not), m.Set)
	case rules.PairInSet:
		return "-m set --match-set " + m.Set + " src,dst"
	case rules.EndpointsInSet:
		return "-m set --match-set " + m.Set + " src,src,dst"
	default:
		return unknown(m)
	}
}

func renderAction(a rules.Action) string {
	switch a := a.(type) {
	case rules.Drop:
		return "-j DROP"
	case rules.ResetTCP:
		return "-j REJECT --reject-with tcp-reset"
	case rules.Prohibit:
		return "-j REJECT --reject-with icmp6-adm-prohibited"
	case rules.Accept, rules.KeepSource:
		return "-j ACCEPT"
	case rules.Return:
		return "-j RETURN"
	case rules.Jump:
		return "-j " + a.Chain
	case rules.Goto:
		return "-g " + a.Chain
	case rules.SetMark:
		return fmt.Sprintf("-j MARK --set-xmark %#x/%#x", a.Value, a.Mask)
	case rules.SetMarkFromSet:
		return "-j SET --map-set " + a.Set + " src --map-mark"
	case rules.SetConnMark:
		return fmt.Sprintf("-j CONNMARK --set-xmark %#x/%#x", a.Value, a.Mask)
	case rules.SaveMark:
		return fmt.Sprintf("-j CONNMARK --save-mark --nfmask %#x --ctmask %#x", a.Mask, a.Mask)
	case rules.RestoreMark:
		return fmt.Sprintf("-j CONNMARK --restore-mark --nfmask %#x --ctmask %#x", a.Mask, a.Mask)
	case rules.SourceNAT:
		if a.RandomPort {
			return snatTarget + a.To.String() + " --random-fully"
		}
		return snatTarget + a.To.String()
	case rules.NoTrack:
		return "-j NOTRACK"
	case rules.ClampMSS:
		return "-j TCPMSS --clamp-mss-to-pmtu"
	default:
		return unknown(a)
	}
}

// unknown stands for a part of the model that is not rendered. iptables-restore
// refuses it, and the whole transaction with it.
func unknown(part any) string { return fmt.Sprintf("unknown:%T", part) }

func not(is bool) string {
	if is {
		return "! "
	}
	return ""
}

func side(a rules.Address) string {
	if a == rules.Destination {
		return "dst"
	}
	return "src"
}

func flags(f rules.TCPFlag) string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
