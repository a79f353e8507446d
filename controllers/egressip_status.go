package controllers

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// egressIPStatus is all that the controller writes into an EgressIP's status but for the netid,
// which another of its writers owns.
func egressIPStatus(e *ovnv1.EgressIP, result egress.GroupResult, problems []egress.Problem) ovnv1.EgressIPStatus {
	status := ovnv1.EgressIPStatus{ObservedGeneration: e.Generation, Items: []ovnv1.EgressIPStatusItem{}, EgressIPs: requestStatuses(result), Selectors: egress.SelectorsInUse(e)}
	for _, request := range status.EgressIPs {
		// What a host has that is offline is no help to anyone who looks here for where traffic
		// leaves.
		if request.State == v1.StateActive || request.State == v1.StateStandby {
			status.Items = append(status.Items, ovnv1.EgressIPStatusItem{EgressIP: request.IP, Node: request.Host})
		}
	}
	status.Conditions = publishable([]metav1.Condition{readyCondition(result, problems)}, e.Generation)
	return status
}

// sameEgressIPStatus reports whether an EgressIP's status is stored like that, but for conditions
// of others and the netid.
func sameEgressIPStatus(stored, wanted ovnv1.EgressIPStatus) bool {
	if !sameConditions(stored.Conditions, wanted.Conditions) {
		return false
	}
	stored.Conditions, wanted.Conditions = nil, nil
	stored.NetID, wanted.NetID = nil, nil
	return equality.Semantic.DeepEqual(stored, wanted)
}

// asNamespace is a status as a NetNamespace would have it, for events and priorities.
func asNamespace(s ovnv1.EgressIPStatus) v1.NetNamespaceStatus {
	n := v1.NetNamespaceStatus{ObservedGeneration: s.ObservedGeneration, EgressIPs: s.EgressIPs, Conditions: s.Conditions}
	for _, request := range s.EgressIPs {
		if request.State != v1.StateActive {
			continue
		}
		n.ActiveIPs = append(n.ActiveIPs, v1.Assignment{IP: request.IP, Host: request.Host, Family: egress.RequestFamily(request.IP).String()})
	}
	slices.SortStableFunc(n.ActiveIPs, func(a, b v1.Assignment) int {
		return int(egress.RequestFamily(a.IP)) - int(egress.RequestFamily(b.IP))
	})
	if len(n.ActiveIPs) > 0 {
		n.Active = &n.ActiveIPs[0]
	}
	return n
}
