package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// tryPing6 sends one ICMPv6 echo request that must not be fragmented, size bytes long with
// its IP header, and waits for the answer.
func (m *machine) tryPing6(t *testing.T, to string, size int, wait time.Duration) (err error) {
	t.Helper()
	m.Do(t, func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6); err != nil {
			return
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(int64(wait))
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		)
		if err != nil {
			return
		}
		b := make([]byte, size-40)
		b[0] = 128
		binary.BigEndian.PutUint16(b[4:], uint16(fd))
		if err = unix.Sendto(fd, b, 0, &unix.SockaddrInet6{Addr: testenv.Addr(to).As16()}); err != nil {
			return
		}
		for {
			answer := make([]byte, 2048)
			var n int
			var from unix.Sockaddr
			if n, from, err = unix.Recvfrom(fd, answer, 0); err != nil {
				return
			}
			if six, ok := from.(*unix.SockaddrInet6); ok && n >= 8 && answer[0] == 129 && netip.AddrFrom16(six.Addr) == testenv.Addr(to) {
				return
			}
		}
	})
	return err
}

func (m *machine) ping6(t *testing.T, size int) {
	t.Helper()
	testenv.UntilWithin(t, patience, fmt.Sprintf("ping of %d bytes from %s to the bastion", size, m.Name), func() bool {
		return m.tryPing6(t, bastionIP6, size, testenv.Stretch(time.Second)) == nil
	})
}

// solicits sends neighbour solicitations to an address that is no neighbour's.
func (m *machine) solicits(t *testing.T, to string) {
	t.Helper()
	m.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255))
		for range 3 {
			must(t, unix.Sendto(fd, append([]byte{135}, make([]byte, 23)...), 0, &unix.SockaddrInet6{Addr: testenv.Addr(to).As16()}))
		}
	})
}

// advertise sends a router advertisement for networks to the LAN.
func (m *machine) advertise(t *testing.T, networks ...string) {
	t.Helper()
	m.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		must(t, err)
		defer unix.Close(fd)
		link, err := m.Handle(t).LinkByName("eth0")
		must(t, err)
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255))
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Attrs().Index))
		b := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
		for _, n := range networks {
			b = append(b, 3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x07, 0x08, 0, 0, 0, 0)
			b = append(b, netip.MustParsePrefix(n).Addr().AsSlice()...)
		}
		to := netip.IPv6LinkLocalAllNodes().As16()
		must(t, unix.Sendto(fd, b, 0, &unix.SockaddrInet6{Addr: to, ZoneId: uint32(link.Attrs().Index)}))
	})
}
