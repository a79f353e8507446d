package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// round is one look at the kernel, and the changes that follow from it.
type round struct {
	*pass
	// uplink is the interface for egress IPs; uplinkErr is why there is none.
	uplink    address.Uplink
	uplinkErr error
	// overlay is the index of the overlay; 0 while there is none.
	overlay int
	// further are other interfaces with egress IPs.
	further furtherLinks
	// resets: pods get TCP resets for connections that cannot go on. resetsErr is
	// why they get none although they should.
	resets    bool
	resetsErr error
	// excludedErr is why no network can be excluded.
	excludedErr error
	// ipv6: there are rules and sets for IPv6. ipv6Err is why there are none although
	// there should be.
	ipv6    bool
	ipv6Err error
	// serve6: egress IPs of IPv6 are served. overErr is why there is no overlay, if it would
	// be over IPv6.
	serve6  bool
	overErr error
	// desired is what the kernel must be after the round, and indices are those
	// with a source NAT rule and an entry in the guard then.
	desired kernel
	indices indices
	// known are the indices that the rules held before the round, and served are the
	// egress IPs that the host served before it.
	known  indices
	served map[netip.Addr]struct{}
	// members are the sets in use.
	members members
	// rulesErr is why the rules may not be in place, rules6Err why those for IPv6 in iptables
	// are not, guardErr why the guard is not.
	rulesErr, rules6Err, guardErr error
	// waysErr is why egress IPs of further interfaces may not leave by these, wayErrsIn why those
	// of one table may not.
	waysErr   error
	wayErrsIn map[int]error
	// guardWarnings are what weakens the guard. defaultRoute is the interface of the
	// default route; empty where there is none.
	guardWarnings []warning.Warning
	defaultRoute  string
	// podWarnings are those that depend on the pods.
	podWarnings []warning.Warning
	// errs are what failed, but for what is reported with an egress IP.
	errs []error
	// settings are those of the host that the round depends on, as they were at its begin.
	settings []string
}

// run observes, decides and changes once. It reports whether the outcome calls for
// another round.
func (r *round) run(ctx context.Context) (again bool, err error) {
	if err := r.prepare(); err != nil {
		return false, err
	}
	observed, err := observe(ctx, r.view())
	if err != nil {
		return false, err
	}
	use, err := r.use(observed)
	if err != nil {
		return false, errors.Join(observed.problem, err)
	}
	if observed.problem != nil {
		r.errs = append(r.errs, observed.problem)
	}
	if r.resetsErr != nil {
		r.warn(warning.NoResets(r.resetsErr))
	}

	use6 := r.use6(use, observed)
	r.try6(ctx, use6)
	r.warnIPv6()
	r.warnExcluded()

	m := r.d.cfg.Marks
	known, used := knownIndices(m, observed)
	aimed := r.aimed()
	r.d.digest = digested(aimed, r.d.digest)
	goal, problems, without := aim(aimed, r.d.digest, m, r.unusable, known, used)
	r.errs = append(r.errs, problems...)
	if len(without) > 0 {
		for _, ip := range without {
			r.unusable[ip] = errNoIndex
		}
		return true, nil
	}
	pending := missing(goal.desired.addresses, observed.addresses)
	mustProbe := len(pending) > 0 && !r.probed
	if mustProbe {
		goal = goal.untilProbed(m, pending, observed.ips)
	}

	r.desired, r.indices, r.known, r.served = goal.desired, union(goal.prepared, goal.serving), known, observed.ips
	r.addresses = goal.desired.addresses
	params := r.guardedParams(goal.state, observed)
	failed := r.perform(ctx, order(orderInput{
		observed: observed, desired: r.desired, marks: m, use: use, use6: use6, known: known,
		rules: params,
		table: r.renderTable,
		links: r.planLinks(observed, r.desired),
		sweep: !r.d.swept,
	}), newStaleness(m, observed.withFormer(), r.desired, known, r.indices).withUnforgotten(r.d.unforgotten, r.desired))
	r.keepMeant(use, use6, params)
	if ctx.Err() == nil { // else the round is not done
		if err := r.appear(); err != nil {
			r.errs = append(r.errs, err)
		}
		r.attendLinks()
	}

	if mustProbe {
		r.probe(ctx, pending)
		return true, nil
	}
	maps.Copy(r.unusable, failed)
	return len(failed) > 0, nil
}

// warn adds a warning to the report.
func (r *round) warn(w warning.Warning) { r.report.Warnings = append(r.report.Warnings, w) }

