package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Policy routing of ours. Tables and priorities are our own, and so is the
// protocol number that each rule and route bears.
const (
	// tableRemote holds what bears REMOTE and is bound for the outside.
	tableRemote = 2000
	// tableReturn holds replies that bear RETURN.
	tableReturn = 2001
	// The rules stand before the main table's, and before those of CNIs that
	// use priorities from about 100 on where these match marks of their own.
	rulePriorityRemote = 90
	rulePriorityReturn = 91
	// routeProtocol marks rules and routes as ours; it is in the range that
	// the kernel leaves to administrators (5 to 255) and that no routing daemon
	// in iproute2's rt_protos has.
	routeProtocol = 77
	// unreachableMetric is that of the last route of a table, which holds the
	// packets when the overlay is gone or down and the kernel has flushed its
	// routes.
	unreachableMetric = 4_000_000_000
)

// routePlan are the routes that our tables must hold.
type routePlan struct {
	// inside are sent back to the main table from tableRemote.
	inside []netip.Prefix
	// overlay is the index of the overlay device; 0 while there is none.
	overlay int
}

// route is one of ours as a comparable value.
type route struct {
	table  int
	dst    netip.Prefix
	kind   int // unix.RTN_UNICAST, RTN_THROW or RTN_UNREACHABLE
	link   int
	metric int
}

func defaultV4() netip.Prefix { return netip.PrefixFrom(netip.IPv4Unspecified(), 0) }

// routes lists what the plan comes to, in the order in which it is added: the
// table of what is bound for the outside is closed before anything leads into
// it, and lets what is inside go before it sends the rest to the overlay.
//
// The table of replies leads to the inside alone, where all pods are. It must
// not have a default route: where src_valid_mark is set, as WireGuard and some
// CNIs do, strict reverse path filtering looks for the way back to a reply's
// sender with the reply's mark, and must find the uplink.
func (p routePlan) routes() []route {
	rs := []route{{table: tableRemote, dst: defaultV4(), kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}
	for _, dst := range p.inside {
		rs = append(rs, route{table: tableRemote, dst: dst, kind: unix.RTN_THROW})
	}
	if p.overlay == 0 {
		return rs
	}
	rs = append(rs, route{table: tableRemote, dst: defaultV4(), kind: unix.RTN_UNICAST, link: p.overlay})
	for _, dst := range p.inside {
		rs = append(rs, route{table: tableReturn, dst: dst, kind: unix.RTN_UNICAST, link: p.overlay})
	}
	return rs
}

// errTableInUse is the error of a routing table of ours that others use. Its
// routes would lead our packets astray, and ours theirs.
var errTableInUse = errors.New("others use this routing table: move their routes and rules to another one")

// ensureRoutes makes our two tables hold the plan's routes and no others.
func ensureRoutes(nl *netlink.Handle, p routePlan) (changes int, err error) {
	if err := checkTables(nl); err != nil {
		return 0, err
	}
	observed, _, err := tableRoutes(nl)
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
		errs = append(errs, count(&changes, "add "+r.String(), nl.RouteReplace(&nr)))
	}
	if err := errors.Join(errs...); err != nil {
		return changes, err // what is there too much may stand in for what is missing
	}
	for r, nr := range observed {
		if !want[r] {
			err := nl.RouteDel(&nr)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			errs = append(errs, count(&changes, "delete "+r.String(), err))
		}
	}
	return changes, errors.Join(errs...)
}

// checkTables looks for routes of others in our tables, and for rules of others
// that lead there.
func checkTables(nl *netlink.Handle) error {
	_, foreign, err := tableRoutes(nl)
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return fmt.Errorf("table %d has a route of others to %v: %w", foreign[0].Table, foreign[0].Dst, errTableInUse)
	}
	_, rules, err := leadingRules(nl)
	if err != nil {
		return err
	}
	if len(rules) > 0 {
		return fmt.Errorf("ip rule of others with priority %d leads to table %d: %w", rules[0].Priority, rules[0].Table, errTableInUse)
	}
	return nil
}

func isOurTable(table int) bool { return table == tableRemote || table == tableReturn }

