package dataplane

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNewNetns puts the calling test into a network namespace of its own until it
// ends; the kernel removes it, with all that is in it, when nobody is in it any
// more. The test must stay on its goroutine.
func inNewNetns(t *testing.T) *netlink.Handle {
	t.Helper()
	runtime.LockOSThread()
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatalf("open network namespace of the test: %v", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Errorf("return to the network namespace of the test: %v", err)
			return // the thread stays locked, and ends with its goroutine
		}
		runtime.UnlockOSThread()
		_ = before.Close()
	})
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatalf("open netlink: %v", err)
	}
	t.Cleanup(h.Close)
	return h
}

// tempBPFFS mounts a bpffs for the test alone, and gives a directory to pin in.
func tempBPFFS(t *testing.T) string {
	t.Helper()
	parent := t.TempDir()
	if err := unix.Mount("bpf", parent, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(parent, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return filepath.Join(parent, "pins")
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
		must(t, h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(cidr))}))
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// twice runs what must be settled after one run: the first changes something,
// the second nothing.
func twice(t *testing.T, what string, ensure func() (int, error)) {
	t.Helper()
	n, err := ensure()
	if err != nil || n == 0 {
		t.Fatalf("%s: %d changes, error %v; wanted some changes", what, n, err)
	}
	n, err = ensure()
	if err != nil || n != 0 {
		t.Fatalf("%s again: %d changes, error %v; wanted none", what, n, err)
	}
}

func TestOverlayIsMadeMendedAndRemoved(t *testing.T) {
	h := inNewNetns(t)
	maps, err := openMaps(h, tempBPFFS(t))
	must(t, err)
	defer maps.close()
	progs, err := loadPrograms(DefaultMarks(), maps)
	must(t, err)
	defer progs.close()
	cfg := overlayConfig{hostIP: addr("192.0.2.1"), port: 9789, mtu: 1450}
	ensure := func() (int, error) {
		link, n, err := ensureOverlay(h, cfg)
		if err != nil {
			return n, err
		}
		m, err := progs.attach(h, link)
		if err != nil {
			return n + m, err
		}
		k, err := raiseOverlay(h, link)
		return n + m + k, err
	}
	twice(t, "overlay", ensure)
	for name, damage := range map[string]func(netlink.Link) error{
		"set down":       h.LinkSetDown,
		"deleted":        h.LinkDel,
		"MTU changed":    func(l netlink.Link) error { return h.LinkSetMTU(l, 1300) },
		"filter deleted": func(l netlink.Link) error { return h.QdiscDel(&netlink.Clsact{QdiscAttrs: clsactOf(l)}) },
		"neighbour gone": func(l netlink.Link) error {
			return h.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: overlayNextHop().AsSlice()})
		},
		"address deleted": func(l netlink.Link) error { return h.AddrDel(l, &netlink.Addr{IPNet: ipNet(overlayAddress())}) },
		"strict rp_filter": func(netlink.Link) error {
			return os.WriteFile(ifaceSysctl(overlayName, "rp_filter"), []byte("1"), 0o600)
		},
	} {
		t.Run(name, func(*testing.T) {}) // names the case in the output; the work stays on this thread
		link, err := h.LinkByName(overlayName)
		must(t, err)
		must(t, damage(link))
		twice(t, "mend after: "+name, ensure)
	}
	if removed, err := removeOverlay(h); err != nil || !removed {
		t.Fatalf("remove: %t, %v", removed, err)
	}
	if removed, err := removeOverlay(h); err != nil || removed {
		t.Fatalf("remove again: %t, %v", removed, err)
	}
}

func clsactOf(l netlink.Link) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
}
