package address

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

func TestFormIsTheOneThatIsSafe(t *testing.T) {
	for _, c := range []struct {
		name string
		is   situation
		want form
	}{
		{"as OpenShift shows it", situation{prefix: 24}, secondary},
		{"promoted when the host's address goes", situation{prefix: 24, promotes: true}, hidden},
		{"no prefix to be secondary in", situation{prefix: 32}, hidden},
		{"127.0.0.0/8 leaves the host", situation{prefix: 24, promotes: true, localnet: true}, hidden},
		{"bare routes", situation{prefix: 24, promotes: true, bare: true}, hidden},
		{"scope does not hide it from bare routes", situation{prefix: 24, promotes: true, localnet: true, bare: true}, last},
		{"ARP does not answer for narrow scopes", situation{prefix: 32, muted: true}, last},
		{"ARP, where secondary is safe", situation{prefix: 24, muted: true}, secondary},
	} {
		if got := c.is.form(); got != c.want {
			t.Errorf("%s: form %d, want %d", c.name, got, c.want)
		}
	}
}

// given: addresses of ours in other forms, twice, and with a label that a rename took;
// then one of each stays, in the right form, and those of others as they are.
func TestMendKeepsOneOfEach(t *testing.T) {
	host, h, _ := hostWith(t, "eth0")
	host.Run(t, `sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1
		ip address add 192.0.2.200/24 dev eth0 label eth0:eip
		ip address add 192.0.2.200/32 dev eth0 label eth0:eip
		ip address add 192.0.2.201/32 dev eth0 label eth0:eip scope nowhere
		ip address add 192.0.2.201/24 dev eth0 label eth0:eip
		ip address add 192.0.2.202/32 dev eth0 scope nowhere
		ip address add 192.0.2.7/32 dev eth0 scope nowhere label eth0:vip
		ip address add 192.0.2.8/32 dev eth0 label eth0:vip`)
	u := uplinkOf(t, host, h)
	host.Do(t, func() {
		if n, err := Mend(h, &u); n != 3 || err != nil {
			t.Errorf("%d changes, %v", n, err)
		}
		if n, err := Mend(h, &u); n != 0 || err != nil {
			t.Errorf("again: %d changes, %v", n, err)
		}
	})
	own := ownOnes(t, h)
	if len(own) != 3 {
		t.Errorf("own addresses: %v", own)
	}
	for _, ip := range []string{"192.0.2.200", "192.0.2.201", "192.0.2.202"} {
		a := own[testenv.Addr(ip)]
		if !u.Placed(a) || !isHidden(a[0]) || a[0].Label != "eth0:eip" {
			t.Errorf("%s: %+v", ip, a)
		}
	}
	for _, theirs := range []string{"192.0.2.1/24", "192.0.2.7/32", "192.0.2.8/32"} {
		if shown := host.Run(t, "ip -oneline address show dev eth0 to "+netip.MustParsePrefix(theirs).Addr().String()); shown == "" {
			t.Errorf("%s has gone", theirs)
		}
	}
}

// Kills the mutant that ignores the order: the kernel would choose the egress IP.
func TestMendPutsThemBehindTheHostsAddress(t *testing.T) {
	host, h, _ := hostWith(t, "eth0")
	host.Run(t, `sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1 net.ipv4.conf.eth0.arp_ignore=3
		ip address delete 192.0.2.1/24 dev eth0
		ip address add 192.0.2.200/32 dev eth0 label eth0:eip
		ip address add 192.0.2.201/32 dev eth0 label eth0:eip
		ip address add 192.0.2.1/24 dev eth0; ip route add 198.51.100.0/24 dev eth0`)
	u := uplinkOf(t, host, h)
	host.Do(t, func() {
		if n, err := Mend(h, &u); n != 2 || err != nil {
			t.Errorf("%d changes, %v", n, err)
		}
		if n, err := Mend(h, &u); n != 0 || err != nil {
			t.Errorf("again: %d changes, %v", n, err)
		}
	})
	if n := len(ownOnes(t, h)); n != 2 {
		t.Errorf("%d addresses of ours", n)
	}
	if got := host.Run(t, "ip route get 198.51.100.1"); !strings.Contains(got, "src 192.0.2.1 ") {
		t.Errorf("the host would send %s", got)
	}
}

// While the host has no address of its own, the kernel must not choose an egress IP.
func TestMendWithoutUplinkHidesAll(t *testing.T) {
	host, h, _ := hostWith(t, "eth0")
	host.Run(t, `ip address delete 192.0.2.1/24 dev eth0; ip address add 192.0.2.200/24 dev eth0 label eth0:eip
		ip route add default dev eth0`)
	host.Do(t, func() {
		if n, err := Mend(h, nil); n != 1 || err != nil {
			t.Errorf("%d changes, %v", n, err)
		}
	})
	if got := host.Run(t, "ip route get 203.0.113.1"); strings.Contains(got, "192.0.2.200") {
		t.Errorf("the host would send %s", got)
	}
}
