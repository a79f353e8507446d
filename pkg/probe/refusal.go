package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// refusal is an ICMP or ICMPv6 "port unreachable": the kernel of a host that is up, but has no
// listener, sends back the question.
type refusal struct {
	by       netip.Addr
	question []byte
}

// maxRefusals bounds the work of one read of the error queue.
const maxRefusals = 64

// setOptions makes the kernel keep ICMP errors in the socket's error queue (ip(7),
// IP_RECVERR; ipv6(7), IPV6_RECVERR); a socket that is not connected gets none otherwise.
// Questions have no UDP checksum: what answers them in the kernel could not correct one that a
// network card was still to compute. Over IPv6, sockets neither send nor take such datagrams
// unless they ask for it; see overlayWay.
func setOptions(conn *net.UDPConn, ipv6 bool) error {
	if ipv6 {
		return setAll(conn, option{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1}, option{unix.IPPROTO_UDP, udpNoCheck6RX, 1})
	}
	return setAll(conn, option{unix.IPPROTO_IP, unix.IP_RECVERR, 1}, option{unix.SOL_SOCKET, unix.SO_NO_CHECK, 1})
}

// takeWithoutChecksum makes a socket of IPv6 take datagrams without a UDP checksum.
func takeWithoutChecksum(conn *net.UDPConn) error {
	return setAll(conn, option{unix.IPPROTO_UDP, udpNoCheck6RX, 1})
}

// Options of UDP sockets, of linux/udp.h.
const (
	udpNoCheck6TX = 101
	udpNoCheck6RX = 102
)

// option is one of a socket, by its level and its name.
type option struct{ level, name, value int }

// setAll sets options.
func setAll(conn *net.UDPConn, options ...option) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the socket: %w", err)
	}
	var set []error
	err = raw.Control(func(fd uintptr) {
		for _, o := range options {
			set = append(set, unix.SetsockoptInt(int(fd), o.level, o.name, o.value))
		}
	})
	if err = errors.Join(append(set, err)...); err != nil {
		return fmt.Errorf("set options: %w", err)
	}
	return nil
}

// refusals empties the error queue. Errors are those of a socket that is closed,
// and an empty queue: both mean that there is nothing.
func refusals(conn *net.UDPConn) []refusal {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	var found []refusal
	// Control, not Read: Read would wait for the receiver, which is blocked in its
	// read. Reading the error queue never blocks.
	_ = raw.Control(func(fd uintptr) {
		b, control := make([]byte, maxDatagram), make([]byte, maxDatagram)
		for range maxRefusals {
			n, controls, _, _, err := unix.Recvmsg(int(fd), b, control, unix.MSG_ERRQUEUE)
			if err != nil {
				return
			}
			if by, ok := refusedBy(control[:controls]); ok {
				found = append(found, refusal{by: by, question: append([]byte(nil), b[:n]...)})
			}
		}
	})
	return found
}

// refusedBy returns the sender of a refusal, if the control messages report one:
// struct sock_extended_err of linux/errqueue.h and the sender's sockaddr behind it.
// It does not panic, whatever the bytes are.
func refusedBy(control []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		for _, k := range refusalKinds() {
			if by, ok := k.sender(m); ok {
				return by, true
			}
		}
	}
	return netip.Addr{}, false
}

// refusalKind is how refusals of a family are reported.
type refusalKind struct {
	level, message int32
	// origin, kind and code are those of the error, family is that of the sender's sockaddr,
	// of size bytes, with an address of length bytes at an offset.
	origin, kind, code byte
	family             uint16
	size, at, length   int
}

// refusalKinds are "port unreachable" of RFC 792 and of RFC 4443.
func refusalKinds() []refusalKind {
	return []refusalKind{
		{unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_ICMP, 3, 3, unix.AF_INET, unix.SizeofSockaddrInet4, 4, 4},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.SO_EE_ORIGIN_ICMP6, 1, 4, unix.AF_INET6, unix.SizeofSockaddrInet6, 8, 16},
	}
}

// sender reads the sender of a refusal of this kind.
func (k refusalKind) sender(m unix.SocketControlMessage) (netip.Addr, bool) {
	const (
		origin, kind, code = 4, 5, 6
		sender             = 16 // sizeof(struct sock_extended_err)
	)
	d := m.Data
	if m.Header.Level != k.level || m.Header.Type != k.message || len(d) < sender+k.size ||
		d[origin] != k.origin || d[kind] != k.kind || d[code] != k.code || binary.NativeEndian.Uint16(d[sender:]) != k.family {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(d[sender+k.at : sender+k.at+k.length])
}
