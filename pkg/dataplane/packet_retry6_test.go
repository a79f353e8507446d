package dataplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: an agent that has just started, and to which the kernel refuses a BPF map for IPv6;
// then IPv6 of its node is dropped, and the report says why, while IPv4 goes on, with the
// programs that it has; when the kernel
// no longer refuses, then IPv6 goes on within a minute, without a restart of the agent.
//
// Mutants killed: refused-maps-are-refused-for-ever, refused-maps-are-tried-all-the-time.
func TestRefusedMapsOfIPv6AreTriedAgain(t *testing.T) {
	w := newDualWorld(t, ownTable())
	w.seen6.only(9101, eip61)
	w.applyAll(t)
	w.here.leaves6(t, eip61)
	w.n1.start(t)
	inTheWay := filepath.Join(w.n1.cfg.PinDir, "egress_pods6")
	w.n1.act(t, func() {
		must(t, os.Remove(inTheWay))
		must(t, os.Mkdir(inTheWay, 0o700))
	})
	refused := func() {
		t.Helper()
		r := w.n1.apply(t)
		if !r.IPv6.Known || !strings.Contains(r.IPv6.Reason, inTheWay) || !strings.Contains(r.IPv6.Reason, "tried again") {
			t.Errorf("reported are %+v", r.IPv6)
		}
	}
	refused()
	w.here.sendsAll6(t, 9101)
	w.silent6(t, 9101)
	w.here.leaves(t, eip1)
	w.n1.settled(t)

	before, programs := w.n1.dp.serve6.maps.at, w.n1.dp.programs
	w.n1.dp.serve6.maps.at -= againAfter
	w.n1.dp.steady = nil
	refused()
	if w.n1.dp.serve6.maps.at < before {
		t.Error("the maps were not tried again")
	}
	w.n1.settled(t)
	if w.n1.dp.programs != programs {
		t.Error("the programs of IPv4 have changed")
	}

	w.n1.act(t, func() { must(t, os.Remove(inTheWay)) })
	refused() // a moment later
	w.n1.dp.serve6.maps.at -= againAfter
	w.n1.dp.steady = nil
	if r := w.n1.apply(t); !r.IPv6.Known || r.IPv6.Reason != "" {
		t.Errorf("reported are %+v", r.IPv6)
	}
	testenv.UntilWithin(t, patience, "packets with the egress IP", func() bool { return w.seen6.from(9101, eip61) > 20 })
	w.here.leaves6(t, eip61)
	w.here.leaves(t, eip1)
	w.n1.settled(t)
}

// What the kernel refuses is tried again after a minute, what it does not refuse never.
func TestAttempts(t *testing.T) {
	if !(attempt{}).due() {
		t.Error("what was not tried is not due")
	}
	for _, c := range []struct {
		err  error
		ago  time.Duration
		want bool
	}{
		{nil, 0, false},
		{nil, time.Hour, false},
		{os.ErrPermission, 0, false},
		{os.ErrPermission, againAfter - 10*time.Second, false},
		{os.ErrPermission, againAfter, true},
	} {
		a := made(c.err)
		a.at -= c.ago
		if a.due() != c.want {
			t.Errorf("%v, %v ago: due is %t", c.err, c.ago, a.due())
		}
	}
}
