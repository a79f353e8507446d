package overlay

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	netnstest.Must(t, err)
}

// raise makes the overlay device and sets it up, as a pass does.
func raise(t *testing.T, host *netnstest.Machine, cfg Config) error {
	t.Helper()
	h := host.Handle(t)
	var result error
	host.Do(t, func() {
		link, _, err := Ensure(h, cfg)
		if err == nil {
			_, err = Raise(h, link, cfg.IPv6)
		}
		result = err
	})
	return result
}

// Kills the mutant that looks for a clash only when the device is added: the
// kernel finds most of them when it goes up.
func TestOverlayPortOfOthersIsReported(t *testing.T) {
	cfg := Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450}
	for name, c := range map[string]struct{ add, remove, owner string }{
		"VXLAN with a fixed VNI": {
			"ip link add flannel.1 type vxlan id 1 dev eth0 dstport 9789; ip link set flannel.1 up", "ip link delete flannel.1", "flannel.1",
		},
		"VXLAN with outside metadata": {
			"ip link add cilium_vxlan type vxlan external dstport 9789; ip link set cilium_vxlan up", "ip link delete cilium_vxlan", "cilium_vxlan",
		},
		"program": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			host, _, _ := netnstest.Host(t, "eth0")
			remove := func() { host.Run(t, c.remove) }
			if c.add != "" {
				host.Run(t, c.add)
			} else {
				host.Do(t, func() {
					s, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", ":9789")
					must(t, err)
					remove = func() { must(t, s.Close()) }
				})
			}
			err := raise(t, host, cfg)
			if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), c.owner) {
				t.Fatalf("clash with %q was reported as: %v", c.owner, err)
			}
			remove()
			if err := raise(t, host, cfg); err != nil {
				t.Fatalf("with the port free again: %v", err)
			}
		})
	}
}

// given: a host whose new devices do not forward; then the overlay's does, unless the
// host forwards nothing at all, which is not ours to change.
//
// Mutant killed: overlay-does-not-forward.
func TestOverlayForwardsWhereTheHostDoes(t *testing.T) {
	cfg := Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450}
	for forwards, want := range map[string]string{"1": "1", "0": "0"} {
		host, _, _ := netnstest.Host(t, "eth0")
		host.Run(t, "sysctl -qw net.ipv4.ip_forward="+forwards+"; sysctl -qw net.ipv4.conf.default.forwarding=0")
		must(t, raise(t, host, cfg))
		if got := strings.TrimSpace(host.Run(t, "cat "+sysctl.OfDevice(Name, "forwarding"))); got != want {
			t.Errorf("with ip_forward=%s, %s has forwarding=%s", forwards, Name, got)
		}
	}
}

// The overlay of a host with IPv6 has no address of it, says nothing by itself, and sends all
// packets to one neighbour.
//
// Mutant killed: overlay-has-an-ipv6-address.
func TestOverlayOfIPv6(t *testing.T) {
	host, _, _ := netnstest.Host(t, "eth0")
	cfg := Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450, IPv6: true}
	for range 2 {
		must(t, raise(t, host, cfg))
	}
	if shown := host.Run(t, "ip -6 address show dev egress0"); shown != "" {
		t.Errorf("addresses: %s", shown)
	}
	if shown := host.Run(t, "ip -6 neigh show dev egress0"); !strings.Contains(shown, "fe80::4d:2 lladdr 02:00:00:00:4d:02 PERMANENT") {
		t.Errorf("neighbours: %s", shown)
	}
}

// Kills the mutant that takes every device of the name for ours.
func TestDeviceOfOthersIsLeftAlone(t *testing.T) {
	for _, add := range []string{"ip link add egress0 type bridge", "ip link add egress0 type vxlan id 1 dev eth0 dstport 4789"} {
		t.Run(add, func(t *testing.T) {
			host, h, _ := netnstest.Host(t, "eth0")
			host.Run(t, add)
			before := host.Run(t, "ip -details link show egress0")
			err := raise(t, host, Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450})
			if !errors.Is(err, ErrForeignDevice) {
				t.Fatalf("taken for ours: %v", err)
			}
			if removed, err := Remove(h); removed || err != nil {
				t.Fatalf("removed: %t, %v", removed, err)
			}
			if after := host.Run(t, "ip -details link show egress0"); after != before {
				t.Fatalf("changed from\n%s to\n%s", before, after)
			}
		})
	}
}

