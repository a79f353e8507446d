package routing

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Our tables, priorities, and the protocol number of each of our rules and routes.
const (
	// tableRemote routes packets with REMOTE that are bound for the outside.
	tableRemote = 2000
	// tableReturn routes replies with RETURN.
	tableReturn = 2001
	// The rules stand before the main table's, and before those of CNIs that
	// use priorities from about 100 on where these match marks of their own. The first
	// leads packets with REMOTE to the host's own addresses, for hosts where others
	// have moved the rule of table local behind ours.
	rulePriorityLocal  = 89
	rulePriorityRemote = 90
	rulePriorityReturn = 91
	// Packets of the host itself go past them, from the first of these to the second:
	// whoever marks those does not know our bits, and none of ours are among them.
	//
	// So do packets that come from the overlay, none of which has REMOTE or RETURN; but
	// where src_valid_mark is set, as WireGuard and some CNIs do, strict reverse path
	// filtering looks for the way back to the sender of a packet that leaves by the
	// overlay as if one came from there, with the packet's mark. It must find what the
	// main table says: the uplink, or the pod.
	rulePriorityOwn  = 88
	rulePriorityPast = 92
	// What the host itself sends through the overlay to other hosts.
	rulePriorityBound = 93
	// routeProtocol marks rules and routes as ours; it is in the range that
	// the kernel leaves to administrators (5 to 255) and that no routing daemon
	// in iproute2's rt_protos has.
	routeProtocol = 77
	// unreachableMetric is that of the last route of a table, which drops the
	// packets when the overlay device is gone or down and the kernel has flushed
	// its routes.
	unreachableMetric = 4_000_000_000
	// metric6 is what the kernel gives routes of IPv6 that ask for none.
	metric6 = 1024
)

// Plan is what our tables must hold.
type Plan struct {
	// Inside are the networks that are sent back to the main table from the table
	// of what is bound for the outside.
	Inside []netip.Prefix
	// Device is the index of the device that all else goes to; 0 while there is
	// none. NextHop is the gateway there, NextHop6 that of IPv6; the zero Addr where
	// there are no routes of IPv6.
	Device            int
	NextHop, NextHop6 netip.Addr
	// Ways are those of egress IPs that leave by devices of their own, Indices lead to them;
	// see ways.go.
	Ways    []Way
	Indices []Index
	// Keep are marks whose way stays as it is found in the kernel, if Indices has none for them.
	Keep []uint32
}

// has reports whether the plan has anything of a family, in the kernel's numbers.
func (p Plan) has(family int) bool {
	return family == netlink.FAMILY_V4 || p.NextHop6.IsValid()
}

// route is one of ours as a comparable value.
type route struct {
	table int
	dst   netip.Prefix
	kind  int // unix.RTN_UNICAST, RTN_THROW or RTN_UNREACHABLE
	link  int
	// gateway is set if kind is unix.RTN_UNICAST and the route has flag onlink. A route of that
	// kind without one leads to neighbours.
	gateway netip.Addr
	metric  int
}

func defaultV4() netip.Prefix { return netip.PrefixFrom(netip.IPv4Unspecified(), 0) }
func defaultV6() netip.Prefix { return netip.PrefixFrom(netip.IPv6Unspecified(), 0) }

// families are those of our routes and rules, in the kernel's numbers.
func families() []int { return []int{netlink.FAMILY_V4, netlink.FAMILY_V6} }

// routes lists the routes of the plan for a family in the order in which they are added:
// the table of what is bound for the outside is closed before anything leads into
// it, and lets what is inside go before it sends the rest to the overlay.
//
// The table of replies has one route, to the overlay: the programs there learned from the
// request where its sender is, in whatever network that may be.
func (p Plan) routes(family int) []route {
	switch {
	case !p.has(family):
		return nil
	case family == netlink.FAMILY_V6:
		return append(p.wayRoutes(defaultV6(), metric6), p.routesOf(defaultV6(), p.NextHop6, metric6)...)
	default:
		return append(p.wayRoutes(defaultV4(), 0), p.routesOf(defaultV4(), p.NextHop, 0)...)
	}
}

