package dataplane

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/neigh"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// perform makes the changes in their order, and returns the egress IPs that cannot
// be served because of a failure, with the reason. After a failure it goes on with
// what makes packets drop and with what does not depend on the failure.
func (r *round) perform(ctx context.Context, list []change, s staleness) map[netip.Addr]error {
	e := execution{round: r, staleness: s, failed: map[phase]error{}, refused: map[netip.Addr]error{}}
	if pods := s.rerouted(); len(pods) > 0 && r.d.maps != nil {
		affinity, err := r.d.maps.FlowAffinity(pods)
		if err != nil {
			r.errs = append(r.errs, err)
		}
		e.staleness.affinity = affinity
	}
	for len(list) > 0 && ctx.Err() == nil {
		// Members of one set go in batches: ten thousand take one second.
		n := 1
		for n < len(list) && list[0].together(list[n]) {
			n++
		}
		batch := slices.DeleteFunc(slices.Clone(list[:n]), e.depends)
		list = list[n:]
		if len(batch) > 0 {
			e.do(ctx, batch)
		}
	}
	return e.refused
}

// together reports whether two changes are members of one batch.
func (c change) together(o change) bool {
	return c.phase == o.phase && c.op == o.op && c.set == o.set && (c.op == putMember || c.op == delMember || c.op == addAddress || c.op == exclude)
}

// execution is what has become of a list of changes so far.
type execution struct {
	*round
	staleness staleness
	// failed has the first error of each phase in which something failed.
	failed map[phase]error
	// refused are egress IPs that cannot be served, and why.
	refused map[netip.Addr]error
}

// warn reports what went wrong with a change, and stopped nothing.
func (e *execution) warn(w warning.Warning) {
	e.changeWarned = true
	e.round.warn(w)
}

// warnOnce is warn for what no later round of the pass tries again.
func (e *execution) warnOnce(w warning.Warning) {
	e.warn(w)
	e.done = append(e.done, w)
}

// depends reports whether a change needs something that failed.
func (e *execution) depends(c change) bool {
	if e.d.maps == nil && slices.Contains([]op{putRoute, delRoute, putServed, delServed}, c.op) {
		return true
	}
	switch c.phase {
	case phaseAddress:
		return e.rulesErr != nil || e.guardErr != nil || e.rules6Err != nil && c.ip.Is6()
	case phaseInclude:
		return e.failed[phaseMark] != nil
	case phaseServe, phaseMark:
		return e.refusedMark(c.mark)
	case phaseRelease:
		// Another host may get the address soon. Connections that were not forgotten
		// stay locked, and the guard stays as it is.
		unforgotten := e.failed[phaseForget] != nil && c.op != delAddress
		return e.failed[phaseGrow] != nil || e.failed[phaseMark] != nil || unforgotten
	case phaseRewrite, phaseUnlock, phaseShrink:
		if c.set == setHosts6 && e.failed[phaseOverlay] != nil {
			return true // see guardedParams
		}
		return e.failed[phaseGrow] != nil || e.failed[phaseMark] != nil || e.failed[phaseForget] != nil
	default:
		return false
	}
}

// refusedMark reports whether a mark is the index of a refused egress IP.
func (e *execution) refusedMark(mark uint32) bool {
	index := mark & e.d.cfg.Marks.IndexMask()
	if index == 0 || mark&e.d.cfg.Marks.Remote() != 0 {
		return false
	}
	for ip := range e.refused {
		if i, ok := e.indices[ip]; ok && e.d.cfg.Marks.Index(i) == index {
			return true
		}
	}
	return false
}

