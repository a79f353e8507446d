package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

var errNoDefaultRoute = errors.New("there is no default route")

// waysOut returns the interfaces by which packets leave the cluster: the uplink, and
// that of the default route, which should be the same, and those of egress IPs elsewhere.
func (r *round) waysOut(pinned map[netip.Addr]int) (links []netlink.Link, err error) {
	links = []netlink.Link{r.uplink.Link}
	r.defaultRoute = ""
	for _, ipv6 := range []bool{false, true} {
		own := ipv6 == r.state.overIPv6()
		if ipv6 && !r.serve6 && !own {
			continue
		}
		link, err := r.defaultLink(ipv6)
		if err != nil {
			return nil, err
		}
		if link == nil {
			continue
		}
		if own { // the other family may do without
			r.defaultRoute = link.Attrs().Name
		}
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == link.Attrs().Index }) {
			links = append(links, link)
		}
	}
	further := slices.Compact(slices.Sorted(maps.Values(pinned)))
	for _, index := range further {
		if index <= 0 || slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == index }) {
			continue
		}
		link, err := r.d.nl.LinkByIndex(index)
		if nlutil.IsLinkNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up the interface %d of egress IPs: %w", index, err)
		}
		links = append(links, link)
	}
	return links, nil
}

// defaultLink returns the interface of the default route of a family; nil where there is none.
func (r *round) defaultLink(ipv6 bool) (netlink.Link, error) {
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	route, err := defaultRoute(r.d.nl, ipv6)
	switch {
	case errors.Is(err, errNoDefaultRoute):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("find the interface of the default route of %s: %w", family, err)
	case route.LinkIndex == r.uplink.Link.Attrs().Index:
		return r.uplink.Link, nil
	}
	link, err := r.d.nl.LinkByIndex(route.LinkIndex)
	if err != nil {
		return nil, fmt.Errorf("look up the interface of the default route of %s: %w", family, err)
	}
	return link, nil
}

// defaultRoute returns the route that the host's own packets of a family to the outside take.
func defaultRoute(nl *netlink.Handle, ipv6 bool) (netlink.Route, error) {
	// Addresses reserved for documentation: only the default route leads there.
	if ipv6 {
		return routeTo(nl, net.IP{0: 0x3f, 1: 0xff, 15: 1})
	}
	return routeTo(nl, net.IPv4(192, 0, 2, 1))
}

// routeTo returns the route that the host's own packets to an address take.
func routeTo(nl *netlink.Handle, ip net.IP) (netlink.Route, error) {
	routes, err := nl.RouteGet(ip)
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EAFNOSUPPORT):
		return netlink.Route{}, fmt.Errorf("%w: %w", errNoDefaultRoute, err) // none, or one that leads nowhere
	case err != nil:
		return netlink.Route{}, err
	case len(routes) == 0:
		return netlink.Route{}, errNoDefaultRoute
	}
	return routes[0], nil
}
