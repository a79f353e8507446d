package dataplane

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// After a failure, what depends on it is left out, and what makes packets drop is
// done.
func TestChangesThatDependOnAFailureAreLeftOut(t *testing.T) {
	m := DefaultMarks()
	failed := errors.New("failed")
	refused, fine := m.Index(m.FirstIndex()), m.Index(m.FirstIndex()+1)
	newExecution := func() *execution {
		return &execution{
			round: &round{
				pass:    &pass{d: &Dataplane{cfg: Config{Marks: m}, maps: &bpf.Maps{}}},
				indices: indices{testenv.Addr(eip1): m.FirstIndex(), testenv.Addr(eip2): m.FirstIndex() + 1},
			},
			failed: map[phase]error{}, refused: map[netip.Addr]error{},
		}
	}
	for _, c := range []struct {
		name   string
		change change
		fail   func(*execution)
		want   bool
	}{
		{"nothing failed", change{phase: phaseUnlock}, func(*execution) {}, false},
		{"lock after a failed set", change{phase: phaseLock}, func(e *execution) { e.failed[phaseGrow] = failed }, false},
		{"unlock after a failed set", change{phase: phaseUnlock}, func(e *execution) { e.failed[phaseGrow] = failed }, true},
		{"release after connections were not forgotten", change{phase: phaseRelease, op: delAddress}, func(e *execution) { e.failed[phaseForget] = failed }, false},
		{"release after a failed mark", change{phase: phaseRelease, op: delAddress}, func(e *execution) { e.failed[phaseMark] = failed }, true},
		{"guard after connections were not forgotten", change{phase: phaseRelease, op: narrowGuard}, func(e *execution) { e.failed[phaseForget] = failed }, true},
		{"unlock after connections were not forgotten", change{phase: phaseUnlock}, func(e *execution) { e.failed[phaseForget] = failed }, true},
		{"address without rules", change{phase: phaseAddress}, func(e *execution) { e.rulesErr = failed }, true},
		{"address of IPv6 without rules for it", change{phase: phaseAddress, ip: testenv.Addr(eip61)}, func(e *execution) { e.rules6Err = failed }, true},
		{"address of IPv4 without rules for IPv6", change{phase: phaseAddress, ip: testenv.Addr(eip1)}, func(e *execution) { e.rules6Err = failed }, false},
		{"mark of a refused egress IP", change{phase: phaseMark, mark: refused}, func(e *execution) { e.refused[testenv.Addr(eip1)] = failed }, true},
		{"mark of another one", change{phase: phaseMark, mark: fine}, func(e *execution) { e.refused[testenv.Addr(eip1)] = failed }, false},
		{"mark that drops", change{phase: phaseMark, mark: m.Remote()}, func(e *execution) { e.refused[testenv.Addr(eip1)] = failed }, false},
		{"hosts of IPv6 while the overlay takes their packets", change{phase: phaseShrink, op: delMember, set: setHosts6}, func(e *execution) { e.failed[phaseOverlay] = failed }, true},
		{"hosts of IPv4 after the overlay failed", change{phase: phaseShrink, op: delMember, set: setHosts}, func(e *execution) { e.failed[phaseOverlay] = failed }, false},
		{"route without maps", change{phase: phaseRoute, op: putRoute}, func(e *execution) { e.d.maps = nil }, true},
	} {
		e := newExecution()
		c.fail(e)
		if got := e.depends(c.change); got != c.want {
			t.Errorf("%s: left out is %t", c.name, got)
		}
	}
}

// given: a host that serves both families with rules in iptables; when ip6tables refuses rules, then
// egress IPs of IPv6 that it did not serve before are refused, and nothing of IPv4 is held up.
//
// Mutants killed: refused-rules-of-ipv6-are-taken-for-granted, refused-rules-of-ipv6-stop-ipv4.
func TestRefusedRulesOfIPv6(t *testing.T) {
	netnstest.Enter(t)
	driver, err := iptables.Open(NFT, iptables.IPv6)
	must(t, err)
	m := DefaultMarks()
	served, another, four := testenv.Addr(eip61), testenv.Addr(eip62), testenv.Addr(eip1)
	for _, serves := range []bool{true, false} {
		e := &execution{
			round: &round{
				pass:    &pass{d: &Dataplane{cfg: Config{Marks: m}, ip6tables: map[Backend]*iptables.Driver{NFT: driver}}},
				serve6:  serves,
				indices: indices{served: m.FirstIndex(), another: m.FirstIndex() + 1, four: m.FirstIndex() + 2},
				served:  map[netip.Addr]struct{}{served: {}},
			},
			failed: map[phase]error{}, refused: map[netip.Addr]error{},
		}
		e.report.IPv6Locked = true
		e.do(t.Context(), []change{{phase: phaseRules, op: putRules, backend: NFT, ipv6: true, transaction: iptables.Transaction{
			Table: rules.Mangle, Script: "*mangle\n-A NO-SUCH-CHAIN -j DROP\nCOMMIT\n", Changes: 1,
		}}})
		if e.report.IPv6Locked || !strings.Contains(warning.Lines(e.report.Warnings), string(warning.IPv6NotDropped)) {
			t.Errorf("serves %t: reported are %+v", serves, e.report)
		}
		if e.rulesErr != nil || len(e.failed) > 0 || e.refused[four] != nil || e.refused[served] != nil {
			t.Errorf("serves %t: rules %v, phases %v, refused %v", serves, e.rulesErr, e.failed, e.refused)
		}
		if (e.refused[another] != nil) != serves || (e.rules6Err != nil) != serves || (len(e.errs) > 0) != serves {
			t.Errorf("serves %t: refused %v, rules %v, errors %v", serves, e.refused, e.rules6Err, e.errs)
		}
	}
}

func TestMembersOfOneSetGoTogether(t *testing.T) {
	a := change{phase: phaseGrow, op: putMember, set: setHosts}
	for what, c := range map[string]struct {
		other change
		want  bool
	}{
		"same set":    {change{phase: phaseGrow, op: putMember, set: setHosts}, true},
		"another set": {change{phase: phaseGrow, op: putMember, set: setIPs}, false},
		"other phase": {change{phase: phaseShrink, op: putMember, set: setHosts}, false},
		"deletion":    {change{phase: phaseGrow, op: delMember, set: setHosts}, false},
	} {
		if got := a.together(c.other); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}
