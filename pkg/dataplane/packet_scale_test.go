package dataplane

import (
	"net/netip"
	"testing"
	"time"
)

// given: a cluster of thousands of hosts, and hundreds of egress IPs and pods on
// one of them; when it is applied, then it settles, in a time that is logged.
func TestLargeClusterSettles(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	n.Run(t, "ip address delete 192.168.7.11/24 dev eth0; ip address add 192.168.7.11/16 dev eth0")
	for i := range 5000 {
		n.state.Hosts = append(n.state.Hosts, netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}))
		n.state.Inside = append(n.state.Inside, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24))
	}
	for i := range 500 {
		ip, netID := netip.AddrFrom4([4]byte{192, 168, byte(100 + i>>8), byte(i)}), uint32(100+i)
		n.state.Hosted = append(n.state.Hosted, Hosted{IP: ip, NetID: netID})
		pod := netip.AddrFrom4([4]byte{10, 244, byte(1 + i>>8), byte(i)})
		n.state.Pods = append(n.state.Pods, Pod{IP: pod, Kind: Local, NetID: netID, EgressIP: ip})
	}
	timed := func(what string) Report {
		began := time.Now()
		r := n.apply(t)
		t.Logf("%s: %v, %d changes", what, time.Since(began).Round(time.Millisecond), r.Changes)
		return r
	}
	timed("all new")
	if r := timed("nothing new"); r.Changes != 0 {
		t.Errorf("a second pass made %d changes", r.Changes)
	}
	n.state.Hosts, n.state.Inside, n.state.Hosted = n.state.Hosts[:4000], n.state.Inside[:4000], n.state.Hosted[100:]
	timed("a thousand hosts and a hundred egress IPs less")
	n.settled(t)
	began := time.Now()
	n.Do(t, func() { must(t, Cleanup(t.Context(), n.cfg)) })
	t.Logf("cleanup: %v", time.Since(began).Round(time.Millisecond))
}
