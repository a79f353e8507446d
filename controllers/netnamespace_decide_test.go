package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// imported is a cache with NetNamespaces that another cluster's controller marked. It
// is the live API as well, and counts what is asked of that.
type imported struct {
	client.Reader
	items []v1.NetNamespace
	gets  int
}

func (i *imported) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if l, ok := list.(*v1.NetNamespaceList); ok {
		l.Items = i.items
	}
	return nil
}

func (i *imported) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	i.gets++
	return errors.New("nothing is read")
}

// TestImportsCostNothing: NetNamespaces of another cluster, without Namespaces, are
// reported once each, and no pass asks the API server about them.
func TestImportsCostNothing(t *testing.T) {
	const count = 300
	api := &imported{}
	for i := range count {
		name := fmt.Sprintf("imported%d", i)
		api.items = append(api.items, v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, UID: types.UID(name), Annotations: map[string]string{v1.AnnotationNamespaceUID: "of-another-cluster"},
			},
			NetID: new(uint32(100 + i)),
		})
	}
	events := record.NewFakeRecorder(2 * count)
	r := newNetNamespaces(deps{cache: api, live: api, recorder: events, clock: testclock.NewFakeClock(time.Unix(1e9, 0))})
	for range 3 {
		if _, err := r.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	if api.gets > 0 || len(events.Events) != count {
		t.Errorf("%d live reads and %d events, want none and %d", api.gets, len(events.Events), count)
	}
}

// TestNoSecondWriteBesideOne: a namespace whose NetNamespace is being written, for instance
// deleted, gets no netid, and so no other write, until that has its answer.
//
// Mutant killed: two-writes-of-one-netnamespace.
func TestNoSecondWriteBesideOne(t *testing.T) {
	r := newNetNamespaces(deps{clock: testclock.NewFakeClock(time.Unix(1e9, 0))})
	namespaces := map[string]*corev1.Namespace{"again": {ObjectMeta: metav1.ObjectMeta{Name: "again"}}, "other": {ObjectMeta: metav1.ObjectMeta{Name: "other"}}}
	r.writes.late[writeKey{writesNetID, "again"}] = true
	numbers := func() (names []string) {
		numbered, _, err := r.number(namespaces, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(numbered))
	}
	if got := numbers(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("while it is being written, %q get netids, want other alone", got)
	}
	delete(r.writes.late, writeKey{writesNetID, "again"})
	if got := numbers(); !slices.Equal(got, []string{"again", "other"}) {
		t.Errorf("afterwards %q get netids, want both", got)
	}
}
