package controllers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/internal/testenv/steps"
)

// TestWorkOfAPassGrowsWithTheCluster: a pass that places very many claims, or releases
// them, does twice as much for twice as many, and not four times.
func TestWorkOfAPassGrowsWithTheCluster(t *testing.T) {
	const each = 1000
	count, ok := steps.Counter(t, map[string]steps.Case{
		"placement": func(size int) func() {
			return crowdedPass(t, each*size, func(i int) (claimed, requested bool) { return i%2 == 0, true })
		},
		"release": func(size int) func() {
			return crowdedPass(t, each*size, func(int) (claimed, requested bool) { return true, false })
		},
	})
	if !ok {
		return
	}
	for _, name := range []string{"placement", "release"} {
		once, twice := count(name, 1), count(name, 2)
		t.Logf("%s: %d statements, and %d for twice as much", name, once, twice)
		if once == 0 || float64(twice) > 2.5*float64(once) {
			t.Errorf("%s: %d statements, and %d for twice as much", name, once, twice)
		}
	}
}

// crowdedPass is a pass over 20 automatic hosts and namespaces with an egress IP each. is
// says which are claimed, and so reported in all statuses, and which are requested.
func crowdedPass(t *testing.T, namespaces int, is func(i int) (claimed, requested bool)) func() {
	t.Helper()
	const hosts = 20
	s := newStore()
	s.version = 1
	host := func(i int) string { return fmt.Sprintf("node%02d", i%hosts) }
	for i := range hosts {
		name := host(i)
		s.nodes[name] = objects.Node(name, "True")
		s.nodes[name].UID, s.nodes[name].ResourceVersion = types.UID(name), "1"
		h := objects.HostSubnet(name, fmt.Sprintf("192.168.7.%d", 1+i))
		h.UID, h.ResourceVersion, h.EgressCIDRs = types.UID(name), "1", []string{"10.1.0.0/16"}
		s.hosts[name] = &h
	}
	for i := range namespaces {
		name, ip := fmt.Sprintf("team%05d", i), fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250)
		claimed, requested := is(i)
		n := objects.NetNamespace(name, uint32(10+i)) //nolint:gosec // small
		n.UID, n.ResourceVersion = types.UID(name), "1"
		if requested {
			n.EgressIPs = []string{ip}
		}
		if claimed {
			s.hosts[host(i)].EgressIPs = append(s.hosts[host(i)].EgressIPs, ip)
			n.Status.EgressIPs = []v1.RequestStatus{{IP: ip, Host: host(i), State: v1.StateActive}}
		}
		s.namespaces[name] = &n
	}
	for _, h := range s.hosts {
		objects.AgentReports(h)
	}
	s.stamp(s.hosts[host(0)], true)
	cache := &lagging{store: s}
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	return func() {
		for range 3 {
			if _, err := job.Reconcile(context.Background(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		}
		all := 0
		for _, h := range s.hosts {
			all += len(h.EgressIPs)
		}
		want := 0
		if _, requested := is(0); requested {
			want = namespaces
		}
		if all != want {
			t.Fatalf("%d addresses are claimed, want %d", all, want)
		}
	}
}
