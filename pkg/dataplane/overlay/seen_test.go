package overlay

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// TestNextHopIsSeen: the neighbour of a device that was raised is seen, and one that is gone, that
// the kernel may forget, or that has another MAC address is not.
func TestNextHopIsSeen(t *testing.T) {
	host := netnstest.New(t, "host")
	must(t, raise(t, host, Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450, IPv6: true}))
	h := host.Handle(t)
	seen := func() (four, six bool) {
		host.Do(t, func() {
			link, err := Find(h)
			must(t, err)
			four, err = HasNextHop(h, link, false)
			must(t, err)
			six, err = HasNextHop(h, link, true)
			must(t, err)
		})
		return four, six
	}
	if four, six := seen(); !four || !six {
		t.Errorf("after it was raised, IPv4 %t, IPv6 %t", four, six)
	}
	for _, change := range []string{
		"ip neigh del 169.254.77.2 dev egress0",
		"ip neigh replace 169.254.77.2 dev egress0 lladdr 02:00:00:00:4d:02 nud stale",
		"ip neigh replace 169.254.77.2 dev egress0 lladdr 02:00:00:00:4d:03 nud permanent",
	} {
		host.Run(t, change)
		if four, six := seen(); four || !six {
			t.Errorf("after %s, IPv4 %t, IPv6 %t", change, four, six)
		}
	}
}
