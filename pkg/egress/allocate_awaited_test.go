package egress_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// awaited marks claims that a user wrote a short while ago.
func (g *given) awaited(host string, ips ...string) *given {
	if g.Awaited == nil {
		g.Awaited = make(map[string][]netip.Addr)
	}
	for _, ip := range ips {
		g.Awaited[host] = append(g.Awaited[host], netip.MustParseAddr(ip))
	}
	return g
}

// automaticWith is an automatic host that has claims.
func (g *given) automaticWith(name string, claims ...string) *given {
	g.automatic(name, "192.168.7.0/24")
	g.edit(name, func(h *v1.HostSubnet) { h.EgressIPs = claims })
	return g
}

// TestAwaitedClaims: claims that were restored wait for their NetNamespaces, and do
// not keep others from being placed.
//
// Kills the mutants nobody-waits, awaited-outside-ranges, first-list-wins and
// balanced-while-restored.
func TestAwaitedClaims(t *testing.T) {
	for name, test := range map[string]struct {
		given *given
		// want is the list of each automatic host, as "ip@host", after all writes.
		want []string
	}{
		"a claim that nobody requests is released": {
			new(given).automaticWith("w0", "192.168.7.200"), nil,
		},
		"one that is awaited stays": {
			new(given).automaticWith("w0", "192.168.7.200").awaited("w0", "192.168.7.200"), []string{"192.168.7.200@w0"},
		},
		"also on a host that is offline": {
			new(given).automaticWith("w0", "192.168.7.200").offline("w0").awaited("w0", "192.168.7.200"), []string{"192.168.7.200@w0"},
		},
		"but not outside the ranges": {
			new(given).automaticWith("w0", "192.168.8.200").awaited("w0", "192.168.8.200"), nil,
		},
		"who requests it gets it where it is": {
			new(given).automaticWith("w0").automaticWith("w1", "192.168.7.200").awaited("w1", "192.168.7.200").
				namespace("red", "192.168.7.200"), []string{"192.168.7.200@w1"},
		},
		"of two lists the restored one counts": {
			new(given).automaticWith("w0", "192.168.7.200").automaticWith("w1", "192.168.7.200").awaited("w1", "192.168.7.200").
				namespace("red", "192.168.7.200"), []string{"192.168.7.200@w1"},
		},
		"a manual claim counts in any case": {
			new(given).host("w0", "192.168.7.200").automaticWith("w1", "192.168.7.200").awaited("w1", "192.168.7.200").
				namespace("red", "192.168.7.200"), nil,
		},
		"it counts as load": {
			new(given).automaticWith("w0", "192.168.7.200").awaited("w0", "192.168.7.200").automaticWith("w1").
				namespace("red", "192.168.7.201"), []string{"192.168.7.200@w0", "192.168.7.201@w1"},
		},
		"a request that finds no other place takes its place": {
			new(given).automaticWith("w0", "192.168.7.200").awaited("w0", "192.168.7.200").capacity("w0", 1).
				namespace("red", "192.168.7.201"), []string{"192.168.7.201@w0"},
		},
		"a request that has no place at all does not": {
			new(given).automaticWith("w0", "192.168.7.200").awaited("w0", "192.168.7.200").capacity("w0", 1).
				namespace("red", "192.168.9.201"), []string{"192.168.7.200@w0"},
		},
		"nothing is balanced meanwhile": {
			new(given).automaticWith("w0", "192.168.7.201", "192.168.7.202", "192.168.7.203", "192.168.7.204", "192.168.7.205", "192.168.7.206").
				automaticWith("w1").automaticWith("w2", "192.168.7.200").awaited("w2", "192.168.7.200").
				namespace("a", "192.168.7.201").namespace("b", "192.168.7.202").namespace("c", "192.168.7.203").namespace("d", "192.168.7.204").
				namespace("e", "192.168.7.205").namespace("f", "192.168.7.206"),
			[]string{"192.168.7.200@w2", "192.168.7.201@w0", "192.168.7.202@w0", "192.168.7.203@w0", "192.168.7.204@w0", "192.168.7.205@w0", "192.168.7.206@w0"},
		},
		"claims wait for a netid": {
			new(given).automaticWith("w0").automaticWith("w1", "192.168.7.200").namespace("red", "192.168.7.200").unnumbered("red"),
			[]string{"192.168.7.200@w1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{Objects: test.given.Objects}
			for range 4 {
				w.round()
			}
			if got := w.placement(); !equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Objects that are restored one after the other, in any order, end with every
// address on the host where it was.
//
// Kills the mutants nobody-waits, first-list-wins and balanced-while-restored.
func TestPropertyRestoreInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := full()
		s.automatic = true
		w := &world{Objects: drawObjects(t, s)}
		w.Capacity, w.EgressIPs = nil, nil // where those of EgressIPs are is not in any file
		for name := range w.Verdicts {
			w.Verdicts[name], w.Gone[name] = online.Verdict{Online: true}, false
		}
		w.settle(t)
		want := w.placement()

		export := w.clone()
		w.NetNamespaces = nil
		for i := range w.HostSubnets {
			w.HostSubnets[i].EgressIPs, w.HostSubnets[i].EgressCIDRs = nil, nil
		}
		w.Awaited = make(map[string][]netip.Addr)
		for _, i := range rapid.Permutation(indexes(len(export.NetNamespaces)+len(export.HostSubnets))).Draw(t, "order") {
			if i < len(export.NetNamespaces) {
				w.NetNamespaces = append(w.NetNamespaces, export.NetNamespaces[i])
			} else {
				h := export.HostSubnets[i-len(export.NetNamespaces)]
				for _, ip := range h.EgressIPs {
					w.Awaited[h.Name] = append(w.Awaited[h.Name], netip.MustParseAddr(ip))
				}
				w.host(h.Name).EgressIPs, w.host(h.Name).EgressCIDRs = slices.Clone(h.EgressIPs), h.EgressCIDRs
			}
			for range rapid.IntRange(0, 3).Draw(t, "rounds") {
				w.round()
			}
		}
		for range 4 {
			w.round()
		}
		w.Awaited = nil
		w.settle(t)
		if got := w.placement(); !equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func indexes(count int) []int {
	list := make([]int, count)
	for i := range list {
		list[i] = i
	}
	return list
}

// A claim on the list of a host whose Node is gone is not that host's if another host
// claims the address.
//
// Kills the mutant gone-host-keeps.
func TestGoneHostYields(t *testing.T) {
	g := new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").gone("w0").host("w1", "192.168.7.200")
	cluster, _ := egress.Snapshot(g.Objects)
	resolution := egress.Resolve(cluster)
	for host, want := range map[string]egress.Reason{"w0": egress.ReasonNodeGone, "w1": egress.ReasonAssigned} {
		result, _ := resolution.Host(host)
		claim := result.Claims[0]
		if claim.Reason != want || claim.Assigned() != (host == "w1") || claim.Message == "" {
			t.Errorf("the claim of %s is %+v, want reason %s", host, claim, want)
		}
	}
}
