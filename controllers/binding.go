package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// bondOf is what an object says about its owner. mark is the annotation with the
// owner's UID; owner is the UID of the owner of that name, "" for none.
func bondOf(object metav1.Object, mark string, owner types.UID) egress.Bond {
	annotations := object.GetAnnotations()
	return egress.Bond{
		UID: string(object.GetUID()), BoundUID: annotations[v1.AnnotationBoundUID],
		MarkedUID: annotations[mark], OwnerUID: string(owner),
	}
}

// bound reports whether this cluster's controller bound the object.
func bound(object metav1.Object) bool {
	return object.GetAnnotations()[v1.AnnotationBoundUID] == string(object.GetUID())
}

// bind writes into the object that it belongs to the owner.
func bind(object *metav1.ObjectMeta, mark string, owner types.UID) {
	metav1.SetMetaDataAnnotation(object, mark, string(owner))
	metav1.SetMetaDataAnnotation(object, v1.AnnotationBoundUID, string(object.UID))
}

// bindCreated binds an object that was just created, as its UID is known only now. Only
// the UID is its precondition: others write to a new object at once, and by the time
// of another try its owner may be gone, which would leave it in doubt for good.
func bindCreated(ctx context.Context, w client.Writer, object client.Object, mark string, owner types.UID) error {
	m := metav1.ObjectMeta{UID: object.GetUID()}
	bind(&m, mark, owner)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": m.UID, "annotations": m.Annotations}})
	if err != nil {
		return err
	}
	return unlessGone(w.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch)))
}

// told remembers, by name of the object, the last warning that was written in this term as
// leader, so that each is written once.
type told struct {
	mu   sync.Mutex
	last map[string]string
}

func newTold() *told { return &told{last: make(map[string]string)} }

func (w *told) warn(r recorder, object client.Object, reason, message string) {
	key := string(object.GetUID()) + " " + message
	w.mu.Lock()
	before := w.last[object.GetName()]
	w.last[object.GetName()] = key
	w.mu.Unlock()
	if before != key {
		r.Event(object, corev1.EventTypeWarning, reason, message)
	}
}

// forget forgets the warning on the object of that name.
func (w *told) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, name)
}

// keep forgets the warnings on all objects but those of which there is true.
func (w *told) keep(there func(name string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.last, func(name, _ string) bool { return !there(name) })
}

// adopted is the warning on an object that came from elsewhere and got a new owner.
func adopted(b egress.Bond, owner, fields string) string {
	return fmt.Sprintf("It was written for %s with the UID %s, and not bound by this controller: it comes from a backup, another cluster, "+
		"or an earlier version. It is kept (%s) and now belongs to the %s with the UID %s. If that is not meant, correct its fields.",
		owner, b.MarkedUID, fields, owner, b.OwnerUID)
}

// doubtful is the warning on an object that came from elsewhere and has no owner yet.
func doubtful(b egress.Bond, owner, fields string) string {
	return fmt.Sprintf("It was written for %s with the UID %s, which does not exist, and not bound by this controller: it comes from a backup, "+
		"another cluster, or an earlier version. It is kept (%s), for the case that %s of its name follows. Delete it if none does.",
		owner, b.MarkedUID, fields, owner)
}
