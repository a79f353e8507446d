package warning

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// A list of warnings does not depend on the order in which they were found, is bounded,
// begins with the worst, and has no line break within a warning.
//
// Mutants killed: found-first-is-worst, endless-warnings.
func TestPropertyTidy(t *testing.T) {
	reasons := []Reason{ForwardingOff, RoutedElsewhere, MarksOverlap, MTUDiffers, Unknown}
	drawn := rapid.Custom(func(t *rapid.T) Warning {
		return Warning{
			Reason:  rapid.SampledFrom(reasons).Draw(t, "reason"),
			Object:  rapid.SampledFrom([]string{"", "device a", "device b"}).Draw(t, "object"),
			Problem: rapid.StringOfN(rapid.RuneFrom([]rune("ab\nä")), 0, 3*maxField, -1).Draw(t, "problem"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(drawn, 0, 2*maxWarnings).Draw(t, "warnings")
		tidy := Tidy(list)
		other := slices.Clone(list)
		slices.Reverse(other)
		if !slices.Equal(tidy, Tidy(append(other, list...))) {
			t.Fatal("the order of finding, or finding twice, makes a difference")
		}
		if len(tidy) > maxWarnings || len(list) > 0 && len(tidy) == 0 {
			t.Fatalf("%d of %d", len(tidy), len(list))
		}
		for i, w := range tidy {
			if i > 0 && severity(tidy[i-1].Reason) > severity(w.Reason) {
				t.Fatalf("%s comes before %s", tidy[i-1].Reason, w.Reason)
			}
			if line := w.String(); strings.Contains(line, "\n") || len(line) > 4*maxField || !utf8.ValidString(line) {
				t.Fatalf("%q", line)
			}
		}
		for _, w := range list {
			if severity(tidy[0].Reason) > severity(w.Reason) {
				t.Fatalf("%s is not the first", w.Reason)
			}
		}
	})
}

// Facts that are as they should be deserve no warning; what is not known is one, and
// nothing is concluded from it.
//
// Mutant killed: unknown-is-good.
func TestWhatIsUnknownIsSaid(t *testing.T) {
	good := Facts{
		Uplink: "eth0", DefaultRoute: "eth0", Overlay: "egress0", Port: 9789, Mask: 0x1f7f,
		Settings: map[string]string{"ip_forward": "1", "conf.eth0.forwarding": "1", "conf.default.forwarding": "1", "conf.eth0.rp_filter": "1"},
		Rules:    []MarkRule{{Priority: 10, Table: 9, Mark: 0x4000, Mask: 0x4000}, {Priority: 11, Table: 9, Mark: 0x10000, Mask: ^uint32(0)}},
		Marking:  []Software{{Name: "other", Device: "o0", Bits: 0xffff0000}},
		Chains:   []Chain{{Name: "a", Hook: "forward", Closed: true, Opens: true}, {Name: "b", Hook: "input"}, {Name: "c", Hook: "postrouting", Closed: true}},
		Ways:     []Way{{Pod: netip.MustParseAddr("10.244.1.2"), Wanted: []string{"eth0"}, Got: "eth0"}},
	}
	if found := From(good); len(found) > 0 {
		t.Errorf("warnings: %s", Lines(found))
	}
	nothing := Facts{Mask: 0x1f7f, Unknown: []error{errors.New("list ip rules: no memory")}}
	if found := From(nothing); len(found) != 1 || found[0].Reason != Unknown || !strings.Contains(found[0].Problem, "list ip rules") {
		t.Errorf("warnings: %s", Lines(found))
	}
}

// Rules in iptables do not survive a reload of firewalld; those in a table of our own do.
func TestFirewalldFlushesIPTables(t *testing.T) {
	f := Facts{Chains: []Chain{{Name: "table inet firewalld chain filter_INPUT", Hook: "input"}}}
	if found := From(f); len(found) > 0 {
		t.Errorf("with a table of our own: %s", Lines(found))
	}
	f.IPTables = true
	if found := From(f); len(found) != 1 || found[0].Reason != RulesFlushed {
		t.Errorf("with rules in iptables: %s", Lines(found))
	}
	f.Chains[0].Name = "table inet filter chain input"
	if found := From(f); len(found) > 0 {
		t.Errorf("without firewalld: %s", Lines(found))
	}
}

func TestMarksThatOverlap(t *testing.T) {
	for rule, want := range map[MarkRule]bool{
		{Mark: 0xca6c, Mask: ^uint32(0)}:  true,
		{Mark: 0x1bd00, Mask: ^uint32(0)}: true,
		{Mark: 0x10000, Mask: ^uint32(0)}: false,
		{Mark: 0x4000, Mask: 0x4000}:      false,
		{Mark: 0x80, Mask: 0x80}:          false,
		{Mark: 0, Mask: 0xff}:             true,
		{Mark: 0x100, Mask: 0xf00}:        true,
	} {
		if found := From(Facts{Mask: 0x1f7f, Rules: []MarkRule{rule}}); len(found) > 0 != want {
			t.Errorf("%#x/%#x: %s", rule.Mark, rule.Mask, Lines(found))
		}
	}
}

// A node warns of each smaller MTU among nodes, and of nothing where they are the same.
func TestMTUs(t *testing.T) {
	peers := func(mtus ...int) (list []Peer) {
		for i, mtu := range mtus {
			list = append(list, Peer{Name: fmt.Sprintf("node%d", i+1), MTU: mtu})
		}
		return list
	}
	for name, c := range map[string]struct {
		own   int
		peers []Peer
		want  string
	}{
		"all the same":      {1500, peers(1500, 1500), ""},
		"others are larger": {1500, peers(9000), ""},
		"unknown":           {0, peers(1500), ""},
		"peer unknown":      {9000, peers(0, 9000), ""},
		"one is smaller":    {9000, peers(9000, 1500), "node2 with 1500"},
		"many are smaller":  {9000, peers(1400, 1500, 1450, 1500, 1500), "node1 with 1400, node3 with 1450, node2 with 1500 and 2 others"},
	} {
		found := MTUs("eth0", c.own, c.peers)
		if (len(found) > 0) != (c.want != "") || len(found) > 0 && !strings.Contains(found[0].Problem, c.want) {
			t.Errorf("%s: %s", name, Lines(found))
		}
	}
}

// TestHostsOfIPv6: what is missed is what a host of that family needs, and each warning names
// the command that shows it.
func TestHostsOfIPv6(t *testing.T) {
	t.Parallel()
	f := Facts{Uplink: "eth0", Overlay: "egress0", OverIPv6: true}
	list := From(f)
	if len(list) != 1 || list[0].Reason != NoDefaultRoute || list[0].Object != "ip -6 route show default" || strings.Contains(list[0].Problem, "reverse path") {
		t.Errorf("without a default route: %v", list)
	}
	f.DefaultRoute = "eth1"
	if list = From(f); len(list) != 1 || list[0].Reason != DefaultRouteElsewhere || list[0].Object != "ip -6 route show default" {
		t.Errorf("with one elsewhere: %v", list)
	}
	text := OutOfReach([]string{"node3", "node4"}, netip.MustParseAddr("2001:db8::1")).String()
	for _, want := range []string{"HostUnreachable (host node3)", "2001:db8::1 of this node is one of IPv6", "of IPv4: node3, node4:"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}
