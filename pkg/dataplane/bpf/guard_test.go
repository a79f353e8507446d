package bpf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

func TestGuardIsAttachedListedAndRemoved(t *testing.T) {
	for name, theirs := range map[string]string{
		"qdisc of ours":   "",
		"qdisc of others": "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress protocol ip prio 78 u32 match ip dst 198.51.100.1/32 flowid 1:1",
	} {
		t.Run(name, func(t *testing.T) {
			host, h, link := netnstest.Host(t, "eth0")
			host.Run(t, theirs)
			before := host.Run(t, "tc qdisc show dev eth0; tc filter show dev eth0 egress")
			m := mark.Default()
			var g Guard
			defer func() { must(t, g.Close()) }()
			ensure := func(idx map[netip.Addr]int) func() (int, error) {
				return func() (int, error) { return g.Ensure(h, link, m, idx) }
			}
			one := map[netip.Addr]int{testenv.Addr("192.0.2.200"): m.FirstIndex()}
			netnstest.Twice(t, "no egress IP", ensure(nil))
			netnstest.Twice(t, "one egress IP", ensure(one))

			// A restarted agent finds its own guard.
			var next Guard
			defer func() { must(t, next.Close()) }()
			if n, err := next.Ensure(h, link, m, one); n != 0 || err != nil {
				t.Errorf("the next agent made %d changes, %v", n, err)
			}
			at, err := ListGuards(h)
			if err != nil || !slices.Equal(at, []string{"eth0"}) {
				t.Errorf("guards at %v, %v", at, err)
			}
			must(t, RemoveGuards(h))
			must(t, RemoveGuards(h))
			if at, err := ListGuards(h); err != nil || len(at) > 0 {
				t.Errorf("after removal guards at %v, %v", at, err)
			}
			if after := host.Run(t, "tc qdisc show dev eth0; tc filter show dev eth0 egress"); after != before {
				t.Errorf("changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// Kills the mutant that replaces whatever filter has the guard's place.
func TestFilterOfOthersAtTheGuardsPlaceStays(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	m := mark.Default()
	var theirs Guard
	defer func() { must(t, theirs.Close()) }()
	_, err := theirs.Ensure(h, link, m, nil)
	must(t, err)
	filters, err := h.FilterList(link, netlink.HANDLE_MIN_EGRESS)
	must(t, err)
	f, ok := filters[0].(*netlink.BpfFilter)
	if !ok {
		t.Fatalf("filter %+v", filters[0])
	}
	must(t, h.FilterDel(f))
	f.Name, f.Fd = "theirs", theirs.program.FD()
	must(t, h.FilterAdd(f))

	var g Guard
	defer func() { must(t, g.Close()) }()
	if n, err := g.Ensure(h, link, m, nil); n != 0 || err == nil {
		t.Errorf("%d changes, %v", n, err)
	}
	must(t, RemoveGuards(h))
	if shown := host.Run(t, "tc filter show dev eth0 egress"); !strings.Contains(shown, "theirs") {
		t.Errorf("the filter of others has gone: %s", shown)
	}
}
