package dataplane

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Reasons why there are no rules for IPv6 where ours are in iptables, or none that serve it.
var (
	errNoIP6Tables = errors.New("there is no ip6tables on this host")
	errUnreadable6 = errors.New("the rules of ip6tables cannot be read")
)

// openIP6Tables opens the backends of iptables that are installed for IPv6, where the
// kernel has IPv6.
func openIP6Tables() map[Backend]*iptables.Driver {
	if !kernelHasIPv6() {
		return nil
	}
	return iptables.OpenIPv6()
}

// use6 returns the backends that our rules for IPv6 belong in: those of the other family, if
// they are there, and where the rules serve egress IPs of IPv6, those in which others translate
// sources of IPv6.
func (r *round) use6(use []Backend, observed kernel) []Backend {
	r.report.IPv6Locked = r.ipv6 && r.members.table
	if !r.ipv6 || r.members.table {
		return nil
	}
	readable := func(b Backend) bool { _, ok := observed.rules6[b]; return ok }
	use6 := slices.DeleteFunc(slices.Clone(use), func(b Backend) bool { return !readable(b) })
	var translating []Backend
	for _, b := range iptables.Backends() {
		if r.serve6 && readable(b) && observed.rules6[b].ForeignNAT() {
			translating = append(translating, b)
		}
	}
	for _, b := range translating {
		switch {
		case slices.Contains(use6, b):
		case len(r.d.cfg.Backends) > 0:
			r.warn(warning.NATElsewhere("ip6tables-" + string(b)))
		default:
			use6 = append(use6, b)
		}
	}
	if len(use6) == 0 {
		use6 = slices.DeleteFunc(iptables.Backends(), func(b Backend) bool { return !readable(b) })
	}
	if len(use6) > 1 && len(translating) > 1 {
		r.warn(warning.NATInBoth("ip6tables"))
	}
	r.report.IPv6Locked = len(use6) > 0
	return use6
}

// try6 has the backends of iptables that are to serve IPv6 make such rules for trial, and serves
// no IPv6 where one of them cannot.
func (r *round) try6(ctx context.Context, use6 []Backend) {
	if !r.serve6 || r.members.table {
		return
	}
	if len(use6) == 0 {
		r.cannotServe6(errUnreadable6)
		return
	}
	d := r.d
	if d.serve6.rules.due() {
		p := everyRuleOfIPv6(r.ruleParams(nil, r.state))
		p.Resets, p.Indices = r.resets, indices{netip.MustParseAddr("2001:db8::1"): p.Marks.FirstIndex()}
		rendered := iptables.Render(rules.Build6(p))
		var errs []error
		for _, b := range use6 {
			errs = append(errs, d.ip6tables[b].Try(ctx, rendered))
		}
		d.serve6.rules = made(errors.Join(errs...))
		d.ip6tablesSeen = nil
	}
	if err := d.serve6.rules.err; err != nil {
		r.cannotServe6(err)
	}
}

// observeIP6Tables reads the rules for IPv6 of the backends of iptables. Where ours do
// not belong there, they are read once, for what is left of another configuration, and from
// time to time where packets of IPv6 must pass the chains of others. One backend that can be read
// is enough for the lock.
func observeIP6Tables(ctx context.Context, v view, k *kernel) {
	d := v.d
	if d.ip6tablesSeen == nil || v.ip6tables || v.serve6 && monotonic()-d.ip6tablesAt >= iptablesRest {
		d.ip6tablesSeen, d.ip6tablesAt = map[Backend]iptables.Tables{}, monotonic()
		unreadable := map[Backend]error{}
		for b, driver := range d.ip6tables {
			tables, err := d.readRules(ctx, b, driver)
			if err != nil {
				unreadable[b] = err
				continue
			}
			d.ip6tablesSeen[b] = tables
		}
		for b, err := range unreadable {
			switch {
			case !v.ip6tables:
			case len(d.ip6tablesSeen) > 0 && errors.Is(err, nftables.ErrAbsent): // others have no rules there either
			case len(d.ip6tablesSeen) > 0:
				k.warnings = append(k.warnings, warning.UnreadableBackend("ip6tables-"+string(b), err))
			default:
				k.warnings = append(k.warnings, warning.IPv6(err))
			}
		}
	}
	maps.Copy(k.rules6, d.ip6tablesSeen)
}
