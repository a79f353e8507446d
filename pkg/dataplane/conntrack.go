package dataplane

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// deleteFlows has the kernel forget all connections that match, in one look at
// the table, and counts them. What comes of such a connection then is a new
// one, or invalid.
func deleteFlows(h *netlink.Handle, match func(flow) bool) (int, error) {
	n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, flowFilter(match))
	if err != nil {
		return int(n), fmt.Errorf("delete tracked connections: %w", err)
	}
	return int(n), nil
}

// flowFilter is a netlink.CustomConntrackFilter.
type flowFilter func(flow) bool

// MatchConntrackFlow tells whether the connection is to be deleted.
func (f flowFilter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	var state uint8
	if tcp, ok := c.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
		state = tcp.State
	}
	return f(flow{
		state:  state,
		source: addrFromNet(c.Forward.SrcIP), dest: addrFromNet(c.Reverse.SrcIP),
		sourceOutside: addrFromNet(c.Reverse.DstIP), mark: c.Mark,
		asked:    netip.AddrPortFrom(addrFromNet(c.Forward.DstIP), c.Forward.DstPort),
		protocol: c.Forward.Protocol, sourcePort: c.Forward.SrcPort, destPort: c.Reverse.SrcPort,
	})
}

func addrFromNet(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
