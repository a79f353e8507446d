package controllers

import (
	"context"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// wholePass requests one pass over everything, whatever has changed. Changes within
// delay of each other share a pass.
func wholePass(delay time.Duration) handler.EventHandler {
	add := func(q queue) {
		q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: "all"}}, delay)
	}
	return handler.Funcs{
		CreateFunc:  func(_ context.Context, _ event.CreateEvent, q queue) { add(q) },
		UpdateFunc:  func(_ context.Context, _ event.UpdateEvent, q queue) { add(q) },
		DeleteFunc:  func(_ context.Context, _ event.DeleteEvent, q queue) { add(q) },
		GenericFunc: func(_ context.Context, _ event.GenericEvent, q queue) { add(q) },
	}
}

// unless ignores updates that change nothing of interest.
func unless[T client.Object](same func(before, after T) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(T)
		after, alsoOK := e.ObjectNew.(T)
		return !ok || !alsoOK || !same(before, after)
	}}
}

// sameNode reports whether two transformed Nodes are the same.
func sameNode(before, after *corev1.Node) bool {
	b := *before // the cached object itself must not be changed
	b.ResourceVersion = after.ResourceVersion
	return reflect.DeepEqual(&b, after)
}

// sameNamespace reports whether a Namespace neither came nor went, which is all that
// matters to the reconcilers.
func sameNamespace(before, after *corev1.Namespace) bool {
	return before.UID == after.UID && before.DeletionTimestamp.IsZero() == after.DeletionTimestamp.IsZero()
}

// sameIdentity reports whether nothing changed for the reconciler of NetNamespaces,
// which reads netids and annotations.
func sameIdentity(before, after *v1.NetNamespace) bool {
	return before.UID == after.UID && before.NetName == after.NetName && reflect.DeepEqual(before.NetID, after.NetID) &&
		before.DeletionTimestamp.IsZero() == after.DeletionTimestamp.IsZero() &&
		reflect.DeepEqual(before.Annotations, after.Annotations)
}

// sameRequests reports whether nothing changed for the egress reconciler, which
// writes the status itself.
func sameRequests(before, after *v1.NetNamespace) bool {
	return before.UID == after.UID && before.Generation == after.Generation &&
		before.Annotations[v1.AnnotationMode] == after.Annotations[v1.AnnotationMode] &&
		before.Annotations[v1.AnnotationFailBack] == after.Annotations[v1.AnnotationFailBack] &&
		before.Annotations[v1.AnnotationOtherFamily] == after.Annotations[v1.AnnotationOtherFamily] &&
		before.Annotations[v1.AnnotationExcludeCIDRs] == after.Annotations[v1.AnnotationExcludeCIDRs] &&
		before.Annotations[v1.AnnotationIncludeCIDRs] == after.Annotations[v1.AnnotationIncludeCIDRs] &&
		before.Annotations[v1.AnnotationGateways] == after.Annotations[v1.AnnotationGateways]
}

// sameClaims reports whether nothing changed for the egress reconciler. In the status
// it reads the uplink's network, whether the agent is ready, its worst warning, what it
// reports about other hosts, and about the addresses, which others may wait for, and where
// it sees pods; the witnesses, which it writes itself, and repairs; and what cannot be an
// egress IP.
func sameClaims(before, after *v1.HostSubnet) bool {
	return before.UID == after.UID && before.Generation == after.Generation &&
		sameUplink(before, after) && assigns(before) == assigns(after) && sameVotes(before, after) && sameWitnesses(before, after) && sameReports(before, after) && samePods(before, after) && sameRefused(before, after) &&
		sameTruth(before, after, v1.ConditionAgentReady) && sameTruth(before, after, v1.ConditionAddressInUse) &&
		reasonOf(before, v1.ConditionWarnings) == reasonOf(after, v1.ConditionWarnings)
}

// samePods reports whether the host's agent says the same about its pods: about their networks,
// and about those whose egress IPs two objects say.
func samePods(before, after *v1.HostSubnet) bool {
	b, a := agentStatus(before), agentStatus(after)
	return slices.Equal(b.PodNetworks, a.PodNetworks) && b.PodNetworksMissing == a.PodNetworksMissing && slices.Equal(b.Overlaps, a.Overlaps)
}

// sameRefused reports whether the same networks and addresses are published that no egress IP
// can be in. The decision before those of the controller itself were written did not have them.
func sameRefused(before, after *v1.HostSubnet) bool {
	return slices.Equal(before.Status.FoundNetworks, after.Status.FoundNetworks) &&
		slices.Equal(agentStatus(before).Addresses, agentStatus(after).Addresses)
}

// reasonOf returns the reason of a condition; empty where there is none.
func reasonOf(h *v1.HostSubnet, condition string) string {
	if c := meta.FindStatusCondition(h.Status.Conditions, condition); c != nil {
		return c.Reason
	}
	return ""
}

// sameTruth reports whether a condition is True in both or in neither.
func sameTruth(before, after *v1.HostSubnet, condition string) bool {
	return meta.IsStatusConditionTrue(before.Status.Conditions, condition) == meta.IsStatusConditionTrue(after.Status.Conditions, condition)
}

// sameVotes reports whether the agent reports the same about other hosts, and whether
// it has reported at all.
func sameVotes(before, after *v1.HostSubnet) bool {
	was, is := before.Status.Agent, after.Status.Agent
	if was == nil || is == nil {
		return was == is
	}
	return slices.Equal(was.Silent, is.Silent)
}

// sameReports reports whether the agent reports the same about the host's addresses.
// What it says of their use follows from the objects that the reconciler reads itself.
func sameReports(before, after *v1.HostSubnet) bool {
	return slices.EqualFunc(before.Status.EgressIPs, after.Status.EgressIPs, func(a, b v1.ClaimStatus) bool {
		return a.IP == b.IP && a.Configured == b.Configured && (a.Configured || a.Reason == b.Reason && a.Message == b.Message)
	})
}

// configured are the addresses that the host's agent reports as configured.
func configured(h *v1.HostSubnet) []string {
	var ips []string
	for _, claim := range h.Status.EgressIPs {
		if claim.Configured {
			ips = append(ips, claim.IP)
		}
	}
	return ips
}

// sameUplink reports whether the host's agent says the same about where egress IPs can be.
func sameUplink(before, after *v1.HostSubnet) bool {
	b, a := agentStatus(before), agentStatus(after)
	return b.UplinkCIDR == a.UplinkCIDR && slices.Equal(b.UplinkNetworks, a.UplinkNetworks) && slices.Equal(b.OtherNetworks, a.OtherNetworks) && slices.Equal(b.Families, a.Families)
}

// agentStatus returns what the host's agent says about itself; empty if it has not.
func agentStatus(h *v1.HostSubnet) v1.AgentStatus {
	if h.Status.Agent == nil {
		return v1.AgentStatus{}
	}
	return *h.Status.Agent
}

// sameFields reports whether nothing changed for the reconciler of HostSubnets.
func sameFields(before, after *v1.HostSubnet) bool {
	return before.UID == after.UID && before.Generation == after.Generation &&
		before.DeletionTimestamp.IsZero() == after.DeletionTimestamp.IsZero() &&
		before.Annotations[v1.AnnotationNodeUID] == after.Annotations[v1.AnnotationNodeUID] &&
		before.Annotations[v1.AnnotationBoundUID] == after.Annotations[v1.AnnotationBoundUID] &&
		meta.IsStatusConditionTrue(before.Status.Conditions, v1.ConditionNodeGone) ==
			meta.IsStatusConditionTrue(after.Status.Conditions, v1.ConditionNodeGone)
}
