package egress_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// claims gives automatic hosts lists of their own.
func (g *given) claims(host string, egressIPs ...string) *given {
	g.edit(host, func(h *v1.HostSubnet) { h.EgressIPs = egressIPs })
	return g
}

func (g *given) capacity(host string, n int) *given {
	if g.Capacity == nil {
		g.Capacity = make(map[string]int)
	}
	g.Capacity[host] = n
	return g
}

func TestAllocate(t *testing.T) {
	const all = "192.168.7.0/24"
	for name, test := range map[string]struct {
		given *given
		// want are the lists after one answer, and after the last.
		want, settled []string
	}{
		"an address moves by a release and a later claim": {
			given: new(given).namespace("red", "192.168.7.200").
				automatic("w0", all).claims("w0", "192.168.7.200").offline("w0").automatic("w1", all),
			settled: []string{"192.168.7.200@w1"},
		},
		"one candidate comes before the choice of others": {
			given: new(given).namespace("a", "192.168.7.200").namespace("b", "192.168.7.201").
				automatic("w0", "192.168.7.200/31").capacity("w0", 1).automatic("w1", "192.168.7.200/32"),
			want:    []string{"192.168.7.200@w1", "192.168.7.201@w0"},
			settled: []string{"192.168.7.200@w1", "192.168.7.201@w0"},
		},
		"a manual claim is the user's word": {
			given: new(given).namespace("red", "192.168.7.200").
				host("w0", "192.168.7.200").automatic("w1", all).claims("w1", "192.168.7.200"),
		},
		"an address that an offline manual host claims is not taken": {
			given: new(given).namespace("red", "192.168.7.200").
				host("w0", "192.168.7.200").offline("w0").automatic("w1", all),
		},
		"a manual assignment does not stop the balance": {
			given: new(given).namespace("m", "192.168.7.100").host("manual", "192.168.7.100").
				namespace("a", "192.168.7.200").namespace("b", "192.168.7.201").
				namespace("c", "192.168.7.202").namespace("d", "192.168.7.203").
				automatic("w0", all).claims("w0", "192.168.7.200", "192.168.7.201", "192.168.7.202", "192.168.7.203").
				automatic("w1", all),
			want:    []string{"192.168.7.202@w0", "192.168.7.203@w0"},
			settled: []string{"192.168.7.200@w1", "192.168.7.201@w1", "192.168.7.202@w0", "192.168.7.203@w0"},
		},
		"a host's own address goes to no host": {
			given: new(given).namespace("red", "192.168.7.10").automatic("w0", all).automatic("w1", all),
		},
		"a host whose network does not hold the address is no candidate": {
			given: new(given).namespace("red", "192.168.7.200").
				automatic("w0", "192.168.0.0/16").uplink("w0", "192.168.8.10/24").automatic("w1", "192.168.0.0/16").uplink("w1", "192.168.7.11/24"),
			want:    []string{"192.168.7.200@w1"},
			settled: []string{"192.168.7.200@w1"},
		},
		"joined namespaces that both request get nothing": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue", "192.168.7.201").netID("blue", 1001).
				automatic("w0", all).claims("w0", "192.168.7.200"),
		},
		"a tight cluster gives every namespace its first": {
			given: new(given).namespace("a", "192.168.7.200", "192.168.7.201").namespace("b", "192.168.7.202", "192.168.7.203").
				automatic("w0", all).capacity("w0", 1).automatic("w1", all).capacity("w1", 1),
			want:    []string{"192.168.7.200@w0", "192.168.7.202@w1"},
			settled: []string{"192.168.7.200@w0", "192.168.7.202@w1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{Objects: test.given.Objects}
			w.round()
			if d := diff(test.want, w.placement()); d != "" {
				t.Errorf("after one answer (-want +got):\n%s", d)
			}
			for range 5 {
				w.round()
			}
			if d := diff(test.settled, w.placement()); d != "" {
				t.Errorf("settled (-want +got):\n%s", d)
			}
		})
	}
}

func TestUnplacedRequestsAreTold(t *testing.T) {
	g := new(given).namespace("red", "192.168.7.200", "192.168.7.201").automatic("w0", "192.168.7.0/24")
	cluster, _ := egress.Snapshot(g.Objects)
	answer := egress.Allocate(cluster)
	if len(answer.Unplaced) != 1 || answer.Unplaced[0].IP.String() != "192.168.7.201" || answer.Unplaced[0].Group != "red" {
		t.Errorf("unplaced: %+v", answer.Unplaced)
	}
	if answer := egress.Allocate(egress.Cluster{Groups: cluster.Groups}); len(answer.Unplaced) > 0 {
		t.Errorf("a cluster without automatic hosts places nothing, and says %+v", answer.Unplaced)
	}
}

// large is a cluster of 5,000 hosts and 10,000 namespaces with one egress IP
// each.
func large(automatic bool) egress.Cluster {
	c := egress.Cluster{}
	for h := range 5000 {
		host := egress.Host{
			Name: fmt.Sprintf("host-%05d", h), Online: true, Automatic: automatic, Managed: automatic, Confirmed: true, AgentReady: true,
			IP: testenv.Addr(fmt.Sprintf("10.1.%d.%d", h/200, 1+h%200)),
		}
		if automatic {
			host.Ranges = append(host.Ranges, testenv.Prefix("10.2.0.0/16"), testenv.Prefix(fmt.Sprintf("10.2.%d.0/24", h%50)))
		}
		c.Hosts = append(c.Hosts, host)
	}
	for n := range 10000 {
		ip := testenv.Addr(fmt.Sprintf("10.2.%d.%d", n/200, 1+n%200))
		c.Groups = append(c.Groups, egress.Group{Name: fmt.Sprintf("ns-%05d", n), NetID: uint32(100 + n), Requests: []netip.Addr{ip}})
		c.Hosts[n%5000].Claims = append(c.Hosts[n%5000].Claims, ip)
	}
	return c
}

func BenchmarkResolve(b *testing.B) {
	for name, c := range map[string]egress.Cluster{"manual": large(false), "automatic": large(true)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				egress.Resolve(c)
			}
		})
	}
}

func BenchmarkPlanFor(b *testing.B) {
	c := large(false)
	r := egress.Resolve(c)
	for b.Loop() {
		egress.PlanFor(c, r, "host-00007", nil, nil)
	}
}

func BenchmarkAllocate(b *testing.B) {
	settled, empty, tight, restricted := large(true), large(true), large(true), large(true)
	some := make(map[string]bool)
	for h := range restricted.Hosts {
		restricted.Hosts[h].Claims = nil
		some[restricted.Hosts[h].Name] = h%50 == 0
	}
	only := egress.NewHostSet(some)
	for n := range restricted.Groups {
		restricted.Groups[n].OnlyOn = only
	}
	for h := range empty.Hosts {
		empty.Hosts[h].Claims = nil
		tight.Hosts[h].Claims = nil
		if tight.Hosts[h].Capacity = -1; h < 3000 {
			tight.Hosts[h].Capacity = 2
		}
	}
	for name, c := range map[string]egress.Cluster{"settled": settled, "empty": empty, "tight": tight, "restricted": restricted} {
		b.Run(name, func(b *testing.B) {
			placed, want := 0, map[string]int{"tight": 6000}[name]
			for _, h := range egress.Allocate(c).Hosts {
				placed += len(h.Claims)
			}
			if placed != cmp.Or(want, len(c.Groups)) {
				b.Fatalf("%d egress IPs have a host", placed)
			}
			for b.Loop() {
				egress.Allocate(c)
			}
		})
	}
}
