package dataplane

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var errNoDefaultRoute = errors.New("there is no default route")

// waysOut returns the interfaces by which packets leave the cluster: the uplink, and
// that of the default route, which should be the same.
func (r *round) waysOut() (links []netlink.Link, err error) {
	links = []netlink.Link{r.uplink.Link}
	r.defaultRoute = r.uplink.Name
	route, err := defaultRoute(r.d.nl)
	switch {
	case errors.Is(err, errNoDefaultRoute):
		r.defaultRoute = ""
		return r.waysOut6(links)
	case err != nil:
		return nil, fmt.Errorf("find the interface of the default route: %w", err)
	case route.LinkIndex == r.uplink.Link.Attrs().Index:
		return r.waysOut6(links)
	}
	other, err := r.d.nl.LinkByIndex(route.LinkIndex)
	if err != nil {
		return nil, fmt.Errorf("look up the interface of the default route: %w", err)
	}
	r.defaultRoute = other.Attrs().Name
	return r.waysOut6(append(links, other))
}

// waysOut6 adds the interface of the default route of IPv6, where that is another one.
func (r *round) waysOut6(links []netlink.Link) ([]netlink.Link, error) {
	if !r.serve6 {
		return links, nil
	}
	route, err := routeTo(r.d.nl, net.IP{0: 0x3f, 1: 0xff, 15: 1})
	switch {
	case errors.Is(err, errNoDefaultRoute):
		return links, nil
	case err != nil:
		return nil, fmt.Errorf("find the interface of the default route of IPv6: %w", err)
	case slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == route.LinkIndex }):
		return links, nil
	}
	other, err := r.d.nl.LinkByIndex(route.LinkIndex)
	if err != nil {
		return nil, fmt.Errorf("look up the interface of the default route of IPv6: %w", err)
	}
	return append(links, other), nil
}

// defaultRoute returns the route that the host's own packets to the outside take.
func defaultRoute(nl *netlink.Handle) (netlink.Route, error) {
	// An address reserved for documentation: only the default route leads there.
	return routeTo(nl, net.IPv4(192, 0, 2, 1))
}

// routeTo returns the route that the host's own packets to an address take.
func routeTo(nl *netlink.Handle, ip net.IP) (netlink.Route, error) {
	routes, err := nl.RouteGet(ip)
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		return netlink.Route{}, fmt.Errorf("%w: %w", errNoDefaultRoute, err) // none, or one that leads nowhere
	case err != nil:
		return netlink.Route{}, err
	case len(routes) == 0:
		return netlink.Route{}, errNoDefaultRoute
	}
	return routes[0], nil
}
