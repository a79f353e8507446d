package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// What rules depend on follows from what the round has found: networks of pods, each of its
// family, are strict only where the State is; the kernel learns senders, and gives random
// ports, in a table of our own.
func TestRulesFollowFromTheRound(t *testing.T) {
	subnets := []netip.Prefix{netip.MustParsePrefix("fd00:10:244:1::/64"), netip.MustParsePrefix("10.244.1.7/24")}
	strict4, strict6 := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, subnets[:1]
	for _, c := range []struct {
		name   string
		cfg    Config
		round  round
		strict bool
		want   rules.Params
	}{
		{name: "iptables", want: rules.Params{}},
		{name: "table", round: round{members: members{table: true}}, want: rules.Params{Senders: true}},
		{name: "strict", strict: true, want: rules.Params{Strict: strict4, Strict6: strict6}},
		{name: "nothing can be excluded", round: round{excludedErr: errNoIndex}, want: rules.Params{}},
		{name: "resets", round: round{resets: true}, want: rules.Params{Resets: true}},
		{name: "IPv6 is dropped", round: round{ipv6: true}, want: rules.Params{IPv6: true}},
		{
			name: "IPv6 is served", round: round{ipv6: true, serve6: true, members: members{table: true}},
			want: rules.Params{IPv6: true, Serve6: true, Senders: true},
		},
		{name: "random ports", cfg: Config{SNATPorts: RandomPorts}, round: round{members: members{table: true}}, want: rules.Params{Senders: true, RandomPorts: true}},
		{name: "ports that are kept", cfg: Config{SNATPorts: PreservePorts}, round: round{members: members{table: true}}, want: rules.Params{Senders: true}},
	} {
		cfg, err := c.cfg.complete()
		must(t, err)
		cfg.ProbePort = 9790
		c.round.pass = &pass{d: &Dataplane{cfg: cfg}}
		idx := indices{testenv.Addr(eip1): 128}
		c.want.Excluded = c.round.excludedErr == nil
		c.want.Marks, c.want.Overlay, c.want.OverlayPort, c.want.ProbePort, c.want.Indices = cfg.Marks, overlayName, cfg.OverlayPort, 9790, idx
		if got := c.round.ruleParams(idx, State{Strict: c.strict, Subnets: subnets}); !got.Equal(c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// Rules are rendered again for others only: for those of one egress IP more, too, that was added
// in place.
//
// Mutant killed: table-of-former-egress-ips.
func TestTableIsRenderedForTheRulesItIsAskedFor(t *testing.T) {
	r := round{pass: &pass{d: &Dataplane{}}}
	p := rules.Params{Marks: DefaultMarks(), Overlay: overlayName, OverlayPort: defaultOverlayPort, Indices: indices{testenv.Addr(eip1): 128}}
	first := r.renderTable(p).List()
	if !slices.Equal(r.renderTable(p).List(), first) {
		t.Error("the same rules are another table")
	}
	p.Indices[testenv.Addr(eip2)] = 129
	second := r.renderTable(p).List()
	want, err := renderTable(p)
	must(t, err)
	if slices.Equal(first, second) || !slices.Equal(second, want.List()) {
		t.Errorf("with another egress IP, the table is\n%q", second)
	}
	if len(r.errs) > 0 {
		t.Error(r.errs)
	}
}
