package conntrack

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// track makes a tracked UDP connection: from source, to dest, which DNAT made
// of what the source asked for, and which sees it come from sourceOutside.
func track(t *testing.T, h *netlink.Handle, f Flow, port uint16) {
	t.Helper()
	family := netlink.InetFamily(familyOf(f.Source))
	service := net.IPv4(10, 96, 0, 10).To4()
	if f.Asked.IsValid() {
		service = f.Asked.Addr().AsSlice()
	}
	netnstest.Must(t, h.ConntrackCreate(netlink.ConntrackTable, family, &netlink.ConntrackFlow{
		FamilyType: uint8(family),
		Forward: netlink.IPTuple{
			Protocol: unix.IPPROTO_UDP, SrcIP: f.Source.AsSlice(), DstIP: service, SrcPort: port, DstPort: 53,
		},
		Reverse: netlink.IPTuple{
			Protocol: unix.IPPROTO_UDP, SrcIP: f.Dest.AsSlice(), DstIP: f.SourceOutside.AsSlice(), SrcPort: 53, DstPort: port,
		},
		Mark: f.Mark, TimeOut: 600,
	}))
}

// tracked lists the tracked connections with their count.
func tracked(t *testing.T, m *netnstest.Machine) map[Flow]int {
	t.Helper()
	found := map[Flow]int{}
	m.Do(t, func() {
		n, err := Delete(func(f Flow) bool { found[f]++; return false })
		if err != nil || n != 0 {
			t.Fatalf("looking deleted %d connections: %v", n, err)
		}
	})
	return found
}

// deleted deletes all connections equal to f, and counts them.
func deleted(t *testing.T, m *netnstest.Machine, f Flow) (n int) {
	t.Helper()
	m.Do(t, func() {
		var err error
		n, err = Delete(func(o Flow) bool { return o == f })
		netnstest.Must(t, err)
	})
	return n
}

