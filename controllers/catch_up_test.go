package controllers

import (
	"context"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// netNamespaceList answers every list of NetNamespaces alike, and counts them.
type netNamespaceList struct {
	client.Reader
	items []v1.NetNamespace
	lists int
}

func (l *netNamespaceList) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if list, ok := list.(*v1.NetNamespaceList); ok {
		l.lists++
		list.Items = l.items
	}
	return nil
}

// TestLaggingCacheCostsNoLists: a new leader waits for its cache. It lists the API once,
// not on every look, and again after some time: what it waits for may have been deleted.
//
// Kills the mutant lists-on-every-look.
func TestLaggingCacheCostsNoLists(t *testing.T) {
	live := &netNamespaceList{items: []v1.NetNamespace{objects.NetNamespace("shop", 17)}}
	clock := testclock.NewFakeClock(time.Unix(1e9, 0))
	r := newNetNamespaces(deps{cache: &netNamespaceList{}, live: live, clock: clock})
	look := func() {
		t.Helper()
		if got, err := r.Reconcile(t.Context(), reconcile.Request{}); err != nil || got.RequeueAfter != catchUp {
			t.Fatalf("result %v, %v; want another look after %s", got, err, catchUp)
		}
	}
	for range 20 {
		look()
		clock.Step(catchUp)
	}
	if live.lists != 1 {
		t.Errorf("%d lists while the cache lags for two seconds, want 1", live.lists)
	}
	clock.Step(cacheLag)
	look()
	if live.lists != 2 {
		t.Errorf("%d lists after the cache had time to catch up, want 2", live.lists)
	}
	live.items = nil
	clock.Step(cacheLag)
	if got, err := r.Reconcile(t.Context(), reconcile.Request{}); err != nil || got.RequeueAfter != 0 || !r.verified {
		t.Errorf("result %v, %v, verified %t; want to work now that the object is deleted", got, err, r.verified)
	}
}
