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
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/neigh"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Reasons why an egress IP is not configured.
var (
	errNoIndex     = errors.New("no mark is left for it: widen the mark mask")
	errSomebodyHas = errors.New("another machine on the network answers for this address")
	errNotYet      = errors.New("not added yet")
)

// maxRounds bounds how often one Apply looks again: to probe for owners of new
// addresses, and to drop what depends on something that failed.
const maxRounds = 4

// Apply makes the kernel do what s says, whatever it did before, and counts
// the changes that it takes. It holds at every moment, also when it fails or
// the process dies, that no pod's packet leaves with a source other than the
// one that s, or the State before, gives it.
//
// A part that fails leaves the rest to be applied; what depends on it drops
// its packets. The error joins what failed, each with operation and object.
func (d *Dataplane) Apply(ctx context.Context, s State) (Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := pass{d: d, state: s, unusable: map[netip.Addr]error{}, inUseBy: map[netip.Addr]string{}}
	err := p.run(ctx)
	return p.finish(err)
}

// pass is one Apply at work.
type pass struct {
	d      *Dataplane
	state  State
	report Report
	// uplink is where egress IPs go; uplinkErr why there is none.
	uplink    address.Uplink
	uplinkErr error
	// unusable are hosted egress IPs that cannot be served, and why.
	unusable map[netip.Addr]error
	// inUseBy are the MAC addresses of those who answer for them.
	inUseBy map[netip.Addr]string
	probed  bool
	// done is what the last round made, with indices; known are those that it
	// found.
	done           kernel
	indices, known indices
	// borne are the egress IPs that the last round found in service.
	borne map[netip.Addr]struct{}
	// resets: pods get resets; resetsErr is why they get none though they should.
	resets    bool
	resetsErr error
	// rulesErr is why the rules may not be in place.
	rulesErr error
	// errs are those of the last round.
	errs []error
}