func TestOverlayWithOtherSettingsIsReplaced(t *testing.T) {
	want := Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450}
	for name, add := range map[string]string{
		"other port":  "ip link add egress0 type vxlan external nolearning dstport 4790",
		"learning":    "ip link add egress0 type vxlan external learning dstport 9789",
		"another MAC": "ip link add egress0 address 02:00:00:00:00:01 type vxlan external nolearning dstport 9789",
	} {
		t.Run(name, func(t *testing.T) {
			host, h, _ := netnstest.Host(t, "eth0")
			host.Run(t, add+"; ip link set egress0 up")
			must(t, raise(t, host, want))
			link, err := h.LinkByName(Name)
			must(t, err)
			if !isAsWanted(link, want) || link.Attrs().Flags&net.FlagUp == 0 {
				t.Fatalf("overlay device is %+v", link)
			}
		})
	}
}

func TestOverlayLeavesOtherDevicesStrict(t *testing.T) {
	host, _, _ := netnstest.Host(t, "eth0")
	host.Run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1")
	must(t, raise(t, host, Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450}))
	for device, want := range map[string]string{"all": "1", "default": "1", "eth0": "1", "lo": "0", Name: "2"} {
		if got := strings.TrimSpace(host.Run(t, "cat "+sysctl.OfDevice(device, "rp_filter"))); got != want {
			t.Errorf("rp_filter of %s is %s, want %s", device, got, want)
		}
	}
}

func TestHostsHaveDifferentOverlayMACs(t *testing.T) {
	seen := map[string]string{}
	for _, ip := range []string{"192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.1.0"} {
		mac := hostMAC(testenv.Addr(ip))
		if mac[0]&0x03 != 0x02 {
			t.Errorf("MAC %v of %s is not a locally administered unicast one", mac, ip)
		}
		if other, twice := seen[mac.String()]; twice {
			t.Errorf("%s and %s share MAC %v: VXLAN drops frames with its own", ip, other, mac)
		}
		seen[mac.String()] = ip
	}
}

func TestOverlayIsMadeMendedAndRemoved(t *testing.T) {
	h := netnstest.Enter(t)
	cfg := Config{HostIP: testenv.Addr("192.0.2.1"), Port: 9789, MTU: 1450}
	ensure := func() (int, error) {
		link, n, err := Ensure(h, cfg)
		if err != nil {
			return n, err
		}
		m, err := Raise(h, link, cfg.IPv6)
		return n + m, err
	}
	netnstest.Twice(t, "overlay", ensure)
	for name, damage := range map[string]func(netlink.Link) error{
		"set down":    h.LinkSetDown,
		"deleted":     h.LinkDel,
		"MTU changed": func(l netlink.Link) error { return h.LinkSetMTU(l, 1300) },
		"neighbour gone": func(l netlink.Link) error {
			return h.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: NextHop().AsSlice()})
		},
		"address deleted": func(l netlink.Link) error { return h.AddrDel(l, &netlink.Addr{IPNet: nlutil.IPNet(address())}) },
		"strict rp_filter": func(netlink.Link) error {
			return os.WriteFile(sysctl.OfDevice(Name, "rp_filter"), []byte("1"), 0o600)
		},
	} {
		t.Run(name, func(*testing.T) {}) // names the case in the output; the work stays on this thread
		link, err := h.LinkByName(Name)
		must(t, err)
		must(t, damage(link))
		netnstest.Twice(t, "mend after: "+name, ensure)
	}
	if removed, err := Remove(h); err != nil || !removed {
		t.Fatalf("remove: %t, %v", removed, err)
	}
	if removed, err := Remove(h); err != nil || removed {
		t.Fatalf("remove again: %t, %v", removed, err)
	}
}
