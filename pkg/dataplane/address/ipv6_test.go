package address

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// given: an uplink with IPv6; then an egress IP stands there without a label, is known as ours
// by whoever looks, brings no route to a network, and is never the source of the host's own
// packets, also where all other addresses come and go; and it is mended.
//
// Mutants killed: ipv6-egress-ip-is-preferred, anybodys-ipv6-is-ours.
func TestEgressAddressOfIPv6(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	host.Run(t, "ip address add 2001:db8::1/64 dev eth0 nodad; ip -6 route add default via 2001:db8::99")
	before := host.Run(t, "ip -6 route show")
	ip := testenv.Addr("2001:db8::200")
	for range 2 {
		must(t, addOne(h, u, ip.String()))
	}
	own := ownOnes(t, h)
	if len(own) != 1 || !u.Placed(own[ip]) || Prefix(own[ip][0]) != netip.PrefixFrom(ip, 128) {
		t.Fatalf("own addresses: %+v", own)
	}
	shown := func() string { return host.Run(t, "ip -6 -oneline address show dev eth0 to 2001:db8::200") }
	for _, word := range []string{"/128", "deprecated", "nodad", "noprefixroute", "metric 1000000077", "preferred_lft 0sec", "valid_lft forever"} {
		if !strings.Contains(shown(), word) {
			t.Errorf("ip address shows %q, without %s", shown(), word)
		}
	}
	if after := host.Run(t, "ip -6 route show"); after != before {
		t.Errorf("routes changed from\n%s to\n%s", before, after)
	}
	source := func(want string) {
		t.Helper()
		if got := host.Run(t, "ip -6 route get 2001:db8:1::1 2>&1 || true"); strings.Contains(got, "src "+ip.String()) || !strings.Contains(got, want) {
			t.Errorf("the host sends: %s, want %s", got, want)
		}
	}
	source("src 2001:db8::1 ")
	host.Run(t, "ip address delete 2001:db8::1/64 dev eth0; ip address add 2001:db8:0:7::2/64 dev eth0 nodad")
	source("src 2001:db8:0:7::2 ")

	mend := func() (n int) {
		host.Do(t, func() {
			var err error
			n, err = Mend(h, &u)
			must(t, err)
		})
		return n
	}
	if n := mend(); n != 0 {
		t.Errorf("mended what is right: %d changes", n)
	}
	for _, spoil := range []string{
		"ip address change 2001:db8::200/128 dev eth0 preferred_lft forever valid_lft forever nodad",
		"ip address change 2001:db8::200/128 dev eth0 preferred_lft 0 valid_lft 1000 nodad",
	} {
		host.Run(t, spoil)
		if n := mend(); n != 1 || mend() != 0 || !strings.Contains(shown(), "deprecated") || !strings.Contains(shown(), "valid_lft forever") {
			t.Errorf("after %q: %d changes, %s", spoil, n, shown())
		}
	}
	must(t, Delete(h, ownOnes(t, h)[ip]))
	must(t, Delete(h, own[ip]))
	if left := shown(); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestAddressOfIPv6OfOthersIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		setup string
		want  error
	}{
		"on the uplink":   {"ip address add 2001:db8::200/64 dev eth0 nodad", ErrForeign},
		"with a metric":   {"ip address add 2001:db8::200/128 dev eth0 nodad noprefixroute metric 100", ErrForeign},
		"on the loopback": {"ip address add 2001:db8::200/128 dev lo", ErrForeign},
		"a gateway":       {"ip address add 2001:db8::1/64 dev eth0 nodad; ip -6 route add default via 2001:db8::200", ErrGateway},
	} {
		t.Run(name, func(t *testing.T) {
			host, h, u := hostWith(t, "eth0")
			host.Run(t, c.setup)
			if err := addOne(h, u, "2001:db8::200"); !errors.Is(err, c.want) {
				t.Errorf("refused with %v", err)
			}
			if own := ownOnes(t, h); len(own) != 0 {
				t.Errorf("taken for ours: %v", own)
			}
		})
	}
}

// The networks of the uplink are those of addresses and of routes without a gateway, and no
// egress IP adds one.
func TestNetworksOfIPv6AtTheUplink(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	host.Run(t, `ip address add 2001:db8::1/64 dev eth0 nodad; ip address add fd00:5::1/128 dev eth0 nodad; ip -6 route add fd00:5::/48 dev eth0 proto ra
		ip -6 route add default via 2001:db8::99; ip -6 route add 2001:db8:7::/64 via 2001:db8::98; ip -6 route add blackhole fd00:6::/48`)
	must(t, addOne(h, u, "2001:db8::200"))
	var got []netip.Prefix
	host.Do(t, func() {
		var err error
		got, err = u.Networks6(h)
		netnstest.Must(t, err)
	})
	if want := []netip.Prefix{netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("fd00:5::/48")}; !slices.Equal(got, want) {
		t.Errorf("networks %v, want %v", got, want)
	}
}
