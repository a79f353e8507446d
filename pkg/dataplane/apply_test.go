package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Each hosted egress IP is reported as configured, or with the reason that comes
// first in this order: its own, that of the rules, that of the pass. One that is somebody
// else's says so.
//
// Mutant killed: others-addresses-are-faults.
func TestReportGivesAReasonForEachEgressIP(t *testing.T) {
	ip := testenv.Addr(eip1)
	there := map[netip.Addr]struct{}{ip: {}}
	own, rules, all := errors.New("own"), errors.New("rules"), errors.New("all")
	for _, c := range []struct {
		name          string
		pass          pass
		err           error
		configured    bool
		reason, inUse string
		taken         bool
	}{
		{name: "in place", pass: pass{addresses: there}, configured: true},
		{name: "in place, though something failed", pass: pass{addresses: there}, err: all, configured: true},
		{name: "refused", pass: pass{addresses: there, rulesErr: rules, unusable: map[netip.Addr]error{ip: own}}, err: all, reason: "own"},
		{name: "of others", pass: pass{unusable: map[netip.Addr]error{ip: own}, inUseBy: map[netip.Addr]string{ip: "02:00:00:00:00:01"}}, reason: "own", inUse: "02:00:00:00:00:01"},
		{name: "of another machine", pass: pass{unusable: map[netip.Addr]error{ip: fmt.Errorf("%w: it", errTaken)}}, reason: errTaken.Error() + ": it", taken: true},
		{name: "of the host", pass: pass{unusable: map[netip.Addr]error{ip: address.ErrForeign}}, reason: address.ErrForeign.Error(), taken: true},
		{name: "of its gateway", pass: pass{unusable: map[netip.Addr]error{ip: address.ErrGateway}}, reason: address.ErrGateway.Error(), taken: true},
		{name: "in place, and of others", pass: pass{addresses: there, inUseBy: map[netip.Addr]string{ip: "02:00:00:00:00:01"}}, configured: true, inUse: "02:00:00:00:00:01"},
		{name: "without guard", pass: pass{addresses: there, guardErr: rules}, err: all, reason: "rules"},
		{name: "without rules", pass: pass{addresses: there, rulesErr: rules}, err: all, reason: "rules"},
		{name: "pass that failed", err: all, reason: "all"},
		{name: "pass that was cut short", reason: errNotYet.Error()},
	} {
		c.pass.d, c.pass.state.Hosted = &Dataplane{}, []Hosted{{IP: ip, NetID: 7}}
		r, err := c.pass.finish(c.err)
		got := r.Hosted[0]
		if got.IP != ip || got.Configured != c.configured || got.Error != c.reason || got.InUseBy != c.inUse || got.Taken != c.taken {
			t.Errorf("%s: %+v", c.name, got)
		}
		if failed := c.err != nil || c.reason == "own" || c.taken; failed != (err != nil) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

// given: a kernel that cannot be observed; then what worked when it was last seen counts as
// working for a while, and no longer.
//
// Mutant killed: sight-holds-for-ever.
func TestWhatWorkedCountsForAWhile(t *testing.T) {
	state := State{Hosted: []Hosted{{IP: testenv.Addr(eip1), NetID: 7}, {IP: testenv.Addr(eip2), NetID: 8}}}
	for name, c := range map[string]struct {
		ago    time.Duration
		unseen bool
		want   bool
	}{
		"a moment ago":          {time.Second, true, true},
		"long ago":              {sightHolds + time.Second, true, false},
		"the kernel was seen":   {time.Second, false, false},
		"seen now, long before": {sightHolds + time.Second, false, false},
	} {
		seen := sight{
			configured: map[netip.Addr]bool{testenv.Addr(eip1): true}, at: monotonic() - c.ago,
			warnings: []warning.Warning{{Reason: warning.ForwardingOff}},
		}
		p := newPass(&Dataplane{sight: seen}, state)
		p.unseen = c.unseen
		r, err := p.finish(errors.New("no memory"))
		if err == nil || r.Hosted[0].Configured != c.want || r.Hosted[1].Configured {
			t.Errorf("%s: %+v, %v", name, r.Hosted, err)
		}
		if n := len(r.Warnings); c.unseen && (n != 2 || r.Warnings[1].Reason != warning.Unknown) || !c.unseen && n > 0 {
			t.Errorf("%s: warnings %v", name, r.Warnings)
		}
	}
}
