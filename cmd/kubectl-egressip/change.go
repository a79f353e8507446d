package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// scenario is a cluster before and after a change that is not made.
type scenario struct {
	before, after egress.Objects
	// nodes are the labels of Nodes before and after, pools what restricts EgressIPs to Nodes.
	nodesBefore, nodesAfter map[string]labels.Set
	pools                   []v1alpha1.EgressIPPool
	// notes say what is taken for granted, or left out.
	notes []string
}

// newScenario reads what a cluster has, in addition to the objects that are read already.
func newScenario(ctx context.Context, c client.Reader, o egress.Objects) (*scenario, error) {
	s := &scenario{before: o, nodesBefore: make(map[string]labels.Set)}
	var nodes corev1.NodeList
	if err := c.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list Nodes: %w", err)
	}
	for i := range nodes.Items {
		s.nodesBefore[nodes.Items[i].Name] = nodes.Items[i].Labels
	}
	if len(o.EgressIPs) > 0 {
		var list v1alpha1.EgressIPPoolList
		if err := c.List(ctx, &list); err != nil && !isNoSuchKind(err) {
			return nil, fmt.Errorf("list EgressIPPools: %w", err)
		}
		s.pools = list.Items
	}
	s.nodesAfter = maps.Clone(s.nodesBefore)
	s.after = egress.Objects{
		NetNamespaces: slices.Clone(o.NetNamespaces), EgressIPs: slices.Clone(o.EgressIPs), HostSubnets: slices.Clone(o.HostSubnets),
		Verdicts: make(map[string]online.Verdict), Evacuating: make(map[string]bool), Assignable: make(map[string]bool),
	}
	for i := range o.HostSubnets {
		h := &o.HostSubnets[i]
		s.after.Evacuating[h.Name] = meta.IsStatusConditionTrue(h.Status.Conditions, v1.ConditionEvacuating)
		s.after.Assignable[h.Name] = h.Status.Placement != nil && h.Status.Placement.EgressAssignable
	}
	return s, nil
}

// without takes hosts away.
func (s *scenario) without(hosts []string) error {
	for _, name := range hosts {
		if hostSubnetOf(s.after.HostSubnets, name) == nil {
			return noSuchHost(name, s.after.HostSubnets)
		}
		s.after.Verdicts[name] = online.Verdict{Reason: online.ReasonNodeNotReady}
	}
	return nil
}

// evacuate has hosts evacuated.
func (s *scenario) evacuate(hosts []string) error {
	for _, name := range hosts {
		if hostSubnetOf(s.after.HostSubnets, name) == nil {
			return noSuchHost(name, s.after.HostSubnets)
		}
		s.after.Evacuating[name] = true
	}
	return nil
}

func noSuchHost(name string, hosts []v1.HostSubnet) error {
	names := make([]string, 0, len(hosts))
	for i := range hosts {
		names = append(names, hosts[i].Name)
	}
	slices.Sort(names)
	if len(names) > 12 {
		names = append(names[:12], "...")
	}
	return fmt.Errorf("there is no HostSubnet %q: the hosts are %s", name, orNone(names))
}

// apply merges the objects of files. Nodes are read from the cluster.
func (s *scenario) apply(ctx context.Context, c client.Reader, in input) error {
	for _, w := range in.written {
		var err error
		switch w.kind {
		case kindNetNamespace:
			err = mergeInto(&s.after.NetNamespaces, w)
		case kindEgressIP:
			err = s.applyEgressIP(ctx, c, w)
		case kindHostSubnet:
			if hostSubnetOf(s.after.HostSubnets, w.name) == nil {
				s.notes = append(s.notes, fmt.Sprintf("HostSubnet %s is new: no agent has reported from it, so it takes no traffic here.", w.name))
			}
			err = mergeInto(&s.after.HostSubnets, w)
		case kindNode:
			err = s.applyNode(ctx, c, w)
		default:
			s.notes = append(s.notes, fmt.Sprintf("%s %s changes nothing here by itself.", w.kind, w.name))
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", w.kind, w.name, err)
		}
	}
	if len(in.ignored) > 0 {
		s.notes = append(s.notes, ignoredKinds(in.ignored)+" Pools and requests to them are not played either: put the EgressIPs in the file that would come of them.")
	}
	return nil
}

// applyEgressIP takes an EgressIP, if those of the cluster are ours.
func (s *scenario) applyEgressIP(ctx context.Context, c client.Reader, w writtenObject) error {
	served, hidden, err := servesEgressIPs(ctx, c)
	switch {
	case err != nil:
		return err
	case hidden:
		s.notes = append(s.notes, "Not known: whether this operator serves the EgressIPs of the cluster; it is taken for granted.")
	case !served:
		return errors.New("this operator does not serve the EgressIPs of the cluster: their definition is missing, or another software's")
	}
	return mergeInto(&s.after.EgressIPs, w)
}

