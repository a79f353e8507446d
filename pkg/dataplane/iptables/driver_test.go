package iptables

import (
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/isolated"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

func TestMain(m *testing.M) { os.Exit(isolated.Run(m, nil)) }

// given: tables with rules of other software; when rules are committed, then the
// kernel shows them in the very form in which they were rendered, and a second
// plan changes nothing; when they are removed, the tables are as they were.
//
// Mutants killed: matches not sorted by render; jumps that stay in afterwards.
func TestKernelShowsWhatWasRendered(t *testing.T) {
	for _, set := range []string{
		"egress-pods hash:ip skbinfo", "egress-locked hash:ip", "egress-hosts hash:ip",
		"egress-inside hash:net", "egress-ips hash:ip", "egress-resets hash:ip,port,ip",
		"egress-present hash:net",
	} {
		command(t, "ipset create "+set)
	}
	rendered := Render(rules.Content{
		rules.Raw:    {Chains: chain(rules.NoTrack{}), Jumps: jumpFrom(rules.Output)},
		rules.Mangle: {Chains: everyRule(), Jumps: jumpFrom(rules.Prerouting)},
		rules.Filter: {Chains: chain(rules.Drop{}), Jumps: append(jumpFrom(rules.Input), rules.HookJump{From: rules.Forward, To: "EGRESSIP-TEST", Last: true})},
		rules.NAT:    {Chains: chain(rules.SourceNAT{To: netip.MustParseAddr("192.168.7.201")}), Jumps: jumpFrom(rules.Postrouting)},
	})
	for _, b := range Backends() {
		t.Run(string(b), func(t *testing.T) {
			name := "iptables-" + string(b)
			command(t, name+" -A FORWARD -j REJECT; "+name+" -t nat -A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE; "+
				name+" -t mangle -A INPUT -i lo -j ACCEPT; "+name+" -t raw -A OUTPUT -o lo -j ACCEPT")
			d, err := Open(b, IPv4)
			if err != nil {
				t.Fatal(err)
			}
			before := observe(t, d)
			for _, stage := range rules.Stages() {
				plan := Plan(stage, before[stage], rendered[stage])
				if err := d.Commit(t.Context(), plan); err != nil {
					t.Fatalf("table %s: %v\n%s", stage, err, plan.Script)
				}
				after := observe(t, d)[stage]
				if !reflect.DeepEqual(after, plan.After) {
					t.Errorf("table %s:\nis      %v\nplanned %v", stage, after, plan.After)
				}
				if again := Plan(stage, after, rendered[stage]); again.Changes != 0 {
					t.Errorf("table %s: not settled: %s", stage, again.Script)
				}
				if err := d.Commit(t.Context(), Plan(stage, after, RenderedTable{})); err != nil {
					t.Fatal(err)
				}
			}
			if now := observe(t, d); !reflect.DeepEqual(now, before) {
				t.Errorf("after removal:\nis  %v\nwas %v", now, before)
			}
		})
	}
}

// The same for the rules for IPv6.
func TestKernelShowsWhatWasRenderedForIPv6(t *testing.T) {
	for _, set := range []string{"egress-pods6 hash:ip", "egress-locked6 hash:ip", "egress-inside6 hash:net", "egress-present6 hash:net"} {
		command(t, "ipset create "+set+" family inet6")
	}
	rendered := Render(rules.Build6(rules.Params{
		Overlay: "egress0",
		Strict6: []netip.Prefix{netip.MustParsePrefix("fd00:10:244:1::/64"), netip.MustParsePrefix("2001:db8:0:0:1::/80")},
	}))
	for _, b := range Backends() {
		t.Run(string(b), func(t *testing.T) {
			command(t, "ip6tables-"+string(b)+" -A FORWARD -j REJECT")
			d, err := Open(b, IPv6)
			if err != nil {
				t.Fatal(err)
			}
			before := observe(t, d)
			for _, stage := range rules.Stages() {
				if _, ours := rendered[stage]; !ours {
					continue
				}
				plan := Plan(stage, before[stage], rendered[stage])
				if err := d.Commit(t.Context(), plan); err != nil {
					t.Fatalf("table %s: %v\n%s", stage, err, plan.Script)
				}
				after := observe(t, d)[stage]
				if again := Plan(stage, after, rendered[stage]); again.Changes != 0 {
					t.Errorf("table %s: not settled: %s", stage, again.Script)
				}
				if err := d.Commit(t.Context(), Plan(stage, after, RenderedTable{})); err != nil {
					t.Fatal(err)
				}
				if now := observe(t, d)[stage]; len(now.Own) > 0 || now.Foreign != before[stage].Foreign {
					t.Errorf("table %s, after removal: %v", stage, now)
				}
			}
		})
	}
}

func observe(t *testing.T, d *Driver) Tables {
	t.Helper()
	tables, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func command(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func chain(a rules.Action) map[string][]rules.Rule {
	return map[string][]rules.Rule{"EGRESSIP-TEST": {{Action: a}}}
}

func jumpFrom(h rules.Hook) []rules.HookJump {
	return []rules.HookJump{{From: h, To: "EGRESSIP-TEST"}}
}

// everyRule has each match of the model, and each action that table mangle takes.
func everyRule() map[string][]rules.Rule {
	actions := []rules.Action{
		rules.Accept{},
		rules.Return{},
		rules.Jump{Chain: "EGRESSIP-OTHER"},
		rules.Goto{Chain: "EGRESSIP-OTHER"},
		rules.SetMark{Value: 0x1000, Mask: 0x1f7f},
		rules.SetMarkFromSet{Set: rules.SetPods},
		rules.SetConnMark{Value: 0x800, Mask: 0x800},
		rules.SaveMark{Mask: 0x177f},
		rules.DropIfMarksDiffer{Mask: 0x177f},
	}
	matches := []rules.Match{
		rules.SourceIn{Network: netip.MustParsePrefix("10.244.1.0/24")},
		rules.InInterface{Name: "eth0"},
		rules.InInterface{Name: "eth0", Not: true},
		rules.UDP{},
		rules.UDPPort(9789),
		rules.TCPPort(443),
		rules.TCPFlags{Among: rules.FIN | rules.SYN | rules.RST | rules.ACK, Set: rules.SYN, Not: true},
		rules.Mark{Value: 1, Mask: 3},
		rules.Mark{Mask: 3, Not: true},
		rules.ConnMark{Value: 1, Mask: 3},
		rules.ConnMark{Mask: 3, Not: true},
		rules.Original, rules.Reply,
		rules.ConnState{rules.Invalid, rules.New, rules.Untracked},
		rules.Unconfirmed{},
		rules.InSet{Set: rules.SetInside, Addr: rules.Destination},
		rules.InSet{Set: rules.SetPods, Addr: rules.Source, Not: true},
		rules.EndpointsInSet{Set: rules.SetResets},
		rules.AgentPresent{Set: rules.SetPresent, Not: true},
	}
	var list []rules.Rule
	for _, a := range actions {
		list = append(list, rules.Rule{Action: a})
	}
	for i, m := range matches {
		// With another match before it, which may have to come after it.
		first := matches[(i+len(matches)-1)%len(matches)]
		r := rules.Rule{Matches: []rules.Match{first, m}, Action: rules.Drop{}}
		if transport(first) && transport(m) {
			r.Matches = r.Matches[1:]
		}
		if _, both := first.(rules.InInterface); both && strings.Contains(renderMatch(m), "-i ") {
			r.Matches = r.Matches[1:]
		}
		list = append(list, r)
	}
	list = append(list, rules.Rule{
		Matches: []rules.Match{rules.TCPFlags{Among: rules.SYN | rules.RST, Set: rules.SYN}}, Action: rules.ClampMSS{},
	})
	return map[string][]rules.Rule{"EGRESSIP-TEST": list, "EGRESSIP-OTHER": nil}
}

func transport(m rules.Match) bool {
	switch m.(type) {
	case rules.UDP, rules.UDPPort, rules.TCPPort, rules.TCPFlags:
		return true
	default:
		return false
	}
}

// Rules that are tried are gone afterwards, whether the kernel takes them or not; those of others
// stay. What it refuses is named.
//
// Mutant killed: trials-stay.
func TestTriedRulesAreGone(t *testing.T) {
	fine := Render(rules.Content{
		rules.Mangle: {Chains: map[string][]rules.Rule{"EGRESSIP-A": {{Action: rules.Jump{Chain: "EGRESSIP-B"}}}, "EGRESSIP-B": {{Action: rules.Drop{}}}}, Jumps: jumpFrom(rules.Forward)},
		rules.Filter: {Chains: map[string][]rules.Rule{"EGRESSIP-A": {{Matches: []rules.Match{rules.HopLimit(255)}, Action: rules.Prohibit{}}}}},
	})
	// Only table filter can answer.
	refused := Render(rules.Content{
		rules.Filter: {Chains: map[string][]rules.Rule{"EGRESSIP-A": {{Action: rules.Prohibit{}}}}},
		rules.Mangle: {Chains: map[string][]rules.Rule{"EGRESSIP-A": {{Action: rules.Prohibit{}}}}},
	})
	for _, b := range Backends() {
		t.Run(string(b), func(t *testing.T) {
			command(t, "ip6tables-"+string(b)+" -A FORWARD -j REJECT")
			d, err := Open(b, IPv6)
			if err != nil {
				t.Fatal(err)
			}
			defer command(t, "ip6tables-"+string(b)+" -D FORWARD -j REJECT")
			before := observe(t, d)
			if err := d.Try(t.Context(), fine); err != nil {
				t.Errorf("good rules: %v", err)
			}
			if err := d.Try(t.Context(), refused); err == nil || !strings.Contains(err.Error(), "try rules for table mangle") {
				t.Errorf("bad rules: %v", err)
			}
			seen := observe(t, d)
			if own := ListOwn(b, IPv6, seen); len(own) > 0 || !reflect.DeepEqual(seen[rules.Filter], before[rules.Filter]) {
				t.Errorf("left are %v, and in table filter %v", own, seen[rules.Filter])
			}
		})
	}
}
