package egress_test

import (
	"fmt"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// scale are the objects of a settled cluster of automatic hosts. Of 10 namespaces, 8
// request one egress IP, and 2 request two.
func scale(hosts, namespaces int) egress.Objects {
	var o egress.Objects
	ip := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", 2+i/62500, i/250%250, 1+i%250) }
	for h := range hosts {
		host := v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("host-%05d", h), UID: "uid", ResourceVersion: "1"},
			HostIP:     fmt.Sprintf("10.1.%d.%d", h/200, 1+h%200), Subnet: fmt.Sprintf("10.%d.%d.0/24", 100+h/250, h%250),
			EgressCIDRs: []string{"10.2.0.0/15"},
		}
		for w := range 7 {
			host.Status.Witnesses = append(host.Status.Witnesses, fmt.Sprintf("host-%05d", (h+1+w)%hosts))
		}
		host.Status.Placement = &v1.PlacementStatus{Capacity: 512}
		o.HostSubnets = append(o.HostSubnets, host)
	}
	requests := 0
	for n := range namespaces {
		object := objects.NetNamespace(fmt.Sprintf("ns-%05d", n), uint32(100+n)) //nolint:gosec // small
		for range 1 + n%5/4 {
			object.EgressIPs = append(object.EgressIPs, ip(requests))
			o.HostSubnets[requests%hosts].EgressIPs = append(o.HostSubnets[requests%hosts].EgressIPs, ip(requests))
			requests++
		}
		object.UID, object.ResourceVersion = "uid", "1"
		o.NetNamespaces = append(o.NetNamespaces, object)
	}
	for h := range o.HostSubnets {
		objects.AgentReports(&o.HostSubnets[h])
	}
	return o
}

// BenchmarkDecision is what one change costs the controller in a large cluster.
func BenchmarkDecision(b *testing.B) {
	o := scale(1000, 10_000)
	var memo, agent egress.Memo
	changes := 0
	cluster, _ := egress.Snapshot(o)
	if a := egress.Allocate(cluster); len(a.Released)+len(a.Unplaced) > 0 {
		b.Fatalf("the cluster is not settled: %v %v", a.Released[:min(3, len(a.Released))], a.Unplaced)
	}
	for _, part := range []struct {
		name   string
		decide func()
	}{
		{"nothing changed", func() { memo.Decide(o) }},
		{"one host changed", func() {
			changes++
			o.HostSubnets[7].ResourceVersion = fmt.Sprint(changes)
			o.HostSubnets[7].Status.EgressIPs[0].Configured = changes%2 == 0
			memo.Decide(o)
		}},
		{"one request changed", func() {
			changes++
			o.NetNamespaces[7].ResourceVersion = fmt.Sprint(changes)
			o.NetNamespaces[7].EgressIPs[0] = fmt.Sprintf("10.3.255.%d", 1+changes%2)
			memo.Decide(o)
		}},
		{"snapshot", func() { egress.Snapshot(o) }},
		{"resolve", func() { egress.Resolve(cluster) }},
		{"allocate", func() { egress.Allocate(cluster) }},
		{"host", func() { egress.DecideHost(egress.HostInput{Host: "host-00007", Cluster: cluster.ForRouting()}) }},
		{"agent: one request changed", func() {
			changes++
			o.NetNamespaces[7].ResourceVersion = fmt.Sprint(changes)
			o.NetNamespaces[7].EgressIPs[0] = fmt.Sprintf("10.3.255.%d", 1+changes%2)
			cluster, _ := agent.Snapshot(o)
			egress.DecideHost(egress.HostInput{Host: "host-00007", Cluster: cluster.ForRouting(), Memo: &agent})
		}},
		{"claims changed", func() {
			changes++
			o.HostSubnets[7].ResourceVersion = fmt.Sprint(changes)
			o.HostSubnets[7].EgressIPs[0] = fmt.Sprintf("10.3.255.%d", 1+changes%2)
			memo.Decide(o)
		}},
	} {
		b.Run(part.name, func(b *testing.B) {
			before := cpuTime(b)
			for b.Loop() {
				part.decide()
			}
			// On a busy machine the time that passes says little.
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}

// cpuTime is the processor time that the process has used, in nanoseconds.
func cpuTime(tb testing.TB) int64 {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// BenchmarkGroups is what it costs an agent to find the groups of its pods in a cluster with 10,000
// EgressIPs of one namespace each.
func BenchmarkGroups(b *testing.B) {
	var o egress.Objects
	namespaces := make(map[string]labels.Set)
	var pods []egress.Pod
	for i := range 10_000 {
		name := fmt.Sprintf("ns-%05d", i)
		o.EgressIPs = append(o.EgressIPs, ovnv1.EgressIP{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid", ResourceVersion: "1"},
			Spec: ovnv1.EgressIPSpec{
				EgressIPs:         []string{fmt.Sprintf("10.2.%d.%d", i/250, 1+i%250)},
				NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": name}},
			},
		})
		namespaces[name] = labels.Set{"kubernetes.io/metadata.name": name, "team": "a"}
		if i%100 == 0 {
			pods = append(pods, egress.Pod{Namespace: name, Name: "web", Labels: labels.Set{"app": "web"}})
		}
	}
	cluster, _ := egress.Snapshot(o)
	for b.Loop() {
		if known, _ := egress.Grouped(cluster, pods, namespaces); known[0].Group == "" {
			b.Fatal("a pod has no group")
		}
	}
}
