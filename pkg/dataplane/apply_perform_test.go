package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
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