func (p *pass) run(ctx context.Context) error {
	// Without its programs the overlay carries nothing, and what is sent there
	// is dropped. All else goes on, above all what sends it there.
	openErr := p.d.open()
	for range maxRounds {
		again, err := p.round(ctx)
		if err != nil {
			return errors.Join(openErr, err)
		}
		if !again || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(ctx.Err(), openErr, errors.Join(p.errs...))
}

// round observes, decides and changes once, and tells whether what came out
// calls for another.
func (p *pass) round(ctx context.Context) (again bool, err error) {
	p.errs, p.rulesErr = nil, nil
	if err := p.prepare(); err != nil {
		return false, err
	}
	observed, err := p.observe(ctx)
	if err != nil {
		return false, err
	}
	use, warnings, err := iptables.ChooseBackends(p.d.cfg.Backends, observed.rules)
	if err != nil {
		return false, err
	}
	p.report.Backends, p.report.Warnings = use, slices.Concat(warnings, sysctlWarnings())
	if p.resetsErr != nil {
		p.report.Warnings = append(p.report.Warnings, fmt.Sprintf("pods get no resets for connections that cannot go on: %v", p.resetsErr))
	}

	known, used := knownIndices(p.d.cfg.Marks, observed.rules)
	state, problems := usable(p.state, p.unusable)
	p.errs = append(p.errs, problems...)
	idx, without := assignIndices(hostedIPs(state), known, used, p.d.cfg.Marks)
	if len(without) > 0 {
		for _, ip := range without {
			p.unusable[ip] = errNoIndex
		}
		return true, nil
	}
	standby := standbyIndices(standbyIPs(state), idx, known, used, p.d.cfg.Marks)
	desired := desire(state, p.d.cfg.Marks, idx)

	// A new address is probed for before it is added, which takes time; what
	// is to drop until it is there must not wait for that. What this host bore
	// before, and lost, keeps its rules meanwhile.
	pending := missing(desired.addresses, observed.addresses)
	if len(pending) > 0 && !p.probed {
		before := maps.Clone(p.unusable)
		for _, ip := range pending {
			if _, bore := observed.ips[ip]; !bore {
				before[ip] = errNotYet
			}
		}
		state, _ = usable(p.state, before)
		// Its rules do no harm meanwhile: nothing bears its mark.
		for ip, i := range idx {
			if before[ip] != nil {
				standby[ip] = i
				delete(idx, ip)
			}
		}
		desired = desire(state, p.d.cfg.Marks, idx)
		maps.DeleteFunc(desired.addresses, func(ip netip.Addr, _ struct{}) bool { return slices.Contains(pending, ip) })
	}
	idx = union(standby, idx)
	in := orderInput{
		observed: observed, desired: desired, marks: p.d.cfg.Marks, use: use, known: known,
		rules: p.ruleParams(idx, state),
		sweep: !p.d.swept,
	}
	p.done, p.indices, p.known, p.borne = desired, idx, known, observed.ips
	failed := p.perform(ctx, order(in), newStaleness(p.d.cfg.Marks, observed, desired, known, idx))

	if len(pending) > 0 && !p.probed {
		p.probe(ctx, pending)
		return true, nil
	}
	maps.Copy(p.unusable, failed)
	return len(failed) > 0, nil
}

// ruleParams are what the rules of this round depend on.
func (p *pass) ruleParams(idx indices, s State) rules.Params {
	return rules.Params{
		Marks:       p.d.cfg.Marks,
		Overlay:     overlayName,
		OverlayPort: p.d.cfg.OverlayPort,
		ProbePort:   p.d.cfg.ProbePort,
		Indices:     idx,
		Resets:      p.resets,
		Strict:      strictNetworks(s),
	}
}

func hostedIPs(s State) []netip.Addr {
	ips := make([]netip.Addr, 0, len(s.Hosted))
	for _, h := range s.Hosted {
		ips = append(ips, h.IP)
	}
	return ips
}

func standbyIPs(s State) []netip.Addr {
	ips := make([]netip.Addr, 0, len(s.Standby))
	for _, h := range s.Standby {
		ips = append(ips, h.IP)
	}
	return ips
}

func strictNetworks(s State) []netip.Prefix {
	if !s.Strict {
		return nil
	}
	return s.Subnets
}

// prepare makes the sets, which rules and everything else refer to, and looks
// up the uplink.
func (p *pass) prepare() error {
	var errs []error
	p.resets, p.resetsErr = p.d.cfg.ResetConnections, nil
	for _, s := range ourSets() {
		if s.Name == setResets && !p.resets {
			continue
		}
		n, err := ipset.Ensure(p.d.nl, s)
		p.report.Changes += n
		if s.Name == setResets && err != nil {
			// Not every kernel has this kind of set, and all else works without.
			p.resets, p.resetsErr = false, err
			continue
		}
		errs = append(errs, err)
	}
	p.uplink, p.uplinkErr = address.FindUplink(p.d.nl, p.state.HostIP)
	p.report.Uplink, p.report.UplinkCIDR = p.uplink.Name, p.uplink.CIDR
	if p.uplinkErr != nil {
		p.errs = append(p.errs, p.uplinkErr)
	}
	return errors.Join(errs...)
}

// observe reads what there is of ours in the kernel.
func (p *pass) observe(ctx context.Context) (kernel, error) {
	k := kernel{addresses: map[netip.Addr]struct{}{}, rules: map[Backend]iptables.Tables{}}
	var errs []error
	keep := func(err error) { errs = append(errs, err) }

	pods, err := ipset.List(setPods)
	keep(err)
	k.pods = make(map[netip.Addr]uint32, len(pods))
	for entry, v := range pods {
		if v.Mask != p.d.cfg.Marks.Mask {
			v.Mark = ^uint32(0) // of another configuration: none that is wanted
		}
		k.pods[entry.Addr()] = v.Mark
	}
	for _, set := range []struct {
		name string
		to   *map[netip.Addr]struct{}
	}{{setLocked, &k.locked}, {setHosts, &k.hosts}, {setIPs, &k.ips}} {
		entries, err := ipset.List(set.name)
		keep(err)
		*set.to = make(map[netip.Addr]struct{}, len(entries))
		for entry := range entries {
			(*set.to)[entry.Addr()] = struct{}{}
		}
	}
	inside, err := ipset.List(setInside)
	keep(err)
	k.inside = make(map[netip.Prefix]struct{}, len(inside))
	for entry := range inside {
		k.inside[entry] = struct{}{}
	}
	if p.d.maps != nil {
		k.routes, err = p.d.maps.Routes()
		keep(err)
		k.served, err = p.d.maps.Hosted()
		keep(err)
	}
	own, err := address.Own(p.d.nl)
	keep(err)
	hosted := hostedIPs(p.state)
	for ip, addrs := range own {
		// One that is wanted and not where it belongs is to be added there.
		// Without an uplink, addresses stay where they are.
		if p.uplinkErr != nil || p.uplink.Placed(addrs) || !slices.Contains(hosted, ip) {
			k.addresses[ip] = struct{}{}
		}
	}
	for b, driver := range p.d.iptables {
		k.rules[b], err = driver.Observe(ctx)
		keep(err)
	}
	if err := errors.Join(errs...); err != nil {
		return kernel{}, fmt.Errorf("observe the kernel: %w", err)
	}
	return k, nil
}

// probe asks the uplink's segment whether somebody else has the addresses.
func (p *pass) probe(ctx context.Context, pending []netip.Addr) {
	p.probed = true
	if p.uplinkErr != nil {
		for _, ip := range pending {
			p.unusable[ip] = p.uplinkErr
		}
		return
	}
	owners, err := neigh.Owners(ctx, p.uplink.Link, pending)
	for _, ip := range pending {
		if mac, taken := owners[ip]; taken {
			p.unusable[ip] = fmt.Errorf("%w: %v", errSomebodyHas, mac)
			p.inUseBy[ip] = mac.String()
		} else if err != nil {
			p.unusable[ip] = err
		}
	}
}

// finish makes the report.
func (p *pass) finish(err error) (Report, error) {
	var errs []error
	for _, h := range p.state.Hosted {
		r := HostedReport{IP: h.IP}
		_, added := p.done.addresses[h.IP]
		switch reason := p.unusable[h.IP]; {
		case reason != nil:
			r.Error, r.InUseBy = reason.Error(), p.inUseBy[h.IP]
			errs = append(errs, fmt.Errorf("egress IP %v: %w", h.IP, reason))
		case p.rulesErr != nil:
			r.Error = p.rulesErr.Error()
		case added:
			r.Configured = true
		case err != nil:
			r.Error = err.Error()
		default:
			r.Error = errNotYet.Error()
		}
		p.report.Hosted = append(p.report.Hosted, r)
	}
	return p.report, errors.Join(append([]error{err}, errs...)...)
}

// ensureOverlay repairs what is the same for every State: overlay device, programs,
// routes. Where the overlay cannot exist, the routes drop its packets.
func (p *pass) ensureOverlay() error {
	var errs []error
	link, err := p.ensureDevice()
	errs = append(errs, err)
	plan := routing.Plan{Inside: masked4(slices.Collect(maps.Keys(p.done.inside))), NextHop: overlay.NextHop()}
	if link != nil && err == nil {
		plan.Device = link.Attrs().Index
		p.report.Overlay = true
	}
	n, err := routing.EnsureRoutes(p.d.nl, plan)
	p.report.Changes += n
	errs = append(errs, err)
	n, err = routing.EnsureRules(p.d.nl, p.d.cfg.Marks)
	p.report.Changes += n
	return errors.Join(append(errs, err)...)
}

func (p *pass) ensureDevice() (netlink.Link, error) {
	mtu := p.uplink.MTU - overlay.Overhead
	if p.uplinkErr != nil {
		// The one that is there stays as it is.
		link, err := p.d.nl.LinkByName(overlayName)
		if err != nil {
			return nil, fmt.Errorf("keep overlay device %s: %w", overlayName, err)
		}
		mtu = link.Attrs().MTU
	}
	if p.d.programs == nil {
		return nil, nil // reported by open; the routes drop its packets
	}
	link, n, err := overlay.Ensure(p.d.nl, overlay.Config{HostIP: p.state.HostIP, Port: p.d.cfg.OverlayPort, MTU: mtu})
	p.report.Changes += n
	if err != nil {
		return nil, err
	}
	n, err = p.d.programs.Attach(p.d.nl, link)
	p.report.Changes += n
	if err != nil {
		return nil, err
	}
	n, err = overlay.Raise(p.d.nl, link)
	p.report.Changes += n
	return link, err
}
