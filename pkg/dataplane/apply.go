package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Reasons why an egress IP is not configured.
var (
	errNoIndex = errors.New("no mark is left for it: widen the mark mask")
	errTaken   = errors.New("another machine on the network answers for this address")
	errNotYet  = errors.New("not added yet")
)

// isTaken reports whether an egress IP is not configured because it is somebody's already.
func isTaken(reason error) bool {
	return errors.Is(reason, errTaken) || errors.Is(reason, address.ErrForeign) || errors.Is(reason, address.ErrGateway)
}

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
	p := newPass(d, s)
	was := d.unchanged(s)
	switch {
	case was == nil:
	case !was.state.equal(s):
		return p.finish(p.changePods(ctx, was))
	case d.linksAreSteady(was.last):
		return p.finish(p.stay(was))
	}
	d.steady = nil
	err := p.run(ctx)
	return p.finish(err)
}

// pass is one Apply at work: what outlives its rounds.
type pass struct {
	d      *Dataplane
	state  State
	report Report
	// unusable are hosted egress IPs that cannot be served, and why.
	unusable map[netip.Addr]error
	// inUseBy are the MAC addresses of other machines that have hosted egress IPs.
	inUseBy map[netip.Addr]string
	// probed: a round has asked by ARP for other owners of new addresses.
	probed bool
	// mended: our addresses have the form that they need.
	mended bool
	// addresses are the egress IPs that the last complete round wanted on the
	// uplink.
	addresses map[netip.Addr]struct{}
	// rulesErr is why the rules may not be in place after the last round, rules6Err why those
	// for IPv6 in iptables are not, guardErr why the guard is not.
	rulesErr, rules6Err, guardErr error
	// wayErrs are why egress IPs of further interfaces may not leave by these.
	wayErrs map[netip.Addr]error
	// locksBoot: the presence that the pass leaves does not end by itself.
	locksBoot bool
	// unseen: the kernel could not be observed, so that nothing was changed.
	unseen bool
	// podChanges are those of the report's changes that were about pods alone.
	podChanges int
	// changeWarned: there is a warning of a change that was made. done are those of changes
	// that no later round makes again.
	changeWarned bool
	done         []warning.Warning
}

// sight is what worked after a pass.
type sight struct {
	overlay    bool
	configured map[netip.Addr]bool
	warnings   []warning.Warning
	at         time.Duration
}

// sightHolds is how long what worked when the kernel was last seen counts as working.
// Other hosts send their packets elsewhere as soon as it does not count.
const sightHolds = 30 * time.Second

func newPass(d *Dataplane, s State) *pass {
	return &pass{d: d, state: s, unusable: map[netip.Addr]error{}, inUseBy: map[netip.Addr]string{}, probed: d.cfg.ARPProbe == ARPOff}
}

// run makes rounds until one calls for no other.
func (p *pass) run(ctx context.Context) error {
	// Without its programs the overlay carries nothing, and packets that are sent
	// there are dropped. All else goes on, above all what sends them there.
	p.d.serve6.wanted = p.d.serve6.wanted || usesIPv6(p.state)
	p.chooseBackend()
	openErr := p.d.open(p.state.HostIP)
	var errs []error
	var last *round
	for range maxRounds {
		r := &round{pass: p}
		again, err := r.run(ctx)
		p.rulesErr, p.rules6Err, p.guardErr = r.rulesErr, r.rules6Err, r.guardErr
		p.wayErrs = r.wayErrs()
		p.report.Warnings = append(p.report.Warnings, r.guardWarnings...)
		if err != nil {
			p.unseen = true
			p.report.Overlay = p.d.stillCarries()
			return errors.Join(openErr, err)
		}
		errs, last = r.errs, r
		if !again || ctx.Err() != nil {
			break
		}
	}
	errKernel := last.lookAtKernel()
	if openErr == nil && ctx.Err() == nil {
		p.keepSteady(last, monotonic())
	}
	err := errors.Join(ctx.Err(), openErr, errors.Join(errs...), last.lookAround(), errKernel)
	if err != nil {
		p.d.steady = nil
	}
	return err
}

// lookAround is the end of each pass: it reports what follows from what others do.
func (r *round) lookAround() error {
	r.report.Warnings = append(r.report.Warnings, r.podWarnings...)
	r.watchSegment()
	r.look()
	r.locate()
	return r.checkSources()
}

// chooseBackend chooses where our rules are, before what depends on it is opened. Each round
// reports why they are nowhere.
func (p *pass) chooseBackend() {
	r := &round{pass: p}
	_, _ = p.d.chooseBackend(r.ruleParams(nil, p.state))
}

// stillCarries reports whether the overlay works as it was last seen, after a pass that
// could not see the kernel.
func (d *Dataplane) stillCarries() bool {
	link, err := overlay.Find(d.nl)
	return err == nil && link != nil && link.Attrs().Flags&net.FlagUp != 0 && d.sight.overlay && d.sight.holds()
}

func (s sight) holds() bool { return monotonic()-s.at < sightHolds }

// finish completes the report.
func (p *pass) finish(err error) (Report, error) {
	var errs []error
	seen := sight{overlay: p.report.Overlay, configured: map[netip.Addr]bool{}, at: monotonic()}
	for _, h := range p.state.Hosted {
		r := HostedReport{IP: h.IP, InUseBy: p.inUseBy[h.IP]}
		_, added := p.addresses[h.IP]
		switch reason := p.unusable[h.IP]; {
		case reason != nil:
			r.Error, r.Taken = reason.Error(), isTaken(reason)
			errs = append(errs, fmt.Errorf("egress IP %v: %w", h.IP, reason))
		case p.rulesErr != nil:
			r.Error = p.rulesErr.Error()
		case p.rules6Err != nil && h.IP.Is6():
			r.Error = p.rules6Err.Error()
		case p.guardErr != nil:
			r.Error = p.guardErr.Error()
		case p.wayErrs[h.IP] != nil:
			r.Error = p.wayErrs[h.IP].Error()
		case added, p.unseen && p.d.sight.configured[h.IP] && p.d.sight.holds():
			r.Configured = true
		case err != nil:
			r.Error = err.Error()
		default:
			r.Error = errNotYet.Error()
		}
		seen.configured[h.IP] = r.Configured
		p.report.Hosted = append(p.report.Hosted, r)
	}
	if p.unseen {
		p.report.Warnings = append(append(p.report.Warnings, p.d.sight.warnings...), warning.NotSeen())
	}
	if k := p.d.kernel; k != nil {
		p.report.Kernel, p.report.Missing = k.Release, k.missing
	}
	p.d.hosts.Store(len(p.state.Hosted) > 0)
	p.d.usages.report(&p.report)
	p.report.Warnings = warning.Tidy(p.report.Warnings)
	seen.warnings = p.report.Warnings
	if !p.unseen {
		p.d.sight = seen
	}
	return p.report, errors.Join(append([]error{err}, errs...)...)
}
