package controllers

import (
	"testing"
	"time"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestUnheard: an agent has a minute to report, from when its HostSubnet is first seen;
// one that is restored or replaced has it again.
//
// Kills the mutant unheard-at-once.
func TestUnheard(t *testing.T) {
	h := objects.HostSubnet("node1", "192.168.7.11")
	h.UID = "1"
	begin := time.Unix(1e9, 0)
	s := make(silence)
	at := func(seconds int, want bool, wantNext time.Duration) {
		t.Helper()
		unheard, next := s.unheard([]*v1.HostSubnet{&h}, begin.Add(time.Duration(seconds)*time.Second))
		if unheard["node1"] != want || next != wantNext {
			t.Errorf("after %d s: unheard is %t, next change in %s, want %t, %s", seconds, unheard["node1"], next, want, wantNext)
		}
	}
	at(0, false, unheardAfter)
	at(59, false, time.Second)
	at(60, true, 0)
	h.UID = "2"
	at(61, false, unheardAfter)
	objects.AgentReports(&h)
	at(70, false, 0)
	h.Status.Agent = nil
	at(80, false, unheardAfter)
}
