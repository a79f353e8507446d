package neigh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// arpFrameLen is the length of an ARP packet for IPv4 with its Ethernet header.
const arpFrameLen = 14 + 28

// arpMessage is what an ARP packet says.
type arpMessage struct {
	op        uint16
	senderMAC net.HardwareAddr
	senderIP  netip.Addr
	targetMAC net.HardwareAddr
	targetIP  netip.Addr
}

func broadcastMAC() net.HardwareAddr {
	return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

// frame returns the Ethernet frame of the message, broadcast.
func (m arpMessage) frame() []byte {
	b := make([]byte, 0, arpFrameLen)
	b = append(b, broadcastMAC()...)
	b = append(b, m.senderMAC...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = binary.BigEndian.AppendUint16(b, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, m.op)
	b = append(b, m.senderMAC...)
	b = append(b, m.senderIP.AsSlice()...)
	b = append(b, m.targetMAC...)
	return append(b, m.targetIP.AsSlice()...)
}

// parseARP reads a frame; false where it is no ARP packet for IPv4.
func parseARP(b []byte) (arpMessage, bool) {
	if len(b) < arpFrameLen || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP ||
		binary.BigEndian.Uint16(b[16:]) != unix.ETH_P_IP || b[18] != 6 || b[19] != 4 {
		return arpMessage{}, false
	}
	return arpMessage{
		op:        binary.BigEndian.Uint16(b[20:]),
		senderMAC: net.HardwareAddr(b[22:28]),
		senderIP:  netip.AddrFrom4([4]byte(b[28:32])),
		targetMAC: net.HardwareAddr(b[32:38]),
		targetIP:  netip.AddrFrom4([4]byte(b[38:42])),
	}, true
}

// arpSocket sends and receives ARP on one interface.
type arpSocket struct {
	fd   int
	link int
	mac  net.HardwareAddr
}

// openARP opens a socket on a device. One without link-layer addresses, such
// as a tunnel, has no ARP: ok is false.
func openARP(link netlink.Link) (s arpSocket, ok bool, err error) {
	attrs := link.Attrs()
	if len(attrs.HardwareAddr) != 6 || attrs.RawFlags&unix.IFF_NOARP != 0 {
		return arpSocket{}, false, nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(nlutil.BigEndian16(unix.ETH_P_ARP)))
	if err != nil {
		return arpSocket{}, false, fmt.Errorf("open ARP socket on %s: %w", attrs.Name, err)
	}
	s = arpSocket{fd: fd, link: attrs.Index, mac: attrs.HardwareAddr}
	if err := unix.Bind(fd, s.address()); err != nil {
		return arpSocket{}, false, errors.Join(fmt.Errorf("bind ARP socket to %s: %w", attrs.Name, err), s.close())
	}
	return s, true, nil
}

func (s arpSocket) address() *unix.SockaddrLinklayer {
	return &unix.SockaddrLinklayer{Protocol: nlutil.BigEndian16(unix.ETH_P_ARP), Ifindex: s.link}
}

func (s arpSocket) close() error { return unix.Close(s.fd) }

func (s arpSocket) send(m arpMessage) error {
	return unix.Sendto(s.fd, m.frame(), 0, s.address())
}

// receive waits for an ARP packet until ctx ends; false where none came.
func (s arpSocket) receive(ctx context.Context) (arpMessage, bool, error) {
	buffer := make([]byte, 128)
	for ctx.Err() == nil {
		left := arpProbeWait
		if deadline, ok := ctx.Deadline(); ok {
			left = max(0, min(left, time.Until(deadline)))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || (err == nil && n == 0) {
			continue
		}
		if err != nil {
			return arpMessage{}, false, fmt.Errorf("wait for ARP: %w", err)
		}
		n, _, err = unix.Recvfrom(s.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return arpMessage{}, false, fmt.Errorf("receive ARP: %w", err)
		}
		if m, ok := parseARP(buffer[:n]); ok {
			return m, true, nil
		}
	}
	return arpMessage{}, false, nil
}
