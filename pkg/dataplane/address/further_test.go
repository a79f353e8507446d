package address

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: interfaces of many kinds; then those count that are up, have a carrier, are ports of
// no other and have an address of the host in a network of several addresses.
//
// Mutants killed: interfaces-without-carrier, egress-ips-make-networks.
func TestFurtherInterfaces(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	must(t, addOne(h, u, "192.0.2.200"))
	host.Run(t, `for i in 1 2 3 4 5 6 7; do ip link add eth$i type veth peer name far$i; ip link set eth$i up; done
		for i in 1 2 4 5 6 7; do ip link set far$i up; done
		ip address add 172.16.5.10/24 dev eth1; ip address add 172.16.4.10/24 dev eth1; ip address add 172.16.5.11/24 dev eth1
		ip address add 2001:db8:5::10/64 dev eth1 nodad; ip address add 172.16.5.201/32 scope nowhere label eth1:eip dev eth1
		ip link add br9 type bridge; ip link set eth2 master br9; ip address add 172.16.2.10/24 dev eth2
		ip address add 172.16.3.10/24 dev eth3
		ip address add 172.16.8.10/32 dev eth4; ip address add fd00:8::1/128 dev eth4 nodad
		ip address add 169.254.9.9/16 dev eth5; ip address add 172.16.9.9/24 scope link dev eth5
		ip address add 172.16.6.10/24 dev eth6; ip link set eth6 down
		ip link set eth7 arp off; ip address add 172.16.7.10/24 dev eth7`)
	got := map[string][]netip.Prefix{}
	var found []Further
	host.Do(t, func() {
		var err error
		found, err = Furthers(h, u.Link.Attrs().Index)
		must(t, err)
	})
	for _, f := range found {
		got[f.Name()] = f.Networks()
	}
	want := map[string][]netip.Prefix{"eth1": {testenv.Prefix("172.16.4.0/24"), testenv.Prefix("172.16.5.0/24"), testenv.Prefix("2001:db8:5::/64")}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// given: egress IPs on the uplink and on a further interface; then each has the form that is
// safe there, the kernel chooses none as source, and they are ours.
func TestEgressAddressOnAFurtherInterface(t *testing.T) {
	host, h, u := hostWith(t, "eth0")
	host.Run(t, `ip link add eth1 type veth peer name far1; ip link set eth1 up; ip link set far1 up
		sysctl -qw net.ipv4.conf.all.promote_secondaries=0 net.ipv4.conf.eth1.promote_secondaries=0
		ip address add 172.16.5.10/24 dev eth1; ip address add fd00:5::10/64 dev eth1 nodad`)
	host.Do(t, func() {
		var err error
		u, err = FindUplink(h, testenv.Addr("192.0.2.1"))
		must(t, err)
		found, err := Furthers(h, u.Link.Attrs().Index)
		must(t, err)
		if len(found) != 1 {
			t.Fatalf("further interfaces: %v", found)
		}
		place, err := found[0].Place(h)
		must(t, err)
		must(t, addOne(h, u, "192.0.2.200"))
		for _, ip := range []string{"172.16.5.201", "fd00:5::201"} {
			must(t, addOne(h, place, ip))
			if a := ownOnes(t, h)[testenv.Addr(ip)]; !place.Placed(a) || u.Placed(a) {
				t.Errorf("%s is at %v", ip, a)
			}
		}
		if n, err := Mend(h, &u, place); n != 0 || err != nil {
			t.Errorf("mend what has just been added: %d changes, %v", n, err)
		}
		if a := ownOnes(t, h)[testenv.Addr("172.16.5.201")]; len(a) != 1 || !isHidden(a[0]) || a[0].Label != "eth1:eip" {
			t.Errorf("form: %v", a)
		}
		// The host's own address goes and comes back.
		host.Run(t, "ip address delete 172.16.5.10/24 dev eth1; ip address add 172.16.5.10/24 dev eth1")
		routes, err := h.RouteGet(testenv.Addr("172.16.5.77").AsSlice())
		must(t, err)
		if len(routes) != 1 || routes[0].Src.String() != "172.16.5.10" {
			t.Errorf("the host sends with %v", routes)
		}
		// Moved by hand: it is brought back.
		must(t, addOne(h, u, "172.16.5.201"))
		must(t, addOne(h, place, "172.16.5.201"))
		if a := ownOnes(t, h)[testenv.Addr("172.16.5.201")]; !place.Placed(a) {
			t.Errorf("it is at %v", a)
		}
	})
}