// routesOf are those of a family.
func (p Plan) routesOf(everywhere netip.Prefix, nextHop netip.Addr, metric int) []route {
	rs := []route{{table: tableRemote, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}
	for _, dst := range p.Inside {
		if dst.Addr().BitLen() == everywhere.Addr().BitLen() {
			rs = append(rs, route{table: tableRemote, dst: dst, kind: unix.RTN_THROW, metric: metric})
		}
	}
	if p.Device == 0 {
		return rs
	}
	for _, table := range []int{tableRemote, tableReturn} {
		rs = append(rs, route{table: table, dst: everywhere, kind: unix.RTN_UNICAST, link: p.Device, gateway: nextHop, metric: metric})
	}
	return rs
}

// ErrTableInUse is the error of a routing table of ours that others use too: their
// routes would misdirect our packets, and ours theirs.
var ErrTableInUse = errors.New("others use this routing table: move their routes and rules to another one")

// Tables are our tables as a plan wants them.
type Tables struct {
	plan Plan
	// of are their contents by family.
	of []contents
}

// contents are what our tables hold of a family.
type contents struct {
	family int
	// wanted: there is something. Where there is nothing, routes and rules of others in
	// our tables do not matter: no packet of the family is led there.
	wanted bool
	// list are the routes in the order in which they are added, want the same as a set.
	list []route
	want map[route]bool
	// uses are the tables in which there is something, or may be.
	uses map[int]bool
	// kept are tables of ways whose routes of ours stay, whatever they are; taken are those that
	// others use, with the reason.
	kept  map[int]bool
	taken map[int]error
}

// NewTables returns the tables of a plan.
func NewTables(p Plan) *Tables {
	t := &Tables{plan: p}
	for _, family := range families() {
		c := contents{family: family, wanted: p.has(family), list: p.routes(family), want: map[route]bool{}, uses: map[int]bool{tableRemote: true, tableReturn: true}}
		for _, r := range c.list {
			c.want[r], c.uses[r.table] = true, true
		}
		t.of = append(t.of, c)
	}
	return t
}

// Are reports whether the tables are those of a plan.
func (t *Tables) Are(p Plan) bool {
	return t != nil && t.plan.Device == p.Device && t.plan.NextHop == p.NextHop && t.plan.NextHop6 == p.NextHop6 && slices.Equal(t.plan.Inside, p.Inside) &&
		slices.EqualFunc(t.plan.Ways, p.Ways, Way.equal) && slices.Equal(t.plan.Indices, p.Indices) && slices.Equal(t.plan.Keep, p.Keep)
}

// Ensure makes our tables hold the plan's routes and no others of ours, and our policy
// rules exist and no others of ours, and counts the changes. device is the overlay. Where
// others use the tables for one family, nothing of this family changes, and the error is
// ErrTableInUse; the other family does not depend on it. Where others use the table of a way, its
// routes do not change, and it is an error of the way; see WayErrors. It works in the network
// namespace of the calling thread, which must be that of the handle.
func (t *Tables) Ensure(h *netlink.Handle, m mark.Marks, device string) (changes int, err error) {
	rules, foreign, err := leadingRules(h, families()...)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, c := range t.of {
		other := func(r netlink.Rule) bool { return r.Family != c.family }
		var plan Plan
		plan, c.kept = t.plan.keeping(rules, c.family)
		n, err := c.ensure(h, append(policyRules(m, device, c.family), plan.wayRules(m, c.family)...), slices.DeleteFunc(slices.Clone(rules), other), slices.DeleteFunc(slices.Clone(foreign), other))
		changes, errs = changes+n, append(errs, err)
	}
	return changes, errors.Join(errs...)
}

// ensure is Ensure for a family, of which rules are ours, foreign those of others, and want those
// that must be there if anything of it must.
func (c contents) ensure(h *netlink.Handle, want []*netlink.Rule, rules, foreign []netlink.Rule) (changes int, err error) {
	inUse := map[int]error{}
	for _, rule := range foreign {
		if c.wanted && c.uses[rule.Table] {
			inUse[rule.Table] = ruleOfOthers(rule)
		}
	}
	complete, err := c.complete()
	if err != nil {
		return 0, err
	}
	var routes map[route]sighting
	if !complete || len(inUse) > 0 {
		if routes, err = c.observe(inUse); err != nil {
			return 0, err
		}
	}
	if err := cmp.Or(inUse[tableRemote], inUse[tableReturn]); err != nil {
		return 0, err
	}
	var errs []error
	c.taken = inUse
	for _, table := range slices.Sorted(maps.Keys(inUse)) {
		errs = append(errs, ofWay(table, inUse[table]))
	}
	incomplete := map[int]bool{}
	if !complete {
		n, err := c.addRoutes(h, routes, incomplete)
		changes, errs = changes+n, append(errs, err)
	}
	if !c.wanted {
		want = nil
	}
	// No rule leads to routes that are deleted.
	n, err := ensureRules(h, want, rules)
	changes, errs = changes+n, append(errs, err)
	if !complete {
		n, err := c.deleteRoutes(h, routes, incomplete)
		changes, errs = changes+n, append(errs, err)
	}
	return changes, errors.Join(errs...)
}

// complete reports whether the tables have all routes of the family that they should have,
// and no others, whoever they are of. In a large cluster there are tens of thousands: none
// is kept.
func (c contents) complete() (bool, error) {
	found, others := 0, 0
	for _, table := range all() {
		n, err := nlutil.Whole(func() (n [2]int, err error) {
			err = eachRoute(c.family, table, func(r route, _ sighting, own bool) {
				switch {
				case own && c.want[r]:
					n[0]++
				case own && c.kept[table]:
				case own || c.wanted && c.uses[table]:
					n[1]++
				}
			})
			return n, err
		})
		if err != nil {
			return false, fmt.Errorf("list routes of table %d: %w", table, err)
		}
		found, others = found+n[0], others+n[1]
	}
	return found == len(c.want) && others == 0, nil
}

// addRoutes adds the routes of the plan that are not observed. Tables in which that fails are
// incomplete.
func (c contents) addRoutes(h *netlink.Handle, observed map[route]sighting, incomplete map[int]bool) (changes int, err error) {
	var errs []error
	added := map[route]bool{}
	for _, r := range c.list {
		if _, there := observed[r]; there || added[r] || c.taken[r.table] != nil {
			continue
		}
		added[r] = true
		nr := r.netlink()
		if err := nlutil.Count(&changes, "add "+r.String(), h.RouteReplace(&nr)); err != nil {
			incomplete[r.table], errs = true, append(errs, ofWay(r.table, err))
		}
	}
	return changes, errors.Join(errs...)
}

// deleteRoutes deletes observed routes that are not of the plan.
func (c contents) deleteRoutes(h *netlink.Handle, observed map[route]sighting, incomplete map[int]bool) (changes int, err error) {
	var errs []error
	for r, seen := range observed {
		// An extra route may cover for a missing one.
		if !c.want[r] && !c.kept[r.table] && !incomplete[r.table] && c.taken[r.table] == nil {
			nr := r.observed(seen)
			err := h.RouteDel(&nr)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			errs = append(errs, nlutil.Count(&changes, "delete "+r.String(), err))
		}
	}
	return changes, errors.Join(errs...)
}

// observed is the route as it is in the kernel.
func (r route) observed(seen sighting) netlink.Route {
	nr := r.netlink()
	nr.Scope, nr.Tos, nr.Gw, nr.Via, nr.Flags = netlink.Scope(seen.scope), int(seen.tos), nil, nil, 0
	if seen.gateway.IsValid() {
		leadTo(&nr, seen.gateway)
		nr.Flags = int(seen.flags & unix.RTNH_F_ONLINK)
	}
	return nr
}

// family is that of the route, in the kernel's numbers.
func (r route) family() int {
	if r.dst.Addr().Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

func (r route) netlink() netlink.Route {
	nr := netlink.Route{
		Table: r.table, Type: r.kind, Priority: r.metric, Protocol: routeProtocol, Family: r.family(),
		Dst: nlutil.IPNet(r.dst),
	}
	if r.kind == unix.RTN_UNICAST {
		nr.LinkIndex = r.link
	}
	switch {
	case r.kind != unix.RTN_UNICAST:
	case r.gateway.IsValid():
		leadTo(&nr, r.gateway)
		nr.Flags = int(netlink.FLAG_ONLINK)
	case r.dst.Addr().Is4():
		nr.Scope = netlink.SCOPE_LINK
	}
	return nr
}

// leadTo gives a route its gateway, which may be of IPv6 while the route is of IPv4.
func leadTo(nr *netlink.Route, gateway netip.Addr) {
	if gateway.Is6() && nr.Family == netlink.FAMILY_V4 {
		nr.Via = &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: gateway.AsSlice()}
		return
	}
	nr.Gw = gateway.AsSlice()
}

func (r route) String() string {
	return fmt.Sprintf("route of type %d to %v in table %d", r.kind, r.dst, r.table)
}

// ListRoutes describes our routes.
func ListRoutes() (list []string, err error) {
	routes, _, err := tableRoutes(families()...)
	for _, r := range slices.SortedFunc(maps.Keys(routes), compareRoutes) {
		list = append(list, r.String())
	}
	return list, err
}

// RemoveRoutes deletes our routes, and counts them.
func RemoveRoutes(h *netlink.Handle) (removed int, err error) {
	routes, _, err := tableRoutes(families()...)
	errs := []error{err}
	for r, seen := range routes {
		nr := r.observed(seen)
		err := h.RouteDel(&nr)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		errs = append(errs, nlutil.Count(&removed, "delete "+r.String(), err))
	}
	return removed, errors.Join(errs...)
}

func compareRoutes(a, b route) int {
	return cmp.Or(a.table-b.table, a.dst.Compare(b.dst), a.metric-b.metric)
}
