package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// AnyInterface in Config.Interfaces stands for interfaces of hardware, VLANs, bonds, teams and
// macvlans, whatever their name.
const AnyInterface = "auto"

// Network is a network of the host at another interface than the uplink, in which egress IPs
// can be.
type Network struct {
	Interface string
	CIDR      netip.Prefix
	// Gateway is the way to all else, as the host's routes have it, of IPv6 perhaps where CIDR is of
	// IPv4; the zero Addr for none.
	Gateway netip.Addr
}

// Reasons why an egress IP of another interface is not configured.
var (
	errNoInterface = errors.New("the interface is not there, is down or has no carrier, or may have no egress IPs (--egress-interfaces)")
	errNoNetwork   = errors.New("the interface has no address in a network that contains it")
	errNoForward   = errors.New("the interface does not forward packets: set its forwarding in net.ipv4.conf to 1")
	errManyWays    = fmt.Errorf("egress IPs of one host leave by at most %d gateways of other interfaces than the uplink", routing.MaxWays)
)

// errWaysTaken is errManyWays where others use some of the tables.
func errWaysTaken(others int) error {
	if others == 0 {
		return errManyWays
	}
	return fmt.Errorf("%w, each with a routing table from %d to %d, of which others use %d: move their routes and rules to other tables",
		errManyWays, routing.WayTable(0), routing.WayTable(routing.MaxWays-1), others)
}

// suits reports whether egress IPs may be on an interface by its name and kind.
func suits(patterns []string, f address.Further) bool {
	for _, pattern := range patterns {
		if pattern == AnyInterface {
			if slices.Contains([]string{"device", "vlan", "bond", "team", "macvlan"}, f.Link.Type()) {
				return true
			}
			continue
		}
		if matches, err := path.Match(pattern, f.Name()); err == nil && matches {
			return true
		}
	}
	return false
}

// furtherLinks are the interfaces other than the uplink that egress IPs can be on, and those
// that are.
type furtherLinks struct {
	// links are all, by name; places those that egress IPs of the State are on.
	links  map[string]address.Further
	places map[string]address.Uplink
	// of is the interface of each egress IP of the State that is on another than the uplink.
	of map[netip.Addr]string
	// ways are how these leave.
	ways []routing.Way
	at   map[netip.Addr]int // the table of each
}

// wayKey is what a way is known by. Each is for one family.
type wayKey struct {
	device  int
	gateway netip.Addr
	six     bool
}

// findFurther looks for further interfaces, reports their networks, and decides which egress IPs
// of the State can be on them.
func (r *round) findFurther() {
	r.further = furtherLinks{links: map[string]address.Further{}, places: map[string]address.Uplink{}, of: map[netip.Addr]string{}, at: map[netip.Addr]int{}}
	r.report.Networks, r.report.NetworksKnown = nil, false
	if err := r.listFurther(); err != nil {
		r.errs = append(r.errs, err)
	}
	r.noteElsewhere()
	keys := map[netip.Addr]wayKey{}
	for _, h := range slices.Concat(r.state.Hosted, r.state.Standby) {
		if h.Interface == "" {
			continue
		}
		r.further.of[h.IP] = h.Interface
		place, err := r.placeOf(h)
		if err != nil {
			r.unusable[h.IP] = fmt.Errorf("it belongs on interface %s: %w", h.Interface, err)
			continue
		}
		r.further.places[h.Interface] = place
		keys[h.IP] = wayKey{place.Link.Attrs().Index, h.Gateway, h.IP.Is6()}
	}
	r.d.news.further = map[int]bool{}
	for _, place := range r.further.places {
		r.d.news.further[place.Link.Attrs().Index] = true
	}
	r.findWays(keys)
}

// listFurther reads which interfaces there are. Egress IPs do not depend on all of it: where that
// fails, interfaces are taken to be as they last were, and their networks are not known. Nor
// are they without an uplink, as its networks might be among them.
func (r *round) listFurther() error {
	r.report.NetworksKnown = r.uplinkErr == nil
	if len(r.d.cfg.Interfaces) == 0 {
		return nil
	}
	found, err := address.Furthers(r.d.nl, r.d.news.uplink)
	if err != nil {
		r.report.NetworksKnown, found = false, r.d.furthers
		err = fmt.Errorf("look for further interfaces: %w", err)
	}
	r.d.furthers = found
	errs := []error{err}
	for _, f := range found {
		if f.Name() == overlayName || !suits(r.d.cfg.Interfaces, f) {
			continue
		}
		r.further.links[f.Name()] = f
		four, six, err := routing.Gateways(f.Link.Attrs().Index)
		if err != nil {
			r.report.NetworksKnown = false
			errs = append(errs, fmt.Errorf("look for gateways at %s: %w", f.Name(), err))
		}
		for _, cidr := range f.Networks() {
			n := Network{Interface: f.Name(), CIDR: cidr, Gateway: four}
			if cidr.Addr().Is6() {
				n.Gateway = six
			}
			r.report.Networks = append(r.report.Networks, n)
		}
	}
	if !r.report.NetworksKnown {
		r.report.Networks = nil
	}
	return errors.Join(errs...)
}

