package nlutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Ways asks the kernel which way packets take, again and again without garbage. It works in
// the network namespace of the thread that opened it.
type Ways struct {
	fd     int
	buffer []byte
}

// Way is the way of a packet of the host itself.
type Way struct {
	// Link is the device by which it leaves. ByGateway: it goes to a gateway there.
	Link      int
	ByGateway bool
	// Source is the source address that it gets; invalid if the kernel names none.
	Source netip.Addr
}

// OpenWays opens a socket.
func OpenWays() (*Ways, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &Ways{fd: fd, buffer: make([]byte, 8192)}, nil
}

// Close closes the socket.
func (w *Ways) Close() error { return unix.Close(w.fd) }

// To returns the way to an address. Where none leads there, the error is the kernel's, such
// as ENETUNREACH.
func (w *Ways) To(ip netip.Addr) (way Way, err error) {
	family, bits := byte(unix.AF_INET), byte(ip.BitLen())
	if ip.Is6() {
		family = unix.AF_INET6
	}
	dst := ip.AsSlice()
	m := w.buffer[:0]
	m = binary.NativeEndian.AppendUint32(m, uint32(unix.SizeofNlMsghdr+unix.SizeofRtMsg+unix.SizeofRtAttr+len(dst)))
	m = binary.NativeEndian.AppendUint16(m, unix.RTM_GETROUTE)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST)
	m = append(m, make([]byte, 8)...)
	m = append(m, family, bits, 0, 0, 0, 0, 0, 0)
	m = binary.NativeEndian.AppendUint32(m, unix.RTM_F_LOOKUP_TABLE)
	m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(dst)))
	m = binary.NativeEndian.AppendUint16(m, unix.RTA_DST)
	m = append(m, dst...)
	if err := unix.Sendto(w.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return way, os.NewSyscallError("sendto", err)
	}
	n, err := unix.Read(w.fd, w.buffer)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(w.fd, w.buffer)
	}
	if err != nil {
		return way, os.NewSyscallError("read", err)
	}
	found := false
	_, err = eachMessage(w.buffer[:n], func(typ uint16, data []byte) error {
		if typ != unix.RTM_NEWROUTE || len(data) < unix.SizeofRtMsg {
			return nil
		}
		found = true
		EachAttr(data[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
			switch {
			case typ == unix.RTA_OIF && len(value) == 4:
				way.Link = int(binary.NativeEndian.Uint32(value))
			case typ == unix.RTA_GATEWAY, typ == unix.RTA_VIA:
				way.ByGateway = true
			case typ == unix.RTA_PREFSRC:
				way.Source, _ = netip.AddrFromSlice(value)
			}
		})
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("look up the way to %v: the kernel named none", ip)
	}
	return way, err
}
