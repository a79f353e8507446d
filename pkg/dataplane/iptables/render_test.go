package iptables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Every match is rendered as iptables-save prints it. What content uses is also
// in the golden files of package dataplane.
//
// Mutants killed: any case of renderMatch without its negation.
func TestRenderMatch(t *testing.T) {
	for want, m := range map[string]rules.Match{
		"-s 10.244.1.0/24":                      rules.SourceIn{Network: netip.MustParsePrefix("10.244.1.0/24")},
		"-i eth0":                               rules.InInterface{Name: "eth0"},
		"! -i eth0":                             rules.InInterface{Name: "eth0", Not: true},
		"-o eth0":                               rules.OutInterface{Name: "eth0"},
		"! -o eth0":                             rules.OutInterface{Name: "eth0", Not: true},
		"-p udp":                                rules.UDP{},
		"-p udp -m udp --dport 9789":            rules.UDPPort(9789),
		"-p tcp -m tcp --dport 443":             rules.TCPPort(443),
		"-p tcp -m tcp --tcp-flags SYN,RST SYN": rules.TCPFlags{Among: rules.SYN | rules.RST, Set: rules.SYN},
		"-p tcp -m tcp ! --tcp-flags FIN,PSH,ACK,URG FIN": rules.TCPFlags{Among: rules.URG | rules.ACK | rules.PSH | rules.FIN, Set: rules.FIN, Not: true},
		"-m mark --mark 0x0/0x1f7f":                       rules.Mark{Mask: 0x1f7f},
		"-m mark ! --mark 0x1/0x3":                        rules.Mark{Value: 1, Mask: 3, Not: true},
		"-m connmark --mark 0x800/0x800":                  rules.ConnMark{Value: 0x800, Mask: 0x800},
		"-m connmark ! --mark 0x800/0x800":                rules.ConnMark{Value: 0x800, Mask: 0x800, Not: true},
		"-m conntrack --ctdir ORIGINAL":                   rules.Original,
		"-m conntrack --ctdir REPLY":                      rules.Reply,
		"-m conntrack --ctstate INVALID,NEW,UNTRACKED":    rules.ConnState{rules.Invalid, rules.New, rules.Untracked},
		"-m conntrack ! --ctstatus CONFIRMED":             rules.Unconfirmed{},
		"-m set --match-set egress-pods src":              rules.InSet{Set: rules.SetPods, Addr: rules.Source},
		"-m set ! --match-set egress-pods dst":            rules.InSet{Set: rules.SetPods, Addr: rules.Destination, Not: true},
		"-m set --match-set egress-excluded src,dst":      rules.PairInSet{Set: rules.SetExcluded},
		"-m set --match-set egress-resets src,src,dst":    rules.EndpointsInSet{Set: rules.SetResets},
	} {
		if got := renderMatch(m); got != want {
			t.Errorf("%#v: %s, wanted: %s", m, got, want)
		}
	}
}

func TestRenderAction(t *testing.T) {
	for want, a := range map[string]rules.Action{
		"-j DROP":                           rules.Drop{},
		"-j ACCEPT":                         rules.Accept{},
		"-j RETURN":                         rules.Return{},
		"-j REJECT --reject-with tcp-reset": rules.ResetTCP{},
		"-j EGRESSIP-SNAT":                  rules.Jump{Chain: "EGRESSIP-SNAT"},
		"-g EGRESSIP-SNAT":                  rules.Goto{Chain: "EGRESSIP-SNAT"},
		"-j MARK --set-xmark 0x1000/0x1f7f": rules.SetMark{Value: 0x1000, Mask: 0x1f7f},
		"-j SET --map-set egress-pods src --map-mark":             rules.SetMarkFromSet{Set: rules.SetPods},
		"-j CONNMARK --set-xmark 0x800/0x800":                     rules.SetConnMark{Value: 0x800, Mask: 0x800},
		"-j CONNMARK --save-mark --nfmask 0x177f --ctmask 0x177f": rules.SaveMark{Mask: 0x177f},
		"-j SNAT --to-source 192.168.7.201":                       rules.SourceNAT{To: netip.MustParseAddr("192.168.7.201")},
		"-j NOTRACK":                                              rules.NoTrack{},
		"-j TCPMSS --clamp-mss-to-pmtu":                           rules.ClampMSS{},
	} {
		if got := renderAction(a); got != want {
			t.Errorf("%#v: %s, wanted: %s", a, got, want)
		}
	}
}

// Matches come in the order in which iptables-save prints them, whatever the
// order in the rule; modules stay in theirs.
//
// Mutant killed: matches not sorted.
func TestRenderSortsMatches(t *testing.T) {
	r := rules.Rule{
		Matches: []rules.Match{
			rules.Mark{Mask: 1},
			rules.UDPPort(53),
			rules.Original,
			rules.OutInterface{Name: "eth0"},
			rules.InInterface{Name: "cni0"},
			rules.SourceIn{Network: netip.MustParsePrefix("10.0.0.0/8")},
		},
		Action: rules.Drop{},
	}
	want := []string{"-s 10.0.0.0/8 -i cni0 -o eth0 -p udp -m udp --dport 53 -m mark --mark 0x0/0x1 -m conntrack --ctdir ORIGINAL -j DROP"}
	if got := render(r); !slices.Equal(got, want) {
		t.Errorf("%q, wanted: %q", got, want)
	}
}

// Marks are compared in three rules, each with the matches of the one.
func TestRenderComparesMarks(t *testing.T) {
	r := rules.Rule{Matches: []rules.Match{rules.InInterface{Name: "cni0"}}, Action: rules.DropIfMarksDiffer{Mask: 3}}
	want := []string{
		"-i cni0 -j CONNMARK --restore-mark --nfmask 0x0 --ctmask 0x3",
		"-i cni0 -m mark ! --mark 0x0/0x3 -j DROP",
		"-i cni0 -j CONNMARK --restore-mark --nfmask 0x0 --ctmask 0x3",
	}
	if got := render(r); !slices.Equal(got, want) {
		t.Errorf("%q, wanted: %q", got, want)
	}
}

// A part of the model that is not rendered spoils the rule, and is not left out.
func TestRenderUnknown(t *testing.T) {
	if got := render(rules.Rule{Matches: []rules.Match{nil}, Action: nil}); !strings.HasPrefix(got[0], "unknown:") {
		t.Errorf("%q", got)
	}
}
