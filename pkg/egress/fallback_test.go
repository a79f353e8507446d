package egress_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// threeHosts have one egress IP each; namespace one requests the first alone,
// two the second and then the third.
func threeHosts() egress.Cluster {
	host := func(name, ip, claim string) egress.Host {
		return egress.Host{Name: name, IP: netip.MustParseAddr(ip), Claims: []netip.Addr{netip.MustParseAddr(claim)}, Online: true, Confirmed: true, AgentReady: true}
	}
	return egress.Cluster{
		Groups: []egress.Group{
			{Name: "one", NetID: 11, Requests: []netip.Addr{netip.MustParseAddr("192.0.2.101")}},
			{Name: "two", NetID: 12, Requests: []netip.Addr{netip.MustParseAddr("192.0.2.102"), netip.MustParseAddr("192.0.2.103")}},
		},
		Hosts: []egress.Host{
			host("a", "192.0.2.1", "192.0.2.101"), host("b", "192.0.2.2", "192.0.2.102"), host("c", "192.0.2.3", "192.0.2.103"),
		},
	}
}

func TestAProbeChoosesAnotherAndNeverTakesTheLast(t *testing.T) {
	c := threeHosts()
	settled := egress.Resolve(c)
	for _, test := range []struct {
		silent []string
		one    string // host in use, "" for dropped
		two    string
	}{
		{nil, "a", "b"},
		{[]string{"b"}, "a", "c"},
		{[]string{"a"}, "a", "b"},
		{[]string{"b", "c"}, "a", "b"},
		{[]string{"c"}, "a", "b"},
	} {
		silent := map[string]bool{}
		for _, name := range test.silent {
			silent[name] = true
		}
		r := egress.KeepLastEgressIP(egress.Resolve(egress.WithOffline(c, silent)), settled)
		for i, want := range []string{test.one, test.two} {
			if got := r.Groups[i].Active; len(got) != 1 || got[0].Host != want {
				t.Errorf("silent %v: namespace %s uses %v, want host %s", test.silent, r.Groups[i].Name, got, want)
			}
		}
	}
	if !c.Hosts[1].Online {
		t.Error("the cluster was changed in place")
	}
}

// Mutants killed: held-is-as-dead, held-is-as-well, own-pods-use-the-withdrawn,
// the-withdrawn-is-preferred.
func TestResolveFrom(t *testing.T) {
	c := threeHosts()
	settled := egress.Resolve(c)
	set := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, name := range names {
			m[name] = true
		}
		return m
	}
	for name, test := range map[string]struct {
		reach    egress.Reach
		one, two string // host in use, "" for dropped
	}{
		"all answer":                               {egress.Reach{Host: "c"}, "a", "b"},
		"another is preferred":                     {egress.Reach{Host: "c", Silent: set("b")}, "a", "c"},
		"the last one is not taken":                {egress.Reach{Host: "x", Silent: set("a", "b", "c")}, "a", "b"},
		"held, and there is another":               {egress.Reach{Host: "x", Silent: set("b"), Held: set("b")}, "a", "c"},
		"rather held than dead":                    {egress.Reach{Host: "x", Silent: set("b", "c"), Held: set("c")}, "a", "c"},
		"both are held":                            {egress.Reach{Host: "x", Silent: set("b", "c"), Held: set("b", "c")}, "a", "b"},
		"withdrawn, its pods use others":           {egress.Reach{Host: "b", Withdrawn: true}, "a", "c"},
		"withdrawn, and nobody else has theirs":    {egress.Reach{Host: "a", Withdrawn: true}, "", "b"},
		"withdrawn, and the other one is silent":   {egress.Reach{Host: "b", Withdrawn: true, Silent: set("c")}, "a", "c"},
		"withdrawn, and somebody else is silent":   {egress.Reach{Host: "b", Withdrawn: true, Silent: set("a")}, "a", "c"},
		"withdrawn, and what is held is preferred": {egress.Reach{Host: "b", Withdrawn: true, Silent: set("a", "c"), Held: set("c")}, "a", "c"},
	} {
		t.Run(name, func(t *testing.T) {
			r := egress.ResolveFrom(c, settled, test.reach)
			for i, want := range []string{test.one, test.two} {
				got := ""
				if active := r.Groups[i].Active; len(active) == 1 {
					got = active[0].Host
				}
				if got != want || r.Groups[i].Dropped != (want == "") {
					t.Errorf("namespace %s uses %q, dropped %t; want host %q", r.Groups[i].Name, got, r.Groups[i].Dropped, want)
				}
			}
		})
	}
}

// Kills the mutant probe-drops-a-family. Mutant killed: KeepLastEgressIP that returns probed
// as it is, with which a wrong probe
// drops a namespace that has but one egress IP.
func TestPropertyProbesNeverDrop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, _ := egress.Snapshot(drawObjects(t, full()))
		silent := map[string]bool{}
		for _, h := range c.Hosts {
			if rapid.Bool().Draw(t, "silent "+h.Name) {
				silent[h.Name] = true
			}
		}
		settled := egress.Resolve(c)
		probed := egress.KeepLastEgressIP(egress.Resolve(egress.WithOffline(c, silent)), settled)
		for i, namespace := range settled.Groups {
			got := probed.Groups[i]
			if got.Name != namespace.Name || got.Dropped != namespace.Dropped || got.Drops != namespace.Drops {
				t.Fatalf("namespace %s: dropped %t, without probes %t", namespace.Name, got.Dropped, namespace.Dropped)
			}
			var active []string
			for _, a := range got.Active {
				active = append(active, a.IP.String())
			}
			counts := countFamilies(active)
			for _, a := range namespace.Active {
				if counts[egress.FamilyOf(a.IP)] == 0 {
					t.Fatalf("namespace %s loses %s, its last of the family, to probes", namespace.Name, a.IP)
				}
			}
			for _, a := range got.Active {
				f := egress.FamilyOf(a.IP)
				if silent[a.Host] && counts[f] == 1 && slices.ContainsFunc(namespace.Requests, func(q egress.RequestResult) bool {
					return egress.RequestFamily(q.IP) == f && (q.State == egress.Active || q.State == egress.Standby) && !silent[q.Host]
				}) {
					t.Fatalf("namespace %s uses the silent host %s though another answers", namespace.Name, a.Host)
				}
			}
		}
	})
}
