package bpf

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	netnstest.Must(t, err)
}

func TestBPFMapsSurviveTheirHandles(t *testing.T) {
	h, dir := netnstest.New(t, "host").Handle(t), netnstest.PinDir(t)
	m, err := OpenMaps(h, dir, device, Shape{IPv6: true})
	must(t, err)
	route := Route{
		NetID: 77, Via: []netip.Addr{testenv.Addr("192.0.2.2"), testenv.Addr("192.0.2.3")},
		Sources: []netip.Addr{testenv.Addr("192.0.2.200"), {}},
	}
	must(t, m.PutRoute(testenv.Addr("10.0.0.5"), route))
	must(t, m.PutHosted(Network{NetID: 77}, 0x101))
	must(t, m.Close())

	m, err = OpenMaps(h, dir, device, Shape{IPv6: true})
	must(t, err)
	defer m.Close()
	pods, err := m.Routes()
	must(t, err)
	if got := pods[testenv.Addr("10.0.0.5")]; !got.Equal(route) || len(pods) != 1 {
		t.Fatalf("pods after reopening: %v", pods)
	}
	hosted, err := m.Hosted()
	must(t, err)
	if diff := cmp.Diff(map[Network]uint32{{NetID: 77}: 0x101}, hosted); diff != "" {
		t.Fatalf("hosted after reopening (-want +got):\n%s", diff)
	}
	must(t, m.DeleteRoute(testenv.Addr("10.0.0.5")))
	must(t, m.DeleteRoute(testenv.Addr("10.0.0.5")))
	must(t, m.DeleteHosted(Network{NetID: 77}))
	must(t, m.DeleteHosted(Network{NetID: 77}))
	if err := m.PutRoute(testenv.Addr("10.0.0.5"), Route{NetID: 1}); err == nil {
		t.Fatal("a route to nowhere was accepted")
	}
	if n, err := RemoveMaps(dir); err != nil || n != len(mapSpecs(Shape{}.outer())) {
		t.Fatalf("remove maps: %d, %v", n, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("directory of the maps is still there: %v", err)
	}
}

// device is the name of the overlay device.
const device = "egress0"

// addDevice makes the overlay device where it does not exist.
func addDevice(t *testing.T, h *netlink.Handle) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	if err := h.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: 9789}); !errors.Is(err, unix.EEXIST) {
		must(t, err)
	}
	link, err := h.LinkByName(device)
	must(t, err)
	return link
}

// attachAll opens the maps and puts the programs at the overlay, as an agent
// does that begins.
func attachAll(t *testing.T, host *netnstest.Machine, h *netlink.Handle, dir string) (maps *Maps, changes int) {
	t.Helper()
	host.Do(t, func() {
		var err error
		maps, err = OpenMaps(h, dir, device, Shape{IPv6: true})
		must(t, err)
		t.Cleanup(func() { must(t, maps.Close()) })
		progs, err := LoadPrograms(mark.Default(), maps, 9788, netip.Addr{})
		must(t, err)
		t.Cleanup(func() { must(t, progs.Close()) })
		link := addDevice(t, h)
		changes, err = progs.Attach(h, link)
		must(t, err)
		must(t, h.LinkSetUp(link))
	})
	return maps, changes
}

// After an upgrade that changes a map: its pin is replaced, the others stay.
func TestMapOfAnotherShapeIsReplaced(t *testing.T) {
	host, h, _ := netnstest.Host(t, "eth0")
	dir := netnstest.PinDir(t)
	must(t, ensureBPFFS(dir))
	old, err := ebpf.NewMapWithOptions(
		&ebpf.MapSpec{Name: "egress_pods", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16, Pinning: ebpf.PinByName},
		ebpf.MapOptions{PinPath: dir})
	must(t, err)
	defer old.Close()
	maps, changes := attachAll(t, host, h, dir)
	if changes == 0 {
		t.Fatal("nothing was attached")
	}
	must(t, maps.PutRoute(testenv.Addr("10.0.0.5"), Route{NetID: 1, Via: []netip.Addr{testenv.Addr("192.0.2.2")}}))
	if _, changes := attachAll(t, host, h, dir); changes != 0 {
		t.Fatalf("a second look made %d changes", changes)
	}
}

func TestBPFFSIsMountedWhereNoneIs(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "fs", "egressip")
	must(t, ensureBPFFS(dir))
	t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(parent, "fs"), unix.MNT_DETACH)) })
	must(t, ensureBPFFS(dir))
	mounts, err := os.ReadFile("/proc/thread-self/mounts")
	must(t, err)
	if n := strings.Count(string(mounts), " "+filepath.Join(parent, "fs")+" bpf "); n != 1 {
		t.Fatalf("%d bpffs mounts, want 1", n)
	}
}
