package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// track makes a tracked UDP connection: from source, to dest, which DNAT made
// of what the source asked for, and which sees it come from sourceOutside.
func track(t *testing.T, h *netlink.Handle, f flow, port uint16) {
	t.Helper()
	must(t, h.ConntrackCreate(netlink.ConntrackTable, netlink.FAMILY_V4, &netlink.ConntrackFlow{
		FamilyType: netlink.FAMILY_V4,
		Forward: netlink.IPTuple{
			Protocol: unix.IPPROTO_UDP, SrcIP: f.source.AsSlice(), DstIP: net.IPv4(10, 96, 0, 10).To4(), SrcPort: port, DstPort: 53,
		},
		Reverse: netlink.IPTuple{
			Protocol: unix.IPPROTO_UDP, SrcIP: f.dest.AsSlice(), DstIP: f.sourceOutside.AsSlice(), SrcPort: 53, DstPort: port,
		},
		Mark: f.mark, TimeOut: 600,
	}))
}

// tracked lists the tracked connections with their count.
func tracked(t *testing.T, h *netlink.Handle) map[flow]int {
	t.Helper()
	found := map[flow]int{}
	n, err := deleteFlows(h, func(f flow) bool { found[f]++; return false })
	if err != nil || n != 0 {
		t.Fatalf("looking deleted %d connections: %v", n, err)
	}
	return found
}

// Kills the mutants that take a service's address for the destination, or the
// pod's for the source outside.
func TestFlowsAreDeletedByWhatTheyReallyAre(t *testing.T) {
	host := newMachine(t, "host")
	h := host.Handle(t)
	// The kernel tracks where rules ask for it.
	host.Run(t, "iptables-nft -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j ACCEPT")
	port := uint16(999)
	flowOf := func(source, dest, outside string, mark uint32) flow {
		port++
		return flow{
			source: addr(source), dest: addr(dest), sourceOutside: addr(outside), mark: mark,
			asked:    netip.MustParseAddrPort("10.96.0.10:53"),
			protocol: unix.IPPROTO_UDP, sourcePort: port, destPort: 53,
		}
	}
	stale := flowOf("10.244.1.2", "10.1.8.72", "192.0.2.200", 0x1001)
	inside := flowOf("10.244.1.2", "10.244.2.9", "10.244.1.2", 0)
	inbound := flowOf("10.1.8.72", "10.244.1.2", "10.1.8.72", 0)
	other := flowOf("10.244.1.3", "10.1.8.72", "192.0.2.1", 0x4000)
	for _, f := range []flow{stale, inside, inbound, other} {
		track(t, h, f, f.sourcePort)
	}
	if diff := cmp.Diff(map[flow]int{stale: 1, inside: 1, inbound: 1, other: 1}, tracked(t, h), cmp.AllowUnexported(flow{}), cmp.Comparer(sameAddr)); diff != "" {
		t.Fatalf("tracked connections (-want +got):\n%s", diff)
	}
	n, err := deleteFlows(h, func(f flow) bool { return f == stale })
	if err != nil || n != 1 {
		t.Fatalf("deleted %d: %v", n, err)
	}
	if n, err := deleteFlows(h, func(f flow) bool { return f == stale }); err != nil || n != 0 {
		t.Fatalf("again: deleted %d: %v", n, err)
	}
	if diff := cmp.Diff(map[flow]int{inside: 1, inbound: 1, other: 1}, tracked(t, h), cmp.AllowUnexported(flow{}), cmp.Comparer(sameAddr)); diff != "" {
		t.Fatalf("left over (-want +got):\n%s", diff)
	}
}

func sameAddr(a, b netip.Addr) bool { return a == b }
