package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// routed are our routes and policy rules as they were last found: in a large cluster there
// are tens of thousands. As long as the kernel reports no change of them, nor of the
// overlay, they are read again every wholeEvery only.
type routed struct {
	tables *routing.Tables
	// asSet: they were carried out already at the time at.
	asSet bool
	at    time.Duration
	// others6 is which route or policy rule of others in our tables concerns IPv6, as was
	// looked up at the time looked6; zero where that must be looked up.
	others6 error
	looked6 time.Duration
	// taken are the tables of ways that others use, as was looked up at the time lookedWays;
	// zero where that must be looked up.
	taken      map[int]bool
	lookedWays time.Duration
	// of are the networks that list has in order, those of IPv6 if ipv6 is set.
	of   map[netip.Prefix]struct{}
	ipv6 bool
	list []netip.Prefix
}

// inside returns networks as a plan has them, in order: those of IPv4, or of both families.
func (r *routed) inside(networks map[netip.Prefix]struct{}, withIPv6 bool) []netip.Prefix {
	if r.of == nil || r.ipv6 != withIPv6 || !maps.Equal(r.of, networks) {
		r.of, r.ipv6, r.list = networks, withIPv6, masked(slices.Collect(maps.Keys(networks)))
		if !withIPv6 {
			r.list = masked4(r.list)
		}
	}
	return r.list
}

// heard notes that the kernel has reported changes.
func (r *routed) heard() { r.asSet, r.looked6, r.lookedWays = false, 0, 0 }

// takenWays are the tables of ways that others use. Where that cannot be found out, err is why,
// and they are what they were.
func (r *routed) takenWays(h *netlink.Handle) (map[int]bool, error) {
	if r.lookedWays == 0 || monotonic()-r.lookedWays >= wholeEvery {
		taken, err := routing.WaysOfOthers(h)
		if err != nil {
			return r.taken, fmt.Errorf("look for others in our routing tables: %w", err)
		}
		r.taken, r.lookedWays = taken, monotonic()
	}
	return r.taken, nil
}

// inUse6 is why our tables can have nothing of IPv6: others use them. err is why that may
// not be so any more, or not yet.
func (r *routed) inUse6(h *netlink.Handle) (inUse, err error) {
	if r.looked6 == 0 || monotonic()-r.looked6 >= wholeEvery {
		inUse, err := routing.Others6(h)
		if err != nil {
			return r.others6, fmt.Errorf("look for others in our routing tables: %w", err)
		}
		r.others6, r.looked6 = inUse, monotonic()
	}
	return r.others6, nil
}

// ensure carries out a plan, where it may not be so already, and counts the changes.
func (r *routed) ensure(h *netlink.Handle, p routing.Plan, m Marks) (changes int, err error) {
	same := r.tables.Are(p)
	if r.asSet && same && monotonic()-r.at < wholeEvery {
		return 0, nil
	}
	if !same {
		r.tables = routing.NewTables(p)
	}
	changes, err = r.tables.Ensure(h, m, overlayName)
	r.asSet, r.at = changes == 0 && err == nil, monotonic()
	if err != nil {
		r.looked6, r.lookedWays = 0, 0
	}
	return changes, err
}