// placeOf returns the interface that an egress IP belongs on, if it can be there.
func (r *round) placeOf(h Hosted) (address.Uplink, error) {
	f, found := r.further.links[h.Interface]
	switch {
	case !found:
		return address.Uplink{}, errNoInterface
	case !slices.ContainsFunc(f.CIDRs, func(p netip.Prefix) bool { return p.Contains(h.IP) }):
		return address.Uplink{}, errNoNetwork
	}
	if h.IP.Is4() {
		// A setting that cannot be read is taken for the kernel's default.
		if forwards, err := sysctl.Get(sysctl.OfDevice(h.Interface, "forwarding")); err == nil && forwards == "0" {
			return address.Uplink{}, errNoForward
		}
	}
	return f.Place(r.d.nl)
}

// findWays gives each way a table that others do not use, the one that it has in the kernel if it
// has one.
func (r *round) findWays(keys map[netip.Addr]wayKey) {
	if len(keys) == 0 {
		r.d.wayTables = nil
		return
	}
	others, err := r.d.routed.takenWays(r.d.nl)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	r.giveTables(keys, others)
}

// giveTables is findWays with the tables of others.
func (r *round) giveTables(keys map[netip.Addr]wayKey, others map[int]bool) {
	if r.d.wayTables == nil {
		found, err := routing.WaysFound()
		if err != nil {
			r.errs = append(r.errs, err)
		}
		r.d.wayTables = map[wayKey]int{}
		for table, w := range found {
			if w.Gateway.IsValid() != w.Gateway6.IsValid() { // of one family, and by a gateway
				r.d.wayTables[wayKey{w.Device, cmp.Or(w.Gateway, w.Gateway6), w.Gateway6.IsValid()}] = table
			}
		}
	}
	maps.DeleteFunc(r.d.wayTables, func(_ wayKey, table int) bool { return others[table] })
	// If there are too many, hosted egress IPs keep their tables, others get one, and standbys have
	// the rest.
	hosted := map[netip.Addr]bool{}
	for _, h := range r.state.Hosted {
		hosted[h.IP] = true
	}
	rank := func(ip netip.Addr) int {
		_, has := r.d.wayTables[keys[ip]]
		switch {
		case !hosted[ip]:
			return 2
		case !has:
			return 1
		}
		return 0
	}
	order := sortedAddrs(keys)
	slices.SortStableFunc(order, func(a, b netip.Addr) int { return rank(a) - rank(b) })
	wanted := map[wayKey]bool{}
	for _, ip := range order {
		if len(wanted) < routing.MaxWays-len(others) {
			wanted[keys[ip]] = true
		}
	}
	maps.DeleteFunc(r.d.wayTables, func(key wayKey, _ int) bool { return !wanted[key] })
	taken := maps.Clone(others)
	if taken == nil {
		taken = map[int]bool{}
	}
	for _, table := range r.d.wayTables {
		taken[table] = true
	}
	next := 0
	for _, ip := range order {
		key := keys[ip]
		table, has := r.d.wayTables[key]
		for ; !has && next < routing.MaxWays; next++ {
			if table = routing.WayTable(next); !taken[table] {
				taken[table], has = true, true
				r.d.wayTables[key] = table
			}
		}
		if !has {
			r.unusable[ip] = errWaysTaken(len(others))
			continue
		}
		r.further.at[ip] = table
	}
	r.further.ways = nil
	for key, table := range r.d.wayTables {
		r.further.ways = append(r.further.ways, r.wayBy(key, table))
	}
	slices.SortFunc(r.further.ways, func(a, b routing.Way) int { return a.Table - b.Table })
}

