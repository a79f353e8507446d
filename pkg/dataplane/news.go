package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// news is what the kernel reports as changed between two passes, of what it reports. The
// zero value is ready for use. It works in the network namespace of the thread that first
// asks.
type news struct {
	socket *nl.NetlinkSocket
	buffer []byte
	// overlay and uplink are the devices, by their index, further are those of other egress
	// IPs. host is the host's own address.
	overlay, uplink int
	further         map[int]bool
	host            netip.Addr
	// elsewhere is what the last pass found of networks of other interfaces.
	elsewhere *elsewhere
	// routes: our routes or policy rules may have changed since that was last taken.
	routes bool
}

// takeRoutes reports whether our routes or policy rules may have changed since it was last
// asked.
func (n *news) takeRoutes() bool {
	changed := n.routes || n.socket == nil
	n.routes = false
	return changed
}

// concern reports whether anything may have changed that is ours, or that our kernel
// state depends on, since it was last asked. What happens later is reported next time.
func (n *news) concern() bool {
	if n.socket == nil {
		socket, err := subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
			unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_TC, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_NETCONF)
		if err == nil {
			n.socket, n.buffer = socket, make([]byte, nl.RECEIVE_BUFFER_SIZE)
		}
		n.routes = true
		return true // nothing was heard so far
	}
	found, err := drain(n.socket, n.buffer, n.concerns)
	if err != nil {
		n.close() // the next pass opens another
		n.routes = true
		return true
	}
	return found
}

func (n *news) close() {
	if n.socket != nil {
		n.socket.Close()
		n.socket = nil
	}
}

// concerns leaves out neighbours of other devices, and what concernsRouting does, but for
// routes to neighbours at the uplink: the form of egress IPs depends on these; and for what is
// news of other interfaces.
func (n *news) concerns(typ uint16, data []byte) bool {
	switch typ {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return n.ofOverlay(data)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		ours := concernsRouting(typ, data)
		n.routes = n.routes || ours
		return ours || n.isNeighbourly(data) || n.elsewhere.concerned(typ, data)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		// With a device, and with its last address, its routes go without a word.
		n.routes = n.routes || n.ofOverlay(data) || n.ofFurther(data)
		return n.ofOverlay(data) || address.MayConcern(data) || n.movesHost(typ, data) || n.elsewhere.concerned(typ, data)
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		return n.elsewhere.concerned(typ, data)
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_NEWTCLASS, unix.RTM_DELTCLASS:
	default:
		n.routes = true // policy rules, or more than the socket could hold
	}
	return true
}

// movesHost reports whether a message is that the host's own address of IPv6 has gone, or is
// elsewhere than at the uplink. That it is there still, as with each router advertisement, is
// no news.
func (n *news) movesHost(typ uint16, data []byte) bool {
	if typ != unix.RTM_NEWADDR && typ != unix.RTM_DELADDR {
		return false
	}
	ip, link := address.OfMessage(data)
	return ip.IsValid() && ip == n.host && (typ == unix.RTM_DELADDR || link != n.uplink)
}

// ofOverlay reports whether a message is about the overlay, for those kinds that begin
// with a family and have the number of the device after four bytes.
func (n *news) ofOverlay(data []byte) bool {
	return len(data) < 8 || int(binary.NativeEndian.Uint32(data[4:])) == n.overlay
}

// ofFurther reports whether a message is about a further interface with egress IPs, as ofOverlay
// does.
func (n *news) ofFurther(data []byte) bool {
	return len(data) >= 8 && n.further[int(binary.NativeEndian.Uint32(data[4:]))]
}

// isNeighbourly reports whether a route leads to neighbours at an interface with egress IPs.
func (n *news) isNeighbourly(data []byte) bool {
	if len(data) < unix.SizeofRtMsg {
		return true
	}
	if data[0] == unix.AF_INET6 {
		return false // the form of egress IPs of IPv6 depends on none
	}
	device, gateway := 0, false
	nlutil.EachAttr(data[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.RTA_OIF && len(value) == 4:
			device = int(binary.NativeEndian.Uint32(value))
		case typ == unix.RTA_GATEWAY, typ == unix.RTA_VIA:
			gateway = true
		}
	})
	return (device == n.uplink || n.further[device]) && !gateway
}
