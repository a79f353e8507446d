package controllers_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// reportClaims changes what the agent of a host has reported about its claims, once it has
// reported them all. From then on the test reports in place of that agent. It returns when
// that was.
func (a *api) reportClaims(t *testing.T, host string, change func(*v1.HostSubnetStatus)) time.Time {
	t.Helper()
	h := a.awaitHost(t, host, func(h *v1.HostSubnet) string {
		if h.Status.Agent == nil || len(h.Status.EgressIPs) != len(h.EgressIPs) {
			return fmt.Sprintf("the agent reports %v of %v", h.Status.EgressIPs, h.EgressIPs)
		}
		return ""
	})
	before := h.DeepCopy()
	h.Status.Agent.Version = "0.2.0"
	change(&h.Status)
	if err := a.Status().Patch(t.Context(), h, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// notConfigured is the report that no claim of a host is configured, for that reason.
func notConfigured(reason egress.Reason) func(*v1.HostSubnetStatus) {
	return func(s *v1.HostSubnetStatus) {
		for i := range s.EgressIPs {
			s.EgressIPs[i].Configured, s.EgressIPs[i].Reason, s.EgressIPs[i].Message = false, string(reason), "Test."
		}
	}
}

func configured(s *v1.HostSubnetStatus) {
	for i := range s.EgressIPs {
		s.EgressIPs[i].Configured, s.EgressIPs[i].Reason, s.EgressIPs[i].Message = true, "", ""
	}
}

// wantNotReady waits until EgressReady of namespace shop has the status and the reason, and
// wants "kubectl wait" to fail then.
func (a *api) wantNotReady(t *testing.T, status metav1.ConditionStatus, reason egress.Reason) {
	t.Helper()
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		return wantCondition(n.Status.Conditions, v1.ConditionEgressReady, status, string(reason), "")
	})
	if out, err := a.waitReady(t, "500ms"); err == nil || !strings.Contains(out, "timed out waiting") {
		t.Errorf("kubectl wait while EgressReady is %s, %s: %v\n%s", status, reason, err, out)
	}
}

func (a *api) waitReady(t *testing.T, timeout string) (string, error) {
	t.Helper()
	return a.kubectl(t, "", "wait", "--for=condition=EgressReady", "netnamespace/shop", "--timeout="+timeout)
}

// TestReadyIsWhatAgentsReport: EgressReady of a namespace, and so "kubectl wait", follows
// what the agent of its host reports, although request and claim match all the time. A
// manual claim stays where it is.
//
// Mutants: reports-ignored, unreported-is-ready, both planted for the brain's own test.
func TestReadyIsWhatAgentsReport(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.claim(t, "node1", "192.168.7.200")
	ready := func() {
		t.Helper()
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
		if out, err := a.waitReady(t, "10s"); err != nil {
			t.Errorf("kubectl wait: %v\n%s", err, out)
		}
	}
	ready()
	for _, reason := range []egress.Reason{egress.ReasonNotConfigured, egress.ReasonAddressInUse} {
		a.reportClaims(t, "node1", notConfigured(reason))
		a.wantNotReady(t, metav1.ConditionFalse, reason)
	}
	a.reportClaims(t, "node1", configured)
	ready()
	a.reportClaims(t, "node1", func(s *v1.HostSubnetStatus) { s.EgressIPs = nil })
	a.wantNotReady(t, metav1.ConditionUnknown, egress.ReasonNotReported)
	h := a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
	if wrong := wantEgressIPs(h.EgressIPs, "192.168.7.200"); wrong != "" {
		t.Errorf("node1: %s", wrong)
	}
}

// TestEgressIPLeavesAHostThatCannotHaveIt: an automatic host whose agent reports for 5
// seconds that it could not configure an egress IP loses it to another one, and not before.
//
// Mutant killed: failures-unused.
func TestEgressIPLeavesAHostThatCannotHaveIt(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	const ip = "192.168.7.200"
	hosts := []string{"node1", "node2"}
	for i, name := range hosts {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
		a.ranges(t, name, "192.168.7.128/25")
	}
	a.namespace(t, "shop")
	a.request(t, "shop", ip)
	first := a.awaitNamespace(t, "shop", served).Status.Active.Host
	other := hosts[0]
	if first == other {
		other = hosts[1]
	}
	reported := a.reportClaims(t, first, notConfigured(egress.ReasonNotConfigured))
	a.wantNotReady(t, metav1.ConditionFalse, egress.ReasonNotConfigured)
	a.awaitHost(t, first, func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs) })
	if after := time.Since(reported); after < 5*time.Second {
		t.Errorf("it left after %s", after)
	}
	a.awaitNamespace(t, "shop", wantActive(ip, other))
}

