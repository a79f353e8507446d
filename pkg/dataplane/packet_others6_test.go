package dataplane

import (
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: pods that send without a pause by IPv6, with egress IPs of both families; when others
// put a route, or a rule, of IPv6 into our tables on the pods' node or on the egress host, then
// IPv6 is dropped there, and a report names what is in the way; no packet leaves with
// another address, before the agent has seen it and afterwards, and IPv4 goes on; what is of
// others stays. Once it has gone, IPv6 goes on.
//
// Mutants killed: ipv6-of-others-is-not-seen, what-comes-by-the-overlay-leaves.
func TestOthersInOurTablesStopIPv6Only(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			w.applyAll(t)
			port := w.membersSend(t)
			flows := func(p *podMachine) {
				t.Helper()
				before := w.seen6.from(port[p], eip61)
				testenv.UntilWithin(t, patience, "packets of "+p.Name, func() bool { return w.seen6.from(port[p], eip61) > before+20 })
			}
			stopped := func(pods ...*podMachine) {
				t.Helper()
				for _, p := range w.members() {
					p.leaves(t, eip1)
					if slices.Contains(pods, p) {
						w.silent6(t, port[p])
					} else {
						p.leaves6(t, eip61)
					}
				}
			}
			for _, c := range []struct {
				name, what string
				on         *node
				// names is what the report says is in the way.
				names   string
				stopped []*podMachine
			}{
				{"a way out of ours on the pods' node", "route %s default via fd00:7::1 dev eth0 table 2000 metric 1", w.n1, "table 2000 has a route of others to ::/0", []*podMachine{w.here}},
				{"a way back on the pods' node", "route %s fd00:10:244::/48 dev eth0 table 2001", w.n1, "table 2001 has a route of others to fd00:10:244::/48", []*podMachine{w.here}},
				{"a way into ours on the egress host", "rule %s from fd00:99::/64 lookup 2000 priority 1234", w.n2, "ip -6 rule of others with priority 1234 leads to table 2000", w.members()},
			} {
				w.seen6.says(c.name)
				c.on.Run(t, "ip -6 "+strings.ReplaceAll(c.what, "%s", "add"))
				w.linger(t)
				check := func() {
					t.Helper()
					r, err := c.on.tryApply(t)
					if !r.IPv6.Known || !strings.Contains(r.IPv6.Reason, c.names) || !strings.Contains(r.IPv6.Reason, "move their routes and rules") {
						t.Errorf("%s: reported are %+v", c.name, r.IPv6)
					}
					if warnings := warning.Lines(r.Warnings); !strings.Contains(warnings, "IPv6NotServed (IPv6): ") || !strings.Contains(warnings, c.names) {
						t.Errorf("%s: warnings are %s", c.name, warnings)
					}
					for _, h := range r.Hosted {
						if h.Configured == h.IP.Is6() {
							t.Errorf("%s: %v is configured: %t, %s", c.name, h.IP, h.Configured, h.Error)
						}
					}
					if hosts := slices.ContainsFunc(r.Hosted, func(h HostedReport) bool { return h.IP.Is6() }); (err != nil) != hosts {
						t.Errorf("%s: %v", c.name, err)
					}
					stopped(c.stopped...)
				}
				check()
				if r, _ := c.on.tryApply(t); r.Changes != 0 {
					t.Errorf("%s: a second Apply made %d changes", c.name, r.Changes)
				}
				if left := c.on.Run(t, "ip -6 route show table all | grep 'proto 77' || true; ip -6 rule | grep -E '^(8[89]|9[0-3]):' || true"); left != "" {
					t.Errorf("%s: of ours there are\n%s", c.name, left)
				}
				c.on.start(t)
				check()

				c.on.Run(t, "ip -6 "+strings.ReplaceAll(c.what, "%s", "del")) // fails if it is not there any more
				if r := c.on.apply(t); !r.IPv6.Known || r.IPv6.Reason != "" {
					t.Errorf("after %s, reported are %+v", c.name, r.IPv6)
				}
				for _, p := range w.members() {
					flows(p)
				}
				stopped()
				w.applySettled(t)
			}
			if err := w.shunt.ask6(t, bastionIP6); err == nil {
				t.Error("a pod without a way left")
			}
		})
	}
}