// applyNode takes the labels and the annotation for evacuation of a Node.
func (s *scenario) applyNode(ctx context.Context, c client.Reader, w writtenObject) error {
	if hostSubnetOf(s.after.HostSubnets, w.name) == nil {
		s.notes = append(s.notes, fmt.Sprintf("Node %s has no HostSubnet yet, so that nothing follows from it here.", w.name))
		return nil
	}
	var current *corev1.Node
	var stored corev1.Node
	switch err := c.Get(ctx, client.ObjectKey{Name: w.name}, &stored); {
	case err == nil:
		current = &stored
	case !apierrors.IsNotFound(err):
		return err
	}
	node, err := applied(current, w.text)
	if err != nil {
		return err
	}
	s.nodesAfter[w.name] = node.Labels
	_, s.after.Assignable[w.name] = node.Labels[ovnv1.LabelEgressAssignable]
	s.after.Evacuating[w.name] = node.Annotations[v1.AnnotationEvacuate] == "true"
	if current != nil && node.Annotations[egress.AnnotationCloudConfig] != current.Annotations[egress.AnnotationCloudConfig] {
		s.notes = append(s.notes, fmt.Sprintf("Node %s: annotation %s is not played; capacity and networks are as published.", w.name, egress.AnnotationCloudConfig))
	}
	return nil
}

// mergeInto applies one object to a list.
func mergeInto[T any, P metaObject[T]](list *[]T, w writtenObject) error {
	i := slices.IndexFunc(*list, func(object T) bool { return P(&object).GetName() == w.name })
	var current *T
	if i >= 0 {
		current = &(*list)[i]
	}
	merged, err := applied(current, w.text)
	if err != nil {
		return err
	}
	if i < 0 {
		*list = append(*list, merged)
		return nil
	}
	(*list)[i] = merged
	return nil
}

// numbered gives netids to groups without one, as the controller does. Both sides get the same.
func (s *scenario) numbered() {
	inUse := make(map[uint32]bool)
	var missing []string
	for _, o := range []*egress.Objects{&s.before, &s.after} {
		for i := range o.NetNamespaces {
			if id, ok := o.NetNamespaces[i].ID(); ok {
				inUse[id] = true
			} else {
				missing = append(missing, o.NetNamespaces[i].Name)
			}
		}
		for i := range o.EgressIPs {
			if id, ok := o.EgressIPs[i].ID(); ok {
				inUse[id] = true
			} else {
				missing = append(missing, egress.GroupOfEgressIP(o.EgressIPs[i].Name))
			}
		}
	}
	chosen := egress.AllocateNetIDs(missing, inUse)
	for _, o := range []*egress.Objects{&s.before, &s.after} {
		o.NetNamespaces, o.EgressIPs = slices.Clone(o.NetNamespaces), slices.Clone(o.EgressIPs)
		for i := range o.NetNamespaces {
			n := &o.NetNamespaces[i]
			if id, ok := chosen[n.Name]; ok {
				n.NetID, n.NetName = &id, n.Name
			}
		}
		for i := range o.EgressIPs {
			e := &o.EgressIPs[i]
			if id, ok := chosen[egress.GroupOfEgressIP(e.Name)]; ok {
				e.Status.NetID = &id
			}
		}
	}
}

// clusters are both sides for the brain, and the problems that the change brings.
func (s *scenario) clusters() (before, after egress.Cluster, problems []egress.Problem) {
	s.numbered()
	s.before.OnlyOn, s.after.OnlyOn = s.onlyOn(s.before.EgressIPs, s.nodesBefore), s.onlyOn(s.after.EgressIPs, s.nodesAfter)
	before, old := egress.Snapshot(s.before)
	after, problems = egress.Snapshot(s.after)
	return before, after, slices.DeleteFunc(problems, func(p egress.Problem) bool { return slices.Contains(old, p) })
}

func (s *scenario) onlyOn(egressIPs []ovnv1.EgressIP, nodes map[string]labels.Set) map[string]*egress.HostSet {
	byPool := make(map[string]*egress.HostSet)
	for i := range s.pools {
		byPool[s.pools[i].Name] = egress.HostsOf(&s.pools[i], nodes)
	}
	list := make([]*ovnv1.EgressIP, 0, len(egressIPs))
	for i := range egressIPs {
		list = append(list, &egressIPs[i])
	}
	return egress.OnlyOn(list, byPool)
}

// regroup compares which pods are in which group, if the change touches EgressIPs. Without the right to list
// pods that is not known.
func (s *scenario) regroup(ctx context.Context, c client.Reader, before, after egress.Cluster) ([]egress.Regrouping, error) {
	if equality.Semantic.DeepEqual(s.before.EgressIPs, s.after.EgressIPs) {
		return nil, nil
	}
	var list corev1.PodList
	if err := c.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	of, err := namespaceLabels(ctx, c)
	if err != nil {
		return nil, err
	}
	seen := make([]egress.SeenPod, 0, len(list.Items))
	for i := range list.Items {
		seen = append(seen, seenPod(&list.Items[i]))
	}
	return egress.Regroup(before, after, egress.OwnPods(seen), of), nil
}
