package controllers

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// assumeCache holds what a reconciler has written and its cache may not show yet.
// The API server's answer to a write is as good as a later look at the cache.
type assumeCache[T client.Object] map[string]T

// wrote remembers the object as the API server answered. Answers to concurrent writes
// may come in any order: an older one is ignored.
func (o assumeCache[T]) wrote(object T) {
	last, ok := o[object.GetName()]
	if ok && last.GetUID() == object.GetUID() && older(object, last) {
		return
	}
	o[object.GetName()] = object
}

// newest returns the cached object, or what was written after it. If the cache shows
// another object of that name, what was written is forgotten.
func (o assumeCache[T]) newest(cached T) T {
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

// prune forgets objects that no longer exist.
func (o assumeCache[T]) prune(exists func(name string) bool) {
	for name := range o {
		if !exists(name) {
			delete(o, name)
		}
	}
}

// older reports whether a was stored before b. Resource versions of one kind are
// ordered numbers (KEP-5504). If a server has others, its caches are considered up to
// date.
func older(a, b client.Object) bool {
	order, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err == nil && order < 0
}

// behind returns an object of live that a cache does not show yet, "" if it shows
// all. Status does not count: it changes all the time, and no invariant depends on
// it.
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

// identity makes a write fail if the object is no longer the same.
func identity(uid types.UID, resourceVersion string) client.Preconditions {
	return client.Preconditions{UID: &uid, ResourceVersion: &resourceVersion}
}
