package controllers

import (
	"testing"
	"time"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// A move has the reason of the release that it follows from, once, and counts from then; a move
// without one was someone's who edits lists.
func TestReasonsOfMoves(t *testing.T) {
	t.Parallel()
	r, now := newReleases(), time.Unix(1_800_000_000, 0)
	r.add("192.168.7.200", egress.ReasonEvacuated, now)
	r.add("192.168.7.201", egress.ReasonMultipleHosts, now)
	r.add("192.168.7.202", egress.ReasonHostOffline, now)
	for _, step := range []struct {
		ip     string
		after  time.Duration
		reason string
		known  bool
	}{
		{"192.168.7.200", 2 * time.Second, "Evacuated", true},
		{"192.168.7.200", 3 * time.Second, reasonReassigned, false},
		{"192.168.7.201", time.Second, reasonOther, true},
		{"192.168.7.202", 2 * time.Hour, reasonReassigned, false},
		{"192.168.7.203", 0, reasonReassigned, false},
	} {
		reason, took, known := r.take(step.ip, now.Add(step.after))
		if reason != step.reason || known != step.known || known && took != step.after {
			t.Errorf("%s after %v: %s, %v, %t, want %s, %t", step.ip, step.after, reason, took, known, step.reason, step.known)
		}
	}
	r.add("192.168.7.204", egress.ReasonRebalanced, now)
	r.add("192.168.7.205", egress.ReasonRebalanced, now.Add(3*time.Hour))
	if len(r.byIP) != 1 {
		t.Errorf("what is hours old is not forgotten: %v", r.byIP)
	}
}

// An address has moved if it had a host before and has another one now.
func TestMoved(t *testing.T) {
	t.Parallel()
	status := func(requests ...v1.RequestStatus) v1.NetNamespaceStatus {
		return v1.NetNamespaceStatus{EgressIPs: requests}
	}
	for name, c := range map[string]struct {
		before, after v1.RequestStatus
		moved         bool
	}{
		"to another host":        {v1.RequestStatus{State: v1.StateHostOffline, Host: "node1"}, v1.RequestStatus{State: v1.StateActive, Host: "node2"}, true},
		"comes":                  {v1.RequestStatus{State: v1.StateUnassigned}, v1.RequestStatus{State: v1.StateActive, Host: "node2"}, false},
		"goes":                   {v1.RequestStatus{State: v1.StateActive, Host: "node1"}, v1.RequestStatus{State: v1.StateUnassigned}, false},
		"is used where it was":   {v1.RequestStatus{State: v1.StateStandby, Host: "node1"}, v1.RequestStatus{State: v1.StateActive, Host: "node1"}, false},
		"two lists fight for it": {v1.RequestStatus{State: v1.StateActive, Host: "node1"}, v1.RequestStatus{State: v1.StateConflict}, false},
	} {
		c.before.IP, c.after.IP = "192.168.7.200", "192.168.7.200"
		if got := len(moved(status(c.before), status(c.after))) == 1; got != c.moved {
			t.Errorf("%s: moved: %t", name, got)
		}
	}
}
