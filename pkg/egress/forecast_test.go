package egress_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// forecastObjects are two manual hosts, and two automatic ones: one namespace has an egress IP on
// both manual hosts, one on the first alone, one on an automatic host, and one requests none.
func forecastObjects() egress.Objects {
	automatic := func(name, ip string, claims ...string) v1.HostSubnet {
		h := objects.ReportedHostSubnet(name, ip, claims...)
		h.EgressCIDRs = []string{"10.1.8.240/28"}
		return h
	}
	return egress.Objects{
		NetNamespaces: []v1.NetNamespace{
			objects.NetNamespace("auto", 15, "10.1.8.241"), objects.NetNamespace("free", 16),
			objects.NetNamespace("pair", 17, "10.1.8.200", "10.1.8.201"), objects.NetNamespace("single", 18, "10.1.8.202"),
		},
		HostSubnets: []v1.HostSubnet{
			objects.ReportedHostSubnet("a", "10.1.8.11", "10.1.8.200", "10.1.8.202"), objects.ReportedHostSubnet("b", "10.1.8.12", "10.1.8.201"),
			automatic("c", "10.1.8.13", "10.1.8.241"), automatic("d", "10.1.8.14"),
		},
	}
}

// told is a forecast as text.
func told(f egress.Forecast) string {
	var lines []string
	for _, m := range f.Moves {
		lines = append(lines, fmt.Sprintf("%s of %s: %s(%s)->%s(%s)", m.IP, m.Group, m.From.Host, m.From.State, m.To.Host, m.To.State))
	}
	for _, g := range f.Groups {
		line := g.Name + ":"
		for _, is := range []struct {
			it   bool
			name string
		}{
			{g.New, " new"},
			{g.Ended, " ended"},
			{g.Source, " source"},
			{g.Moved, " moved"},
			{g.Destinations, " destinations"},
			{len(g.Dropped) > 0, fmt.Sprintf(" dropped%v", g.Dropped)},
			{len(g.Served) > 0, fmt.Sprintf(" served%v", g.Served)},
			{len(g.Refused) > 0, fmt.Sprintf(" refused%v", g.Refused)},
			{len(g.Released) > 0, fmt.Sprintf(" released%v", g.Released)},
			{g.Exposed != "", " exposed to " + g.Exposed},
		} {
			if is.it {
				line += is.name
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// What a change makes of a cluster.
//
// Mutants killed: predict-hides-drops, predict-forgets-spares.
func TestPredict(t *testing.T) {
	t.Parallel()
	without := func(names ...string) func(*egress.Objects, *egress.Cluster) {
		return func(_ *egress.Objects, c *egress.Cluster) {
			lost := make(map[string]bool)
			for _, name := range names {
				lost[name] = true
			}
			*c = egress.WithOffline(*c, lost)
		}
	}
	objectsOnly := func(change func(*egress.Objects)) func(*egress.Objects, *egress.Cluster) {
		return func(o *egress.Objects, c *egress.Cluster) {
			change(o)
			*c, _ = egress.Snapshot(*o)
		}
	}
	for name, c := range map[string]struct {
		change   func(*egress.Objects, *egress.Cluster)
		severity egress.Severity
		want     string
	}{
		"nothing": {func(*egress.Objects, *egress.Cluster) {}, egress.NothingChanges, ""},
		"a manual host is lost": {
			without("a"), egress.SomebodyIsDropped,
			"10.1.8.200 of pair: a(Active)->a(HostOffline)\n10.1.8.201 of pair: b(Standby)->b(Active)\n10.1.8.202 of single: a(Active)->a(HostOffline)\n" +
				"pair: source exposed to b\nsingle: source dropped[IPv4]",
		},
		"the spare host is lost": {without("b"), egress.SomethingChanges, "10.1.8.201 of pair: b(Standby)->b(HostOffline)\npair: exposed to a"},
		"an automatic host is lost": {
			without("c"), egress.SomethingChanges, "10.1.8.241 of auto: c(Active)->d(Active)\nauto: moved exposed to d",
		},
		"an automatic host without egress IPs is lost": {without("d"), egress.SomethingChanges, "auto: exposed to c"},
		"all automatic hosts are lost":                 {without("c", "d"), egress.SomebodyIsDropped, "10.1.8.241 of auto: c(Active)->(Unassigned)\nauto: source dropped[IPv4]"},
		"a namespace requests an egress IP": {
			objectsOnly(func(o *egress.Objects) { o.NetNamespaces[1].EgressIPs = []string{"10.1.8.242"} }), egress.SomethingChanges,
			"10.1.8.242 of free: ()->d(Active)\nfree: source refused[IPv6]",
		},
		"a namespace requests one that nobody has": {
			objectsOnly(func(o *egress.Objects) { o.NetNamespaces[1].EgressIPs = []string{"10.1.8.99"} }), egress.SomebodyIsDropped,
			"10.1.8.99 of free: ()->(Unassigned)\nfree: dropped[IPv4] refused[IPv6]",
		},
		"a namespace requests none any more": {
			objectsOnly(func(o *egress.Objects) { o.NetNamespaces[3].EgressIPs = nil }), egress.SomethingChanges,
			"10.1.8.202 of single: a(Active)->()\nsingle: source released[IPv6]",
		},
		"a new namespace takes one from another": {
			objectsOnly(func(o *egress.Objects) {
				o.NetNamespaces = append(o.NetNamespaces, objects.NetNamespace("thief", 19, "10.1.8.202"))
			}), egress.SomebodyIsDropped,
			"10.1.8.202 of thief: a(Active)->a(Conflict)\nsingle: source dropped[IPv4]\nthief: new dropped[IPv4] refused[IPv6]",
		},
		"egress IPs apply to other destinations": {
			objectsOnly(func(o *egress.Objects) {
				o.NetNamespaces[3].Annotations = map[string]string{v1.AnnotationExcludeCIDRs: "198.51.100.0/24"}
			}), egress.SomethingChanges, "single: destinations",
		},
		"a namespace is gone": {
			objectsOnly(func(o *egress.Objects) { o.NetNamespaces = o.NetNamespaces[:3] }), egress.SomethingChanges,
			"10.1.8.202 of single: a(Active)->()\nsingle: ended source released[IPv6]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := forecastObjects()
			before, _ := egress.Snapshot(o)
			after := before
			c.change(&o, &after)
			got := egress.Predict(before, after)
			if told(got) != c.want || got.Severity() != c.severity || got.Pending || got.Unsettled || got.ExposedUnknown {
				t.Errorf("severity %d, pending %t:\n%s\nwant %d:\n%s", got.Severity(), got.Pending, told(got), c.severity, c.want)
			}
		})
	}
	o := forecastObjects()
	o.HostSubnets[2].EgressIPs = nil
	before, _ := egress.Snapshot(o)
	if got := egress.Predict(before, before); !got.Pending || got.Severity() != egress.NothingChanges {
		t.Errorf("a cluster that is not settled: %+v", got)
	}
}

// A group is exposed if, and only if, the loss of some one host drops it: by trying all.
//
// Mutants killed: exposed-despite-spares, exposed-without-moves.
func TestPropertyExposed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		c, _, _ := egress.Settle(w.cluster())
		r := egress.Resolve(c)
		hosts, known := egress.Exposed(c, r)
		if !known {
			t.Fatal("too many hosts")
		}
		drops := make(map[string][]string)
		for _, h := range c.Hosts {
			lost, _, _ := egress.Settle(egress.WithOffline(c, map[string]bool{h.Name: true}))
			for _, after := range egress.Resolve(lost).Groups {
				before, _ := r.Group(after.Name)
				if after.Drops[0] && !before.Drops[0] || after.Drops[1] && !before.Drops[1] {
					drops[after.Name] = append(drops[after.Name], h.Name)
				}
			}
		}
		for _, g := range r.Groups {
			if by := hosts[g.Name]; (by != "") != (len(drops[g.Name]) > 0) {
				t.Fatalf("%s is exposed to %q; it is dropped by the loss of %v", g.Name, by, drops[g.Name])
			}
		}
	})
}
