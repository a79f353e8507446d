package address

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// hostWith makes a machine with one interface, which has address 192.0.2.1/24,
// and finds its uplink.
func hostWith(t *testing.T, device string) (*netnstest.Machine, *netlink.Handle, Uplink) {
	t.Helper()
	host, h, _ := netnstest.Host(t, device)
	host.Stay(t)
	return host, h, uplinkOf(t, host, h)
}

// uplinkOf finds the uplink of a host, whose settings are read there.
func uplinkOf(t *testing.T, host *netnstest.Machine, h *netlink.Handle) (u Uplink) {
	t.Helper()
	host.Do(t, func() {
		var err error
		u, err = FindUplink(h, testenv.Addr("192.0.2.1"))
		must(t, err)
	})
	return u
}

func must(t *testing.T, err error) {
	t.Helper()
	netnstest.Must(t, err)
}

// addOne adds one egress IP, and gives the reason if it is refused.
func addOne(h *netlink.Handle, u Uplink, ip string) error {
	_, refused := Add(h, u, []netip.Addr{testenv.Addr(ip)})
	return refused[testenv.Addr(ip)]
}

func ownOnes(t *testing.T, h *netlink.Handle) map[netip.Addr][]netlink.Addr {
	t.Helper()
	own, err := Own(h)
	must(t, err)
	return own
}

func TestEgressAddressIsLabelledSecondaryAndOurs(t *testing.T) {
	// The second leaves no room for the suffix in a label.
	for _, device := range []string{"eth0", "enp134s0f0np0"} {
		t.Run(device, func(t *testing.T) {
			host, h, u := hostWith(t, device)
			if u.Name != device || u.CIDR.String() != "192.0.2.1/24" {
				t.Fatalf("uplink: %s %v", u.Name, u.CIDR)
			}
			must(t, addOne(h, u, "192.0.2.200"))
			must(t, addOne(h, u, "192.0.2.200"))
			own := ownOnes(t, h)
			a := own[testenv.Addr("192.0.2.200")]
			if len(own) != 1 || !u.Placed(a) || a[0].Label != Label(device) || a[0].IPNet.String() != "192.0.2.200/24" {
				t.Fatalf("own addresses: %+v", own)
			}
			shown := host.Run(t, "ip -oneline address show dev "+device+" to 192.0.2.200")
			if !strings.Contains(shown, "scope global secondary "+Label(device)) {
				t.Fatalf("ip address shows %q", shown)
			}
			if _, err := FindUplink(h, testenv.Addr("192.0.2.200")); !errors.Is(err, ErrNoUplink) {
				t.Fatalf("an egress IP was taken for the host's own address: %v", err)
			}
			must(t, Delete(h, a))
			must(t, Delete(h, a))
			if _, err := FindUplink(h, testenv.Addr("192.0.2.1")); err != nil {
				t.Fatalf("the host's own address went with the egress IP: %v", err)
			}
		})
	}
}

