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

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// Packet is one of which the kernel is asked where it goes.
type Packet struct {
	Source, Destination netip.Addr
	// In is the index of the device that it comes in by; 0 for one that the host sends itself.
	In   int
	Mark uint32
}

// Outcome is where a packet goes.
type Outcome struct {
	// Device is the index of the device that it leaves by.
	Device  int
	Gateway netip.Addr
	// Table has the route.
	Table int
	// Local: it is for the host itself.
	Local bool
	// Dropped says why it goes nowhere; empty if it goes somewhere. Filtered: by the reverse path
	// filter.
	Dropped  string
	Filtered bool
}

// Route asks the kernel where a packet goes. It changes nothing.
func Route(h *netlink.Handle, p Packet) (Outcome, error) {
	options := &netlink.RouteGetOptions{IifIndex: p.In, Mark: p.Mark}
	if p.Source.IsValid() {
		options.SrcAddr = p.Source.AsSlice()
	}
	routes, err := h.RouteGetWithOptions(p.Destination.AsSlice(), options)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL) && filters(h, p.In):
		return Outcome{Dropped: "no route back to the sender by the device that it comes in by", Filtered: true}, nil
	case errors.Is(err, unix.ENETUNREACH):
		return Outcome{Dropped: "no route"}, nil
	case errors.Is(err, unix.EHOSTUNREACH):
		return Outcome{Dropped: "a route says unreachable, or the host does not forward"}, nil
	case errors.Is(err, unix.EACCES):
		return Outcome{Dropped: "a route says prohibit"}, nil
	case errors.Is(err, unix.EINVAL):
		return Outcome{Dropped: "a route says blackhole, or the kernel takes an address for an impossible one"}, nil
	case err != nil:
		return Outcome{}, fmt.Errorf("ask for the route from %v to %v: %w", p.Source, p.Destination, err)
	case len(routes) == 0:
		return Outcome{Dropped: "no route"}, nil
	}
	r := routes[0]
	if text, ok := nowhereText(r.Type); ok {
		return Outcome{Table: r.Table, Dropped: text}, nil
	}
	o := Outcome{Device: r.LinkIndex, Table: r.Table, Local: r.Type == unix.RTN_LOCAL}
	if gateway, ok := netip.AddrFromSlice(r.Gw); ok {
		o.Gateway = gateway.Unmap()
	}
	return o, nil
}

// filters reports whether a device has a reverse path filter: newer kernels than 6.14 answer with
// the same error whatever they drop a packet for that comes in.
func filters(h *netlink.Handle, device int) bool {
	if device == 0 {
		return false
	}
	link, err := h.LinkByIndex(device)
	if err != nil {
		return false
	}
	filter, err := sysctl.FilterInEffect(link.Attrs().Name)
	return err == nil && filter > 0
}

// nowhereText says what a route to nowhere does; of IPv6 the kernel answers with it.
func nowhereText(kind int) (string, bool) {
	switch kind {
	case unix.RTN_BLACKHOLE:
		return "a route says blackhole", true
	case unix.RTN_UNREACHABLE:
		return "a route says unreachable", true
	case unix.RTN_PROHIBIT:
		return "a route says prohibit", true
	}
	return "", false
}

// shownRoutes is how many routes are named that differ, of tens of thousands.
const shownRoutes = 5

// Differences compares our policy rules and routes, as the kernel has them, with those that the
// tables want: those that are not there, those of others in our tables, and those of ours that
// should not be there. device is the name of the overlay. It changes nothing, and works in the
// network namespace of the calling thread, which must be that of the handle.
func (t *Tables) Differences(h *netlink.Handle, m mark.Marks, device string) (missing, foreign, stale []string, err error) {
	rules, others, err := leadingRules(h, families()...)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, r := range others {
		foreign = append(foreign, describe(&r))
	}
	for _, c := range t.of {
		other := func(r netlink.Rule) bool { return r.Family != c.family }
		have := slices.DeleteFunc(slices.Clone(rules), other)
		plan, kept := t.plan.keeping(rules, c.family)
		var want []*netlink.Rule
		if c.wanted {
			want = append(policyRules(m, device, c.family), plan.wayRules(m, c.family)...)
		}
		for _, rule := range want {
			if !slices.ContainsFunc(have, func(r netlink.Rule) bool { return sameRule(&r, rule) }) {
				missing = append(missing, ofFamily(c.family)+describe(rule))
			}
		}
		for _, rule := range have {
			if !slices.ContainsFunc(want, func(r *netlink.Rule) bool { return sameRule(r, &rule) }) {
				stale = append(stale, ofFamily(c.family)+describe(&rule))
			}
		}
		own, ofOthers, err := tableRoutes(c.family)
		if err != nil {
			return nil, nil, nil, err
		}
		lacking := slices.DeleteFunc(slices.Clone(c.list), func(r route) bool { _, ok := own[r]; return ok })
		extra := slices.DeleteFunc(slices.SortedFunc(maps.Keys(own), compareRoutes), func(r route) bool { return c.want[r] || kept[r.table] })
		ofOthers = slices.DeleteFunc(ofOthers, func(r route) bool { return !c.wanted || !c.uses[r.table] })
		missing, foreign, stale = append(missing, named(lacking)...), append(foreign, named(ofOthers)...), append(stale, named(extra)...)
	}
	return missing, foreign, stale, nil
}

func ofFamily(family int) string {
	if family == netlink.FAMILY_V6 {
		return "of IPv6: "
	}
	return ""
}

// named describes some routes, and counts the rest.
func named(routes []route) (list []string) {
	for i, r := range routes {
		if i == shownRoutes {
			return append(list, fmt.Sprintf("%d more routes", len(routes)-i))
		}
		list = append(list, r.words())
	}
	return list
}

// words describes a route for people.
func (r route) words() string {
	to := cmp.Or(map[bool]string{true: "everywhere"}[r.dst.Bits() == 0], r.dst.String())
	switch {
	case r.kind == unix.RTN_THROW:
		return fmt.Sprintf("route of table %d that sends %s back to the main table", r.table, to)
	case r.kind == unix.RTN_UNREACHABLE:
		return fmt.Sprintf("route of table %d that makes %s unreachable where no other route leads", r.table, to)
	case r.kind != unix.RTN_UNICAST:
		return fmt.Sprintf("route of table %d to %s, of type %d", r.table, to, r.kind)
	case r.gateway.IsValid():
		return fmt.Sprintf("route of table %d to %s by device %d and gateway %v", r.table, to, r.link, r.gateway)
	}
	return fmt.Sprintf("route of table %d to %s by device %d", r.table, to, r.link)
}
