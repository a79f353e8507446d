package overlay

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// Only the overlay device's counters are read, and none where there is no such device.
func TestCountersOfTheOverlay(t *testing.T) {
	for name, c := range map[string]struct {
		add  string
		own  bool
		want bool
	}{
		"none":               {"true", false, false},
		"a device of others": {"ip link add egress0 type bridge", false, false},
		"ours":               {"true", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			host, h, _ := netnstest.Host(t, "eth0")
			host.Run(t, c.add)
			if c.own {
				must(t, raise(t, host, Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450}))
			}
			if traffic, ok, err := Count(h); err != nil || ok != c.want {
				t.Errorf("%+v, %t, %v, want %t", traffic, ok, err, c.want)
			}
		})
	}
}