// Kills the mutants that take a service's address for the destination, or the
// pod's for the source outside.
//
// Mutant killed: connections-are-all-ipv4.
func TestFlowsAreDeletedByWhatTheyReallyAre(t *testing.T) {
	host := netnstest.New(t, "host")
	h := host.Handle(t)
	// The kernel tracks where rules ask for it.
	host.Run(t, `iptables-nft -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j ACCEPT
		ip6tables-nft -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j ACCEPT`)
	port := uint16(999)
	flowOf := func(source, dest, outside string, mark uint32) Flow {
		port++
		return Flow{
			Source: netip.MustParseAddr(source), Dest: netip.MustParseAddr(dest), SourceOutside: netip.MustParseAddr(outside), Mark: mark,
			Asked:    netip.MustParseAddrPort("10.96.0.10:53"),
			Protocol: unix.IPPROTO_UDP, SourcePort: port, DestPort: 53,
		}
	}
	stale := flowOf("10.244.1.2", "10.1.8.72", "192.0.2.200", 0x1001)
	inside := flowOf("10.244.1.2", "10.244.2.9", "10.244.1.2", 0)
	inbound := flowOf("10.1.8.72", "10.244.1.2", "10.1.8.72", 0)
	other := flowOf("10.244.1.3", "10.1.8.72", "192.0.2.1", 0x4000)
	stale6, other6 := flowOf("fd00::2", "2001:db8::72", "2001:db8::200", 0x1001), flowOf("fd00::3", "2001:db8::72", "fd00::3", 0)
	stale6.Asked, other6.Asked = netip.MustParseAddrPort("[fd96::10]:53"), netip.MustParseAddrPort("[fd96::10]:53")
	for _, f := range []Flow{stale, inside, inbound, other, stale6, other6} {
		track(t, h, f, f.SourcePort)
	}
	if diff := cmp.Diff(map[Flow]int{stale: 1, inside: 1, inbound: 1, other: 1, stale6: 1, other6: 1}, tracked(t, host), cmp.Comparer(sameAddr)); diff != "" {
		t.Fatalf("tracked connections (-want +got):\n%s", diff)
	}
	for _, f := range []Flow{stale, stale6} {
		if n := deleted(t, host, f); n != 1 {
			t.Fatalf("deleted %d", n)
		}
		if n := deleted(t, host, f); n != 0 {
			t.Fatalf("again: deleted %d", n)
		}
	}
	if diff := cmp.Diff(map[Flow]int{inside: 1, inbound: 1, other: 1, other6: 1}, tracked(t, host), cmp.Comparer(sameAddr)); diff != "" {
		t.Fatalf("left over (-want +got):\n%s", diff)
	}
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// Connections of zones are their owners' affair.
//
// Mutant killed: zones-are-ours.
func TestZonesAreLeftAlone(t *testing.T) {
	host := netnstest.New(t, "host")
	host.Run(t, `ip link set lo up
		iptables-nft -A INPUT -m conntrack --ctstate INVALID -j DROP
		iptables-nft -t raw -A OUTPUT -p udp --dport 7777 -j CT --zone 5
		bash -c 'echo x > /dev/udp/127.0.0.1/7777; echo x > /dev/udp/127.0.0.1/7778'
		conntrack -L -p udp --dport 7777 2>/dev/null | grep zone=5`)
	var ports []uint16
	host.Do(t, func() {
		_, err := Find(func(f Flow) bool { ports = append(ports, f.DestPort); return false })
		netnstest.Must(t, err)
	})
	if !slices.Equal(ports, []uint16{7778}) {
		t.Errorf("destination ports of what was asked for: %v, want 7778 alone", ports)
	}
}

// given: connections of several sources; then those of one are found, or those to one, and the
// kernel tells of no others.
//
// Kills the mutants that ask for the destination, or for all.
func TestKernelTellsOfOneAddress(t *testing.T) {
	host := netnstest.New(t, "host")
	h := host.Handle(t)
	host.Run(t, `iptables-nft -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j ACCEPT
		ip6tables-nft -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j ACCEPT`)
	wanted, other := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.1.6")
	wanted6, other6, asked6 := netip.MustParseAddr("fd00::5"), netip.MustParseAddr("fd00::6"), netip.MustParseAddrPort("[fd96::10]:53")
	direct := netip.MustParseAddr("10.244.1.8")
	for i, f := range []Flow{
		{Source: wanted, Dest: other, SourceOutside: wanted},
		{Source: wanted, Dest: other, SourceOutside: wanted},
		{Source: other, Dest: wanted, SourceOutside: other},
		{Source: other, Dest: direct, SourceOutside: other, Asked: netip.AddrPortFrom(direct, 53)},
		{Source: wanted6, Dest: other6, SourceOutside: wanted6, Asked: asked6},
		{Source: other6, Dest: wanted6, SourceOutside: other6, Asked: asked6},
	} {
		track(t, h, f, uint16(2000+i))
	}
	host.Do(t, func() {
		if found, err := FindFrom([]netip.Addr{wanted6}, func(Flow) bool { return true }); err != nil || len(found) != 1 || found[0].Source != wanted6 {
			t.Errorf("of IPv6, found %+v: %v", found, err)
		}
		told := 0
		if _, err := walk(familyOf(wanted), opened(attrIPv4Source, filterSource, wanted), func(Flow) bool { told++; return false }); err != nil || told != 2 {
			t.Errorf("the kernel told of %d connections: %v", told, err)
		}
		found, err := FindFrom([]netip.Addr{wanted, netip.MustParseAddr("10.244.1.7")}, func(f Flow) bool { return f.SourcePort == 2001 })
		if err != nil || len(found) != 1 || found[0].Source != wanted {
			t.Errorf("found %+v: %v", found, err)
		}
		if n, err := Forget(found); n != 1 || err != nil {
			t.Errorf("forgot %d: %v", n, err)
		}
		service := netip.MustParseAddr("10.96.0.10") // see track
		told = 0
		if _, err := walk(familyOf(wanted), opened(attrIPv4Dest, filterDest, direct), func(Flow) bool { told++; return false }); err != nil || told != 1 {
			t.Errorf("the kernel told of %d connections to one address: %v", told, err)
		}
		for _, c := range []struct {
			to   netip.Addr
			want int
		}{{direct, 1}, {service, 2}, {asked6.Addr(), 2}, {wanted, 0}, {wanted6, 0}} {
			if found, err := FindTo([]netip.Addr{c.to}, func(Flow) bool { return true }); err != nil || len(found) != c.want {
				t.Errorf("to %v, found %+v: %v", c.to, found, err)
			}
		}
	})
	if left := tracked(t, host); len(left) != 5 {
		t.Errorf("%d kinds of connections are left", len(left))
	}
}
