package address

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestPlacesOfAddresses: an egress IP is found where it stands, and that it is ours; so are
// addresses of others, and interfaces that are down.
func TestPlacesOfAddresses(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	must(t, addOne(h, u, "192.0.2.200"))
	host.Run(t, `ip link add eth1 type veth peer name far1; ip address add 192.0.2.201/24 dev eth0; ip address add 192.0.2.200/32 dev eth1
		ip address add 2001:db8::200/128 dev eth1 nodad`)
	for ip, want := range map[string][]struct {
		name     string
		ours, up bool
	}{
		"192.0.2.200":    {{"eth0", true, true}, {"eth1", false, false}},
		"192.0.2.201":    {{"eth0", false, true}},
		"2001:db8::200":  {{"eth1", false, false}},
		"192.0.2.202":    nil,
		"2001:db8::2020": nil,
	} {
		var got []Place
		host.Do(t, func() {
			var err error
			got, err = Places(h, testenv.Addr(ip))
			must(t, err)
		})
		if len(got) != len(want) {
			t.Errorf("%s is on %d interfaces, want %d", ip, len(got), len(want))
			continue
		}
		for i, p := range got {
			if w := want[i]; p.Link.Attrs().Name != w.name || p.Ours != w.ours || p.Up != w.up {
				t.Errorf("%s: %s, ours %t, up %t; want %+v", ip, p.Link.Attrs().Name, p.Ours, p.Up, w)
			}
		}
	}
}
