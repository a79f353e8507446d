package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

func peerNames(peers []egress.Peer) []string {
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	return names
}

// manyHosts are hosts of which the first has the egress IP of namespace one, and the
// next seven as witnesses.
func manyHosts(count int) egress.Cluster {
	c := egress.Cluster{Groups: []egress.Group{{Name: "one", NetID: 11, Requests: []netip.Addr{netip.MustParseAddr("192.0.2.201")}}}}
	ip := netip.MustParseAddr("10.9.0.1")
	for h := range count {
		c.Hosts = append(c.Hosts, egress.Host{Name: fmt.Sprintf("h%03d", h), IP: ip, Online: true, Confirmed: true, AgentReady: true})
		ip = ip.Next()
	}
	c.Hosts[0].Claims = c.Groups[0].Requests
	for h := 1; h < count && h <= egress.MaxPanel; h++ {
		c.Hosts[0].Witnesses = append(c.Hosts[0].Witnesses, c.Hosts[h].Name)
	}
	return c
}

// Mutants killed: no-witnesses-of-its-own, users-are-witnesses.
func TestWatched(t *testing.T) {
	t.Parallel()
	c := manyHosts(100)
	r := egress.Resolve(c)
	users := []egress.Pod{{Namespace: "one", IP: netip.MustParseAddr("10.0.0.1")}, {Namespace: "one", IP: netip.MustParseAddr("10.0.0.2")}, {Namespace: "gone"}}
	for _, test := range []struct {
		name, host       string
		pods             []egress.Pod
		watches, witness []string
	}{
		{"the egress host watches its witnesses", "h000", users, c.Hosts[0].Witnesses, nil},
		{"a witness", "h007", nil, []string{"h000"}, []string{"h000"}},
		{"a witness whose pods use the host", "h007", users, []string{"h000"}, []string{"h000"}},
		{"a host whose pods use it has no vote", "h008", users, []string{"h000"}, nil},
		{"any other host", "h008", nil, nil, nil},
		{"no host", "nobody", nil, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := peerNames(egress.Watched(c, r, test.host, test.pods)); !slices.Equal(got, test.watches) {
				t.Errorf("watches %v, want %v", got, test.watches)
			}
			if got := egress.Witnessed(c, test.host); !slices.Equal(got, test.witness) {
				t.Errorf("is a witness of %v, want %v", got, test.witness)
			}
		})
	}
	if got := peerNames(egress.ProbedHosts(c, r, netip.Addr{})); !slices.Equal(got, append([]string{"h000"}, c.Hosts[0].Witnesses...)) {
		t.Errorf("controllers probe %v, want the egress host and its witnesses", got)
	}
	if got := peerNames(egress.ServingHosts(c, r)); !slices.Equal(got, []string{"h000"}) {
		t.Errorf("egress hosts are %v", got)
	}
}

// TestWatchedWithoutPanel: an egress host that has no witnesses yet still finds out that
// it is cut off, and nobody votes. It is so with an older controller, too.
//
// Mutant killed: no-panel-no-contact.
func TestWatchedWithoutPanel(t *testing.T) {
	t.Parallel()
	for hosts, want := range map[int]int{1: 0, 2: 1, 3: 2, 100: egress.MaxPanel} {
		c := manyHosts(hosts)
		c.Hosts[0].Witnesses = nil
		r := egress.Resolve(c)
		if got := egress.Watched(c, r, "h000", nil); len(got) != want {
			t.Errorf("%d hosts: an egress host without witnesses watches %v, want %d", hosts, got, want)
		}
		for _, h := range c.Hosts {
			if got := egress.Witnessed(c, h.Name); got != nil {
				t.Errorf("%s is a witness of %v", h.Name, got)
			}
		}
	}
}

