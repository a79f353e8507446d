package routing

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// loopback is the device that packets of the host itself come from, to routing.
const loopback = "lo"

// policyRules returns the rules that lead marked packets to the host's own addresses and
// into our tables, those that lead the host's own packets and those of the overlay past
// them, and one for what the host itself sends through the overlay, by name of the device.
func policyRules(m mark.Marks, device string, family int) []*netlink.Rule {
	past, own, back, bound := netlink.NewRule(), netlink.NewRule(), netlink.NewRule(), netlink.NewRule()
	past.Family, past.Priority, past.Type, past.Protocol = family, rulePriorityPast, nl.FR_ACT_NOP, routeProtocol
	own.Family, own.Priority, own.IifName, own.Goto, own.Protocol = family, rulePriorityOwn, loopback, rulePriorityPast, routeProtocol
	back.Family, back.Priority, back.IifName, back.Goto, back.Protocol = family, rulePriorityOwn, device, rulePriorityPast, routeProtocol
	bound.Family, bound.Priority, bound.Table, bound.Protocol = family, rulePriorityBound, tableReturn, routeProtocol
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
		rule.Family, rule.Priority, rule.Table, rule.Protocol = family, r.priority, r.table, routeProtocol
		rule.Mark, rule.Mask = r.mark, &mask
		rules = append(rules, rule)
	}
	return rules
}

// ensureRules adds the rules that are not observed, then deletes the others.
func ensureRules(h *netlink.Handle, want []*netlink.Rule, observed []netlink.Rule) (changes int, err error) {
	var errs []error
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

// leadingRules lists our rules of some families, and those of others that lead to our tables.
func leadingRules(h *netlink.Handle, families ...int) (own, foreign []netlink.Rule, err error) {
	for _, family := range families {
		rules, err := nlutil.Whole(func() ([]netlink.Rule, error) { return h.RuleList(family) })
		if family == netlink.FAMILY_V6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return nil, nil, fmt.Errorf("list ip rules: %w", err)
		}
		for _, r := range rules {
			r.Family = family
			switch {
			case isNote(r):
			case isOurs(r):
				own = append(own, r)
			case IsOurTable(r.Table):
				foreign = append(foreign, r)
			}
		}
	}
	return own, foreign, nil
}

// Others lists the policy rules of IPv4 that are not ours, in order.
func Others(h *netlink.Handle) ([]netlink.Rule, error) {
	rules, err := nlutil.Whole(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list ip rules: %w", err)
	}
	return slices.DeleteFunc(rules, func(r netlink.Rule) bool { return isOurs(r) || isNote(r) }), nil
}

// isOurs reports whether a rule is one of ours.
func isOurs(r netlink.Rule) bool {
	return r.Protocol == routeProtocol && (IsOurTable(r.Table) || r.Table == unix.RT_TABLE_LOCAL || isPassing(r))
}

// isPassing reports whether a rule is one of those by which the host's own packets, and
// those of the overlay, go past the others.
func isPassing(r netlink.Rule) bool {
	leads := r.Priority == rulePriorityOwn || r.Priority == rulePriorityWayPast
	return r.Table == 0 && (leads && r.Goto == rulePriorityPast || r.Priority == rulePriorityPast)
}

func sameRule(a, b *netlink.Rule) bool {
	if a.Family != b.Family || a.Priority != b.Priority || a.Table != b.Table || a.Protocol != b.Protocol {
		return false
	}
	if isPassing(*a) {
		return a.IifName == b.IifName && a.Goto == b.Goto && a.Mark == b.Mark && sameMask(a.Mask, b.Mask)
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
	rules, _, err := leadingRules(h, families()...)
	for _, r := range rules {
		list = append(list, describe(&r))
	}
	return list, err
}

// RemoveRules deletes our policy rules, and counts them.
func RemoveRules(h *netlink.Handle) (removed int, err error) {
	rules, _, err := leadingRules(h, families()...)
	errs := []error{err}
	for _, rule := range rules {
		errs = append(errs, nlutil.Count(&removed, "delete "+describe(&rule), h.RuleDel(&rule)))
	}
	return removed, errors.Join(errs...)
}
