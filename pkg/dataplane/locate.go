package dataplane

import (
	"net/netip"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// PodRoute is how the kernel leads to an address of State.Locate.
type PodRoute = routing.PodRoute

// located is how the kernel led to the addresses of pods at a time.
type located struct {
	addresses []netip.Addr
	routes    []PodRoute
	at        time.Duration
}

// locate finds out how the kernel leads to the addresses that the state asks for, again
// after a while, and soon where no pod was found. It changes nothing.
func (r *round) locate() {
	l, rest := &r.d.located, lookEvery
	if len(r.state.Locate) == 0 {
		*l = located{}
		return
	}
	if slices.ContainsFunc(l.routes, func(p PodRoute) bool { return p.Outward }) {
		rest = lookSoon
	}
	if !slices.Equal(l.addresses, r.state.Locate) || monotonic()-l.at >= rest {
		routes, err := routing.ToPods(r.d.nl, r.state.Locate, r.outward())
		if err != nil {
			r.report.Warnings = append(r.report.Warnings, warning.NotLocated(err))
			return
		}
		*l = located{addresses: slices.Clone(r.state.Locate), routes: routes, at: monotonic()}
	}
	r.report.PodRoutes = l.routes
}

// outward are the indices of the devices by which packets leave the host.
func (r *round) outward() (indices []int) {
	if r.uplinkErr == nil {
		indices = append(indices, r.uplink.Link.Attrs().Index)
	}
	for _, ipv6 := range []bool{false, true} {
		if route, err := defaultRoute(r.d.nl, ipv6); err == nil {
			indices = append(indices, route.LinkIndex)
		}
	}
	if link, err := overlay.Find(r.d.nl); err == nil && link != nil {
		indices = append(indices, link.Attrs().Index)
	}
	return indices
}