// do makes one batch of changes and keeps account of what failed.
func (e *execution) do(ctx context.Context, batch []change) {
	n, err := e.change(ctx, batch)
	e.report.Changes += n
	if batch[0].ofPods() {
		e.podChanges += n
	}
	if err == nil {
		return
	}
	first := batch[0]
	if first.ipv6 && !e.members.table {
		e.fail6(first, err)
		return
	}
	if first.op == putLinks {
		e.warn(warning.SourcesNotChecked(err))
		return
	}
	if first.op == exclude && first.phase == phaseGrow && !slices.ContainsFunc(batch, func(c change) bool { return len(c.included) > 0 }) {
		// Pods go on with their egress IPs, which is the safe side: nothing waits for it.
		e.warn(warning.NothingExcluded(err))
		return
	}
	e.errs = append(e.errs, err)
	if e.failed[first.phase] == nil {
		e.failed[first.phase] = err
	}
	switch first.op {
	case putRules:
		e.rulesErr = err
	case widenGuard:
		e.guardErr = err
	default:
		return
	}
	if first.phase == phaseRules || first.op == widenGuard {
		e.refuseNew(err, func(netip.Addr) bool { return true })
	}
}

// refuseNew refuses those egress IPs of a kind that were not served before. Others may still be;
// no more begin now.
func (e *execution) refuseNew(err error, kind func(netip.Addr) bool) {
	for ip := range e.indices {
		if _, before := e.served[ip]; !before && kind(ip) {
			e.refused[ip] = err
		}
	}
}

// fail6 keeps account of rules for IPv6 that iptables refused. Nothing of IPv4 depends on them.
func (e *execution) fail6(c change, err error) {
	e.report.IPv6Locked = false
	e.warn(warning.IPv6(err))
	if !e.serve6 {
		return
	}
	e.errs, e.rules6Err = append(e.errs, err), err
	if c.phase == phaseRules {
		e.refuseNew(err, netip.Addr.Is6)
	}
}

// change makes a batch, whose changes are of one kind, and counts those made.
func (e *execution) change(ctx context.Context, batch []change) (int, error) {
	c := batch[0]
	switch c.op {
	case putMember:
		return len(batch), e.members.put(batch)
	case delMember:
		return len(batch), e.members.del(batch)
	case exclude:
		return len(batch), e.members.exclude(batch)
	case putRoute:
		return 1, e.d.maps.PutRoute(c.ip, c.route)
	case delRoute:
		return 1, e.d.maps.DeleteRoute(c.ip)
	case putServed:
		return 1, e.d.maps.PutHosted(c.network, c.mark)
	case delServed:
		return 1, e.d.maps.DeleteHosted(c.network)
	case putRules:
		return 1, e.putRules(ctx, c)
	case putLinks:
		return e.putLinks(c)
	case dropTable:
		return e.d.nft.Remove()
	case dropSets:
		return destroySets(e.d.nl)
	case mendOverlay:
		return 0, e.ensureOverlay() // counts for itself
	case widenGuard:
		return e.guard(union(e.known, e.indices))
	case narrowGuard:
		return e.guard(e.indices)
	case dropWays:
		return e.ensureRoutes(nil)
	case addAddress:
		return e.addAddresses(batch)
	case delAddress:
		return 1, e.release(c.ip)
	case forgetFlows:
		n, err := e.forget(c.sources)
		e.d.swept, e.d.unforgotten = err == nil, nil
		if err != nil {
			e.d.unforgotten = &e.staleness
		}
		return n, err
	default:
		return 0, nil
	}
}

func (e *execution) putRules(ctx context.Context, c change) error {
	if c.backend == NFTables {
		return e.d.nft.Commit(c.table)
	}
	if c.ipv6 {
		e.d.ip6tablesSeen = nil
		e.d.ousted.note("ip6tables-"+string(c.backend), c.transaction, monotonic())
		return e.d.ip6tables[c.backend].Commit(ctx, c.transaction)
	}
	e.d.ousted.note("iptables-"+string(c.backend), c.transaction, monotonic())
	err := e.d.iptables[c.backend].Commit(ctx, c.transaction)
	e.d.iptablesChanged(c.backend, c.transaction, err)
	return err
}