// tableRoutes lists the routes of our tables: ours, and those of others.
func tableRoutes(nl *netlink.Handle) (own map[route]netlink.Route, foreign []netlink.Route, err error) {
	// Table 0 stands for all: the kernel lists them all anyway.
	list, err := nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	own = map[route]netlink.Route{}
	for _, nr := range list {
		switch {
		case !isOurTable(nr.Table):
		case nr.Protocol == routeProtocol:
			own[routeOf(nr)] = nr
		default:
			foreign = append(foreign, nr)
		}
	}
	return own, foreign, nil
}

// routeOf gives a route of ours as the plan has it.
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
	gw, _ := netip.AddrFromSlice(nr.Gw.To4())
	if gw != overlayNextHop() || nr.Flags&unix.RTNH_F_ONLINK == 0 {
		r.metric = -1 // none of the plan's
	}
	return r
}

func (r route) netlink() netlink.Route {
	nr := netlink.Route{
		Table: r.table, Type: r.kind, Priority: r.metric, Protocol: routeProtocol, Family: netlink.FAMILY_V4,
		Dst: ipNet(r.dst),
	}
	if r.kind == unix.RTN_UNICAST {
		nr.LinkIndex = r.link
		nr.Gw = overlayNextHop().AsSlice()
		nr.Flags = int(netlink.FLAG_ONLINK)
	}
	return nr
}

func (r route) String() string {
	return fmt.Sprintf("route of type %d to %v in table %d", r.kind, r.dst, r.table)
}

// policyRules are the two rules that lead marked packets into our tables.
func policyRules(m Marks) []*netlink.Rule {
	var rules []*netlink.Rule
	for _, r := range []struct {
		priority, table int
		mark            uint32
	}{{rulePriorityRemote, tableRemote, m.Remote()}, {rulePriorityReturn, tableReturn, m.Return()}} {
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table, rule.Protocol = netlink.FAMILY_V4, r.priority, r.table, routeProtocol
		mask := r.mark
		rule.Mark, rule.Mask = r.mark, &mask
		rules = append(rules, rule)
	}
	return rules
}

// ensurePolicyRules makes our two rules be there, and none else of ours.
func ensurePolicyRules(nl *netlink.Handle, m Marks) (changes int, err error) {
	if err := checkTables(nl); err != nil {
		return 0, err
	}
	observed, _, err := leadingRules(nl)
	if err != nil {
		return 0, err
	}
	var errs []error
	want := policyRules(m)
	for _, rule := range want {
		if !slices.ContainsFunc(observed, func(r netlink.Rule) bool { return sameRule(&r, rule) }) {
			errs = append(errs, count(&changes, fmt.Sprintf("add ip rule to table %d", rule.Table), nl.RuleAdd(rule)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return changes, err
	}
	kept := map[int]bool{}
	for _, rule := range observed {
		wanted := slices.ContainsFunc(want, func(r *netlink.Rule) bool { return sameRule(r, &rule) })
		if wanted && !kept[rule.Table] {
			kept[rule.Table] = true
			continue
		}
		errs = append(errs, count(&changes, fmt.Sprintf("delete ip rule to table %d", rule.Table), nl.RuleDel(&rule)))
	}
	return changes, errors.Join(errs...)
}

// leadingRules lists the rules that lead to our tables: ours, and those of
// others.
func leadingRules(nl *netlink.Handle) (own, foreign []netlink.Rule, err error) {
	rules, err := nl.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return nil, nil, fmt.Errorf("list ip rules: %w", err)
	}
	for _, r := range rules {
		switch {
		case !isOurTable(r.Table):
		case r.Protocol == routeProtocol:
			own = append(own, r)
		default:
			foreign = append(foreign, r)
		}
	}
	return own, foreign, nil
}

func sameRule(a, b *netlink.Rule) bool {
	return a.Priority == b.Priority && a.Table == b.Table && a.Mark == b.Mark && a.Protocol == b.Protocol &&
		a.Mask != nil && b.Mask != nil && *a.Mask == *b.Mask
}

// removeRouting takes our rules away, and then our tables' routes.
func removeRouting(nl *netlink.Handle) (removed int, err error) {
	rules, _, err := leadingRules(nl)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, rule := range rules {
		errs = append(errs, count(&removed, fmt.Sprintf("delete ip rule to table %d", rule.Table), nl.RuleDel(&rule)))
	}
	routes, _, err := tableRoutes(nl)
	errs = append(errs, err)
	for r, nr := range routes {
		err := nl.RouteDel(&nr)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		errs = append(errs, count(&removed, "delete "+r.String(), err))
	}
	return removed, errors.Join(errs...)
}