// warnOfPods adds a warning that may be another one as soon as the pods are others.
func (r *round) warnOfPods(w warning.Warning) { r.podWarnings = append(r.podWarnings, w) }

// view is how this round looks at the kernel.
func (r *round) view() view {
	v := view{d: r.d, hosted: addressesOf(r.state.Hosted), table: r.members.table, ip6tables: r.ipv6 && !r.members.table, serve6: r.serve6}
	if r.uplinkErr == nil {
		v.placeFor = r.placeFor
	}
	return v
}

// use returns the backends that our rules belong in.
func (r *round) use(observed kernel) ([]Backend, error) {
	r.report.Warnings = slices.Concat(observed.warnings, r.done)
	if r.members.table {
		r.report.Backends = []Backend{NFTables}
		return r.report.Backends, nil
	}
	use, mixed, err := iptables.ChooseBackends(r.d.cfg.Backends, observed.rules)
	if err != nil {
		return nil, err
	}
	r.report.Backends = use
	for _, b := range mixed {
		if slices.Contains(use, b) {
			r.warn(warning.NATInBoth("iptables"))
			break
		}
		r.warn(warning.NATElsewhere("iptables-" + string(b)))
	}
	r.d.iptablesUsed = use
	if old := r.cannotRandomise(); len(old) > 0 {
		r.warn(warning.PortsPreserved(string(old[0])))
	}
	return use, nil
}

// renderTable writes rules as the table of our own. What it cannot write, the kernel
// was asked about when the backend was chosen.
func (r *round) renderTable(p rules.Params) nftables.Table {
	if r.d.rendered.table.Chains != nil && r.d.rendered.params.Equal(p) {
		return r.d.rendered.table
	}
	table, err := renderTable(p)
	if err != nil {
		r.errs = append(r.errs, err)
		return table
	}
	p.Indices = maps.Clone(p.Indices)
	r.d.rendered.params, r.d.rendered.table = p, table
	return table
}

// ruleParams are what the rules of this round depend on.
func (r *round) ruleParams(idx indices, s State) rules.Params {
	return rules.Params{
		Marks:       r.d.cfg.Marks,
		Overlay:     overlayName,
		OverlayPort: r.d.cfg.OverlayPort,
		ProbePort:   r.d.cfg.ProbePort,
		Indices:     idx,
		Resets:      r.resets,
		Excluded:    r.excludedErr == nil,
		Senders:     r.members.table,
		RandomPorts: r.randomPorts(),
		Strict:      masked4(strictNetworks(s)),
		Strict6:     masked6(strictNetworks(s)),
		IPv6:        r.ipv6,
		Serve6:      r.serve6,
		OverIPv6:    r.serve6 && s.overIPv6(),
	}
}

// guardedParams are ruleParams of a State, once the indices are known. As long as the kernel knows
// hosts by addresses of IPv6, the overlay may take packets from them: until it does not, the
// rules keep others off its port.
func (r *round) guardedParams(s State, observed kernel) rules.Params {
	p := r.ruleParams(r.indices, s)
	if p.Serve6 && !p.OverIPv6 {
		for ip := range observed.hosts {
			p.OverIPv6 = p.OverIPv6 || ip.Is6()
		}
	}
	return p
}

// randomPorts reports whether connections get random source ports: if that is asked for, and
// iptables can do so where our rules are in it.
func (r *round) randomPorts() bool {
	return r.d.cfg.SNATPorts == RandomPorts && (r.members.table || len(r.cannotRandomise()) == 0)
}

// cannotRandomise lists the backends of iptables that are too old for random source ports,
// if those are asked for.
func (r *round) cannotRandomise() (old []Backend) {
	if r.d.cfg.SNATPorts != RandomPorts {
		return nil
	}
	for _, b := range r.report.Backends {
		if driver, ok := r.d.iptables[b]; ok && !driver.RandomPorts() {
			old = append(old, b)
		}
	}
	return old
}

func strictNetworks(s State) []netip.Prefix {
	if !s.Strict {
		return nil
	}
	return s.Subnets
}

