package controllers

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// manyPlacements are a store in which each of very many hosts, node0000 and so on, gets the
// only egress IP that it can have, and a pass over it.
func manyPlacements(t *testing.T, hosts int) (s *store, pass func() error) {
	t.Helper()
	s = newStore()
	for i := range hosts {
		s.automatic(i, fmt.Sprintf("node%04d", i), fmt.Sprintf("10.1.%d.%d/32", i/250, 1+i%250))
		s.namespace(i, fmt.Sprintf("team%04d", i), fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250))
	}
	cache := &lagging{store: s}
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	return s, func() error {
		cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		_, err := job.Reconcile(t.Context(), reconcile.Request{})
		return err
	}
}

// automatic adds an automatic host whose Node is Ready.
func (s *store) automatic(i int, name, cidr string) {
	s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	setReady(s.nodes[name], true)
	s.hosts[name] = &v1.HostSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Host:       name, HostIP: fmt.Sprintf("192.168.%d.%d", 7+i/250, 1+i%250), EgressCIDRs: []string{cidr},
	}
	objects.AgentReports(s.hosts[name])
}

// namespace adds one that requests an egress IP.
func (s *store) namespace(i int, name, ip string) {
	s.namespaces[name] = &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, NetName: name,
		NetID: new(uint32(10 + i)), EgressIPs: []string{ip}, //nolint:gosec // small
	}
}

// TestMovesComeBeforePlacements: a host fails while thousands of egress IPs are placed for
// the first time. Its own are released, and claimed by another host, before all others are
// placed, wherever the names of the two come in order.
//
// Kills the mutants placements-without-a-bound, releases-in-order-of-name and
// displaced-in-order-of-name.
func TestMovesComeBeforePlacements(t *testing.T) {
	const (
		hosts = 5 * claimsAtOnce
		moved = "10.2.0.1"
	)
	s, pass := manyPlacements(t, hosts)
	s.automatic(hosts, "zz-dead", "10.2.0.0/24")
	s.automatic(hosts+1, "zz-spare", "10.2.0.0/24")
	s.hosts["zz-dead"].EgressIPs = []string{moved}
	s.namespace(hosts, "shop", moved)
	setReady(s.nodes["zz-dead"], false)
	s.stamp(s.hosts["zz-dead"], true)

	for range 3 {
		if err := pass(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range s.past {
		placed, done := 0, false
		for _, h := range m.hosts {
			if h.Name == "zz-spare" {
				done = slices.Contains(h.EgressIPs, moved)
			} else {
				placed += len(h.EgressIPs)
			}
		}
		if done {
			// In turn: the verdict, the release, the claim.
			if placed > 0 {
				t.Errorf("%d egress IPs were placed before %s had moved, want none", placed, moved)
			}
			return
		}
	}
	t.Errorf("%s has not moved", moved)
}

// TestRefusalsDoNotPauseTheRest: hundreds of hosts fail at once, or get their first egress
// IPs, and what is written to one of them is refused. The others follow at once, without the
// pause that grows with each error; at last the refusal is an error.
//
// Kills the mutants refused-claims-pause-the-rest and refused-verdicts-pause-the-rest.
func TestRefusalsDoNotPauseTheRest(t *testing.T) {
	const (
		hosts   = 5 * claimsAtOnce
		refused = "node0007"
	)
	for _, tc := range []struct {
		name    string
		prepare func(*store)
		done    func(*v1.HostSubnet) bool
	}{
		{
			"claims", func(s *store) { s.refused = refused },
			func(h *v1.HostSubnet) bool { return len(h.EgressIPs) > 0 },
		},
		{
			"verdicts", func(s *store) {
				s.mute = refused
				for _, n := range s.nodes {
					setReady(n, false)
				}
			},
			func(h *v1.HostSubnet) bool {
				return conditionStatus(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionTrue) == metav1.ConditionFalse
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, pass := manyPlacements(t, hosts)
			tc.prepare(s)
			s.stamp(s.hosts["node0000"], true)
			left := func() (n int) {
				for name, h := range s.hosts {
					if name != refused && !tc.done(h) {
						n++
					}
				}
				return n
			}
			for passes := 1; left() > 0; passes++ {
				before := s.version
				if err := pass(); err != nil && left() > 0 {
					t.Fatalf("pass %d fails with %d of %d hosts left: %v", passes, left(), hosts, err)
				}
				if s.version == before {
					t.Fatalf("pass %d wrote nothing, with %d of %d hosts left", passes, left(), hosts)
				}
			}
			if err := pass(); err == nil {
				t.Error("the refusal is no error")
			}
		})
	}
}
