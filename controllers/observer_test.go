package controllers

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestViewDependsOnOneReadingOfProbes: the results of probes may change at any moment,
// and a decision must not depend on two of them.
func TestViewDependsOnOneReadingOfProbes(t *testing.T) {
	s := newStore()
	s.nodes["node1"] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "node1"}}
	setReady(s.nodes["node1"], true)
	s.hosts["node1"] = &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "node1"}, Host: "node1", HostIP: "192.168.7.11"}
	s.stamp(s.hosts["node1"], true)
	cache := &lagging{store: s, namespaces: len(s.past) - 1, hosts: len(s.past) - 1, node: len(s.past) - 1}
	readings := 0
	o := newObserver(cache, testclock.NewFakeClock(time.Unix(1e9, 0)), func() probeStates {
		readings++
		return probeStates{"node1": {State: online.ProbeSilent}}
	}, 0)

	v, err := o.observe(t.Context())
	if err != nil || readings != 1 {
		t.Fatalf("%d readings, want 1; error %v", readings, err)
	}
	if got := v.verdicts["node1"]; !got.Online || !got.Closed {
		t.Errorf("silent to this controller alone: %+v, want online and closed", got)
	}
	v, err = o.observeWith(t.Context(), probeStates{"node1": {State: online.ProbeNoAgent}})
	if err != nil || readings != 1 {
		t.Fatalf("%d readings, want no more; error %v", readings, err)
	}
	if got := v.verdicts["node1"]; got.Reason != online.ReasonNoAgent || v.probed["node1"] != online.ProbeNoAgent {
		t.Errorf("verdict %+v, results %v: not those that were given", got, v.probed)
	}
}

// TestControllerThatHearsNobody: of three hosts, that of the controller loses the network
// but for the API server. Its agent reports the other two as silent, which is no second
// opinion: nothing moves, and the condition says what the controller does not know.
// Neither does anything move while they come back one after the other. A single host
// that dies is found at once.
//
// Mutant killed: own-agent-is-a-second-opinion.
func TestControllerThatHearsNobody(t *testing.T) {
	s := newStore()
	for i, name := range []string{"node1", "node2", "node3"} {
		s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		setReady(s.nodes[name], true)
		h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Host: name, HostIP: fmt.Sprintf("192.168.7.%d", 11+i)}
		objects.AgentReports(h)
		for _, other := range []string{"node1", "node2", "node3"} {
			if other != name {
				h.Status.Witnesses = append(h.Status.Witnesses, other)
			}
		}
		if name == "node1" {
			h.Status.Agent.Silent = []string{"node2", "node3"}
		}
		s.hosts[name] = h
		s.stamp(h, true)
	}
	cache := &lagging{store: s, namespaces: len(s.past) - 1, hosts: len(s.past) - 1, node: len(s.past) - 1}
	o := newObserver(cache, testclock.NewFakeClock(time.Unix(1e9, 0)), noProbes, 0)
	o.self = netip.MustParseAddr("192.168.7.11")
	for _, moment := range []probeStates{
		{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeCutOff}, "node3": {State: online.ProbeCutOff}},
		{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeSilent}, "node3": {State: online.ProbeSilent}},
		{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeReturning}, "node3": {State: online.ProbeSilent}},
		{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeHeldDown}, "node3": {State: online.ProbeReturning}},
		{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeAnswers}, "node3": {State: online.ProbeReturning}},
		{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeAnswers}, "node3": {State: online.ProbeAnswers}},
	} {
		v, err := o.observeWith(t.Context(), moment)
		if err != nil {
			t.Fatal(err)
		}
		for name, verdict := range v.verdicts {
			unseen := v.probed[name] == online.ProbeAlone
			if !verdict.Online || verdict.Unseen != unseen || (onlineStatus(verdict) == metav1.ConditionUnknown) != unseen {
				t.Errorf("probes %v: %s is %+v, want online, and unseen: %t", moment, name, verdict, unseen)
			}
		}
	}
	// node3 is silenced as well, and found a moment later; what it reports does not count meanwhile.
	s.hosts["node3"].Status.Agent.Silent = []string{"node1", "node2"}
	s.stamp(s.hosts["node3"], false)
	cache.hosts = len(s.past) - 1
	v, err := o.observeWith(t.Context(), probeStates{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeSilent}, "node3": {State: online.ProbeAnswers, Missed: true}})
	if err != nil || !v.verdicts["node2"].Online || !v.verdicts["node2"].Unseen || v.probed["node3"] != online.ProbeAnswers {
		t.Errorf("node3 has missed a probe too, and node2 is %+v, node3 %d, error %v", v.verdicts["node2"], v.probed["node3"], err)
	}
	s.hosts["node3"].Status.Agent.Silent = nil
	s.stamp(s.hosts["node3"], false)
	cache.hosts = len(s.past) - 1
	v, err = o.observeWith(t.Context(), probeStates{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeSilent}, "node3": {State: online.ProbeAnswers}})
	if err != nil || !v.verdicts["node2"].Online {
		t.Errorf("node3 hears node2, which is %+v, error %v", v.verdicts["node2"], err)
	}
	s.hosts["node3"].Status.Agent.Silent = []string{"node2"}
	s.stamp(s.hosts["node3"], false)
	cache.hosts = len(s.past) - 1
	v, err = o.observeWith(t.Context(), probeStates{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeSilent}, "node3": {State: online.ProbeAnswers}})
	if err != nil || v.verdicts["node2"].Reason != online.ReasonSilent {
		t.Errorf("node2 is dead and %+v, error %v", v.verdicts["node2"], err)
	}
}
