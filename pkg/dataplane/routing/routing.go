package routing

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
)

// Plan is what our tables must hold.
type Plan struct {
	// Inside are the networks that are sent back to the main table from the table
	// of what is bound for the outside.
	Inside []netip.Prefix
	// Device is the index of the device that all else goes to; 0 while there is
	// none. NextHop is the gateway there.
	Device  int
	NextHop netip.Addr
}

// route is one of ours as a comparable value.
type route struct {
	table int
	dst   netip.Prefix
	kind  int // unix.RTN_UNICAST, RTN_THROW or RTN_UNREACHABLE
	link  int
	// gateway is set if kind is unix.RTN_UNICAST and the route has flag onlink.
	gateway netip.Addr
	metric  int
}

func defaultV4() netip.Prefix { return netip.PrefixFrom(netip.IPv4Unspecified(), 0) }

// routes lists the routes of the plan in the order in which they are added: the
// table of what is bound for the outside is closed before anything leads into
// it, and lets what is inside go before it sends the rest to the overlay.
//
// The table of replies has one route, to the overlay: the programs there learned from the
// request where its sender is, in whatever network that may be.
func (p Plan) routes() []route {
	rs := []route{{table: tableRemote, dst: defaultV4(), kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}
	for _, dst := range p.Inside {
		rs = append(rs, route{table: tableRemote, dst: dst, kind: unix.RTN_THROW})
	}
	if p.Device == 0 {
		return rs
	}
	for _, table := range []int{tableRemote, tableReturn} {
		rs = append(rs, route{table: table, dst: defaultV4(), kind: unix.RTN_UNICAST, link: p.Device, gateway: p.NextHop})
	}
	return rs
}

// ErrTableInUse is the error of a routing table of ours that others use too: their
// routes would misdirect our packets, and ours theirs.
var ErrTableInUse = errors.New("others use this routing table: move their routes and rules to another one")

// EnsureRoutes makes our two tables hold the plan's routes and no others of ours,
// and counts the changes.
func EnsureRoutes(h *netlink.Handle, p Plan) (changes int, err error) {
	if err := checkTables(h); err != nil {
		return 0, err
	}
	observed, _, err := tableRoutes(h)
	if err != nil {
		return 0, err
	}
	var errs []error
	want := map[route]bool{}
	for _, r := range p.routes() {
		if want[r] {
			continue
		}
		want[r] = true
		if _, there := observed[r]; there {
			continue
		}
		nr := r.netlink()
		errs = append(errs, nlutil.Count(&changes, "add "+r.String(), h.RouteReplace(&nr)))
	}
	if err := errors.Join(errs...); err != nil {
		return changes, err // an extra route may cover for a missing one
	}
	for r, nr := range observed {
		if !want[r] {
			err := h.RouteDel(&nr)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			errs = append(errs, nlutil.Count(&changes, "delete "+r.String(), err))
		}
	}
	return changes, errors.Join(errs...)
}

// checkTables looks for routes of others in our tables, and for rules of others
// that lead there.
func checkTables(h *netlink.Handle) error {
	_, foreign, err := tableRoutes(h)
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return fmt.Errorf("table %d has a route of others to %v: %w", foreign[0].Table, foreign[0].Dst, ErrTableInUse)
	}
	_, rules, err := leadingRules(h)
	if err != nil {
		return err
	}
	if len(rules) > 0 {
		return fmt.Errorf("ip rule of others with priority %d leads to table %d: %w", rules[0].Priority, rules[0].Table, ErrTableInUse)
	}
	return nil
}

// IsOurTable reports whether a routing table is one of ours.
func IsOurTable(table int) bool { return table == tableRemote || table == tableReturn }