// wayBy is the table of a way.
func (r *round) wayBy(key wayKey, table int) routing.Way {
	w := routing.Way{Table: table, Device: key.device}
	for name, place := range r.further.places {
		if place.Link.Attrs().Index == key.device {
			w.Name = name
			w.Networks = slices.DeleteFunc(r.further.links[name].Networks(), func(p netip.Prefix) bool { return p.Addr().Is6() != key.six })
		}
	}
	if key.six {
		w.Gateway6 = key.gateway
	} else {
		w.Gateway = key.gateway
	}
	return w
}

// wayIndices are the indices that lead to the ways.
func (r *round) wayIndices() (list []routing.Index) {
	for _, ip := range sortedAddrs(r.further.at) {
		if i, has := r.indices[ip]; has {
			list = append(list, routing.Index{Mark: r.d.cfg.Marks.Index(i), Table: r.further.at[ip], IPv6: ip.Is6()})
		}
	}
	return list
}

// wayErrs are why egress IPs of further interfaces may not leave by these.
func (r *round) wayErrs() map[netip.Addr]error {
	errs := map[netip.Addr]error{}
	for ip := range r.further.of {
		if err := errors.Join(r.waysErr, r.wayErrsIn[r.further.at[ip]]); err != nil {
			errs[ip] = err
		}
	}
	return errs
}

// leavingMarks are the marks of egress IPs that are served no more. Until the pods of these go
// another way, packets with them must not follow the main table.
func (r *round) leavingMarks() (marks []uint32) {
	for _, ip := range missing(r.known, r.indices) {
		marks = append(marks, r.d.cfg.Marks.Index(r.known[ip]))
	}
	return marks
}

// placeFor returns the interface that an egress IP belongs on. It is not ok where that is not
// known.
func (r *round) placeFor(ip netip.Addr) (u address.Uplink, ok bool) {
	if name, further := r.further.of[ip]; further {
		u, ok = r.further.places[name]
		return u, ok
	}
	return r.uplink, r.uplinkErr == nil
}

// byPlace divides egress IPs by the interfaces that they belong on, in order, the uplink first.
// Those of which that is not known are left out.
func (r *round) byPlace(ips []netip.Addr) (list []placed) {
	for _, ip := range ips {
		u, ok := r.placeFor(ip)
		if !ok {
			continue
		}
		i := slices.IndexFunc(list, func(p placed) bool { return p.Link.Attrs().Index == u.Link.Attrs().Index })
		if i < 0 {
			i, list = len(list), append(list, placed{Uplink: u})
		}
		list[i].ips = append(list[i].ips, ip)
	}
	first := func(p placed) int {
		if r.uplinkErr == nil && p.Link.Attrs().Index == r.uplink.Link.Attrs().Index {
			return 0
		}
		return p.Link.Attrs().Index
	}
	slices.SortStableFunc(list, func(a, b placed) int { return first(a) - first(b) })
	return list
}

// placed is an interface with egress IPs.
type placed struct {
	address.Uplink
	ips []netip.Addr
}

// furtherPlaces are the further interfaces with egress IPs, in order.
func (r *round) furtherPlaces() []address.Uplink {
	list := slices.Collect(maps.Values(r.further.places))
	slices.SortFunc(list, func(a, b address.Uplink) int { return a.Link.Attrs().Index - b.Link.Attrs().Index })
	return list
}

// pinned are those of the given egress IPs that may leave by one interface alone, with its index:
// those that are not on the uplink. One that the host still has and that no State names any more
// stays where it is.
func (r *round) pinned(idx indices) (map[netip.Addr]int, error) {
	pins := map[netip.Addr]int{}
	pin := func(ip netip.Addr, link int) {
		if _, has := idx[ip]; has {
			pins[ip] = link
		}
	}
	named := map[netip.Addr]bool{}
	for _, h := range slices.Concat(r.state.Hosted, r.state.Standby) {
		named[h.IP] = true
		name, further := r.further.of[h.IP]
		if !further {
			continue
		}
		pin(h.IP, -1) // nowhere
		if place, ok := r.further.places[name]; ok && r.unusable[h.IP] == nil {
			pin(h.IP, place.Link.Attrs().Index)
		}
	}
	was := r.d.pinned
	if was == nil {
		own, err := address.Own(r.d.nl)
		if err != nil {
			return nil, err
		}
		was = map[netip.Addr]int{}
		for ip := range idx {
			was[ip] = -1 // where it left by is not known any more
		}
		for ip, at := range own {
			delete(was, ip)
			if !r.uplink.Placed(at) {
				was[ip] = at[0].LinkIndex
			}
		}
	}
	for ip, link := range was {
		if !named[ip] {
			pin(ip, link)
		}
	}
	r.d.pinned = pins
	return pins, nil
}