// TestHostsThatAnswerKeepTheirEgressIPs: the Node of a host is not Ready, or not heard
// of, and Ready again, while the host answers probes, as when a kubelet is restarted: no
// claim moves and no traffic does. Then its agent is gone, and after a minute nothing is
// known about its egress IP any more; it stays, too.
//
// Mutant killed: ready-decides.
func TestHostsThatAnswerKeepTheirEgressIPs(t *testing.T) {
	if !ownNetwork(t, "192.168.7.11/32", "192.168.7.12/32", "192.168.7.13/32") {
		return
	}
	const ip = "192.168.7.200"
	a := startAPI(t)
	hosts := map[string]*answering{}
	for i, name := range []string{"node1", "node2", "node3"} {
		hosts[name] = &answering{name: name, ip: fmt.Sprintf("192.168.7.%d", i+11)}
		hosts[name].answer(t)
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), hosts[name].ip)
	}
	a.control(t, controllers.Options{ProbePort: probe.Port, ProbeSource: netip.MustParseAddr("192.168.7.11")})
	a.ranges(t, "node2", "192.168.7.128/25")
	a.ranges(t, "node3", "192.168.7.128/25")
	a.namespace(t, "shop")
	a.request(t, "shop", ip)
	server := a.awaitNamespace(t, "shop", served).Status.Active.Host
	a.awaitNamespace(t, "shop", wantActive(ip, server))
	for _, h := range hosts {
		h.awaitQuestions(t, 3)
	}
	unmoved := a.watchUnmoved(t)

	for range 2 {
		for _, status := range []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionUnknown} {
			for _, name := range []string{"node2", "node3"} {
				a.ready(t, name, status)
				a.awaitHost(t, name, wantOnline(metav1.ConditionTrue, "Answers"))
			}
			a.awaitNamespace(t, "shop", wantActive(ip, server))
		}
		for _, name := range []string{"node2", "node3"} {
			a.ready(t, name, corev1.ConditionTrue)
			a.awaitHost(t, name, wantOnline(metav1.ConditionTrue, "NodeReady"))
		}
		a.awaitNamespace(t, "shop", wantActive(ip, server))
	}

	hosts[server].stop() // the kernel refuses what the agent does not take
	testenv.EventuallyWithin(t, probe.DefaultConfig().AgentGrace+testenv.Patience, func(ctx context.Context) string {
		h := hostSubnet(server)
		if err := a.Get(ctx, client.ObjectKeyFromObject(h), h); err != nil {
			return err.Error()
		}
		return wantOnline(metav1.ConditionTrue, "NoAgent")(h)
	})
	a.wantNotReady(t, metav1.ConditionUnknown, egress.ReasonAgentGone)
	unmoved()
}

// watchUnmoved returns a function that fails the test if the claims of any host have
// changed since, or the assignments that namespaces' traffic uses.
func (a *api) watchUnmoved(t *testing.T) (unmoved func()) {
	t.Helper()
	c, err := client.NewWithWatch(a.cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	var hosts v1.HostSubnetList
	if err := a.List(t.Context(), &hosts); err != nil {
		t.Fatal(err)
	}
	generations := make(map[string]int64)
	for _, h := range hosts.Items {
		generations[h.Name] = h.Generation
	}
	var namespaces v1.NetNamespaceList
	if err := a.List(t.Context(), &namespaces); err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(t.Context(), &v1.NetNamespaceList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: namespaces.ResourceVersion}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	active := make(map[string]v1.Assignment)
	for _, n := range namespaces.Items {
		if n.Status.Active != nil {
			active[n.Name] = *n.Status.Active
		}
	}
	moves := make(chan []string, 1)
	go func() {
		var all []string
		for event := range w.ResultChan() {
			n, ok := event.Object.(*v1.NetNamespace)
			if ok && (n.Status.Active == nil || *n.Status.Active != active[n.Name]) && active[n.Name] != (v1.Assignment{}) {
				all = append(all, fmt.Sprintf("%s: from %v to %v", n.Name, active[n.Name], n.Status.Active))
			}
		}
		moves <- all
	}()
	return func() {
		t.Helper()
		w.Stop()
		if all := <-moves; len(all) > 0 {
			t.Errorf("moved: %q", all)
		}
		if err := a.List(t.Context(), &hosts); err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts.Items {
			// Each change of claims, and only a change of the spec, gives a new generation.
			if h.Generation != generations[h.Name] {
				t.Errorf("%s was changed: generation %d, then %d; it claims %v", h.Name, generations[h.Name], h.Generation, h.EgressIPs)
			}
		}
	}
}
