package egress_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Of several pods with one address the one that lives, or else the latest, has it; the order in which
// they are listed does not matter. The tests of the agent have the whole table, from objects of the API.
func TestOwnPods(t *testing.T) {
	t.Parallel()
	seen := func(name string, created int64, change func(*egress.SeenPod)) egress.SeenPod {
		p := egress.SeenPod{Namespace: "shop", Name: name, UID: name, Addresses: []netip.Addr{testenv.Addr("10.244.1.5")}, Created: time.Unix(created, 0)}
		if change != nil {
			change(&p)
		}
		return p
	}
	pods := []egress.SeenPod{
		seen("ended", 9, func(p *egress.SeenPod) { p.Ended = true }),
		seen("host", 9, func(p *egress.SeenPod) { p.HostNetwork = true }),
		seen("leaving", 9, func(p *egress.SeenPod) { p.Terminating = true }),
		seen("old", 1, nil),
		seen("new", 2, nil),
		seen("same-age", 2, func(p *egress.SeenPod) { p.UID = "a" }),
	}
	for range pods {
		pods = append(pods[1:], pods[0])
		if got := egress.OwnPods(slices.Clone(pods)); len(got) != 1 || got[0].Name != "new" || got[0].RuntimeOnly {
			t.Errorf("%v have the address", got)
		}
	}
	sandbox := seen("sandbox", 3, func(p *egress.SeenPod) { p.FromRuntime = true })
	if got := egress.OwnPods([]egress.SeenPod{sandbox}); len(got) != 1 || !got[0].RuntimeOnly {
		t.Errorf("%v, want a pod that only the runtime has", got)
	}
}

func TestPodLifeEnds(t *testing.T) {
	t.Parallel()
	for life, want := range map[egress.PodLife]bool{
		{}:                              false,
		{AllEnded: true}:                false,
		{Terminal: true}:                true,
		{Terminal: true, Running: true}: false,
		{Deleted: true}:                 false,
		{Deleted: true, AllEnded: true}: true,
		{Deleted: true, Running: true, AllEnded: true}: false,
	} {
		if got := life.Ended(); got != want {
			t.Errorf("%+v: %t", life, got)
		}
	}
}
