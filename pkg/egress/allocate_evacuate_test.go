package egress_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func TestEvacuatingManualHostStandsBy(t *testing.T) {
	c := threeHosts() // one uses a; two uses b, then c
	c.Hosts[1].Evacuating = true
	r := egress.Resolve(c)
	if got := r.Groups[1].Active; len(got) != 1 || got[0].Host != "c" {
		t.Errorf("namespace two uses %v, want host c", got)
	}
	if got := r.Groups[1].Requests[0]; got.State != egress.Standby || got.Reason != egress.ReasonEvacuated {
		t.Errorf("its first egress IP: %+v", got)
	}
	// The last one is not taken.
	c.Hosts[0].Evacuating = true
	r = egress.Resolve(c)
	if got := r.Groups[0].Active; len(got) != 1 || got[0].Host != "a" || r.Groups[0].Dropped {
		t.Errorf("namespace one uses %v, want its only one, on host a", got)
	}
	if got := r.Hosts[0]; got.Reason != egress.ReasonEvacuated || !got.Ready {
		t.Errorf("host a: %+v", got)
	}
	// Nor where the other is dead.
	c.Hosts[2].Online = false
	if got := egress.Resolve(c).Groups[1].Active; len(got) != 1 || got[0].Host != "b" {
		t.Errorf("namespace two uses %v, want host b, the other is dead", got)
	}
}

// addressesIn are the addresses of a placement.
func addressesIn(placement []string) []string {
	ips := make([]string, 0, len(placement))
	for _, at := range placement {
		ip, _, _ := strings.Cut(at, "@")
		ips = append(ips, ip)
	}
	return ips
}

func evacuate(w *world, name string, on bool) {
	status := metav1.ConditionFalse
	if on {
		status = metav1.ConditionTrue
	}
	w.host(name).Status.Conditions = []metav1.Condition{{Type: v1.ConditionEvacuating, Status: status}}
}

// A host that is being evacuated loses one claim of each family at a time, for as long as
// another host can take it, and no namespace loses an egress IP by that.
//
// Mutants killed: evacuate that does not ask whether another host can take the
// claim; Allocate that evacuates while no host has the last claim released.
func TestPropertyEvacuationGoesOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, shape{hosts: 5, namespaces: 8, requests: 3, automatic: true})}
		w.settle(t)
		name := rapid.SampledFrom(w.HostSubnets).Draw(t, "host").Name
		placed := countFamilies(addressesIn(w.placement()))
		evacuate(w, name, true)
		had := len(w.host(name).EgressIPs)
		var missing [2]int
		for range 200 {
			before := w.placement()
			answer := w.round()
			var released [2]int
			for _, r := range answer.Released {
				if r.Reason == egress.ReasonEvacuated {
					released[egress.FamilyOf(r.IP)]++
				}
			}
			for f, now := range countFamilies(addressesIn(w.placement())) {
				if released[f] > 1 || placed[f]-now > 1 || released[f] == 1 && missing[f] > 0 {
					t.Fatalf("%d claims released at once, %d claims are on no host", released[f], placed[f]-now)
				}
				missing[f] = placed[f] - now
			}
			if equal(before, w.placement()) {
				break
			}
		}
		if missing != [2]int{} {
			t.Fatalf("evacuating %s, which had %d, cost %d claims: %v", name, had, missing, w.placement())
		}
		for _, written := range w.host(name).EgressIPs {
			ip := netip.MustParseAddr(written)
			alone := w.clone()
			host := alone.host(name)
			host.EgressIPs = slices.DeleteFunc(host.EgressIPs, func(s string) bool { return s == written })
			for _, claims := range egress.Allocate(alone.cluster()).Hosts {
				if claims.Host != name && slices.Contains(claims.Claims, ip) {
					t.Fatalf("%s keeps %s, which %s can take", name, ip, claims.Host)
				}
			}
		}
	})
}

// What a host is told to stand by for is what comes to it when the other dies.
//
// Mutant killed: standbys that leaves the dead host its claims.
func TestPropertyStandbysComeTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, shape{hosts: 5, namespaces: 8, requests: 3, automatic: true})}
		for i := range w.HostSubnets {
			w.Capacity[w.HostSubnets[i].Name] = 0
		}
		w.settle(t)
		standby := map[string][]netip.Addr{}
		c := w.cluster()
		r := egress.Resolve(c)
		for _, h := range c.Hosts {
			plan, _ := egress.PlanFor(c, r, h.Name, nil, nil)
			for _, s := range plan.Standby {
				if slices.ContainsFunc(plan.Hosted, func(h egress.HostedIP) bool { return h.IP == s.IP }) {
					t.Fatalf("%s stands by for %s, which it has", h.Name, s.IP)
				}
				standby[h.Name] = append(standby[h.Name], s.IP)
			}
		}
		dead := rapid.SampledFrom(w.HostSubnets).Draw(t, "dead").Name
		if !w.Verdicts[dead].Online {
			return
		}
		lost := slices.Clone(w.host(dead).EgressIPs)
		w.setOnline(dead, false)
		w.round() // releases
		for _, claims := range egress.Allocate(w.cluster()).Hosts {
			for _, ip := range claims.Claims {
				if slices.Contains(lost, ip.String()) && !slices.Contains(standby[claims.Host], ip) {
					t.Fatalf("%s came to %s, which stood by for %v alone", ip, claims.Host, standby[claims.Host])
				}
			}
		}
	})
}
