package dataplane

import (
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// wholeEvery is how often all that is ours is read again although nothing says that it
// has changed.
const wholeEvery = 10 * time.Second

// steady is what a whole pass has left that changed nothing and found nothing wrong. As
// long as it holds, a pass reads only what the kernel reports no changes of: most passes
// on most hosts are so, and to read everything takes time that grows with the cluster.
//
// The kernel reports changes of devices, addresses, routes, policy rules, neighbours and
// tc filters, on a socket that is read at the begin of each pass; if it overflows, all
// counts as changed. In the table of our own nobody can change anything, or a change
// gives the kernel's rules another generation. BPF maps, programs of TCX and settings are
// read in each pass. Rules of iptables and ipsets are read whole: with these a pass is
// never steady.
type steady struct {
	state State
	// last is the round that found it so, report what it reported so far.
	last   *round
	report Report
	at     time.Duration
	// entries are what the BPF maps hold, settings those of the host that matter.
	entries  bpf.Entries
	settings []string
}

// keepSteady notes that a whole pass, which has just ended, found all as it should be.
func (p *pass) keepSteady(last *round) {
	d := p.d
	d.steady = nil
	clean := p.report.Changes == 0 && len(last.errs) == 0 && len(p.unusable) == 0 && p.rulesErr == nil && p.guardErr == nil
	if !clean || !last.members.table || last.uplinkErr != nil || d.maps == nil || !d.swept || d.unforgotten != nil || p.locksBoot {
		return
	}
	d.steady = &steady{
		state: p.state.clone(), last: last, report: p.report, at: monotonic(),
		entries: d.maps.EntriesOf(last.desired.routes, last.desired.served), settings: last.settings,
	}
	d.steady.report.Warnings = slices.Clone(p.report.Warnings)
}

// isSteady reports whether the kernel still is as a State wants it, as far as can be seen
// without reading all of it. It takes what the kernel has reported since the last pass.
func (d *Dataplane) isSteady(s State) bool {
	changed := d.news.concern()
	if changed {
		d.relinked.Store(true)
	}
	was := d.steady
	if changed || was == nil || monotonic()-was.at >= wholeEvery || !was.state.equal(s) {
		return false
	}
	if monotonic()-d.iptablesAt >= iptablesRest {
		return false // warnings, and chain EGRESSIP-ACCEPT, depend on rules of others there
	}
	if len(was.last.desired.locked) > 0 && !d.linksAreSteady(was.last.stays()) {
		return false
	}
	return d.nft.Unchanged() && recent(d.renewed, was.last.stays()) && d.guard.Stands() &&
		d.maps.Hold(was.entries) && slices.Equal(was.settings, was.last.readAll())
}

// linksAreSteady reports whether the links of pods need not be looked at, nor the kernel be
// told that an agent does so.
func (d *Dataplane) linksAreSteady(stays time.Duration) bool {
	return d.watched.Load() && monotonic()-d.links.at < lookEvery && (d.links.absent || recent(d.links.renewed, stays))
}

// stay is a pass in which nothing has changed.
func (p *pass) stay() (Report, error) {
	was := p.d.steady
	p.report, p.addresses = was.report, was.last.addresses
	p.report.Warnings = slices.Clone(was.report.Warnings)
	r := *was.last
	r.pass, r.errs = p, nil
	r.watchSegment()
	r.look()
	r.locate()
	err := r.checkSources()
	if err != nil {
		p.d.steady = nil
	}
	return p.finish(err)
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
	if r.d.ipv6 && r.members.table {
		read(sysctl.IPv6Forward)
		read(sysctl.OfDevice6(overlayName, "disable_ipv6"))
		read(sysctl.OfDevice6(overlayName, "addr_gen_mode"))
		read(sysctl.OfDevice6(r.uplink.Name, "disable_ipv6"))
	}
	return values
}
