// Package netnstest gives tests network namespaces that stand for machines.
//
// A package whose tests change the kernel runs them in a process of its own,
// isolated from the machine:
//
//	func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }
//
// Its tests then make machines with New, join them with Connect, and run
// commands and code inside them. Enter is the cheaper way for a test that needs
// one namespace only. It all needs root.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/isolated"
)

// Run runs the tests of m in namespaces of their own, with a loopback that is
// up, and returns the exit code for the process.
func Run(m *testing.M) int { return isolated.Run(m, loopbackUp) }

// RunApart is Run for tests that take long: each has a process and namespaces of its own,
// and several run at the same time.
func RunApart(m *testing.M) int { return isolated.RunApart(m, loopbackUp) }

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up loopback: %w", err)
	}
	return nil
}

// Machine is a network namespace that stands for one machine.
type Machine struct {
	Name string
	NS   netns.NsHandle
}

// New makes a machine with nothing but a loopback.
func New(t *testing.T, name string) *Machine {
	t.Helper()
	m := &Machine{Name: name}
	err := OnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if m.NS, err = netns.Get(); err != nil {
			return err
		}
		// A new namespace has this machine's settings, and systemd changes this one.
		for _, device := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/promote_secondaries", []byte("0"), 0o644); err != nil {
				return err
			}
		}
		return loopbackUp()
	})
	if err != nil {
		t.Fatalf("make network namespace %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := m.NS.Close(); err != nil {
			t.Errorf("close network namespace %s: %v", name, err)
		}
	})
	return m
}

// OnThread calls f on a thread of its own, which ends with it.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("test ended inside")
		defer func() { done <- err }() // also after t.FailNow
		runtime.LockOSThread()         // and never back: the thread is no good for others
		err = f()
	}()
	return <-done
}

// Do calls f inside the machine. f may end the test, but a goroutine that it
// starts is outside.
func (m *Machine) Do(t *testing.T, f func()) {
	t.Helper()
	err := OnThread(func() error {
		if err := netns.Set(m.NS); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatalf("inside %s: %v", m.Name, err)
	}
}

// Run runs a shell command inside the machine and returns its output.
func (m *Machine) Run(t *testing.T, command string) string {
	t.Helper()
	out, err := m.Try(t, command)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", m.Name, command, err, out)
	}
	return out
}

// Try is Run for a command that may fail.
func (m *Machine) Try(t *testing.T, command string) (out string, err error) {
	t.Helper()
	m.Do(t, func() {
		var b []byte
		b, err = exec.CommandContext(t.Context(), "sh", "-ec", command).CombinedOutput()
		out = string(b)
	})
	return out, err
}

// Handle opens netlink inside the machine; it works from any goroutine.
func (m *Machine) Handle(t *testing.T) *netlink.Handle {
	t.Helper()
	var h *netlink.Handle
	m.Do(t, func() {
		var err error
		h, err = netlink.NewHandle()
		Must(t, err)
	})
	t.Cleanup(h.Close)
	return h
}

// Connect joins two machines by a cable, and gives each end its addresses.
func Connect(t *testing.T, a *Machine, aDev string, aAddrs []string, b *Machine, bDev string, bAddrs []string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aDev
	a.Do(t, func() {
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bDev, PeerNamespace: netlink.NsFd(b.NS)})
		if err != nil {
			t.Fatalf("connect %s to %s: %v", a.Name, b.Name, err)
		}
	})
	for _, end := range []struct {
		m     *Machine
		dev   string
		addrs []string
	}{{a, aDev, aAddrs}, {b, bDev, bAddrs}} {
		end.m.Run(t, "ip link set "+end.dev+" up")
		for _, addr := range end.addrs {
			end.m.Run(t, "ip address add "+addr+" dev "+end.dev)
		}
	}
}

// Host makes a machine with one device, connected and with address
// 192.0.2.1/24, and opens netlink inside.
func Host(t *testing.T, device string) (*Machine, *netlink.Handle, netlink.Link) {
	t.Helper()
	host, other := New(t, "host"), New(t, "other")
	Connect(t, host, device, []string{"192.0.2.1/24"}, other, "eth0", nil)
	h := host.Handle(t)
	link, err := h.LinkByName(device)
	Must(t, err)
	return host, h, link
}

// Enter puts the calling test or benchmark into a network namespace of its own until it
// ends; the kernel removes the namespace, with all that is in it, when nothing
// uses it any more. The test must stay on its goroutine.
func Enter(tb testing.TB) *netlink.Handle {
	tb.Helper()
	runtime.LockOSThread()
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		tb.Fatalf("open network namespace of the test: %v", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		tb.Fatalf("make a network namespace (root is needed): %v", err)
	}
	tb.Cleanup(func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			tb.Errorf("return to the network namespace of the test: %v", err)
			return // the thread stays locked, and ends with its goroutine
		}
		runtime.UnlockOSThread()
		_ = before.Close()
	})
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		tb.Fatalf("open netlink: %v", err)
	}
	tb.Cleanup(h.Close)
	return h
}

// Stay moves the calling test into a machine until it ends. The test must stay on its
// goroutine.
func (m *Machine) Stay(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	Must(t, err)
	Must(t, netns.Set(m.NS))
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(before), before.Close()); err != nil {
			t.Errorf("return to the network namespace of the test: %v", err)
			return // the thread stays locked, and ends with its goroutine
		}
		runtime.UnlockOSThread()
	})
}

// PinDir returns the path of a directory for BPF maps that does not exist yet.
// A bpffs that the test mounts on its parent is unmounted when the test ends.
func PinDir(tb testing.TB) string {
	tb.Helper()
	parent := filepath.Join(tb.TempDir(), "bpf")
	tb.Cleanup(func() {
		if err := unix.Unmount(parent, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			tb.Errorf("unmount %s: %v", parent, err)
		}
	})
	return filepath.Join(parent, "egressip")
}

// Must ends the test where err is not nil.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Twice runs what must be settled after one run: the first changes something,
// the second nothing.
func Twice(t *testing.T, what string, ensure func() (int, error)) {
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