// putLinks changes what links may send with. What it puts there first knows that an agent
// is present.
func (e *execution) putLinks(c change) (int, error) {
	if err := e.d.nft.PutLinks(c.links, e.stays()); err != nil {
		return 0, err
	}
	return 1, nil
}

// forget makes the kernel forget connections that must end. Those that a pod would
// go on with are noted first, for the pod to get a reset, and the pod is made to go on.
// Only those of the given sources can be meant; of any if there are none.
func (e *execution) forget(sources []netip.Addr) (int, error) {
	entries, err := e.d.tracked.Find(sources, e.staleness.stale)
	var noted []conntrack.Flow
	for _, entry := range entries {
		if e.resets && e.staleness.resettable(entry.Flow) {
			noted = append(noted, entry.Flow)
		}
	}
	unnoted := e.members.reset(noted)
	n, errForget := e.d.tracked.Forget(entries)
	err = errors.Join(err, errForget)
	if unnoted != nil {
		noted = nil
	}
	if unsent := conntrack.ElicitACK(e.d.nl, noted); unsent != nil {
		e.warnOnce(warning.LateResets(unsent))
	}
	if unnoted != nil {
		// Such connections end all the same, if later: nothing else waits for it.
		e.warnOnce(warning.SomeResets(unnoted))
	}
	return n, err
}

// guard makes the guard let the egress IPs of these indices pass.
func (e *execution) guard(idx indices) (int, error) {
	if e.uplink.Link == nil {
		return 0, nil // reported already
	}
	pinned, err := e.pinned(idx)
	if err != nil {
		return 0, err
	}
	links, err := e.waysOut(pinned)
	if err != nil {
		return 0, err
	}
	pins, err := guardPins(e.d.nl, pinned)
	if err != nil {
		return 0, err
	}
	n, before, err := e.d.guard.Ensure(e.d.nl, links, e.d.cfg.Marks, idx, pins)
	e.guardWarnings = nil
	for _, b := range before {
		e.guardWarnings = append(e.guardWarnings, warning.FilterBefore(b.Filter, b.Device, b.Preference, bpf.GuardPreference))
	}
	return n, err
}

// addAddresses adds and announces. An egress IP that cannot be added is
// refused; one that cannot be announced is served all the same. Once an address is there,
// and before it is served, strays are forgotten: no others come any more, as packets to it
// end at the host.
func (e *execution) addAddresses(batch []change) (int, error) {
	if e.uplink.Link == nil {
		for _, c := range batch {
			e.refused[c.ip] = e.uplinkErr
		}
		return 0, nil
	}
	n := 0
	var errs []error
	for _, place := range e.byPlace(ipsOf(batch)) {
		bad := e.wayErrs()
		place.ips = slices.DeleteFunc(place.ips, func(ip netip.Addr) bool {
			if bad[ip] != nil {
				e.refused[ip] = bad[ip]
			}
			return bad[ip] != nil
		})
		if len(place.ips) == 0 {
			continue
		}
		added, refused := address.Add(e.d.nl, place.Uplink, place.ips)
		maps.Copy(e.refused, refused) // reported with the egress IP
		e.d.announcer.Add(place.Link, added)
		n, errs = n+len(added), append(errs, neigh.Announce(place.Link, added), e.forgetStrays(added))
	}
	return n, errors.Join(errs...)
}

// forgetStrays makes the kernel forget what came for egress IPs before they were there.
func (e *execution) forgetStrays(ips []netip.Addr) error {
	entries, err := e.d.tracked.FindTo(ips, stray)
	_, errForget := e.d.tracked.Forget(entries)
	return errors.Join(err, errForget)
}

// release deletes an egress IP of ours from whatever interface has it.
func (e *execution) release(ip netip.Addr) error {
	e.d.announcer.Stop(ip)
	own, err := address.Own(e.d.nl)
	if err != nil {
		return err
	}
	return address.Delete(e.d.nl, own[ip])
}
