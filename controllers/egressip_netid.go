package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// netIDManager is the name under which the netids of EgressIPs are written. The rest of their
// status has another writer, and neither takes away what the other has written.
const netIDManager = FieldManager + "-netid"

// unnumbered are the groups of EgressIPs that need a netid: they have none, or one that another
// object has as well. NetNamespaces keep theirs, and of several EgressIPs the first by name does.
// What is in use is added to inUse.
func (r *netNamespaces) unnumbered(egressIPList []ovnv1.EgressIP, inUse map[uint32]bool) map[string]bool {
	without := make(map[string]bool)
	for _, e := range sortedByName(egressIPList) {
		group := egress.GroupOfEgressIP(e.Name)
		id, numbered := e.ID()
		switch {
		case !e.DeletionTimestamp.IsZero():
		case numbered && !inUse[id]:
			inUse[id] = true
			delete(r.given, group)
		default:
			without[group] = true
		}
	}
	return without
}

// numberEgressIPs writes the netids that were chosen for EgressIPs.
func (r *netNamespaces) numberEgressIPs(ctx context.Context, egressIPList []ovnv1.EgressIP, numbered map[string]uint32) error {
	var writes []passWrite
	for _, e := range sortedByName(egressIPList) {
		group := egress.GroupOfEgressIP(e.Name)
		id, chosen := numbered[group]
		if !chosen {
			continue
		}
		r.given[group] = grant{netID: id, open: true}
		writes = append(writes, passWrite{
			key:  writeKey{writesNetID, group},
			send: func() error { return r.numberOne(ctx, e, id) },
			answered: func(err error) error {
				r.granted(group, false, err)
				return unlessGone(err)
			},
		})
	}
	return errors.Join(r.writes.do(objectWriters, writes)...)
}

func (r *netNamespaces) numberOne(ctx context.Context, e *ovnv1.EgressIP, id uint32) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"netid": int64(id)}}}
	u.SetGroupVersionKind(ovnv1.GroupVersion().WithKind(kindEgressIP))
	u.SetName(e.Name)
	u.SetUID(e.UID)
	if err := r.writer.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(netIDManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("write the netid of EgressIP %s: %w", e.Name, err)
	}
	log.FromContext(ctx).V(1).Info("numbered an EgressIP", "egressIP", e.Name, "netid", id)
	return nil
}

// sortedByName are the objects of a list in order of name.
func sortedByName(list []ovnv1.EgressIP) []*ovnv1.EgressIP {
	all := pointers(list)
	slices.SortFunc(all, byObjectName)
	return all
}
