package egress_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// offlineAndClosed is the verdict on a host whose agent may not hear of more.
func (g *given) offlineAndClosed(host string) *given {
	g.Verdicts = map[string]online.Verdict{host: {Closed: true}}
	return g
}

// Mutants killed: all-held-serve, no-claimant-serves, no-candidate-serves,
// spares-end-the-hold-down, unheard-last-resort-gets-claims.
func TestLastResort(t *testing.T) {
	const all, ip, second = "192.168.7.0/24", "192.168.7.200", "192.168.7.201"
	for name, test := range map[string]struct {
		given *given
		held  string
		want  string
	}{
		"both automatic hosts were silent, one answers again": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all).offline("w1"),
			held:  "w0", want: "w0",
		},
		"it still has the claim": {
			given: new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).offline("w0"),
			held:  "w0", want: "w0",
		},
		"another can take it": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all),
			held:  "w0",
		},
		"another has it": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all).claims("w1", ip),
			held:  "w0",
		},
		"another is online, and has other ranges": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", "10.0.0.0/8"),
			held:  "w0", want: "w0",
		},
		"it has other ranges itself": {
			given: new(given).namespace("red", ip).automatic("w0", "10.0.0.0/8").offline("w0"),
			held:  "w0",
		},
		"a manual host, and the namespace has no other": {
			given: new(given).namespace("red", ip).host("w0", ip).offline("w0"),
			held:  "w0", want: "w0",
		},
		"a manual host, and the namespace has another": {
			given: new(given).namespace("red", ip, second).host("w0", ip).offline("w0").host("w1", second),
			held:  "w0",
		},
		"nobody asks for anything": {
			given: new(given).namespace("red").automatic("w0", all).offline("w0"),
			held:  "w0",
		},
		"both are held": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all).offline("w1"),
			held:  "w0 w1", want: "w0",
		},
		"both are held, and one alone has the range": {
			given: new(given).namespace("red", ip).automatic("w0", "10.0.0.0/8").offline("w0").automatic("w1", all).offline("w1"),
			held:  "w0 w1", want: "w1",
		},
		"both are held, and two namespaces need more than one has room for": {
			given: new(given).namespace("red", ip).namespace("blue", second).
				automatic("w0", all).offline("w0").capacity("w0", 1).automatic("w1", all).offline("w1").capacity("w1", 1),
			held: "w0 w1", want: "w0 w1",
		},
		"it has no room": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").capacity("w0", -1),
			held:  "w0",
		},
		"a spare finds no other host, and the namespace is served": {
			given: new(given).namespace("red", ip, second).automatic("w0", all).offline("w0").automatic("w1", all).claims("w1", second),
			held:  "w0",
		},
		"it may not hear of what it is given": {
			given: new(given).namespace("red", ip).automatic("w0", all).offlineAndClosed("w0"),
			held:  "w0",
		},
		"it may not hear of what it is given, and has it already": {
			given: new(given).namespace("red", ip).host("w0", ip).offlineAndClosed("w0"),
			held:  "w0", want: "w0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			held := map[string]bool{}
			for host := range strings.FieldsSeq(test.held) {
				held[host] = true
			}
			verdicts := egress.LastResort(cluster, held)
			if got := strings.Join(slices.Sorted(maps.Keys(verdicts)), " "); got != test.want {
				t.Errorf("%q serve, want %q", got, test.want)
			}
			for host, v := range verdicts {
				if v.Closed != test.given.Verdicts[host].Closed {
					t.Errorf("%s is closed: %t, want %t", host, v.Closed, test.given.Verdicts[host].Closed)
				}
				if !v.Online || v.Reason != online.ReasonLastResort || v.Message == "" {
					t.Errorf("%s: %+v", host, v)
				}
			}
		})
	}
}

// The hold-down is over early for held hosts alone, and for none while each namespace
// has an egress IP. And it prolongs no outage: once those serve that may, a namespace
// that is dropped stays so if all others serve as well.
//
// Kills the mutants spares-end-the-hold-down, no-claimant-serves and
// no-candidate-serves.
func TestPropertyHoldDownIsNoOutage(t *testing.T) {
	for name, s := range map[string]shape{"automatic": automatic(), "any": full()} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := &world{Objects: drawObjects(t, s)}
				if w.sharedHostIP() {
					t.Skip("which of two hosts has an address depends on who is online")
				}
				held := make(map[string]bool)
				for _, h := range w.HostSubnets {
					if !w.Verdicts[h.Name].Online || rapid.Bool().Draw(t, "also offline") {
						w.setOnline(h.Name, false)
						held[h.Name] = rapid.IntRange(0, 3).Draw(t, "held") > 0
					}
				}
				maps.DeleteFunc(held, func(_ string, is bool) bool { return !is })
				w.settle(t)
				for {
					before := dropped(w)
					serve := egress.LastResort(w.cluster(), held)
					if len(serve) == 0 {
						break
					}
					if len(before) == 0 {
						t.Fatalf("%v serve, and nobody needs them", serve)
					}
					for host := range serve {
						if !held[host] {
							t.Fatalf("%s serves, of the held hosts %v", host, held)
						}
						delete(held, host)
						w.setOnline(host, true)
					}
					w.settle(t)
				}
				before := dropped(w)
				for host := range held {
					w.setOnline(host, true)
				}
				w.round()
				if after := dropped(w); !slices.Equal(before, after) && len(after) <= len(before) {
					t.Fatalf("%v were dropped, and %v are if %v serve, each of which was held down", before, after, held)
				}
			})
		})
	}
}

// dropped are the namespaces without an egress IP that works, in order.
func dropped(w *world) []string {
	var names []string
	for _, n := range egress.Resolve(w.cluster()).Groups {
		if n.Dropped {
			names = append(names, n.Name)
		}
	}
	return names
}
