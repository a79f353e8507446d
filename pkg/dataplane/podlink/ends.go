package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// targetNetNSID is IFA_TARGET_NETNSID of the kernel's if_addr.h (Linux 4.20).
const targetNetNSID = 10

// ends asks for addresses in other network namespaces, without entering them.
type ends struct{ socket *nl.NetlinkSocket }

func openEnds() (*ends, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	// Without it the kernel takes no notice of the namespace, and lists its own addresses.
	if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
		s.Close()
		return nil, fmt.Errorf("have netlink check requests: %w", err)
	}
	return &ends{socket: s}, nil
}

// Close closes the socket.
func (e *ends) Close() { e.socket.Close() }

// addresses returns the addresses at the other end of a link.
func (e *ends) addresses(l Link, ipv6 bool) ([]netip.Addr, error) {
	families := []int{unix.AF_INET}
	if ipv6 {
		families = append(families, unix.AF_INET6)
	}
	var all []netip.Addr
	for _, family := range families {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: e.socket}}
		header := nl.NewIfAddrmsg(family)
		header.Index = uint32(l.peer)
		req.AddData(header)
		req.AddData(nl.NewRtAttr(targetNetNSID, binary.NativeEndian.AppendUint32(nil, uint32(l.space))))
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
			return nil, nil // it has just gone
		}
		if err != nil {
			return nil, err
		}
		for _, msg := range msgs {
			if ip, ok := l.address(msg); ok {
				all = append(all, ip)
			}
		}
	}
	return all, nil
}

// address reads an address of the other end of a link.
func (l Link) address(msg []byte) (ip netip.Addr, ok bool) {
	if len(msg) < unix.SizeofIfAddrmsg || nl.DeserializeIfAddrmsg(msg).Index != uint32(l.peer) {
		return ip, false
	}
	attrs, err := nl.ParseRouteAttr(msg[unix.SizeofIfAddrmsg:])
	if err != nil {
		return ip, false
	}
	there := false
	for _, a := range attrs {
		switch a.Attr.Type {
		case targetNetNSID:
			there = len(a.Value) == 4 && binary.NativeEndian.Uint32(a.Value) == uint32(l.space)
		case unix.IFA_LOCAL:
			ip, ok = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS:
			if !ok { // for IPv6, there is no other
				ip, ok = netip.AddrFromSlice(a.Value)
			}
		}
	}
	return ip, ok && there
}