// Kills the mutant that trusts the kernel to refuse what is there: it does so
// only for the same prefix length on the same interface.
func TestAddressOfOthersIsRefusedWhereverItIs(t *testing.T) {
	for name, add := range map[string]string{
		"host's own":              "true",
		"on the uplink":           "ip address add 192.0.2.200/24 dev eth0",
		"from a VRRP daemon":      "ip address add 192.0.2.200/32 dev eth0",
		"on the loopback":         "ip address add 192.0.2.200/32 dev lo",
		"with a label of another": "ip address add 192.0.2.200/24 dev eth0 label eth0:vip",
	} {
		t.Run(name, func(t *testing.T) {
			host, h, u := hostWith(t, "eth0")
			host.Run(t, add)
			ip := "192.0.2.200"
			if add == "true" {
				ip = "192.0.2.1"
			}
			// An IPv6 address may still be tentative at first.
			addresses := func() string {
				return strings.ReplaceAll(host.Run(t, "ip -oneline address"), " tentative", "")
			}
			before := addresses()
			if err := addOne(h, u, ip); !errors.Is(err, ErrForeign) {
				t.Fatalf("added to what others have: %v", err)
			}
			if own := ownOnes(t, h); len(own) != 0 {
				t.Fatalf("taken for ours: %v", own)
			}
			if after := addresses(); after != before {
				t.Fatalf("addresses of others changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// given: routes over a gateway, over several, and over one elsewhere; then no gateway on
// the uplink becomes an egress IP, and others may.
//
// Kills the mutant gateway-becomes-an-egress-ip.
func TestGatewayIsRefused(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	host.Run(t, `ip link add eth1 type veth peer name far1; ip link set eth1 up; ip link set far1 up; ip address add 198.51.100.1/24 dev eth1
		ip route add default via 192.0.2.254; ip route add 203.0.113.0/24 nexthop via 192.0.2.253 nexthop via 198.51.100.254
		ip route add 10.0.0.0/8 via 192.0.2.252; ip route add 10.9.0.0/16 via 198.51.100.200`)
	for _, ip := range []string{"192.0.2.254", "192.0.2.253", "192.0.2.252"} {
		if err := addOne(h, u, ip); !errors.Is(err, ErrGateway) {
			t.Errorf("%s: %v", ip, err)
		}
	}
	must(t, addOne(h, u, "192.0.2.200"))
	if own := ownOnes(t, h); len(own) != 1 {
		t.Errorf("own addresses: %v", own)
	}
}

func TestEgressAddressFollowsTheUplink(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	must(t, addOne(h, u, "192.0.2.200"))
	// As when an administrator puts the interface into a bridge.
	host.Run(t, `ip link add br0 type bridge; ip link set br0 up
		ip address add 192.0.2.1/24 dev br0; sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1
		ip address delete 192.0.2.1/24 dev eth0; ip link set eth0 master br0`)
	if a := ownOnes(t, h)[testenv.Addr("192.0.2.200")]; len(a) != 1 {
		t.Fatalf("the test wants the address left behind on eth0, not %v", a)
	}
	u = uplinkOf(t, host, h)
	if u.Name != "br0" || u.Placed(ownOnes(t, h)[testenv.Addr("192.0.2.200")]) {
		t.Fatalf("uplink is %s, and the address is in place", u.Name)
	}
	host.Do(t, func() { must(t, addOne(h, u, "192.0.2.200")) })
	if a := ownOnes(t, h)[testenv.Addr("192.0.2.200")]; !u.Placed(a) || a[0].Label != "br0:eip" {
		t.Fatalf("on the new uplink: %+v", a)
	}
}

// Kills the mutant that just deletes: where an egress IP has become the first
// address of its network, the kernel deletes the host's own with it.
func TestHostAddressOutlivesEgressAddressThatBecameFirst(t *testing.T) {
	for _, setting := range []string{"0", "1"} {
		t.Run("promote_secondaries="+setting, func(t *testing.T) {
			host, h, u := hostWith(t, "eth0")
			must(t, addOne(h, u, "192.0.2.200"))
			host.Run(t, `sysctl -qw net.ipv4.conf.all.promote_secondaries=0 net.ipv4.conf.eth0.promote_secondaries=1
				ip address delete 192.0.2.1/24 dev eth0; ip address add 192.0.2.1/24 dev eth0
				sysctl -qw net.ipv4.conf.eth0.promote_secondaries=`+setting)
			a := ownOnes(t, h)[testenv.Addr("192.0.2.200")]
			if len(a) != 1 || a[0].Flags&unix.IFA_F_SECONDARY != 0 {
				t.Fatalf("the test wants an egress IP that is first, not %+v", a)
			}
			host.Do(t, func() { must(t, Delete(h, a)) })
			if _, err := FindUplink(h, testenv.Addr("192.0.2.1")); err != nil {
				t.Fatalf("the host lost its own address: %v", err)
			}
			if len(ownOnes(t, h)) != 0 {
				t.Fatal("the egress IP is still there")
			}
			if got := strings.TrimSpace(host.Run(t, "cat /proc/sys/net/ipv4/conf/eth0/promote_secondaries")); got != setting {
				t.Fatalf("promote_secondaries is %s now", got)
			}
		})
	}
}
