package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"pgregory.net/rapid"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// TestNamespaceNotices: one event for each change, on each object concerned, and
// none where nothing changed.
func TestNamespaceNotices(t *testing.T) {
	request := func(ip, host string, state v1.EgressIPState, reason string) v1.RequestStatus {
		return v1.RequestStatus{IP: ip, Host: host, State: state, Reason: reason, Message: reason + " " + ip}
	}
	status := func(active int, requests ...v1.RequestStatus) v1.NetNamespaceStatus {
		s := v1.NetNamespaceStatus{EgressIPs: requests}
		if active >= 0 {
			s.Active = &v1.Assignment{IP: requests[active].IP, Host: requests[active].Host}
		}
		return s
	}
	none := v1.NetNamespaceStatus{}
	unclaimed := status(-1, request("a", "", v1.StateUnassigned, "NotClaimed"))
	onOne := status(0, request("a", "one", v1.StateActive, "Assigned"))
	onTwo := status(0, request("a", "two", v1.StateActive, "Assigned"))
	offline := status(-1, request("a", "one", v1.StateHostOffline, "HostOffline"))
	conflict := status(-1, request("a", "", v1.StateConflict, "MultipleHosts"))
	invalid := status(-1, request("a", "one", v1.StateInvalid, "OutsideNetwork"))
	noRoom := status(-1, request("a", "", v1.StateUnassigned, "NoEligibleHost"))
	first := status(0, request("a", "one", v1.StateActive, "Assigned"), request("b", "two", v1.StateStandby, "Assigned"))
	second := status(1, request("a", "one", v1.StateHostOffline, "HostOffline"), request("b", "two", v1.StateActive, "Assigned"))

	for _, tc := range []struct {
		name          string
		before, after v1.NetNamespaceStatus
		// want are reasons, with the host that is told; "" for the namespace.
		want []string
	}{
		{"nothing", onOne, onOne, nil},
		{"first request", none, unclaimed, []string{"NamespaceDropped@"}},
		{"claimed", unclaimed, onOne, []string{"EgressIPAssigned@", "EgressIPAssigned@one", "NamespaceRestored@"}},
		{"requested and claimed at once", none, onOne, []string{"EgressIPAssigned@", "EgressIPAssigned@one"}},
		{"moved", onOne, onTwo, []string{"EgressIPMoved@", "EgressIPMoved@two", "EgressIPMoved@one"}},
		{"host goes offline", onOne, offline, []string{"EgressIPOutOfUse@", "NamespaceDropped@"}},
		{"host comes back", offline, onOne, []string{"EgressIPInUse@", "NamespaceRestored@"}},
		{"moved away from an offline host", offline, onTwo, []string{"EgressIPMoved@", "EgressIPMoved@two", "EgressIPMoved@one", "NamespaceRestored@"}},
		{"claimed twice", onOne, conflict, []string{"EgressIPConflict@", "EgressIPOutOfUse@", "NamespaceDropped@"}},
		{"still claimed twice", conflict, conflict, nil},
		{"conflict ends", conflict, onOne, []string{"EgressIPAssigned@", "EgressIPAssigned@one", "NamespaceRestored@"}},
		{"becomes invalid", onOne, invalid, []string{"EgressIPInvalid@", "EgressIPOutOfUse@", "NamespaceDropped@"}},
		{"conflict becomes invalid", conflict, invalid, []string{"EgressIPInvalid@"}},
		{"claim withdrawn", onOne, unclaimed, []string{"EgressIPUnassigned@", "EgressIPUnassigned@one", "NamespaceDropped@"}},
		{"no room", onOne, noRoom, []string{"EgressIPUnassigned@", "EgressIPUnassigned@one", "NoEligibleHost@", "NamespaceDropped@"}},
		{"no room from the start", unclaimed, noRoom, []string{"NoEligibleHost@"}},
		{"request withdrawn", onOne, none, []string{"EgressIPUnassigned@", "EgressIPUnassigned@one"}},
		{"request withdrawn while dropped", unclaimed, none, []string{"NamespaceRestored@"}},
		{"the second takes over", first, second, []string{"EgressIPOutOfUse@", "EgressIPInUse@", "EgressIPMoved@"}},
		{"the first is back", second, first, []string{"EgressIPInUse@", "EgressIPOutOfUse@", "EgressIPMoved@"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, n := range namespaceNotices("shop", tc.before, tc.after) {
				got = append(got, fmt.Sprintf("%s@%s", n.reason, n.host))
				if n.message == "" {
					t.Errorf("%s says nothing", n.reason)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEachChangeOfUseHasOneEvent: on the object itself, whatever its status was and is.
//
// Mutant: use-ends-without-event.
func TestEachChangeOfUseHasOneEvent(t *testing.T) {
	t.Parallel()
	status := rapid.Custom(func(t *rapid.T) (s v1.NetNamespaceStatus) {
		for _, ip := range []string{"10.0.0.1", "10.0.0.2", "2001:db8::1"} {
			state := rapid.SampledFrom([]v1.EgressIPState{"", v1.StateActive, v1.StateActive, v1.StateStandby, v1.StateUnassigned, v1.StateHostOffline, v1.StateConflict, v1.StateInvalid}).Draw(t, "state")
			if state == "" {
				continue
			}
			r := v1.RequestStatus{IP: ip, State: state, Reason: "Reason", Message: "Because of something else."}
			if state != v1.StateUnassigned {
				r.Host = rapid.SampledFrom([]string{"one", "two"}).Draw(t, "host")
			}
			s.EgressIPs = append(s.EgressIPs, r)
		}
		return asNamespace(ovnv1.EgressIPStatus{EgressIPs: s.EgressIPs})
	})
	rapid.Check(t, func(t *rapid.T) {
		before, after := status.Draw(t, "before"), status.Draw(t, "after")
		notices := namespaceNotices("shop", before, after)
		for _, a := range activities(before, after) {
			reasons := []string{eventAssigned, eventMoved, eventInUse}
			if a.to == "" {
				reasons = []string{eventUnassigned, eventOutOfUse}
			}
			var found []notice
			for _, n := range notices {
				about := strings.HasPrefix(n.message, a.egressIP+" ") || strings.Contains(n.message, " "+a.egressIP+":")
				if n.host == "" && about && slices.Contains(reasons, n.reason) {
					found = append(found, n)
				}
			}
			if len(found) != 1 {
				t.Fatalf("%+v has events %+v", a, found)
			}
		}
		for _, n := range notices {
			if n.reason == eventInUse || n.reason == eventOutOfUse {
				ip, _, _ := strings.Cut(n.message, " ")
				if !slices.ContainsFunc(activities(before, after), func(a activity) bool { return a.egressIP == ip }) {
					t.Fatalf("%+v, and nothing changed", n)
				}
			}
		}
	})
}

// TestHostNotices: a HostSubnet is told what is wrong with its fields when that
// begins or changes, and not again.
func TestHostNotices(t *testing.T) {
	ready := func(status metav1.ConditionStatus, reason, message string) []metav1.Condition {
		return []metav1.Condition{{Type: v1.ConditionEgressReady, Status: status, Reason: reason, Message: message}}
	}
	online := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1.ConditionOnline, Status: status, Reason: reason}}
	}
	evacuating := []metav1.Condition{{Type: v1.ConditionEvacuating, Status: metav1.ConditionTrue}}
	fine := ready(metav1.ConditionTrue, "Assigned", "1")
	conflict := ready(metav1.ConditionFalse, "MultipleHosts", "a")
	outside := ready(metav1.ConditionFalse, "OutsideNetwork", "a")
	for _, tc := range []struct {
		name          string
		before, after []metav1.Condition
		want          string
	}{
		{"new and fine", nil, fine, ""},
		{"new and wrong", nil, conflict, eventConflict},
		{"goes wrong", fine, outside, eventInvalid},
		{"stays wrong", outside, outside, ""},
		{"wrong otherwise", outside, conflict, eventConflict},
		{"the next conflict", conflict, ready(metav1.ConditionFalse, "MultipleHosts", "b"), eventConflict},
		{"is fine again", conflict, fine, ""},
		{"has a pod nobody knows where", fine, ready(metav1.ConditionFalse, "PodNetworksMissing", "a"), "PodNetworksMissing"},
		{"goes offline", online(metav1.ConditionTrue, "NodeReady"), online(metav1.ConditionFalse, "Silent"), eventHostOffline},
		{"stays offline", online(metav1.ConditionFalse, "Silent"), online(metav1.ConditionFalse, "NodeUnreachable"), ""},
		{"comes back", online(metav1.ConditionFalse, "Silent"), online(metav1.ConditionTrue, "NodeReady"), eventHostOnline},
		{"loses its agent", online(metav1.ConditionTrue, "NodeReady"), online(metav1.ConditionTrue, "NoAgent"), "NoAgent"},
		{"is new and online", nil, online(metav1.ConditionTrue, "NodeReady"), ""},
		{"begins to be evacuated", nil, evacuating, eventEvacuating},
		{"is evacuated no more", evacuating, nil, eventEvacuating},
		{"is being evacuated", evacuating, evacuating, ""},
		{"its claims rest while it is offline", fine, ready(metav1.ConditionFalse, "HostOffline", "a"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			for _, n := range hostNotices("node1", tc.before, tc.after) {
				got += n.reason
			}
			if got != tc.want {
				t.Errorf("events %q, want %q", got, tc.want)
			}
		})
	}
}

// TestWarningsAreReportedOnce: one event when the worst warning of a host is of another
// kind, none while it stays.
//
// Mutant killed: warned-again-and-again.
func TestWarningsAreReportedOnce(t *testing.T) {
	events := record.NewFakeRecorder(10)
	r := &egressReconciler{deps: deps{recorder: events}}
	says := func(status metav1.ConditionStatus, reason, message string) (got string) {
		host := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
		host.Status.Conditions = []metav1.Condition{{Type: v1.ConditionWarnings, Status: status, Reason: reason, Message: message}}
		r.reportWarnings(view{hosts: []*v1.HostSubnet{host}})
		select {
		case got = <-events.Events:
		default:
		}
		return got
	}
	for _, c := range []struct{ reason, message, want string }{
		{"NoWarnings", "Nothing.", ""},
		{"MTUDiffers", "MTUDiffers: less", "Warning MTUDiffers MTUDiffers: less"},
		{"MTUDiffers", "MTUDiffers: even less", ""},
		{"ForwardingOff", "ForwardingOff: off\nMTUDiffers: less", "Warning ForwardingOff ForwardingOff: off"},
		{"NoWarnings", "Nothing.", ""},
		{"ForwardingOff", "ForwardingOff: " + strings.Repeat("x", 2000), "Warning ForwardingOff ForwardingOff: " + strings.Repeat("x", maxEvent-15)},
	} {
		status := metav1.ConditionTrue
		if c.reason == "NoWarnings" {
			status = metav1.ConditionFalse
		}
		if got := says(status, c.reason, c.message); got != c.want {
			t.Errorf("%s: event %q", c.message, got)
		}
	}
}
