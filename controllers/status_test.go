package controllers

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestMessagesAreClipped: no status is longer than the API server accepts, and what is
// cut is said so.
//
// Mutant: message-unclipped.
func TestMessagesAreClipped(t *testing.T) {
	h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	var problems []egress.Problem
	for i := range 256 {
		problems = append(problems, egress.Problem{
			Kind: "HostSubnet", Name: "node1", Field: "egressCIDRs", Reason: egress.ReasonOutsideNetwork,
			Message: fmt.Sprintf("%d: %s", i, strings.Repeat("ä", 100)),
		})
	}
	for _, c := range hostStatus(view{}, h, egress.HostResult{Ready: true}, nil, problems).Conditions {
		if len(c.Message) > maxConditionMessage || !utf8.ValidString(c.Message) {
			t.Errorf("condition %s has a message of %d bytes, valid: %v", c.Type, len(c.Message), utf8.ValidString(c.Message))
		}
		if c.Type == v1.ConditionEgressReady && !strings.HasSuffix(c.Message, " bytes more)") {
			t.Errorf("the message ends in %q", c.Message[len(c.Message)-30:])
		}
	}
	result := egress.GroupResult{Message: strings.Repeat("x", 1<<20), Requests: make([]egress.RequestResult, maxRequests+1)}
	for i := range result.Requests {
		result.Requests[i] = egress.RequestResult{IP: fmt.Sprint(i), Message: strings.Repeat("x", 1<<20)}
	}
	status := namespaceStatus(&v1.NetNamespace{}, result, nil)
	if len(status.EgressIPs) != maxRequests {
		t.Errorf("%d requests, want %d", len(status.EgressIPs), maxRequests)
	}
	size := len(status.Conditions[0].Message)
	for _, request := range status.EgressIPs {
		size += len(request.Message)
	}
	if size > 512<<10 {
		t.Errorf("%d bytes of messages", size)
	}
	if short := "short"; clip(short, maxRequestMessage) != short {
		t.Error("a short message is cut")
	}
}

// TestOnlyOurPartCounts: what agents and others write into a status makes it no
// different from what the controller wants.
func TestOnlyOurPartCounts(t *testing.T) {
	ours := metav1.Condition{Type: v1.ConditionOnline, Status: metav1.ConditionTrue, Reason: "Test"}
	theirs := metav1.Condition{Type: "Theirs", Status: metav1.ConditionTrue, Reason: "Test"}
	wantedHost := v1.HostSubnetStatus{Conditions: []metav1.Condition{ours}}
	host := v1.HostSubnetStatus{
		ObservedGeneration: 7, Agent: &v1.AgentStatus{Version: "1"}, EgressIPs: []v1.ClaimStatus{{IP: "192.168.7.200"}},
		Conditions: []metav1.Condition{theirs, ours, {Type: v1.ConditionAgentReady}},
	}
	if !sameHostStatus(host, wantedHost) {
		t.Error("the parts of others count in a HostSubnet")
	}
	host.Conditions[1].Message = "changed"
	if sameHostStatus(host, wantedHost) {
		t.Error("a change of ours does not count in a HostSubnet")
	}
	ready := metav1.Condition{Type: v1.ConditionEgressReady, Status: metav1.ConditionTrue, Reason: "Test"}
	wanted := v1.NetNamespaceStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{ready}}
	if !sameNamespaceStatus(v1.NetNamespaceStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{theirs, ready}}, wanted) {
		t.Error("the condition of another counts in a NetNamespace")
	}
	nothing := v1.NetNamespaceStatus{ObservedGeneration: 1}
	if sameNamespaceStatus(v1.NetNamespaceStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{ready}}, nothing) {
		t.Error("EgressReady may stay where nothing is requested any more")
	}
	if !sameNamespaceStatus(v1.NetNamespaceStatus{}, nothing) {
		t.Error("a namespace that never requested anything needs a status")
	}
}

// TestBadNewsIsUrgent: that a namespace's traffic is lost is published before what is
// good, or changes little.
//
// Mutant: loss-can-wait.
func TestBadNewsIsUrgent(t *testing.T) {
	status := func(active bool, ready metav1.ConditionStatus) v1.NetNamespaceStatus {
		s := v1.NetNamespaceStatus{
			EgressIPs:  []v1.RequestStatus{{IP: "192.168.7.200"}},
			Conditions: []metav1.Condition{{Type: v1.ConditionEgressReady, Status: ready}},
		}
		if active {
			s.Active = &v1.Assignment{IP: "192.168.7.200", Host: "node1"}
		}
		return s
	}
	serves, unknown := status(true, metav1.ConditionTrue), status(true, metav1.ConditionUnknown)
	lost, dropped := status(true, metav1.ConditionFalse), status(false, metav1.ConditionFalse)
	for _, tc := range []struct {
		name          string
		before, after v1.NetNamespaceStatus
		want          int
	}{
		{"dropped", serves, dropped, priorityDropped},
		{"its host lost the address", serves, lost, priorityDropped},
		{"its host never had the address", unknown, lost, priorityDropped},
		{"lost, and now dropped", lost, dropped, priorityDropped},
		{"lost as before", lost, lost, priorityRest},
		{"leaves again", dropped, serves, priorityTraffic},
		{"its host is doubtful", serves, unknown, priorityRest},
	} {
		if got := namespacePriority(tc.before, tc.after); got != tc.want {
			t.Errorf("%s: priority %d, want %d", tc.name, got, tc.want)
		}
	}
}
