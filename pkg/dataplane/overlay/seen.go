package overlay

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// HasNextHop reports whether the overlay device has the neighbour to which all packets of a family
// go.
func HasNextHop(nl *netlink.Handle, link netlink.Link, ipv6 bool) (bool, error) {
	family, nextHop := netlink.FAMILY_V4, NextHop()
	if ipv6 {
		family, nextHop = netlink.FAMILY_V6, NextHop6()
	}
	neighs, err := nlutil.Whole(func() ([]netlink.Neigh, error) { return nl.NeighList(link.Attrs().Index, family) })
	if err != nil {
		return false, fmt.Errorf("list neighbours of %s: %w", Name, err)
	}
	for _, n := range neighs {
		if isNextHop(n, nextHop) {
			return true, nil
		}
	}
	return false, nil
}

// isNextHop reports whether a neighbour is as ensureNextHop makes it.
func isNextHop(n netlink.Neigh, nextHop netip.Addr) bool {
	ip, _ := netip.AddrFromSlice(n.IP)
	return ip.Unmap() == nextHop && n.State&netlink.NUD_PERMANENT != 0 && n.HardwareAddr.String() == nextHopMAC().String()
}
