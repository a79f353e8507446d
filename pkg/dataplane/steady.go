package dataplane

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// wholeEvery is how often all that is ours is read again although nothing says that it
// has changed.
const wholeEvery = 10 * time.Second

// steady is what a pass has left that found nothing wrong and had nothing to change, or pods
// alone. As long as it holds, a pass reads only what the kernel reports no changes of: most
// passes on most hosts are so, and to read everything takes time that grows with the cluster.
// Where the next State has other pods, and is the same in all else, their changes are made
// without reading the rest; what they leave is known, and holds in turn.
//
// The kernel reports changes of devices, addresses, routes, policy rules, neighbours,
// tc filters and settings of other interfaces than the uplink, on a socket that is read at the begin of each pass; if it overflows, all
// counts as changed. In the table of our own nobody can change anything, or a change
// gives the kernel's rules another generation. BPF maps, programs of TCX and settings are
// read in each pass. Rules of iptables and ipsets are read whole: with these a pass is
// never steady.
type steady struct {
	state State
	// last is the round that left it so, report what it reported so far, but for what
	// depends on the pods.
	last   *round
	report Report
	// at is when all was last read.
	at time.Duration
	// entries are what the BPF maps hold, settings those of the host that matter.
	entries  bpf.Entries
	settings []string
}

// keepSteady notes that a pass, which has just ended, left all as it should be, pods apart as
// it was found at a time.
func (p *pass) keepSteady(last *round, at time.Duration) {
	d := p.d
	d.steady = nil
	clean := p.report.Changes == p.podChanges && !last.changeWarned && len(last.errs) == 0 &&
		len(p.unusable) == 0 && p.rulesErr == nil && p.guardErr == nil
	if !clean || !last.members.table || last.uplinkErr != nil || d.maps == nil || !d.swept || d.unforgotten != nil || p.locksBoot {
		return
	}
	d.steady = &steady{
		state: p.state.clone(), last: last, report: p.report, at: at,
		entries: d.maps.EntriesOf(last.desired.routes, last.desired.served), settings: last.settings,
	}
	d.steady.report.Warnings, d.steady.report.Changes = slices.Clone(p.report.Warnings), 0
}

// unchanged returns what the last pass has left, if the kernel is still so, as far as can be
// seen without reading all of it, and if that is what a State wants, but for its pods; else
// nil. It takes what the kernel has reported since the last pass.
func (d *Dataplane) unchanged(s State) *steady {
	changed := d.news.concern()
	if changed {
		d.relinked.Store(true)
	}
	was := d.steady
	if changed || was == nil || monotonic()-was.at >= wholeEvery || !was.state.equalButPods(s) {
		return nil
	}
	if usesIPv6(s) && !d.serve6.wanted {
		return nil // maps, programs and rules come first
	}
	if monotonic()-d.iptablesAt >= iptablesRest {
		return nil // warnings, and chain EGRESSIP-ACCEPT, depend on rules of others there
	}
	if d.nft.Unchanged() && recent(d.renewed, was.last.stays()) && d.guard.Stands() &&
		d.maps.Hold(was.entries) && slices.Equal(was.settings, was.last.readAll()) {
		return was
	}
	return nil
}

// linksAreSteady reports whether the links of pods need not be looked at, nor the kernel be
// told that an agent does so, after a round.
func (d *Dataplane) linksAreSteady(last *round) bool {
	if len(last.desired.locked) == 0 {
		return true
	}
	return d.watched.Load() && monotonic()-d.links.at < lookEvery && (d.links.absent || recent(d.links.renewed, last.stays()))
}

// stay is a pass in which nothing has changed.
func (p *pass) stay(was *steady) error {
	r := p.resume(was)
	err := r.lookAround()
	if err != nil {
		p.d.steady = nil
	}
	return err
}

// resume returns the last round as one of this pass, which reads nothing again.
func (p *pass) resume(was *steady) *round {
	p.report, p.addresses = was.report, was.last.addresses
	p.report.Warnings = slices.Clone(was.report.Warnings)
	r := *was.last
	r.pass, r.errs = p, nil
	return &r
}

// changePods is a pass in which nothing has changed but the pods of the State. What they
// depend on, such as the rules, the overlay and egress IPs, stays as it is.
func (p *pass) changePods(ctx context.Context, was *steady) error {
	d, m := p.d, p.d.cfg.Marks
	d.steady = nil
	r := p.resume(was)
	observed := was.last.desired
	if err := observeLinks(ctx, r.view(), &observed); err != nil {
		return err
	}
	r.podWarnings = observed.warnings
	r.warnIPv6()
	aimed := r.aimed()
	d.digest = digested(aimed, d.digest)
	state, problems := usable(aimed, d.digest, nil)
	r.errs = problems
	r.desired, r.known, r.served = desire(state, d.digest, m, r.indices), r.indices, observed.ips
	in := orderInput{observed: observed, desired: r.desired, marks: m, links: r.planLinks(observed, r.desired)}
	r.perform(ctx, orderPods(in), newStaleness(m, observed, r.desired, r.indices, r.indices))
	if ctx.Err() == nil { // else the pass is not done
		r.attendLinks()
		p.keepSteady(r, was.at)
	}
	err := errors.Join(ctx.Err(), errors.Join(r.errs...), r.lookAround())
	if err != nil {
		d.steady = nil
	}
	return err
}

// readAll reads the settings of the host that decide anything in a pass.
func (r *round) readAll() []string {
	var values []string
	read := func(path string) {
		value, err := sysctl.Get(path)
		if err != nil {
			value = err.Error()
		}
		values = append(values, value)
	}
	read(sysctl.IPv4Forward)
	for _, s := range [][2]string{
		{overlayName, "forwarding"},
		{overlayName, "rp_filter"},
		{"all", "promote_secondaries"},
		{"all", "route_localnet"},
		{"all", "arp_ignore"},
		{r.uplink.Name, "promote_secondaries"},
		{r.uplink.Name, "route_localnet"},
		{r.uplink.Name, "arp_ignore"},
	} {
		read(sysctl.OfDevice(s[0], s[1]))
	}
	places := r.furtherPlaces()
	if len(places) > 0 {
		read(sysctl.OfDevice("all", "rp_filter"))
	}
	for _, place := range places {
		for _, setting := range []string{"route_localnet", "arp_ignore", "forwarding", "rp_filter"} {
			read(sysctl.OfDevice(place.Name, setting))
		}
	}
	if r.d.ipv6 && r.members.table {
		read(sysctl.IPv6Forward)
		read(sysctl.OfDevice6(overlayName, "disable_ipv6"))
		read(sysctl.OfDevice6(overlayName, "addr_gen_mode"))
		read(sysctl.OfDevice6(r.uplink.Name, "disable_ipv6"))
	}
	return values
}
