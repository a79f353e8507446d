package neigh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// packetSocket sends and receives frames of one protocol on one interface.
type packetSocket struct {
	fd       int
	link     int
	name     string
	mac      net.HardwareAddr
	protocol uint16
}

// hasSegment reports whether a device has link-layer addresses, so that others can be
// asked there.
func hasSegment(link netlink.Link) bool {
	attrs := link.Attrs()
	return len(attrs.HardwareAddr) == 6 && attrs.RawFlags&unix.IFF_NOARP == 0
}

// openPacket opens a socket for frames of a protocol that pass a filter, if there is one.
func openPacket(link netlink.Link, protocol uint16, filter []unix.SockFilter) (s packetSocket, err error) {
	attrs := link.Attrs()
	// It gets no packet before it is bound, and none that has not met the filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return packetSocket{}, fmt.Errorf("open a packet socket on %s: %w", attrs.Name, err)
	}
	s = packetSocket{fd: fd, link: attrs.Index, name: attrs.Name, mac: attrs.HardwareAddr, protocol: protocol}
	if len(filter) > 0 {
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]} //nolint:gosec // a handful
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
	}
	if err == nil {
		err = unix.Bind(fd, s.address())
	}
	if err != nil {
		return packetSocket{}, errors.Join(fmt.Errorf("bind a packet socket to %s: %w", attrs.Name, err), s.close())
	}
	return s, nil
}

func (s packetSocket) address() *unix.SockaddrLinklayer {
	return &unix.SockaddrLinklayer{Protocol: nlutil.BigEndian16(s.protocol), Ifindex: s.link}
}

func (s packetSocket) close() error { return unix.Close(s.fd) }

func (s packetSocket) sendFrame(frame []byte) error { return unix.Sendto(s.fd, frame, 0, s.address()) }

// receiveAny waits for a frame at any of some sockets until ctx ends; false where none came.
func receiveAny(ctx context.Context, buffer []byte, sockets ...packetSocket) ([]byte, bool, error) {
	fds := make([]unix.PollFd, 0, len(sockets))
	for _, s := range sockets {
		fds = append(fds, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}) //nolint:gosec // the kernel's numbers fit
	}
	for ctx.Err() == nil {
		left := probeWait
		if deadline, ok := ctx.Deadline(); ok {
			left = max(0, min(left, time.Until(deadline)))
		}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || (err == nil && n == 0) {
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("wait for neighbours: %w", err)
		}
		for _, fd := range fds {
			if fd.Revents == 0 {
				continue
			}
			n, _, err = unix.Recvfrom(int(fd.Fd), buffer, 0)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return nil, false, fmt.Errorf("receive from neighbours: %w", err)
			}
			return buffer[:n], true, nil
		}
	}
	return nil, false, nil
}
