package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// serveEcho sends back what each TCP connection and each UDP packet to the
// port brings, from any address of the machine, until the test ends.
func (m *machine) serveEcho(t *testing.T, port uint16) {
	t.Helper()
	m.serveEchoOf(t, m.over(""), port)
}

// serveEchoOf is serveEcho for a family.
func (m *machine) serveEchoOf(t *testing.T, family string, port uint16) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	m.Do(t, func() {
		var err error
		var c net.ListenConfig
		l, err = c.Listen(t.Context(), "tcp"+family, fmt.Sprintf(":%d", port))
		must(t, err)
		u, err = c.ListenPacket(t.Context(), "udp"+family, fmt.Sprintf(":%d", port))
		must(t, err)
	})
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				// Not TCPConn's own way, a splice, which Close does not wake.
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				_ = c.Close()
			})
		}
	})
	all.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() {
		cancel()
		_, _ = l.Close(), u.Close()
		all.Wait()
	})
}

// dial opens a connection from inside the machine.
func (m *machine) dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	var c net.Conn
	m.Do(t, func() {
		var err error
		d := net.Dialer{Timeout: testenv.Stretch(patience)}
		if c, err = d.DialContext(t.Context(), network, address); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echoes expects that what is sent over the connection comes back.
func echoes(t *testing.T, c net.Conn, size int) {
	t.Helper()
	if err := tryEcho(c, size, testenv.Stretch(patience)); err != nil {
		t.Fatalf("%v to %v: echo of %d bytes: %v", c.LocalAddr(), c.RemoteAddr(), size, err)
	}
}

func tryEcho(c net.Conn, size int, wait time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- err
	}()
	got := make([]byte, size)
	_, err := io.ReadFull(c, got)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("other bytes came back")
	}
	return nil
}

// ping expects an answer to an ICMP echo request with DF set.
func (m *machine) ping(t *testing.T, to string, size int) {
	t.Helper()
	testenv.UntilWithin(t, patience, fmt.Sprintf("ping of %d bytes from %s to %s", size, m.Name, to), func() bool { return m.tryPing(t, to, size, testenv.Stretch(time.Second)) == nil })
}

// tryPing sends one ICMP echo request with DF set, size bytes long with its IP
// header, and waits for the answer.
func (m *machine) tryPing(t *testing.T, to string, size int, wait time.Duration) (err error) {
	t.Helper()
	m.Do(t, func() {
		var fd int
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(int64(wait))
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		)
		if err != nil {
			return
		}
		b := make([]byte, size-20)
		b[0] = 8
		binary.BigEndian.PutUint16(b[4:], uint16(fd))
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		if err = unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: testenv.Addr(to).As4()}); err != nil {
			return
		}
		for {
			answer := make([]byte, 2048)
			var n int
			if n, _, err = unix.Recvfrom(fd, answer, 0); err != nil {
				return
			}
			if n >= 28 && answer[20] == 0 && netip.AddrFrom4([4]byte(answer[12:16])) == testenv.Addr(to) {
				return
			}
		}
	})
	return err
}

// forge makes a VXLAN packet with a UDP packet inside.
func forge(vni uint32, from, to netip.AddrPort) []byte { return vxlan(vni, from, to, []byte("x")) }

// sender sends without a pause from a pod to one port of the bastion, which is
// that pod's alone: over a long-lived UDP socket each millisecond, a UDP packet from a
// new port every two, and a TCP connection every ten. It is there to meet every gap in
// the order of changes.
type sender struct {
	port uint16
	// answered counts what came back.
	answered atomic.Int64
}

// until calls f inside a machine again and again, until ctx ends, with pauses as long as
// the machine needs them.
//
// The sockets of a goroutine are made in the machine, whatever thread it is moved
// to: so each is made by a thread that is there. That costs a switch of threads for each
// call: what is called a thousand times a second makes its sockets first, and goes on
// with repeat.
func until(ctx context.Context, m interface{ enter() error }, every time.Duration, f func()) {
	_ = netnstest.OnThread(func() error {
		if err := m.enter(); err != nil {
			return err
		}
		repeat(ctx, every, f)
		return nil
	})
}

