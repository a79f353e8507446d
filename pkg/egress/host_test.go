package egress_test

import (
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func TestHosts(t *testing.T) {
	for name, test := range map[string]struct {
		given  *given
		host   string
		ready  bool
		reason egress.Reason
		// states of the claims in order of address.
		states []egress.State
	}{
		"a host that claims nothing is in order": {
			given: new(given).host("w0"), host: "w0", ready: true, reason: egress.ReasonNotClaimed,
		},
		"so is one whose claims nobody requests": {
			given: new(given).host("w0", "192.168.7.200"), host: "w0", ready: true, reason: egress.ReasonNotRequested,
			states: []egress.State{egress.Unassigned},
		},
		"active and standby are in order": {
			given: new(given).namespace("red", "192.168.7.201", "192.168.7.200").namespace("blue", "192.168.7.202").
				host("w0", "192.168.7.200", "192.168.7.202").host("w1", "192.168.7.201"),
			host: "w0", ready: true, reason: egress.ReasonAssigned,
			states: []egress.State{egress.Standby, egress.Active},
		},
		"a sound claim of a namespace that is dropped stays where it is": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201").namespace("blue", "192.168.7.201").host("w0", "192.168.7.200"),
			host:  "w0", ready: true, reason: egress.ReasonAssigned,
			states: []egress.State{egress.Standby},
		},
		"an offline host keeps its claims and says so": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").offline("w0"),
			host:  "w0", reason: egress.ReasonHostOffline, states: []egress.State{egress.HostOffline},
		},
		"one conflict among sound claims is told": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue", "192.168.7.201").
				host("w0", "192.168.7.200", "192.168.7.201").host("w1", "192.168.7.201"),
			host: "w0", reason: egress.ReasonMultipleHosts, states: []egress.State{egress.Active, egress.Conflict},
		},
		"a conflict is told before anybody requests the address": {
			given: new(given).host("w0", "192.168.7.200").host("w1", "192.168.7.200"),
			host:  "w1", reason: egress.ReasonMultipleHosts, states: []egress.State{egress.Conflict},
		},
		"its own address is no claim": {
			given: new(given).host("w0", "192.168.7.10"), host: "w0", reason: egress.ReasonHostAddress,
			states: []egress.State{egress.Invalid},
		},
		"a claim that is no address is told": {
			given: new(given).host("w0", "abcd"), host: "w0", reason: egress.ReasonBadAddress,
		},
		"of more claims than capacity the first in the list work": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue", "192.168.7.201").
				host("w0", "192.168.7.201/24", "192.168.7.201", "192.168.7.200").capacity("w0", 1),
			host: "w0", reason: egress.ReasonCapacity, states: []egress.State{egress.Unassigned, egress.Active},
		},
		"without capacity no claim works": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").capacity("w0", -1),
			host:  "w0", reason: egress.ReasonCapacity, states: []egress.State{egress.Unassigned},
		},
		"a claim beyond capacity does no harm to another of its namespace": {
			given: new(given).namespace("red", "192.168.7.201", "192.168.7.200").
				host("w0", "192.168.7.200", "192.168.7.201").capacity("w0", 1),
			host: "w0", reason: egress.ReasonCapacity, states: []egress.State{egress.Active, egress.Unassigned},
		},
		"an agent that never reported": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").unreported("w0"),
			host:  "w0", reason: egress.ReasonAgentUnknown, states: []egress.State{egress.HostOffline},
		},
		"an agent that could not put an address on": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").reports("w0", "192.168.7.200", egress.ReasonNotConfigured),
			host:  "w0", reason: egress.ReasonNotConfigured, states: []egress.State{egress.Active},
		},
		"an address that another machine has": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").reports("w0", "192.168.7.200", egress.ReasonAddressInUse),
			host:  "w0", reason: egress.ReasonAddressInUse, states: []egress.State{egress.Active},
		},
		"a claim that nobody requests need not be on": {
			given: new(given).host("w0", "192.168.7.200").reports("w0", "192.168.7.200", egress.ReasonNotConfigured),
			host:  "w0", ready: true, reason: egress.ReasonNotRequested, states: []egress.State{egress.Unassigned},
		},
		"without a hostIP nothing counts": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").hostIP("w0", ""),
			host:  "w0", reason: egress.ReasonBadHost, states: []egress.State{egress.Invalid},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			for _, h := range egress.Resolve(cluster).Hosts {
				if h.Name != test.host {
					continue
				}
				var states []egress.State
				for _, claim := range h.Claims {
					states = append(states, claim.State)
				}
				if d := diff(test.states, states); d != "" {
					t.Errorf("claims (-want +got):\n%s", d)
				}
				if h.Ready != test.ready || h.Reason != test.reason {
					t.Errorf("ready: %t, %s: %s", h.Ready, h.Reason, h.Message)
				}
			}
		})
	}
}

// The brain's words for states are those of the API.
func TestStatesAreThoseOfTheAPI(t *testing.T) {
	for ours, theirs := range map[egress.State]v1.EgressIPState{
		egress.Active: v1.StateActive, egress.Standby: v1.StateStandby, egress.Unassigned: v1.StateUnassigned,
		egress.HostOffline: v1.StateHostOffline, egress.Conflict: v1.StateConflict, egress.Invalid: v1.StateInvalid,
	} {
		if string(ours) != string(theirs) {
			t.Errorf("%s is %s in the API", ours, theirs)
		}
	}
	if egress.MaxNetID != v1.MaxNetID {
		t.Errorf("netids end at %d, in the API at %d", egress.MaxNetID, v1.MaxNetID)
	}
}
