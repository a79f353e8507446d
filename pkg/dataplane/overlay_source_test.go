package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// The kernel is asked about some hosts a pass; one that it sends to from another address than
// the host's is an error of every pass from then on, until the route is mended or the host is
// gone. Where the programs set the source, it does not matter.
//
// Mutant killed: wrong-sources-are-forgotten.
func TestSourcesOfOverlayPacketsAreChecked(t *testing.T) {
	host, h, uplink := netnstest.Host(t, "eth0")
	host.Stay(t)
	host.Run(t, "ip address add 192.0.2.2/24 dev eth0; ip route add 10.0.0.0/8 dev eth0 src 192.0.2.1")
	var hosts []netip.Addr
	for i := range 2*sourceChecks + 3 {
		hosts = append(hosts, testenv.Addr(fmt.Sprintf("10.1.0.%d", i)))
	}
	hosts = append(hosts, testenv.Addr("192.0.2.1"), testenv.Addr("fd00::9"), testenv.Addr("203.0.113.7")) // own, not asked about, out of reach
	d := &Dataplane{nl: h}
	passes := func(hosts []netip.Addr) (failed int, err error) {
		for range len(hosts)/sourceChecks + 1 {
			r := round{pass: &pass{d: d, state: State{HostIP: testenv.Addr("192.0.2.1"), Hosts: hosts}}, uplink: uplinkOf(uplink)}
			if e := r.checkSources(); e != nil {
				failed, err = failed+1, e
			}
		}
		return failed, err
	}
	if n, err := passes(hosts); n > 0 {
		t.Errorf("all is well, and %v", err)
	}
	host.Run(t, "ip route add 10.1.0.3/32 dev eth0 src 192.0.2.2")
	if n, err := passes(hosts); n == 0 || !errors.Is(err, errSource) || !strings.Contains(err.Error(), "10.1.0.3 have the source 192.0.2.2 instead of 192.0.2.1") {
		t.Errorf("another source: %d passes fail: %v", n, err)
	}
	if n, _ := passes(hosts); n != len(hosts)/sourceChecks+1 {
		t.Errorf("once it is known, %d passes fail", n)
	}
	if n, err := passes(hosts[4:]); n > 0 {
		t.Errorf("the host is gone, and %v", err)
	}
	if n, _ := passes(hosts); n == 0 {
		t.Error("it is not found again")
	}
	host.Run(t, "ip route change 10.1.0.3/32 dev eth0 src 192.0.2.1")
	if _, err := passes(hosts); len(d.sources.wrong) > 0 {
		t.Errorf("the route is mended, and %v: %v", d.sources.wrong, err)
	}
	host.Run(t, "ip route change 10.1.0.3/32 dev eth0 src 192.0.2.2")
	d.source = testenv.Addr("192.0.2.1")
	if n, err := passes(hosts); n > 0 {
		t.Errorf("the programs set the source, and %v", err)
	}
}
