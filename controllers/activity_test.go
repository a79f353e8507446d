package controllers

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// Each change of what is used is one line of the log, which has all of it; what only waits, or
// changes its message, is none.
func TestUseIsRecorded(t *testing.T) {
	t.Parallel()
	request := func(ip string, state v1.EgressIPState, host, reason string) v1.RequestStatus {
		return v1.RequestStatus{IP: ip, State: state, Host: host, Reason: reason}
	}
	const a, b = "192.168.7.200", "192.168.7.201"
	for name, c := range map[string]struct {
		before, after []v1.RequestStatus
		want          []activity
	}{
		"comes":       {nil, []v1.RequestStatus{request(a, v1.StateActive, "node1", "Assigned")}, []activity{{a, "", "node1", "Assigned"}}},
		"waits":       {nil, []v1.RequestStatus{request(a, v1.StateUnassigned, "", "NotClaimed")}, nil},
		"is the same": {[]v1.RequestStatus{request(a, v1.StateActive, "node1", "NotReported")}, []v1.RequestStatus{request(a, v1.StateActive, "node1", "Assigned")}, nil},
		"moves":       {[]v1.RequestStatus{request(a, v1.StateActive, "node1", "")}, []v1.RequestStatus{request(a, v1.StateActive, "node2", "Assigned")}, []activity{{a, "node1", "node2", "Assigned"}}},
		"is dropped":  {[]v1.RequestStatus{request(a, v1.StateActive, "node1", "")}, []v1.RequestStatus{request(a, v1.StateHostOffline, "node1", "HostOffline")}, []activity{{a, "node1", "", "HostOffline"}}},
		"ends":        {[]v1.RequestStatus{request(a, v1.StateActive, "node1", "")}, nil, []activity{{a, "node1", "", "NotRequested"}}},
		"falls back": {
			[]v1.RequestStatus{request(a, v1.StateActive, "node1", ""), request(b, v1.StateStandby, "node2", "")},
			[]v1.RequestStatus{request(a, v1.StateHostOffline, "node1", "HostOffline"), request(b, v1.StateActive, "node2", "Assigned")},
			[]activity{{a, "node1", "", "HostOffline"}, {b, "", "node2", "Assigned"}},
		},
	} {
		before, after := v1.NetNamespaceStatus{EgressIPs: c.before}, v1.NetNamespaceStatus{EgressIPs: c.after}
		if diff := cmp.Diff(c.want, activities(before, after), cmp.AllowUnexported(activity{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		var lines []string
		for _, a := range activities(before, after) {
			logUse(funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{}), "shop", "some-uid", 4711, a)
		}
		if len(lines) != len(c.want) {
			t.Errorf("%s: %d lines, want %d", name, len(lines), len(c.want))
		}
		for i, line := range lines {
			for _, part := range []string{`"egressIP"="` + c.want[i].egressIP, `"group"="shop"`, `"uid"="some-uid"`, `"netid"=4711`, `"fromHost"="` + c.want[i].from, `"toHost"="` + c.want[i].to, `"reason"="` + c.want[i].reason} {
				if !strings.Contains(line, part) {
					t.Errorf("%s: %s has no %s", name, line, part)
				}
			}
		}
	}
}

// A status that is written is recorded, once: not again when the same is wanted, nor for one that
// is not stored.
func TestStoredUseIsRecorded(t *testing.T) {
	t.Parallel()
	inBubble(t, []string{"shop"}, func(t *testing.T, p published) {
		t.Helper()
		var mu sync.Mutex
		var recorded []string
		p.uses.log = funcr.New(func(_, line string) {
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(line, "use of an egress IP changed") {
				recorded = append(recorded, line)
			}
		}, funcr.Options{})
		used := wantNamespace("shop", "")
		used.namespace.EgressIPs[0].State, used.namespace.EgressIPs[0].Reason = v1.StateActive, "Assigned"
		for range 3 {
			p.publish(p.view(), []wantedStatus{used})
			pass(time.Second)
		}
		if len(recorded) != 1 || !strings.Contains(recorded[0], `"group"="shop" "uid"="shop"`) || !strings.Contains(recorded[0], `"fromHost"="" "toHost"="node1"`) {
			t.Errorf("recorded: %q", recorded)
		}
	})
}