// prepare makes the sets, which rules and all else refer to, and looks up the
// uplink.
func (r *round) prepare() error {
	chosen, errChoice := r.d.chooseBackend(r.ruleParams(nil, r.state))
	if errChoice != nil {
		return errChoice
	}
	r.members, r.report.BackendReason = members{d: r.d, table: chosen.table}, chosen.reason
	r.prepareIPv6()
	made, err := r.members.ensure(r.d.cfg.ResetConnections, r.ipv6)
	r.report.Changes += made.changes
	r.resets, r.resetsErr, r.excludedErr = made.resets, made.resetsErr, made.excludedErr
	if err == nil {
		err = r.stayPresent()
	}
	r.uplink, r.uplinkErr = address.FindUplink(r.d.nl, r.state.HostIP)
	r.report.Uplink, r.report.UplinkCIDR, r.report.UplinkMTU = r.uplink.Name, r.uplink.CIDR, r.uplink.MTU
	r.d.news.host = r.state.HostIP
	if r.uplinkErr == nil {
		r.d.news.uplink = r.uplink.Link.Attrs().Index
	}
	if r.d.news.takeRoutes() {
		r.d.routed.heard()
	}
	r.findFurther()
	r.prepareServe6()
	r.settings = r.readAll()
	r.defaultRoute = r.uplink.Name
	var errAddresses error
	if r.report.Addresses, errAddresses = address.OfHost(r.d.nl); errAddresses != nil {
		r.errs = append(r.errs, errAddresses)
	}
	if r.uplinkErr != nil {
		r.errs = append(r.errs, r.uplinkErr)
	}
	r.mendAddresses()
	return err
}

// mendAddresses gives our addresses the form that they need. It does so first of all
// in a pass: the host's own traffic may depend on it.
func (r *round) mendAddresses() {
	if r.mended {
		return
	}
	var uplink *address.Uplink
	if r.uplinkErr == nil {
		uplink = &r.uplink
	}
	n, err := address.Mend(r.d.nl, uplink, r.furtherPlaces()...)
	r.report.Changes += n
	r.mended = err == nil
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// ensureOverlay repairs what is the same for every State: overlay device, programs,
// routes. Where the overlay cannot exist, the routes drop its packets.
func (r *round) ensureOverlay() error {
	var errs []error
	link, err := r.ensureDevice()
	errs = append(errs, err)
	if link != nil && err == nil {
		r.overlay = link.Attrs().Index
		r.d.news.overlay = r.overlay
		r.report.Overlay = true
	}
	n, err := r.ensureRoutes(r.leavingMarks())
	r.report.Changes += n
	errs = append(errs, err)
	r.wayErrsIn, r.waysErr = routing.WayErrors(err)
	n, err = r.loosen()
	r.report.Changes += n
	r.waysErr = errors.Join(r.waysErr, err)
	return errors.Join(append(errs, err)...)
}

// ensureRoutes makes routes and policy rules what they must be, but for those of marks to keep.
func (r *round) ensureRoutes(keep []uint32) (changes int, err error) {
	plan := routing.Plan{
		Inside: r.d.routed.inside(r.desired.inside, r.serve6), Device: r.overlay, NextHop: overlay.NextHop(),
		Ways: r.further.ways, Indices: r.wayIndices(), Keep: keep,
	}
	if r.serve6 {
		plan.NextHop6 = overlay.NextHop6()
	}
	return r.d.routed.ensure(r.d.nl, plan, r.d.cfg.Marks)
}

// overlayMTU is that of the overlay, once the uplink is known.
func (r *round) overlayMTU() int { return r.uplink.MTU - overlay.Overhead(r.state.HostIP) }

func (r *round) ensureDevice() (netlink.Link, error) {
	if r.overErr != nil {
		// Without rules for IPv6 nothing keeps others off one that is there.
		removed, err := overlay.Remove(r.d.nl)
		if removed {
			r.report.Changes++
		}
		return nil, errors.Join(fmt.Errorf("make an overlay over IPv6: %w", r.overErr), err)
	}
	mtu := r.overlayMTU()
	if r.uplinkErr != nil {
		// The one that is there stays as it is.
		link, err := r.d.nl.LinkByName(overlayName)
		if err != nil {
			return nil, fmt.Errorf("keep overlay device %s: %w", overlayName, err)
		}
		mtu = link.Attrs().MTU
	}
	if r.d.programs == nil {
		return nil, nil // reported by open; the routes drop its packets
	}
	link, n, err := overlay.Ensure(r.d.nl, overlay.Config{HostIP: r.state.HostIP, Port: r.d.cfg.OverlayPort, MTU: mtu, IPv6: r.serve6})
	r.report.Changes += n
	if err != nil {
		return nil, err
	}
	n, err = r.d.programs.Attach(r.d.nl, link)
	r.report.Changes += n
	if err != nil {
		return nil, err
	}
	n, err = overlay.Raise(r.d.nl, link, r.serve6)
	r.report.Changes += n
	return link, err
}
