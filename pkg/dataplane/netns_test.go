package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/isolated"
)

func TestMain(m *testing.M) { os.Exit(isolated.Run(m, loopbackUp)) }

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

// machine is a network namespace that stands for one machine.
type machine struct {
	name string
	ns   netns.NsHandle
}

// newMachine makes a machine with nothing but a loopback.
func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	m := &machine{name: name}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if m.ns, err = netns.Get(); err != nil {
			return err
		}
		return loopbackUp()
	})
	if err != nil {
		t.Fatalf("make network namespace %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := m.ns.Close(); err != nil {
			t.Errorf("close network namespace %s: %v", name, err)
		}
	})
	return m
}

// onThread calls f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("test ended inside")
		defer func() { done <- err }() // also after t.FailNow
		runtime.LockOSThread()         // and never back: the thread is no good for others
		err = f()
	}()
	return <-done
}

// do calls f inside the machine. f may end the test, but a goroutine that it
// starts is outside.
func (m *machine) do(t *testing.T, f func()) {
	t.Helper()
	err := onThread(func() error {
		if err := netns.Set(m.ns); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatalf("inside %s: %v", m.name, err)
	}
}

// run runs a command inside the machine and gives its output.
func (m *machine) run(t *testing.T, command string) string {
	t.Helper()
	out, err := m.try(t, command)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", m.name, command, err, out)
	}
	return out
}

// try is run for a command that may fail.
func (m *machine) try(t *testing.T, command string) (out string, err error) {
	t.Helper()
	m.do(t, func() {
		var b []byte
		b, err = exec.CommandContext(t.Context(), "sh", "-ec", command).CombinedOutput()
		out = string(b)
	})
	return out, err
}

// handle opens netlink inside the machine; it works from any goroutine.
func (m *machine) handle(t *testing.T) *netlink.Handle {
	t.Helper()
	var h *netlink.Handle
	m.do(t, func() {
		var err error
		if h, err = netlink.NewHandle(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(h.Close)
	return h
}

// connect joins two machines by a cable, and gives each end its addresses.
func connect(t *testing.T, a *machine, aDev string, aAddrs []string, b *machine, bDev string, bAddrs []string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aDev
	a.do(t, func() {
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bDev, PeerNamespace: netlink.NsFd(b.ns)})
		if err != nil {
			t.Fatalf("connect %s to %s: %v", a.name, b.name, err)
		}
	})
	for _, end := range []struct {
		m     *machine
		dev   string
		addrs []string
	}{{a, aDev, aAddrs}, {b, bDev, bAddrs}} {
		end.m.run(t, "ip link set "+end.dev+" up")
		for _, addr := range end.addrs {
			end.m.run(t, "ip address add "+addr+" dev "+end.dev)
		}
	}
}

// pinDir gives a directory for BPF maps, in a file system of the test's own.
func pinDir(t *testing.T) string {
	t.Helper()
	parent := filepath.Join(t.TempDir(), "bpf")
	t.Cleanup(func() {
		if err := unix.Unmount(parent, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("unmount %s: %v", parent, err)
		}
	})
	return filepath.Join(parent, "egressip")
}

// patience bounds the wait for anything that takes no time when all is well.
const patience = 10 * time.Second

// eventually waits until ok, and fails the test if that does not come.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// serveWhoami answers each TCP connection to the address with the address that
// it came from, until the test ends.
func (m *machine) serveWhoami(t *testing.T, addr string) {
	t.Helper()
	var l net.Listener
	m.do(t, func() {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", addr); err != nil {
			t.Fatal(err)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from := netip.MustParseAddrPort(c.RemoteAddr().String())
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = fmt.Fprintln(c, from.Addr())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// whoami asks a serveWhoami which address this machine's connection comes from.
func (m *machine) whoami(t *testing.T, addr string) (from string, err error) {
	t.Helper()
	m.do(t, func() {
		d := net.Dialer{Timeout: patience}
		var c net.Conn
		if c, err = d.DialContext(t.Context(), "tcp4", addr); err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		buffer := make([]byte, 64)
		var n int
		n, err = c.Read(buffer)
		from = strings.TrimSpace(string(buffer[:n]))
	})
	return from, err
}