// repeat is until for an f that makes no sockets.
func repeat(ctx context.Context, every time.Duration, f func()) {
	tick := time.NewTicker(testenv.Stretch(every))
	defer tick.Stop()
	for ctx.Err() == nil {
		f()
		<-tick.C
	}
}

// startSender starts a sender on a pod or a node, which stops with the test.
func startSender(t *testing.T, p interface{ enter() error }, bastion *machine, port uint16) *sender {
	t.Helper()
	return startSenderTo(t, p, bastion, port, bastion.outside(int(port)))
}

// startSenderTo is startSender to an address of the bastion, with the port.
func startSenderTo(t *testing.T, p interface{ enter() error }, bastion *machine, port uint16, to string) *sender {
	t.Helper()
	s := &sender{port: port}
	bastion.serveEcho(t, port)
	tcp := bastion.over("tcp")
	long, short := newUDPSocket(t, p, to), newUDPSocket(t, p, to)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	all.Go(func() { until(ctx, p, 10*time.Millisecond, func() { s.tcpOnce(tcp, to) }) })
	all.Go(func() {
		connected, odd := false, false
		repeat(ctx, time.Millisecond, func() {
			if odd = !odd; odd {
				_ = short.connect()
				short.send()
			}
			if !connected {
				connected = long.connect() == nil
				return
			}
			long.send()
			if long.received() {
				s.answered.Add(1)
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	return s
}

// udpSocket is a UDP socket of a pod or a node. What is done with it is done there,
// whatever thread does it, and never waits.
type udpSocket struct {
	fd int
	to unix.Sockaddr
}

func newUDPSocket(t *testing.T, p interface{ enter() error }, to string) *udpSocket {
	t.Helper()
	s := &udpSocket{}
	family, addr := unix.AF_INET, netip.MustParseAddrPort(to)
	if addr.Addr().Is4() {
		s.to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else {
		family, s.to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	must(t, netnstest.OnThread(func() (err error) {
		if err = p.enter(); err != nil {
			return err
		}
		s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	}))
	t.Cleanup(func() { must(t, unix.Close(s.fd)) })
	return s
}

// connect gives the socket a new port, and has its route looked up again.
func (s *udpSocket) connect() error {
	// What went wrong before is not this connection's. One that is not connected has no port
	// to give back.
	_, _ = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(s.fd), uintptr(unsafe.Pointer(&unix.RawSockaddr{Family: unix.AF_UNSPEC})), unix.SizeofSockaddrInet4)
	return unix.Connect(s.fd, s.to)
}

// send sends a packet, which may be refused: by a route that is not there, for example.
func (s *udpSocket) send() { _, _ = unix.Write(s.fd, []byte("x")) }

// received reports whether an answer is there, and takes it.
func (s *udpSocket) received() bool {
	_, err := unix.Read(s.fd, make([]byte, 8))
	return err == nil
}

func (s *sender) tcpOnce(network, to string) {
	c, err := net.DialTimeout(network, to, testenv.Stretch(50*time.Millisecond))
	if err != nil {
		return
	}
	defer c.Close()
	if tryEcho(c, 1, testenv.Stretch(50*time.Millisecond)) == nil {
		s.answered.Add(1)
	}
}

// flows waits until the sender's packets come through with a source.
func (w *world) flows(t *testing.T, s *sender, source string) {
	t.Helper()
	before, answers := w.seen.from(s.port, source), s.answered.Load()
	testenv.UntilWithin(t, patience, fmt.Sprintf("traffic to port %d from %s, and answers", s.port, source), func() bool {
		return w.seen.from(s.port, source) > before+20 && s.answered.Load() > answers+5
	})
}

// silent waits until the sender has tried for a while and nothing came.
func (w *world) silent(t *testing.T, s *sender) {
	t.Helper()
	last, since := w.seen.total(s.port), time.Now()
	testenv.UntilWithin(t, patience, fmt.Sprintf("nothing comes to port %d", s.port), func() bool {
		if now := w.seen.total(s.port); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > testenv.Stretch(linger)
	})
}
