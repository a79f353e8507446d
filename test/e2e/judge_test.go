package e2e

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// A reset of a pod is judged by its source like every other packet.
func TestWhoSentAReset(t *testing.T) {
	p := testbed.Packet{
		Protocol: unix.IPPROTO_TCP, TCPFlags: 4, Hops: 63, Length: 40,
		Source: netip.MustParseAddrPort("192.168.7.11:47332"), Destination: netip.MustParseAddrPort("10.1.8.72:8080"),
	}
	if !ofTheHostItself(p) {
		t.Error("a host's own reset is taken for a pod's")
	}
	for what, change := range map[string]func(*testbed.Packet){
		"a pod's reset": func(p *testbed.Packet) { p.Hops = 62 },
		"a reset from an egress IP": func(p *testbed.Packet) {
			p.Source = netip.AddrPortFrom(netip.MustParsePrefix(egressRange).Addr(), p.Source.Port())
		},
		"a request":  func(p *testbed.Packet) { p.TCPFlags = 2 },
		"data":       func(p *testbed.Packet) { p.Payload = []byte("x") },
		"a datagram": func(p *testbed.Packet) { p.Protocol = unix.IPPROTO_UDP },
	} {
		changed := p
		change(&changed)
		if ofTheHostItself(changed) {
			t.Errorf("%s is taken for the host's own", what)
		}
	}
}
