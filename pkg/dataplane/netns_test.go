package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.RunApart(m)) }

// machine is a network namespace that stands for one machine.
type machine struct {
	*netnstest.Machine
	// six: what the test asks of it is about IPv6.
	six bool
}

func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	return &machine{Machine: netnstest.New(t, name)}
}

func connect(t *testing.T, a *machine, aDev string, aAddrs []string, b *machine, bDev string, bAddrs []string) {
	t.Helper()
	netnstest.Connect(t, a.Machine, aDev, aAddrs, b.Machine, bDev, bAddrs)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	netnstest.Must(tb, err)
}

// patience bounds the wait for anything that takes no time when all is well.
const patience = 10 * time.Second

// family ends the names of networks that an address with a port is in.
func family(addr string) string {
	if strings.HasPrefix(addr, "[") {
		return "6"
	}
	return "4"
}

// serveWhoami answers each TCP connection to the address with the address that
// it came from, until the test ends.
func (m *machine) serveWhoami(t *testing.T, addr string) {
	t.Helper()
	var l net.Listener
	m.Do(t, func() {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp"+family(addr), addr); err != nil {
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
			_ = c.SetDeadline(time.Now().Add(testenv.Stretch(patience)))
			_, _ = fmt.Fprintln(c, from.Addr())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// whoami asks a serveWhoami which address this machine's connection comes from.
func (m *machine) whoami(t *testing.T, addr string) (from string, err error) {
	t.Helper()
	m.Do(t, func() {
		d := net.Dialer{Timeout: testenv.Stretch(patience)}
		var c net.Conn
		if c, err = d.DialContext(t.Context(), "tcp"+family(addr), addr); err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(testenv.Stretch(patience)))
		buffer := make([]byte, 64)
		var n int
		n, err = c.Read(buffer)
		from = strings.TrimSpace(string(buffer[:n]))
	})
	return from, err
}
