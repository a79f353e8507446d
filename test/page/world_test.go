package page_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// world is what the API has. It is safe for concurrent use.
type world struct {
	mu      sync.Mutex
	now     page.Input
	changed func()
	err     error
}

// Read returns the objects, which nobody changes: change makes others.
func (w *world) Read(context.Context) (page.Input, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now, w.err
}

// change makes other objects out of those that there are.
func (w *world) change(to func(*page.Input)) {
	w.mu.Lock()
	next := page.Input{NamespaceLabels: w.now.NamespaceLabels}
	for i := range w.now.NetNamespaces {
		next.NetNamespaces = append(next.NetNamespaces, *w.now.NetNamespaces[i].DeepCopy())
	}
	for i := range w.now.HostSubnets {
		next.HostSubnets = append(next.HostSubnets, *w.now.HostSubnets[i].DeepCopy())
	}
	for i := range w.now.EgressIPs {
		next.EgressIPs = append(next.EgressIPs, *w.now.EgressIPs[i].DeepCopy())
	}
	to(&next)
	w.now = next
	w.mu.Unlock()
	if w.changed != nil {
		w.changed()
	}
}

// since is when everything became as it is.
func since(minutes int) metav1.Time {
	return metav1.NewTime(time.Now().Add(-time.Duration(minutes) * time.Minute).Truncate(time.Second))
}

// host is one that is online and whose agent has all that it claims.
func host(name, ip string, claims ...string) v1.HostSubnet {
	h := objects.ReportedHostSubnet(name, ip, claims...)
	h.Status.Agent.UplinkCIDR = ip + "/24"
	h.Status.Agent.Version, h.Status.Agent.Kernel, h.Status.Agent.Backend = "v0.2.0", "6.1.0-40-amd64", "nftables"
	condition(&h, v1.ConditionOnline, metav1.ConditionTrue, "Answers", "The host answers probes.", 90)
	condition(&h, v1.ConditionAgentReady, metav1.ConditionTrue, "Ready", "The kernel is as planned.", 90)
	return h
}

func condition(h *v1.HostSubnet, name string, status metav1.ConditionStatus, reason, message string, minutes int) {
	meta.RemoveStatusCondition(&h.Status.Conditions, name)
	h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: name, Status: status, Reason: reason, Message: message, LastTransitionTime: since(minutes)})
}

// settle writes what the controller would write: the conditions of namespaces, as they are decided.
func settle(in *page.Input, minutes int) {
	cluster, _ := egress.Snapshot(in.Objects)
	resolution := egress.Resolve(cluster)
	for i := range in.NetNamespaces {
		n := &in.NetNamespaces[i]
		result, _ := resolution.Group(n.Name)
		was := meta.FindStatusCondition(n.Status.Conditions, v1.ConditionEgressReady)
		if was != nil && string(was.Status) == string(result.Ready) && was.Reason == string(result.Reason) {
			continue
		}
		n.Status.Conditions = []metav1.Condition{{
			Type: v1.ConditionEgressReady, Status: metav1.ConditionStatus(result.Ready), Reason: string(result.Reason), Message: result.Message, LastTransitionTime: since(minutes + i%50),
		}}
	}
}

// story is a small cluster in which something of everything has happened.
func story() page.Input {
	var in page.Input
	in.NetNamespaces = []v1.NetNamespace{
		objects.NetNamespace("billing", 101, "192.168.7.210", "192.168.7.211"),
		objects.NetNamespace("shop", 102, "192.168.7.212"),
		objects.NetNamespace("mail", 103, "192.168.7.213", "192.168.7.214"),
		objects.NetNamespace("payments", 104, "192.168.7.220"),
		objects.NetNamespace("payments-test", 105, "192.168.7.220"),
		objects.NetNamespace("reports", 106, "192.168.7.215"),
		objects.NetNamespace("crawler", 107, "192.168.7.216", "192.168.7.217", "192.168.7.218"),
		objects.NetNamespace("legacy", 108, "192.168.7.219"),
		objects.NetNamespace("partner-api", 109, "192.168.7.221", "192.168.7.222"),
		objects.NetNamespace("monitoring", 110),
		objects.NetNamespace("default", 0),
	}
	in.NetNamespaces[6].Annotations = map[string]string{v1.AnnotationMode: v1.ModeBalanced}
	in.HostSubnets = []v1.HostSubnet{
		host("node1", "192.168.7.11", "192.168.7.210", "192.168.7.213", "192.168.7.216", "192.168.7.220"),
		host("node2", "192.168.7.12", "192.168.7.211", "192.168.7.212", "192.168.7.217"),
		host("node3", "192.168.7.13", "192.168.7.214", "192.168.7.218", "192.168.7.215", "192.168.7.221"),
		host("node4", "192.168.7.14", "192.168.7.219"),
		host("node5", "192.168.7.15"),
	}
	// node4 is gone, node3's agent has not reported one address, node2 warns.
	condition(&in.HostSubnets[3], v1.ConditionOnline, metav1.ConditionFalse, "NodeUnreachable", "The host does not answer probes, and its Node is not Ready.", 4)
	reports := in.HostSubnets[2].Status.EgressIPs
	in.HostSubnets[2].Status.EgressIPs = reports[:2]
	condition(&in.HostSubnets[1], v1.ConditionWarnings, metav1.ConditionTrue, "ReversePathFilter",
		"rp_filter of eth0 is 0: pods may forge sources. Set net.ipv4.conf.eth0.rp_filter to 1.", 35)
	settle(&in, 12)
	return in
}

// crowd is a large cluster: namespaces with an egress IP or two each, spread over hosts.
func crowd(namespaces, hosts int) page.Input {
	var in page.Input
	claims := make([][]string, hosts)
	for n := range namespaces {
		first := fmt.Sprintf("10.9.%d.%d", n/200, 10+n%200)
		ips := []string{first}
		claims[n%hosts] = append(claims[n%hosts], first)
		if n%3 == 0 {
			second := fmt.Sprintf("10.9.%d.%d", 100+n/200, 10+n%200)
			ips = append(ips, second)
			claims[(n+1)%hosts] = append(claims[(n+1)%hosts], second)
		}
		in.NetNamespaces = append(in.NetNamespaces, objects.NetNamespace(fmt.Sprintf("team-%04d", n), uint32(1000+n), ips...))
	}
	for h := range hosts {
		made := host(fmt.Sprintf("worker-%02d", h), fmt.Sprintf("10.9.250.%d", h+1), claims[h]...)
		made.Status.Agent.UplinkCIDR = fmt.Sprintf("10.9.250.%d/16", h+1)
		in.HostSubnets = append(in.HostSubnets, made)
	}
	condition(&in.HostSubnets[0], v1.ConditionOnline, metav1.ConditionFalse, "NodeUnreachable", "The host does not answer probes, and its Node is not Ready.", 2)
	settle(&in, 30)
	return in
}
