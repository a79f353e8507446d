package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// refusal is an ICMP "port unreachable": the kernel of a host that is up, but has no
// listener, sends back the question.
type refusal struct {
	by       netip.Addr
	question []byte
}

// maxRefusals bounds the work of one read of the error queue.
const maxRefusals = 64

// setOptions makes the kernel keep ICMP errors in the socket's error queue (ip(7),
// IP_RECVERR); a socket that is not connected gets none otherwise. Questions have no UDP
// checksum: what answers them in the kernel could not correct one that a network card was
// still to compute.
func setOptions(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the socket: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1),
		)
	})
	if err == nil {
		err = set
	}
	if err != nil {
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
// struct sock_extended_err of linux/errqueue.h and the sender's sockaddr_in behind it.
// It does not panic, whatever the bytes are.
func refusedBy(control []byte) (netip.Addr, bool) {
	const (
		origin, kind, code = 4, 5, 6
		sender             = 16 // sizeof(struct sock_extended_err)
		senderEnd          = sender + unix.SizeofSockaddrInet4
	)
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		d := m.Data
		if m.Header.Level != unix.IPPROTO_IP || m.Header.Type != unix.IP_RECVERR || len(d) < senderEnd {
			continue
		}
		if d[origin] != unix.SO_EE_ORIGIN_ICMP || d[kind] != icmpUnreachable || d[code] != icmpPort ||
			binary.NativeEndian.Uint16(d[sender:]) != unix.AF_INET {
			continue
		}
		return netip.AddrFrom4([4]byte(d[sender+4 : sender+8])), true
	}
	return netip.Addr{}, false
}

// Of RFC 792, destination unreachable.
const (
	icmpUnreachable = 3
	icmpPort        = 3
)
