package routing

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// A note says what a filter was, and is none of the policy rules, ours or those of others. Notes that
// name the same device, or the same index, are different ones; one without an index is one of an
// earlier version.
func TestNotesAboutReversePathFilters(t *testing.T) {
	host, h, plan := twoWays(t)
	netnstest.Twice(t, "ways", func() (int, error) { return ensure(t, host, h, plan) })
	want := []Note{{Device: "eth1", Was: 1}, {Link: 7, Device: "eth1", Was: 1}, {Link: 7, Device: "eth2"}, {Link: 8, Device: "eth2"}}
	for range 2 {
		for _, n := range want {
			must(t, PutNote(h, n))
		}
	}
	if n, err := ensure(t, host, h, plan); n != 0 || err != nil {
		t.Errorf("routes after notes: %d changes, %v", n, err)
	}
	others, err := Others(h)
	must(t, err)
	for _, r := range others {
		if r.IifName != "" {
			t.Errorf("a note is a rule of others: %v", r)
		}
	}
	for len(want) > 0 {
		notes, err := Notes(h)
		must(t, err)
		if diff := cmp.Diff(want, notes); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
		last := want[len(want)-1]
		for range 2 {
			must(t, DeleteNote(h, last))
		}
		want = want[:len(want)-1]
	}
	if notes, err := Notes(h); len(notes) > 0 || err != nil {
		t.Errorf("notes that are left: %v, %v", notes, err)
	}
}
