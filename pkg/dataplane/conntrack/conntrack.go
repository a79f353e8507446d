package conntrack

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Flow is a tracked connection.
type Flow struct {
	// Source opened the connection. Dest is the address that it reached, after
	// a service's address was translated.
	Source, Dest netip.Addr
	// Asked is the destination before that translation.
	Asked netip.AddrPort
	// SourceOutside is the source that Dest sees.
	SourceOutside netip.Addr
	// Mark is the connection's mark.
	Mark uint32
	// Protocol is the number in the IP header. SourcePort belongs to Source,
	// DestPort to Dest.
	Protocol             uint8
	SourcePort, DestPort uint16
	// State is that of TCP, in the numbers of connection tracking.
	State uint8
}

// Delete makes the kernel forget all connections that match, in one walk through
// the table, and counts them. A later packet of such a connection begins a new
// one, or is invalid.
func Delete(h *netlink.Handle, match func(Flow) bool) (int, error) {
	n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, flowFilter(match))
	if err != nil {
		return int(n), fmt.Errorf("delete tracked connections: %w", err)
	}
	return int(n), nil
}

// flowFilter is a netlink.CustomConntrackFilter.
type flowFilter func(Flow) bool

// MatchConntrackFlow reports whether the connection must be deleted.
func (f flowFilter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	var state uint8
	if tcp, ok := c.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
		state = tcp.State
	}
	return f(Flow{
		State:  state,
		Source: addrFromNet(c.Forward.SrcIP), Dest: addrFromNet(c.Reverse.SrcIP),
		SourceOutside: addrFromNet(c.Reverse.DstIP), Mark: c.Mark,
		Asked:    netip.AddrPortFrom(addrFromNet(c.Forward.DstIP), c.Forward.DstPort),
		Protocol: c.Forward.Protocol, SourcePort: c.Forward.SrcPort, DestPort: c.Reverse.SrcPort,
	})
}

func addrFromNet(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
