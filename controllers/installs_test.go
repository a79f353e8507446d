package controllers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// leaseReader answers for the Leases of all namespaces.
type leaseReader struct {
	client.Reader // what is not used
	asked         []string
	answer        func(*coordinationv1.Lease) error
}

func (l *leaseReader) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	l.asked = append(l.asked, key.String())
	return l.answer(object.(*coordinationv1.Lease))
}

// gated is a gate of the install in namespace "mine", in a cluster with hosts.
func gated(leases *leaseReader, hosts ...*v1.HostSubnet) (*installGate, *testclock.FakeClock, *record.FakeRecorder) {
	s := newStore()
	for _, h := range hosts {
		s.hosts[h.Name] = h
		s.stamp(h, true)
	}
	c, events := testclock.NewFakeClock(time.Unix(1e9, 0)), record.NewFakeRecorder(8)
	return newInstallGate(logr.Discard(), deps{
		cache: &lagging{store: s, hosts: len(s.past) - 1}, live: leases, recorder: events, clock: c, claimsWriter: "mine/node_pod/1",
	}), c, events
}

// TestOtherInstallHoldsBack: an install in another namespace, which the latest mark
// names, holds this one back as long as its Lease is held and changes by this process's
// clock. Nothing else does.
//
// Mutants killed: standing-lease-renewed, outage-is-standstill.
func TestOtherInstallHoldsBack(t *testing.T) {
	held, version := "node_pod", "1"
	var failure error
	leases := &leaseReader{answer: func(l *coordinationv1.Lease) error {
		l.ResourceVersion, l.Spec.HolderIdentity = version, &held
		return failure
	}}
	g, c, events := gated(leases, markedHost("7 other/node_pod/2"))
	mayWork := func(want bool, when string) {
		t.Helper()
		if got := g.look(t.Context()); got != want || (g.ready(nil) == nil) != want {
			t.Errorf("%s: it may work: %v, readyz: %v; want %v", when, got, g.ready(nil), want)
		}
	}
	mayWork(false, "at the first look")
	if err := g.ready(nil); err == nil || !strings.Contains(err.Error(), "namespace other") {
		t.Errorf("readyz says %v", err)
	}
	c.Step(59 * time.Second)
	mayWork(false, "before a minute is over")
	version = "2"
	mayWork(false, "when it was renewed")
	c.Step(59 * time.Second)
	mayWork(false, "a moment before a minute is over again")
	failure = errors.New("no API server")
	mayWork(false, "while the API server does not answer")
	failure = nil
	c.Step(time.Second)
	mayWork(false, "when it answers again: nobody could renew the Lease")
	c.Step(time.Minute)
	mayWork(true, "when the Lease stands still")
	c.Step(time.Second)
	version = "3"
	mayWork(false, "renewed")
	held = ""
	mayWork(true, "released")
	if len(events.Events) != 3 {
		t.Errorf("%d events, want one each time that it is held back, and none for an API server that does not answer", len(events.Events))
	}
	if want := "other/" + FieldManager; leases.asked[0] != want {
		t.Errorf("it asked for Lease %s, want %s", leases.asked[0], want)
	}
}

// TestNothingElseHoldsBack: without the mark of another install, no Lease is read.
//
// Mutant killed: any-mark-holds-back.
func TestNothingElseHoldsBack(t *testing.T) {
	for name, hosts := range map[string][]*v1.HostSubnet{
		"no mark":                          {markedHost("")},
		"the mark of this install":         {markedHost("7 mine/node_pod/0")},
		"no mark of a controller":          {markedHost("7 of a backup")},
		"a controller that needs no Lease": {markedHost("7 /node_pod/2")},
		"an earlier mark of the other":     {markedHost("6 other/node_pod/2"), named("node2", markedHost("7 mine/node_pod/0"))},
	} {
		leases := &leaseReader{answer: func(*coordinationv1.Lease) error { return nil }}
		if g, _, _ := gated(leases, hosts...); !g.look(t.Context()) || len(leases.asked) > 0 {
			t.Errorf("%s: it does not work; Leases read: %v", name, leases.asked)
		}
	}
}

func named(name string, h *v1.HostSubnet) *v1.HostSubnet {
	h.Name = name
	return h
}
