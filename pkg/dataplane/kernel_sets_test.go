package dataplane

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Mutant killed: Index that does not spread its bits (return uint32(i)), which
// would set bits outside the mask.
func TestPropertyMarksStayInTheirMask(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Marks{Mask: rapid.Uint32().Filter(func(v uint32) bool { return Marks{Mask: v}.Validate() == nil }).Draw(t, "mask")}
		if m.Remote()|m.Return()|m.IndexMask() != m.Mask || m.Remote()&m.Return() != 0 || (m.Remote()|m.Return())&m.IndexMask() != 0 {
			t.Fatalf("mask %#x: REMOTE %#x, RETURN %#x and index %#x do not part it", m.Mask, m.Remote(), m.Return(), m.IndexMask())
		}
		i := rapid.IntRange(1, min(m.MaxIndex(), 1<<20)).Draw(t, "index")
		mark := m.Index(i)
		if mark&^m.IndexMask() != 0 || mark == 0 || m.IndexOf(mark) != i {
			t.Fatalf("mask %#x: index %d becomes %#x and back %d", m.Mask, i, mark, m.IndexOf(mark))
		}
	})
}

func TestMarkMaskTooNarrowIsRefused(t *testing.T) {
	if err := (Marks{Mask: 0x3}).Validate(); err == nil {
		t.Fatal("a mask of two bits leaves none for an index")
	}
}

func TestSetsHoldTenThousandMarkedEntries(t *testing.T) {
	h := inNewNetns(t)
	k := setKind{name: setPods, typ: "hash:ip", marks: true}
	twice(t, "set", func() (int, error) { return ensureSet(h, k) })
	want := setMarks{}
	ip := addr("10.0.0.1")
	for i := range 10_000 {
		want[netip.PrefixFrom(ip, 32)] = setMarkValue{Mark: uint32(i) & 0x1f7f, Mask: 0x1f7f}
		ip = ip.Next()
	}
	must(t, putSetEntries(k, want))
	expectSet(t, k.name, want)

	// A changed mark replaces the old one in place.
	first := netip.MustParsePrefix("10.0.0.1/32")
	want[first] = setMarkValue{Mark: 0x1000, Mask: 0x1f7f}
	must(t, putSetEntries(k, setMarks{first: want[first]}))
	expectSet(t, k.name, want)

	gone := setMarks{first: {}, netip.MustParsePrefix("203.0.113.9/32"): {}}
	must(t, deleteSetEntries(k, gone))
	delete(want, first)
	expectSet(t, k.name, want)
}

func TestSetOfNetworks(t *testing.T) {
	h := inNewNetns(t)
	k := setKind{name: setInside, typ: "hash:net"}
	twice(t, "set", func() (int, error) { return ensureSet(h, k) })
	want := setMarks{netip.MustParsePrefix("10.96.0.0/16"): {}, netip.MustParsePrefix("192.0.2.7/32"): {}}
	must(t, putSetEntries(k, want))
	must(t, putSetEntries(k, want))
	expectSet(t, k.name, want)
	names, err := ownSets()
	must(t, err)
	if diff := cmp.Diff([]string{setInside}, names); diff != "" {
		t.Fatalf("own sets (-want +got):\n%s", diff)
	}
}

func TestSetWithoutMarksIsNotTakenForOne(t *testing.T) {
	h := inNewNetns(t)
	must(t, h.IpsetCreate(setPods, "hash:ip", netlink.IpsetCreateOptions{}))
	if _, err := ensureSet(h, setKind{name: setPods, typ: "hash:ip", marks: true}); err == nil {
		t.Fatal("a set without skbinfo maps nothing, silently, and was accepted")
	}
}

func TestSetOfOthersIsNotListed(t *testing.T) {
	h := inNewNetns(t)
	for _, name := range []string{"somebody-elses", "egress-of-others"} {
		must(t, h.IpsetCreate(name, "hash:ip", netlink.IpsetCreateOptions{}))
	}
	names, err := ownSets()
	if err != nil || len(names) != 0 {
		t.Fatalf("own sets: %v, %v", names, err)
	}
	must(t, destroySet(h, "egress-never-made"))
}

func expectSet(t *testing.T, name string, want setMarks) {
	t.Helper()
	got, err := listSet(name)
	must(t, err)
	if diff := cmp.Diff(fmt.Sprint(len(want)), fmt.Sprint(len(got))); diff != "" {
		t.Fatalf("entries of %s (-want +got):\n%s", name, diff)
	}
	for entry, mark := range want {
		if got[entry] != mark {
			t.Fatalf("entry %v of %s: %#v, wanted %#v", entry, name, got[entry], mark)
		}
	}
}

