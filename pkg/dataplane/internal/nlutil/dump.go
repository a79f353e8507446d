package nlutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpBuffer holds what the kernel sends at once of a list.
const dumpBuffer = 32 << 10

// Dump asks a protocol of netlink for a list, and calls each with the content of each
// message of the answer, which is valid until each returns. It makes no garbage but its
// buffer. The request is a filter, if the kernel is new enough, for routing 4.20; others
// send more: each must leave out what it did not ask for. It works in the network namespace
// of the calling thread.
func Dump(protocol int, typ uint16, request []byte, each func(typ uint16, data []byte) error) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) // not before Linux 4.20
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(request)))
	message = binary.NativeEndian.AppendUint16(message, typ)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	message = append(message, make([]byte, 8)...) // the number of the request, and who asks
	if err := unix.Sendto(fd, append(message, request...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buffer := make([]byte, dumpBuffer)
	for {
		n, err := unix.Read(fd, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if done, err := eachMessage(buffer[:n], each); done || err != nil {
			return err
		}
	}
}

// eachMessage calls each with the messages of one part of a list, and reports whether it
// was the last part.
func eachMessage(b []byte, each func(typ uint16, data []byte) error) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return false, fmt.Errorf("a message of %d bytes in %d", length, len(b))
		}
		typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		data := b[unix.SizeofNlMsghdr:length]
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			return false, netlink.ErrDumpInterrupted
		}
		switch typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(data)); code < 0 {
					return true, unix.Errno(-code)
				}
			}
			return true, nil
		}
		if err := each(typ, data); err != nil {
			return false, err
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return false, nil
}

// EachAttr calls do for each netlink attribute in b, without its flag bits. Malformed ones
// end it.
func EachAttr(b []byte, do func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		do(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[unix.SizeofRtAttr:length])
		b = b[min(len(b), (length+3)&^3):]
	}
}
