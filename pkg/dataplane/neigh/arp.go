package neigh

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
type arpSocket struct{ packetSocket }

// openARP opens a socket on a device. One without link-layer addresses, such
// as a tunnel, has no ARP: ok is false.
func openARP(link netlink.Link) (s arpSocket, ok bool, err error) {
	if !hasSegment(link) {
		return arpSocket{}, false, nil
	}
	s.packetSocket, err = openPacket(link, unix.ETH_P_ARP, nil)
	return s, err == nil, err
}

func (s arpSocket) send(m arpMessage) error { return s.sendFrame(m.frame()) }

// receive waits for an ARP packet until ctx ends; false where none came.
func (s arpSocket) receive(ctx context.Context) (arpMessage, bool, error) {
	buffer := make([]byte, 128)
	for {
		frame, ok, err := receiveAny(ctx, buffer, s.packetSocket)
		if err != nil || !ok {
			return arpMessage{}, false, err
		}
		if m, ok := parseARP(frame); ok {
			return m, true, nil
		}
	}
}

// probe asks who has an address, with sender 0.0.0.0: it must not change anyone's cache.
func (s arpSocket) probe(ip netip.Addr) arpMessage {
	return arpMessage{
		op: arpRequest, senderMAC: s.mac, senderIP: netip.IPv4Unspecified(),
		targetMAC: make(net.HardwareAddr, 6), targetIP: ip,
	}
}

// request says that an address is here, in the form of a question.
func (s arpSocket) request(ip netip.Addr) arpMessage {
	return arpMessage{op: arpRequest, senderMAC: s.mac, senderIP: ip, targetMAC: make(net.HardwareAddr, 6), targetIP: ip}
}
