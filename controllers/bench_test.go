package controllers

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// BenchmarkSettledPass is a pass over a great cluster in which nothing has to be
// written: what each change costs beside its own writes.
func BenchmarkSettledPass(b *testing.B) {
	const nodes, namespaces, requesting = 5000, 10000, 2000
	s := newStore()
	for i := range nodes {
		name := fmt.Sprintf("node%d", i)
		s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: "1"}}
		setReady(s.nodes[name], true)
		s.hosts[name] = &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: "1"},
			Host:       name, HostIP: fmt.Sprintf("10.1.%d.%d", i/250, i%250+1),
		}
		objects.AgentReports(s.hosts[name])
		if i%10 == 0 {
			s.hosts[name].EgressCIDRs = []string{"10.2.0.0/16"}
		}
	}
	for i := range namespaces {
		name := fmt.Sprintf("team%d", i)
		s.namespaces[name] = &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: "1"}, NetName: name, NetID: new(uint32(10 + i)),
		}
		if i < requesting {
			s.namespaces[name].EgressIPs = []string{fmt.Sprintf("10.2.%d.%d", i/250, i%250+1)}
		}
	}
	s.forgetful = true
	s.stamp(&v1.HostSubnet{}, false)
	cache := &lagging{store: s}
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	for before := -1; before != s.version; {
		before = s.version
		if _, err := passAndPublish(job); err != nil {
			b.Fatal(err)
		}
		s.forgetful = false
		s.stamp(&v1.HostSubnet{}, false)
		s.past, s.forgetful = s.past[len(s.past)-1:], true
		s.version--
	}
	b.ResetTimer()
	for b.Loop() {
		if _, err := job.Reconcile(context.Background(), reconcile.Request{}); err != nil {
			b.Fatal(err)
		}
	}
}
