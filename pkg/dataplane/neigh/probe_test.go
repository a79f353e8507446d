package neigh

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

func TestARPFindsAnotherOwner(t *testing.T) {
	h := netnstest.Enter(t)
	eth0 := addVeth(t, h, "eth0", "seg0", "192.0.2.1/24")
	// Somebody on the same segment, in a namespace of its own.
	other := newPeerNetns(t, h, "seg0", "192.0.2.9/24")
	nobodys := []netip.Addr{testenv.Addr("203.0.113.1")}
	got, err := Ask(t.Context(), eth0, []netip.Addr{testenv.Addr("192.0.2.9"), testenv.Addr("192.0.2.200")}, nobodys)
	must(t, err)
	if o := got.Owners; len(o) != 1 || len(o[testenv.Addr("192.0.2.9")]) != 1 || o[testenv.Addr("192.0.2.9")][0].String() != other.String() {
		t.Fatalf("owners: %v, wanted 192.0.2.9 at %v alone", o, other)
	}
	if len(got.Everybody) != 0 {
		t.Errorf("answering for everybody: %v", got.Everybody)
	}

	// The host's own answers do not count.
	must(t, h.AddrAdd(eth0, &netlink.Addr{IPNet: nlutil.IPNet(netip.MustParsePrefix("192.0.2.200/24"))}))
	got, err = Ask(t.Context(), eth0, []netip.Addr{testenv.Addr("192.0.2.200")}, nil)
	if err != nil || len(got.Owners) != 0 {
		t.Fatalf("owners of an address of ours: %v, %v", got.Owners, err)
	}
}

// addVeth adds a pair of devices, both in the test's namespace, and gives the
// first an address.
func addVeth(t *testing.T, h *netlink.Handle, name, peer, cidr string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}))
	link, err := h.LinkByName(name)
	must(t, err)
	if cidr != "" {
		must(t, h.AddrAdd(link, &netlink.Addr{IPNet: nlutil.IPNet(netip.MustParsePrefix(cidr))}))
	}
	for _, n := range []string{name, peer} {
		l, err := h.LinkByName(n)
		must(t, err)
		must(t, h.LinkSetUp(l))
	}
	link, err = h.LinkByName(name)
	must(t, err)
	return link
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
	must(t, there.AddrAdd(link, &netlink.Addr{IPNet: nlutil.IPNet(netip.MustParsePrefix(cidr))}))
	must(t, there.LinkSetUp(link))
	return link.Attrs().HardwareAddr
}
