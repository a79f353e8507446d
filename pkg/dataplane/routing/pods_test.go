package routing

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// The routes are those that CNIs have: bridge, Calico with a block of addresses, AWS VPC
// CNI, Cilium; and some that lead to no pod.
//
// Mutants killed: tunnels-lead-to-pods, uplinks-lead-to-pods, blocks-are-not-seen.
func TestToPods(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	host.Run(t, `ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up; ip address add 192.168.7.10/24 dev up0
		ip route add default via 192.168.7.1; ip route add 10.7.0.0/24 via 192.168.7.12
		ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.1.1/24 dev cni0
		ip link add cali1 type veth peer name calx; ip link set cali1 up; ip link set calx up
		ip route add 10.244.133.70 dev cali1; ip route add blackhole 10.244.133.64/26
		ip route add 10.0.1.5 dev cali1
		ip address add 10.0.9.1/32 dev cni0; ip route add 10.0.9.0/24 via 10.0.9.1 dev cni0
		ip link add vx1 type vxlan id 9 dstport 9999; ip link set vx1 up; ip route add 10.8.0.0/20 dev vx1
		ip route add unreachable 10.6.0.0/24
		ip address add fd00:7::10/64 dev up0 nodad; ip -6 route add default via fd00:7::1
		ip address add fd00:244:1::1/64 dev cni0 nodad
		ip -6 route add fd00:133::4f dev cali1; ip -6 route add blackhole fd00:133::40/122
		ip -6 route add fd00:5::5 dev cali1; ip -6 route add fd00:8::/64 dev vx1`)
	up, err := h.LinkByName("up0")
	must(t, err)
	want := []PodRoute{
		{testenv.Addr("10.244.1.7"), testenv.Prefix("10.244.1.0/24"), false},
		{testenv.Addr("10.244.133.70"), testenv.Prefix("10.244.133.64/26"), false},
		{testenv.Addr("10.0.1.5"), testenv.Prefix("10.0.1.5/32"), false},
		{testenv.Addr("10.0.9.20"), testenv.Prefix("10.0.9.0/24"), false},
		{testenv.Addr("10.8.0.3"), testenv.Prefix("10.8.0.0/20"), true},        // a tunnel
		{testenv.Addr("10.7.0.3"), testenv.Prefix("10.7.0.0/24"), true},        // another host
		{testenv.Addr("192.168.7.30"), testenv.Prefix("192.168.7.0/24"), true}, // the segment
		{testenv.Addr("203.0.113.9"), testenv.Prefix("203.0.113.9/32"), true},  // the outside
		{testenv.Addr("10.244.1.1"), testenv.Prefix("10.244.1.1/32"), true},    // the host itself
		{testenv.Addr("10.6.0.3"), testenv.Prefix("10.6.0.3/32"), true},        // nowhere
		{testenv.Addr("fd00:244:1::7"), testenv.Prefix("fd00:244:1::/64"), false},
		{testenv.Addr("fd00:133::4f"), testenv.Prefix("fd00:133::40/122"), false},
		{testenv.Addr("fd00:5::5"), testenv.Prefix("fd00:5::5/128"), false},
		{testenv.Addr("fd00:8::3"), testenv.Prefix("fd00:8::/64"), true},           // a tunnel
		{testenv.Addr("fd00:7::30"), testenv.Prefix("fd00:7::/64"), true},          // the segment
		{testenv.Addr("2001:db8:9::9"), testenv.Prefix("2001:db8:9::9/128"), true}, // the outside
		{testenv.Addr("fd00:244:1::1"), testenv.Prefix("fd00:244:1::1/128"), true}, // the host itself
	}
	var addresses []netip.Addr
	for _, r := range want {
		addresses = append(addresses, r.IP)
	}
	got, err := ToPods(h, addresses, []int{link.Attrs().Index, up.Attrs().Index})
	must(t, err)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
