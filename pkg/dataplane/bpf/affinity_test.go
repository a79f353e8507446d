package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// The key is as the program outward writes it: addresses and ports in network order,
// and no ports for other protocols.
func TestAffinityOfThePodsThatAreAskedFor(t *testing.T) {
	h := netnstest.Enter(t)
	m, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{IPv6: true})
	must(t, err)
	defer m.Close()
	host := hostOrder(testenv.Addr("192.0.2.2"))
	for _, key := range [][16]byte{
		{10, 0, 0, 5, 203, 0, 113, 9, 0x9c, 0x40, 0, 80, unix.IPPROTO_TCP},
		{10, 0, 0, 5, 203, 0, 113, 9, 0, 0, 0, 0, unix.IPPROTO_ICMP},
		{10, 0, 0, 6, 203, 0, 113, 9, 0x9c, 0x40, 0, 80, unix.IPPROTO_TCP},
	} {
		must(t, m.ip4.flows.Put(key, host))
	}
	found, err := m.FlowAffinity(map[netip.Addr]bool{testenv.Addr("10.0.0.5"): true})
	must(t, err)
	to := netip.MustParseAddrPort("203.0.113.9:80")
	for _, c := range []struct {
		protocol uint8
		from     string
		known    bool
	}{
		{unix.IPPROTO_TCP, "10.0.0.5:40000", true},
		{unix.IPPROTO_ICMP, "10.0.0.5:40000", true},
		{unix.IPPROTO_UDP, "10.0.0.5:40000", false},
		{unix.IPPROTO_TCP, "10.0.0.5:40001", false},
		{unix.IPPROTO_TCP, "10.0.0.6:40000", false}, // not asked for
	} {
		got, known := found.Host(c.protocol, netip.MustParseAddrPort(c.from), to)
		if known != c.known || known && got != testenv.Addr("192.0.2.2") {
			t.Errorf("protocol %d from %s: %v, %t", c.protocol, c.from, got, known)
		}
	}
}
