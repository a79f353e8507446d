package controllers

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/statusapply"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// write writes the newest wanted status of one object where it differs from what is
// stored, and reports what changed by events. wrote is false if there was nothing to
// write, or if the write changed nothing.
func (p *publisher) write(ctx context.Context, key statusKey) (wrote bool, err error) {
	if key.kind != kindHostSubnet {
		if err := p.uses.await(ctx); err != nil {
			return false, err
		}
	}
	unlock, err := p.writing.lock(ctx, key)
	if err != nil {
		return false, err
	}
	defer unlock()
	stored, err := p.observer.stored(ctx, key)
	if err != nil {
		return false, unlessGone(fmt.Errorf("read %s %s from the cache: %w", key.kind, key.name, err))
	}
	p.mu.Lock()
	w, ok := p.wanted[key]
	change, due := statusChange{}, false
	if ok {
		change, due = p.due(w, stored)
	}
	p.mu.Unlock()
	if !due {
		return false, nil
	}
	now, err := p.send(ctx, stored, key, change.status)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		p.metrics.statusErrors.WithLabelValues(key.kind).Inc()
		return false, err
	}
	if now.GetResourceVersion() == stored.GetResourceVersion() {
		p.mu.Lock()
		p.noops[key] = noop{wanted: w, resourceVersion: now.GetResourceVersion()}
		p.mu.Unlock()
		return false, nil
	}
	p.observer.wrote(now)
	p.metrics.statusWrites.WithLabelValues(key.kind).Inc()
	if p.uses != nil && key.kind != kindHostSubnet {
		p.uses.saw(ctx, now)
	} else {
		p.report(ctx, stored, now)
	}
	return true, nil
}

// send writes a status by server-side apply and returns the object as it is stored
// then. What the status leaves out belongs to others. The UID makes the write fail if
// the object was replaced.
func (p *publisher) send(ctx context.Context, object client.Object, key statusKey, status any) (client.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	failed := func(err error) error { return fmt.Errorf("write the status of %s %s: %w", key.kind, key.name, err) }
	encoded, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return nil, failed(err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": encoded}}
	u.SetGroupVersionKind(versionOf(key.kind).WithKind(key.kind))
	u.SetName(key.name)
	u.SetUID(object.GetUID())
	missing, err := statusapply.Apply(ctx, p.writer.Status(), u, FieldManager)
	p.lacks(key.kind, missing)
	if err != nil {
		return nil, failed(err)
	}
	now := newObject(key.kind)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, now); err != nil {
		return nil, failed(fmt.Errorf("read the answer: %w", err))
	}
	return now, nil
}

// lacks logs, once, fields that the definition of a kind does not have.
func (p *publisher) lacks(kind string, fields []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, field := range fields {
		if !p.lacking[kind+field] {
			p.lacking[kind+field] = true
			p.log.Info("the definition of "+kind+" is older than this controller and lacks a field: upgrade the CustomResourceDefinitions", "kind", kind, "field", field)
		}
	}
}

// report reports what changed, by events and metrics.
func (p *publisher) report(ctx context.Context, before, after client.Object) {
	p.notify(ctx, after, p.notices(before, after))
}

// reportDeleted reports that an object is gone that had a status before; after is the same without.
func (p *publisher) reportDeleted(ctx context.Context, before, after client.Object) {
	p.notify(ctx, after, slices.DeleteFunc(p.notices(before, after), func(n notice) bool { return n.reason == eventRestored }))
}

// notices are the events about a change. Moves are counted.
func (p *publisher) notices(before, after client.Object) (notices []notice) {
	switch after := after.(type) {
	case *v1.HostSubnet:
		if before, ok := before.(*v1.HostSubnet); ok {
			notices = hostNotices(after.Name, before.Status.Conditions, after.Status.Conditions)
		}
	case *v1.NetNamespace:
		if before, ok := before.(*v1.NetNamespace); ok {
			p.countMoves(before.Status, after.Status)
			notices = namespaceNotices(after.Name, before.Status, after.Status)
		}
	case *ovnv1.EgressIP:
		if before, ok := before.(*ovnv1.EgressIP); ok {
			was, is := asNamespace(before.Status), asNamespace(after.Status)
			p.countMoves(was, is)
			notices = namespaceNotices(egress.GroupOfEgressIP(after.Name), was, is)
		}
	}
	return notices
}

// notify writes events about an object, and about hosts.
func (p *publisher) notify(ctx context.Context, after client.Object, notices []notice) {
	for _, n := range notices {
		on := after
		if key := (statusKey{kindHostSubnet, n.host}); n.host != "" && key != keyOf(after) {
			host, err := p.observer.stored(ctx, key)
			if err != nil {
				continue // it is gone
			}
			on = host
		}
		p.recorder.Event(on, n.eventType(), n.reason, n.message)
	}
}

// keyOf returns the key of an object with a status.
func keyOf(object client.Object) statusKey {
	switch object.(type) {
	case *v1.HostSubnet:
		return statusKey{kindHostSubnet, object.GetName()}
	case *ovnv1.EgressIP:
		return statusKey{kindEgressIP, object.GetName()}
	}
	return statusKey{kindNetNamespace, object.GetName()}
}

// versionOf returns the group and version of a kind.
func versionOf(kind string) schema.GroupVersion {
	if kind == kindEgressIP {
		return ovnv1.GroupVersion()
	}
	return v1.GroupVersion()
}

// newObject returns an empty object of the kind.
func newObject(kind string) client.Object {
	switch kind {
	case kindHostSubnet:
		return &v1.HostSubnet{}
	case kindEgressIP:
		return &ovnv1.EgressIP{}
	}
	return &v1.NetNamespace{}
}