// TestCutOffByWitnesses: an egress host that reaches nobody withdraws. One whose witnesses
// die keeps its egress IPs, as long as the API server or most witnesses answer. Of two
// nodes one is never a majority: without the API server it must withdraw.
func TestCutOffByWitnesses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hosts, alive int
		api          bool
		withdrawn    bool
	}{
		{2, 1, false, false},
		{2, 0, false, true},
		{2, 0, true, false},
		{3, 2, false, false},
		{3, 1, false, false},
		{3, 0, false, true},
		{3, 0, true, false},
		{8, 4, false, false},
		{8, 3, false, true},
		{8, 0, true, false},
		{1000, 4, false, false},
		{1000, 0, false, true},
	} {
		c := manyHosts(test.hosts)
		var healths []online.PeerHealth
		for i, p := range egress.Watched(c, egress.Resolve(c), "h000", nil) {
			healths = append(healths, online.PeerHealth{Name: p.Name, Heard: true, Reached: i < test.alive})
		}
		watched, answering := online.CountReached(healths)
		var isolation online.Isolation
		now := time.Unix(1e9, 0)
		for range 20 {
			contact := online.Contact{Watched: watched, Answering: answering}
			if test.api && isolation.Uncertain() {
				contact.API = now
			}
			isolation = isolation.Next(contact, time.Second, now)
			now = now.Add(100 * time.Millisecond)
		}
		if isolation.Withdrawn != test.withdrawn {
			t.Errorf("%d hosts, %d witnesses of %d answer, API server %t: withdrawn is %t", test.hosts, answering, watched, test.api, isolation.Withdrawn)
		}
	}
}

// TestDeathOfAHostThatAllUseCostsAPanel counts the agents that write their status when a
// host dies that pods on all 1,000 nodes use: before, each of the 999 others.
//
// Mutant killed: users-are-witnesses.
func TestDeathOfAHostThatAllUseCostsAPanel(t *testing.T) {
	t.Parallel()
	c := manyHosts(1000)
	r := egress.Resolve(c)
	pods := []egress.Pod{{Namespace: "one", IP: netip.MustParseAddr("10.0.0.1")}}
	watchers, writers := 0, 0
	for _, h := range c.Hosts {
		var healthy, dead []online.PeerHealth
		for _, p := range egress.Watched(c, r, h.Name, pods) {
			watchers++
			healthy = append(healthy, online.PeerHealth{Name: p.Name, State: online.PeerAnswers, Heard: true, Reached: true})
			dead = append(dead, online.PeerHealth{Name: p.Name, State: online.PeerSilent, Heard: true})
		}
		if h.Name == "h000" {
			continue
		}
		witnessed := egress.Witnessed(c, h.Name)
		if !slices.Equal(online.BallotOf(witnessed, healthy), online.BallotOf(witnessed, dead)) {
			writers++
		}
	}
	t.Logf("%d watches, %d status writes", watchers, writers)
	if watchers < 999 || writers != egress.MaxPanel {
		t.Errorf("%d agents write when a host dies that %d watch, want %d", writers, watchers, egress.MaxPanel)
	}
}

// largeCluster has 1,000 hosts and 10,000 namespaces, of which 250 have pods on one node.
func largeCluster() (egress.Cluster, []egress.Pod) {
	c := manyHosts(1000)
	var pods []egress.Pod
	for n := range 10_000 {
		name := fmt.Sprintf("ns%04d", n)
		c.Groups = append(c.Groups, egress.Group{Name: name, NetID: uint32(100 + n)})
		if n < 250 {
			pods = append(pods, egress.Pod{Namespace: name})
		}
	}
	for h := range c.Hosts {
		c.Hosts[h].Witnesses = c.Hosts[0].Witnesses
	}
	slices.SortFunc(c.Groups, func(a, b egress.Group) int { return strings.Compare(a.Name, b.Name) })
	return c, pods
}

// TestWatchedIsCheap: the cost depends on the node's own pods and on the hosts that it
// watches, and not on the namespaces of the cluster.
func TestWatchedIsCheap(t *testing.T) {
	c, pods := largeCluster()
	r := egress.Resolve(c)
	if got := testing.AllocsPerRun(10, func() { egress.Watched(c, r, "h500", pods) }); got > 40 {
		t.Errorf("%v allocations, want a few", got)
	}
}

// BenchmarkWatched is one agent's part of a large cluster.
func BenchmarkWatched(b *testing.B) {
	c, pods := largeCluster()
	r := egress.Resolve(c)
	b.ReportAllocs()
	for b.Loop() {
		egress.Watched(c, r, "h500", pods)
	}
}
