package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
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
		return probeStates{"node1": online.ProbeSilent}
	}, 0)

	v, err := o.observe(t.Context())
	if err != nil || readings != 1 {
		t.Fatalf("%d readings, want 1; error %v", readings, err)
	}
	if got := v.verdicts["node1"]; !got.Online || !got.Closed {
		t.Errorf("silent to this controller alone: %+v, want online and closed", got)
	}
	v, err = o.observeWith(t.Context(), probeStates{"node1": online.ProbeNoAgent})
	if err != nil || readings != 1 {
		t.Fatalf("%d readings, want no more; error %v", readings, err)
	}
	if got := v.verdicts["node1"]; got.Reason != online.ReasonNoAgent || v.probed["node1"] != online.ProbeNoAgent {
		t.Errorf("verdict %+v, results %v: not those that were given", got, v.probed)
	}
}