func TestRoutesOfOurTablesOnly(t *testing.T) {
	h := inNewNetns(t)
	lo, err := h.LinkByName("lo")
	must(t, err)
	must(t, h.LinkSetUp(lo))
	overlay, _, err := ensureOverlay(h, overlayConfig{hostIP: addr("192.0.2.1"), port: 9789, mtu: 1450})
	must(t, err)
	_, err = raiseOverlay(h, overlay)
	must(t, err)
	foreign := netlink.Route{Table: 3000, Dst: ipNet(netip.MustParsePrefix("198.51.100.0/24")), Type: unix.RTN_UNREACHABLE}
	must(t, h.RouteAdd(&foreign))

	plan := routePlan{inside: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("192.0.2.1/32")}, overlay: overlay.Attrs().Index}
	twice(t, "routes", func() (int, error) { return ensureRoutes(h, plan) })
	twice(t, "ip rules", func() (int, error) { return ensurePolicyRules(h, DefaultMarks()) })

	// The kernel flushes the overlay's routes when it goes down; the table
	// must end in the unreachable one, and be mended.
	must(t, h.LinkSetDown(overlay))
	own, _, err := tableRoutes(h)
	must(t, err)
	if _, ok := own[route{table: tableRemote, dst: defaultV4(), kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}]; !ok {
		t.Fatalf("table %d has no unreachable route while the overlay is down: its packets would take the main table", tableRemote)
	}
	_, err = raiseOverlay(h, overlay)
	must(t, err)
	twice(t, "routes after the overlay was down", func() (int, error) { return ensureRoutes(h, plan) })

	fewer := plan
	fewer.inside = plan.inside[:1]
	twice(t, "fewer routes", func() (int, error) { return ensureRoutes(h, fewer) })

	if n, err := removeRouting(h); err != nil || n == 0 {
		t.Fatalf("remove: %d, %v", n, err)
	}
	if n, err := removeRouting(h); err != nil || n != 0 {
		t.Fatalf("remove again: %d, %v", n, err)
	}
	left, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 3000}, netlink.RT_FILTER_TABLE)
	if err != nil || len(left) != 1 {
		t.Fatalf("the route of somebody else: %v, %v", left, err)
	}
}

func TestARPFindsAnotherOwnerAndAnnounces(t *testing.T) {
	h := inNewNetns(t)
	addVeth(t, h, "eth0", "seg0", "192.0.2.1/24")
	// Somebody on the same segment, in a namespace of its own.
	other := newPeerNetns(t, h, "seg0", "192.0.2.9/24")
	u, err := findUplink(h, addr("192.0.2.1"))
	must(t, err)
	owners, err := foreignOwners(context.Background(), u, []netip.Addr{addr("192.0.2.9"), addr("192.0.2.200")})
	must(t, err)
	if len(owners) != 1 || owners[addr("192.0.2.9")].String() != other.String() {
		t.Fatalf("owners: %v, wanted 192.0.2.9 at %v alone", owners, other)
	}

	// The host's own answers do not count.
	_, refused := addEgressAddresses(h, u, []netip.Addr{addr("192.0.2.200")})
	if len(refused) != 0 {
		t.Fatal(refused)
	}
	owners, err = foreignOwners(context.Background(), u, []netip.Addr{addr("192.0.2.200")})
	if err != nil || len(owners) != 0 {
		t.Fatalf("owners of an address of ours: %v, %v", owners, err)
	}
}

func TestAnnouncementIsARequestAndAReply(t *testing.T) {
	h := inNewNetns(t)
	addVeth(t, h, "eth0", "seg0", "192.0.2.1/24")
	u, err := findUplink(h, addr("192.0.2.1"))
	must(t, err)
	peer, err := h.LinkByName("seg0")
	must(t, err)
	hearer, ok, err := openARP(uplink{link: peer, name: "seg0"})
	if err != nil || !ok {
		t.Fatalf("listen: %t, %v", ok, err)
	}
	defer hearer.close()
	must(t, announce(u, []netip.Addr{addr("192.0.2.200")}))
	heard := map[uint16]bool{}
	soon, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(heard) < 2 {
		m, ok, err := hearer.receive(soon)
		must(t, err)
		if !ok {
			t.Fatalf("heard operations %v only", heard)
		}
		if m.senderIP == addr("192.0.2.200") && m.targetIP == m.senderIP && m.senderMAC.String() == u.link.Attrs().HardwareAddr.String() {
			heard[m.op] = true
		}
	}
}

// Kills the mutant that repeats announcements although there are none: it
// looks at the uplink before there is one.
func TestNothingToAnnounceNeedsNoUplink(t *testing.T) {
	inNewNetns(t)
	var a announcements
	a.repeat()
}

// newPeerNetns moves a device into a network namespace of its own and gives it
// an address there. It returns the device's MAC.
func newPeerNetns(t *testing.T, h *netlink.Handle, device, cidr string) net.HardwareAddr {
	t.Helper()
	link, err := h.LinkByName(device)
	must(t, err)
	mine, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer mine.Close()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	theirs, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	t.Cleanup(func() { _ = theirs.Close() }) // the namespace goes with its last handle
	there, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer there.Close()
	must(t, unix.Setns(int(mine.Fd()), unix.CLONE_NEWNET))
	must(t, h.LinkSetNsFd(link, int(theirs.Fd())))
	link, err = there.LinkByName(device)
	must(t, err)
	must(t, there.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(cidr))}))
	must(t, there.LinkSetUp(link))
	return link.Attrs().HardwareAddr
}
