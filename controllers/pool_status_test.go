package controllers

import (
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestToldOnce: a pass on a cache that does not show yet what the pass before wrote neither writes
// it again nor tells it again: the API server refuses it, and the pass is repeated.
//
// Mutants killed: request-status-unlocked, pool-status-unlocked.
func TestToldOnce(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	request := &v1alpha1.EgressIPRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "out"}}
	pool := &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "dmz"}}
	api := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(request, pool).WithObjects(request, pool).Build()
	if err := errors.Join(
		api.Get(t.Context(), client.ObjectKeyFromObject(request), request),
		api.Get(t.Context(), client.ObjectKeyFromObject(pool), pool),
	); err != nil {
		t.Fatal(err)
	}
	for _, object := range []struct {
		kind  string
		write func(*poolReconciler) error
	}{
		{"EgressIPRequest", func(r *poolReconciler) error {
			return r.writeRequest(t.Context(), request, egress.DrawnRequest{Reason: egress.ReasonQuota, Message: "the namespace has enough"})
		}},
		{"EgressIPPool", func(r *poolReconciler) error {
			return r.writePool(t.Context(), pool, egress.Pool{Broken: "it has no CIDRs"}, egress.DrawnPool{})
		}},
	} {
		t.Run(object.kind, func(t *testing.T) {
			c, events := testclock.NewFakeClock(time.Unix(1e9, 0)), record.NewFakeRecorder(8)
			r := &poolReconciler{deps: deps{writer: api, recorder: events, clock: c}}
			if err := object.write(r); err != nil {
				t.Fatal(err)
			}
			c.Step(time.Second)
			if err := object.write(r); !apierrors.IsConflict(err) {
				t.Errorf("the second write: %v, want a conflict", err)
			}
			if len(events.Events) != 1 {
				t.Errorf("it was told %d times", len(events.Events))
			}
		})
	}
}