// tableRoutes lists the routes of our tables: ours, and those of others.
func tableRoutes(h *netlink.Handle) (own map[route]netlink.Route, foreign []netlink.Route, err error) {
	// Table 0 stands for all: the kernel lists them all anyway.
	list, err := nlutil.Whole(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	own = map[route]netlink.Route{}
	for _, nr := range list {
		switch {
		case !IsOurTable(nr.Table):
		case nr.Protocol == routeProtocol:
			own[routeOf(nr)] = nr
		default:
			foreign = append(foreign, nr)
		}
	}
	return own, foreign, nil
}

// routeOf converts a route of ours to a comparable value.
func routeOf(nr netlink.Route) route {
	r := route{table: nr.Table, dst: defaultV4(), kind: nr.Type, link: nr.LinkIndex, metric: nr.Priority}
	if nr.Dst != nil {
		ip, _ := netip.AddrFromSlice(nr.Dst.IP.To4())
		bits, _ := nr.Dst.Mask.Size()
		r.dst = netip.PrefixFrom(ip, bits)
	}
	if r.kind != unix.RTN_UNICAST {
		r.link = 0 // the kernel shows the loopback here
		return r
	}
	if nr.Flags&unix.RTNH_F_ONLINK != 0 {
		r.gateway, _ = netip.AddrFromSlice(nr.Gw.To4())
	}
	return r
}

func (r route) netlink() netlink.Route {
	nr := netlink.Route{
		Table: r.table, Type: r.kind, Priority: r.metric, Protocol: routeProtocol, Family: netlink.FAMILY_V4,
		Dst: nlutil.IPNet(r.dst),
	}
	if r.kind == unix.RTN_UNICAST {
		nr.LinkIndex = r.link
		nr.Gw = r.gateway.AsSlice()
		nr.Flags = int(netlink.FLAG_ONLINK)
	}
	return nr
}

func (r route) String() string {
	return fmt.Sprintf("route of type %d to %v in table %d", r.kind, r.dst, r.table)
}

// loopback is the device that packets of the host itself come from, to routing.
const loopback = "lo"

// policyRules returns the rules that lead marked packets to the host's own addresses and
// into our tables, those that lead the host's own packets and those of the overlay past
// them, and one for what the host itself sends through the overlay, by name of the device.
func policyRules(m mark.Marks, device string) []*netlink.Rule {
	past, own, back, bound := netlink.NewRule(), netlink.NewRule(), netlink.NewRule(), netlink.NewRule()
	past.Family, past.Priority, past.Type, past.Protocol = netlink.FAMILY_V4, rulePriorityPast, nl.FR_ACT_NOP, routeProtocol
	own.Family, own.Priority, own.IifName, own.Goto, own.Protocol = netlink.FAMILY_V4, rulePriorityOwn, loopback, rulePriorityPast, routeProtocol
	back.Family, back.Priority, back.IifName, back.Goto, back.Protocol = netlink.FAMILY_V4, rulePriorityOwn, device, rulePriorityPast, routeProtocol
	bound.Family, bound.Priority, bound.Table, bound.Protocol = netlink.FAMILY_V4, rulePriorityBound, tableReturn, routeProtocol
	bound.IifName, bound.OifName = loopback, device
	rules := []*netlink.Rule{past, own, back, bound}
	for _, r := range []struct {
		priority, table int
		mark            uint32
	}{
		{rulePriorityLocal, unix.RT_TABLE_LOCAL, m.Remote()},
		{rulePriorityRemote, tableRemote, m.Remote()},
		{rulePriorityReturn, tableReturn, m.Return()},
	} {
		rule, mask := netlink.NewRule(), r.mark
		rule.Family, rule.Priority, rule.Table, rule.Protocol = netlink.FAMILY_V4, r.priority, r.table, routeProtocol
		rule.Mark, rule.Mask = r.mark, &mask
		rules = append(rules, rule)
	}
	return rules
}

// EnsureRules makes our policy rules exist, and no others of ours, and counts the
// changes. device is the overlay.
func EnsureRules(h *netlink.Handle, m mark.Marks, device string) (changes int, err error) {
	if err := checkTables(h); err != nil {
		return 0, err
	}
	observed, _, err := leadingRules(h)
	if err != nil {
		return 0, err
	}
	var errs []error
	want := policyRules(m, device)
	for _, rule := range want {
		if !slices.ContainsFunc(observed, func(r netlink.Rule) bool { return sameRule(&r, rule) }) {
			errs = append(errs, nlutil.Count(&changes, "add "+describe(rule), h.RuleAdd(rule)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return changes, err
	}
	kept := make([]bool, len(want))
	for _, rule := range observed {
		i := slices.IndexFunc(want, func(r *netlink.Rule) bool { return sameRule(r, &rule) })
		if i >= 0 && !kept[i] {
			kept[i] = true
			continue
		}
		errs = append(errs, nlutil.Count(&changes, "delete "+describe(&rule), h.RuleDel(&rule)))
	}
	return changes, errors.Join(errs...)
}

// leadingRules lists our rules, and those of others that lead to our tables.
func leadingRules(h *netlink.Handle) (own, foreign []netlink.Rule, err error) {
	rules, err := nlutil.Whole(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return nil, nil, fmt.Errorf("list ip rules: %w", err)
	}
	for _, r := range rules {
		switch {
		case isOurs(r):
			own = append(own, r)
		case IsOurTable(r.Table):
			foreign = append(foreign, r)
		}
	}
	return own, foreign, nil
}

// Others lists the policy rules that are not ours, in order.
func Others(h *netlink.Handle) ([]netlink.Rule, error) {
	rules, err := nlutil.Whole(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list ip rules: %w", err)
	}
	return slices.DeleteFunc(rules, isOurs), nil
}

// isOurs reports whether a rule is one of ours.
func isOurs(r netlink.Rule) bool {
	return r.Protocol == routeProtocol && (IsOurTable(r.Table) || r.Table == unix.RT_TABLE_LOCAL || isPassing(r))
}

// isPassing reports whether a rule is one of those by which the host's own packets, and
// those of the overlay, go past the others.
func isPassing(r netlink.Rule) bool {
	return r.Table == 0 && (r.Priority == rulePriorityOwn && r.Goto == rulePriorityPast || r.Priority == rulePriorityPast)
}

func sameRule(a, b *netlink.Rule) bool {
	if a.Priority != b.Priority || a.Table != b.Table || a.Protocol != b.Protocol {
		return false
	}
	if isPassing(*a) {
		return a.IifName == b.IifName && a.Goto == b.Goto
	}
	return a.Mark == b.Mark && a.IifName == b.IifName && a.OifName == b.OifName && sameMask(a.Mask, b.Mask)
}

func sameMask(a, b *uint32) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// describe names one of our rules.
func describe(r *netlink.Rule) string {
	switch {
	case r.Table != 0:
		return fmt.Sprintf("ip rule, priority %d: to table %d", r.Priority, r.Table)
	case r.Goto > 0:
		return fmt.Sprintf("ip rule, priority %d: from %s past %d", r.Priority, r.IifName, r.Goto)
	default:
		return fmt.Sprintf("ip rule, priority %d: end of ours", r.Priority)
	}
}

// ListRules describes our policy rules.
func ListRules(h *netlink.Handle) (list []string, err error) {
	rules, _, err := leadingRules(h)
	for _, r := range rules {
		list = append(list, describe(&r))
	}
	return list, err
}

// RemoveRules deletes our policy rules, and counts them.
func RemoveRules(h *netlink.Handle) (removed int, err error) {
	rules, _, err := leadingRules(h)
	errs := []error{err}
	for _, rule := range rules {
		errs = append(errs, nlutil.Count(&removed, "delete "+describe(&rule), h.RuleDel(&rule)))
	}
	return removed, errors.Join(errs...)
}

// ListRoutes describes our routes.
func ListRoutes(h *netlink.Handle) (list []string, err error) {
	routes, _, err := tableRoutes(h)
	for _, r := range slices.SortedFunc(maps.Keys(routes), compareRoutes) {
		list = append(list, r.String())
	}
	return list, err
}

// RemoveRoutes deletes our routes, and counts them.
func RemoveRoutes(h *netlink.Handle) (removed int, err error) {
	routes, _, err := tableRoutes(h)
	errs := []error{err}
	for r, nr := range routes {
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
