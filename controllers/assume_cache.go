package controllers

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// overlay holds what a job has written and its cache may not show yet. The
// answer of the API server to a write is as good as a look at the cache later.
type overlay[T client.Object] map[string]T

// wrote remembers the object as the API server answered.
func (o overlay[T]) wrote(object T) { o[object.GetName()] = object }

// newest returns the cached object, or what was written after it. An object
// that the cache has lost or replaced is gone, and what was written is
// forgotten.
func (o overlay[T]) newest(cached T) T {
	written, ok := o[cached.GetName()]
	if !ok {
		return cached
	}
	if written.GetUID() == cached.GetUID() && older(cached, written) {
		return written
	}
	delete(o, cached.GetName())
	return cached
}

// prune forgets objects that do not exist any more.
func (o overlay[T]) prune(exists func(name string) bool) {
	for name := range o {
		if !exists(name) {
			delete(o, name)
		}
	}
}

// older tells whether a was stored before b. Resource versions of one kind are
// ordered numbers (KEP-5504); a server that keeps others is one that we do not
// know, and its caches are then taken for as new as they can be.
func older(a, b client.Object) bool {
	order, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err == nil && order < 0
}

// behind says which object of live a cache does not show yet, in a field that
// users write; "" where it shows all. Status does not count: it changes all the
// time, and no promise rests on it.
func behind[T client.Object](live []T, cached func(name string) (T, bool)) string {
	for _, l := range live {
		c, ok := cached(l.GetName())
		if !ok || c.GetUID() != l.GetUID() || c.GetGeneration() < l.GetGeneration() {
			return fmt.Sprintf("%T %s", l, l.GetName())
		}
	}
	return ""
}

// byName indexes a list without copying its objects.
func byName[T any, P interface {
	*T
	GetName() string
}](items []T,
) map[string]P {
	index := make(map[string]P, len(items))
	for i := range items {
		p := P(&items[i])
		index[p.GetName()] = p
	}
	return index
}

// identity pins a write to an object that still is the same.
func identity(uid types.UID, resourceVersion string) client.Preconditions {
	return client.Preconditions{UID: &uid, ResourceVersion: &resourceVersion}
}
