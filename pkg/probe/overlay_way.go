package probe

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// OverlayDevice is the name of the overlay device.
const OverlayDevice = "egress0"

// overlayWay sends questions through the overlay: a control message binds each of them
// to the device (ip(7), IP_PKTINFO; ipv6(7), IPV6_PKTINFO), and a policy rule of the data plane
// leads what is bound there to other hosts.
type overlayWay struct {
	device  string
	source  netip.Addr
	index   uint32
	control []byte // nil while there is no such way
	// bare: datagrams of IPv6 leave the socket without a UDP checksum.
	bare bool
}

func newOverlayWay(device string, source netip.Addr) *overlayWay {
	if !source.IsValid() {
		device = ""
	}
	return &overlayWay{device: device, source: source}
}

// look finds the device, which is replaced when its settings change.
func (w *overlayWay) look(conn *net.UDPConn) {
	if w.device == "" {
		return
	}
	index := indexOf(conn, w.device)
	if index == w.index {
		return
	}
	w.index, w.control = index, nil
	if index != 0 {
		// Without a source, the kernel would choose that of the device.
		w.control = packetInfo(index, w.source)
	}
}

// prepare gives the next datagram a UDP checksum or not, according to its control message. In
// IPv6, one without is common in tunnels, but on the direct way firewalls may drop it.
func (w *overlayWay) prepare(conn *net.UDPConn, control []byte) error {
	bare := control != nil
	if !w.source.Is6() || w.bare == bare {
		return nil
	}
	value := 0
	if bare {
		value = 1
	}
	if err := setAll(conn, option{unix.IPPROTO_UDP, udpNoCheck6TX, value}); err != nil {
		return err
	}
	w.bare = bare
	return nil
}

// packetInfo is a control message that binds a datagram to a device and gives it a source.
func packetInfo(index uint32, source netip.Addr) []byte {
	if source.Is6() {
		return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: index, Addr: source.As16()})
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(index), Spec_dst: source.As4()}) //nolint:gosec // an index is positive
}

// to returns the control message of a question, nil for the direct way. A host does not
// reach itself over the overlay.
func (w *overlayWay) to(d datagram) []byte {
	if !d.overlay || d.addr == w.source {
		return nil
	}
	return w.control
}

// indexOf returns the index of a device, 0 without one.
func indexOf(conn *net.UDPConn, device string) uint32 {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var index uint32
	_ = raw.Control(func(fd uintptr) {
		request, err := unix.NewIfreq(device)
		if err != nil {
			return
		}
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, request) == nil {
			index = request.Uint32()
		}
	})
	return index
}
