package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// PodRoute is how the kernel leads to the address of a pod.
type PodRoute struct {
	IP netip.Addr
	// Network is the destination of the route. Where that is the address alone, and
	// another route leads a network around it nowhere, as CNIs have it for the block of
	// addresses that is this host's, it is that network.
	Network netip.Prefix
	// Outward: no pod of this host is there. The route leads out of the host, or nowhere.
	Outward bool
}

// ways are the devices that have been looked up, by index.
type ways map[int]bool

// ToPods finds out how the kernel leads to addresses of pods. outward are the indices of
// devices by which packets leave the host.
func ToPods(h *netlink.Handle, addresses []netip.Addr, outward []int) ([]PodRoute, error) {
	devices := make(ways)
	for _, index := range outward {
		devices[index] = true
	}
	var blocks []netip.Prefix
	var found []PodRoute
	for _, ip := range addresses {
		route, err := toPod(h, ip, devices)
		if err != nil {
			return nil, err
		}
		if !route.Outward && route.Network.IsSingleIP() {
			if blocks == nil {
				if blocks, err = nowhere(h); err != nil {
					return nil, err
				}
			}
			if i := slices.IndexFunc(blocks, func(p netip.Prefix) bool { return p.Contains(ip) }); i >= 0 {
				route.Network = blocks[i]
			}
		}
		found = append(found, route)
	}
	return found, nil
}

// toPod asks the kernel for the route to one address.
func toPod(h *netlink.Handle, ip netip.Addr, devices ways) (PodRoute, error) {
	outward := PodRoute{IP: ip, Network: netip.PrefixFrom(ip, ip.BitLen()), Outward: true}
	routes, err := h.RouteGetWithOptions(ip.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EAFNOSUPPORT): // a kernel without IPv6 leads nowhere by it
		return outward, nil
	case err != nil:
		return PodRoute{}, fmt.Errorf("find the route to %v: %w", ip, err)
	case len(routes) != 1, routes[0].Type != unix.RTN_UNICAST, routes[0].Dst == nil, len(routes[0].MultiPath) > 0:
		return outward, nil
	}
	network := destination(routes[0])
	if network.Bits() == 0 {
		return outward, nil
	}
	leads, known := devices[routes[0].LinkIndex]
	if !known {
		link, err := h.LinkByIndex(routes[0].LinkIndex)
		if err != nil {
			return PodRoute{}, fmt.Errorf("look up the interface of the route to %v: %w", ip, err)
		}
		leads = !hasPods(link)
		devices[routes[0].LinkIndex] = leads
	}
	return PodRoute{IP: ip, Network: network, Outward: leads}, nil
}

// destination is where a route leads; everywhere if it does not say.
func destination(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		return defaultV4()
	}
	ip, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

// hasPods reports whether a device is of a kind by which CNIs lead to pods. VPNs and
// tunnels, which may lead to anybody, are of others.
func hasPods(link netlink.Link) bool {
	return slices.Contains([]string{"veth", "bridge", "openvswitch", "netkit"}, link.Type())
}

// nowhere lists the networks that the main table leads nowhere, the longest prefix first.
func nowhere(h *netlink.Handle) ([]netip.Prefix, error) {
	blocks := []netip.Prefix{} // not nil: known
	for _, kind := range []int{unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE} {
		routes, err := nlutil.Whole(func() ([]netlink.Route, error) {
			filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Type: kind}
			return h.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes to nowhere: %w", err)
		}
		for _, r := range routes {
			if dst := destination(r); dst.Bits() > 0 {
				blocks = append(blocks, dst)
			}
		}
	}
	slices.SortFunc(blocks, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
	return blocks, nil
}
