package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

const system = "egressip-system"

// healthy is an installation with nothing wrong, as far as the API shows it.
type healthy struct {
	server
	// renews: the leader renews its Lease. skew is how far its clock is from that of the API server.
	renews atomic.Bool
	skew   atomic.Int64
}

func startHealthy(t *testing.T) *healthy {
	t.Helper()
	h := &healthy{server: startServer(t, "crd", "egressip")}
	h.cluster(t)
	h.agents(t)
	h.change(t, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "test"}}, func(o client.Object) { o.(*v1.NetNamespace).EgressIPs = nil })
	for _, node := range []string{"node1", "node2"} {
		h.part(t, componentAgent, "agent-"+node, node)
	}
	h.controller(t, system)
	h.part(t, componentController, "controller", "node1")
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: controllerName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("node1_1"), LeaseDurationSeconds: new(int32(1))},
	}
	h.create(t, lease)
	h.renews.Store(true)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var ended sync.WaitGroup
	ended.Go(func() { h.renew(ctx) })
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
	return h
}

// renew plays the leader, whose Lease may come and go.
func (h *healthy) renew(ctx context.Context) {
	for ctx.Err() == nil {
		var lease coordinationv1.Lease
		if h.renews.Load() && h.Get(ctx, client.ObjectKey{Namespace: system, Name: controllerName}, &lease) == nil {
			lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(time.Duration(h.skew.Load()))}
			_ = h.Update(ctx, &lease)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// part creates a pod of the operator that is ready.
func (h *healthy) part(t *testing.T, component, name, node string) {
	t.Helper()
	h.runs(t, system, name, node, "10.1.8.1", func(p *corev1.Pod) {
		p.Labels = map[string]string{labelName: ourName, labelComponent: component}
		p.Spec.Containers[0].Image = "egressip-operator:1"
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	})
}

func (h *healthy) controller(t *testing.T, namespace string) {
	t.Helper()
	labels := map[string]string{labelName: ourName, labelComponent: componentController}
	h.create(t, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: controllerName, Labels: labels},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "controller", Image: "e:1", Args: []string{"controller"}}}},
		}},
	})
}

// change changes an object and its status.
func (h *healthy) change(t *testing.T, object client.Object, change func(client.Object)) {
	t.Helper()
	if err := h.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		t.Fatal(err)
	}
	change(object)
	wanted := object.DeepCopyObject().(client.Object)
	if err := h.Update(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	switch object.(type) {
	case *v1.HostSubnet, *corev1.Pod, *v1.NetNamespace:
		wanted.SetResourceVersion(object.GetResourceVersion())
		if err := h.Status().Update(t.Context(), wanted); err != nil {
			t.Fatal(err)
		}
	}
}

// changed changes an object until the test ends.
func (h *healthy) changed(t *testing.T, object client.Object, change func(client.Object)) {
	t.Helper()
	before := object.DeepCopyObject().(client.Object)
	h.change(t, object, func(o client.Object) {
		before = o.DeepCopyObject().(client.Object)
		change(o)
	})
	t.Cleanup(func() {
		now := object.DeepCopyObject().(client.Object)
		if err := h.Get(context.WithoutCancel(t.Context()), client.ObjectKeyFromObject(object), now); err != nil {
			t.Error(err)
			return
		}
		before.SetResourceVersion(now.GetResourceVersion())
		status := before.DeepCopyObject().(client.Object)
		if err := h.Update(context.WithoutCancel(t.Context()), before); err != nil {
			t.Error(err)
		}
		status.SetResourceVersion(before.GetResourceVersion())
		if err := h.Status().Update(context.WithoutCancel(t.Context()), status); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// there creates an object until the test ends.
func (h *healthy) there(t *testing.T, object client.Object) {
	t.Helper()
	h.create(t, object)
	t.Cleanup(func() {
		if err := h.Delete(context.WithoutCancel(t.Context()), object, client.GracePeriodSeconds(0)); err != nil {
			t.Error(err)
		}
	})
}

// codes runs the check.
func (h *healthy) codes(t *testing.T) (codes []string, found findings, exit int) {
	t.Helper()
	out, exit := h.exits(t, "", "check", "-o", "json")
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range found {
		codes = append(codes, string(f.Severity)+" "+f.Code+" "+f.Object)
		if f.Reason == "" || f.Remedy == "" {
			t.Errorf("without reason or remedy: %+v", f)
		}
	}
	return codes, found, exit
}

// TestCheck: each finding is provoked in the API, and nothing else is found.
//
// Mutants killed: check-believes-leases, check-trusts-clocks, check-misses-nodes, check-exits-quietly.
func TestCheck(t *testing.T) {
	t.Parallel()
	h := startHealthy(t)
	if codes, found, exit := h.codes(t); len(codes) > 0 || exit != 0 {
		t.Fatalf("exit code %d: %+v", exit, found)
	}
	host := func(change func(*v1.HostSubnet)) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()

			h.changed(t, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node2"}}, func(o client.Object) { change(o.(*v1.HostSubnet)) })
		}
	}
	condition := func(name string, status metav1.ConditionStatus) func(*testing.T) {
		return host(func(o *v1.HostSubnet) {
			meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{Type: name, Status: status, Reason: "Because", Message: "It is so."})
		})
	}
	pod := func(name string, ready corev1.ConditionStatus) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()

			h.changed(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}}, func(o client.Object) {
				o.(*corev1.Pod).Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, Reason: "ContainersNotReady"}}
			})
		}
	}
	request := func(change func(*v1.NetNamespace)) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()

			h.changed(t, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "test"}}, func(o client.Object) { change(o.(*v1.NetNamespace)) })
		}
	}
	gone := func(object client.Object, again func(*testing.T)) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()

			if err := h.Delete(t.Context(), object, client.GracePeriodSeconds(0)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { again(t) })
		}
	}
	in := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: system, Name: name} }
	for _, c := range []struct {
		name    string
		provoke func(*testing.T)
		want    []string
	}{
		{"no hostIP", host(func(o *v1.HostSubnet) { o.HostIP = "" }), []string{"Error HostIPMissing HostSubnet node2"}},
		{"another hostIP", host(func(o *v1.HostSubnet) { o.Status.Agent.UplinkCIDR = "10.1.8.99/24" }), []string{"Error HostIPNotThere HostSubnet node2"}},
		{"no pod network", host(func(o *v1.HostSubnet) { o.Subnet = "" }), []string{"Warning PodNetworkUnknown Node node2"}},
		{"versions", host(func(o *v1.HostSubnet) { o.Status.Agent.Version = "older" }), []string{"Warning VersionsMixed versions of agents"}},
		{"agent silent", host(func(o *v1.HostSubnet) { o.Status.Conditions = nil }), []string{"Error AgentSilent HostSubnet node2"}},
		{"pods outside", host(func(o *v1.HostSubnet) { o.Status.Agent.PodNetworksMissing = "Pod a/b is nowhere." }), []string{"Warning NotSure NetNamespace shop", "Warning PodsOutside HostSubnet node2"}},
		{"not configured", host(func(o *v1.HostSubnet) {
			o.Status.EgressIPs = []v1.ClaimStatus{{IP: "10.1.8.9", State: v1.StateStandby, Reason: "NotConfigured", Message: "no room"}}
		}), []string{"Error NotConfigured HostSubnet node2"}},
		{"agent fails", condition(v1.ConditionAgentReady, metav1.ConditionFalse), []string{"Error AgentFails HostSubnet node2"}},
		{"offline", condition(v1.ConditionOnline, metav1.ConditionFalse), []string{"Error HostOffline HostSubnet node2"}},
		{"foreign owner", condition(v1.ConditionAddressInUse, metav1.ConditionTrue), []string{"Error AddressInUse HostSubnet node2"}},
		{"warning", condition(v1.ConditionWarnings, metav1.ConditionTrue), []string{"Warning HostWarns HostSubnet node2"}},
		{"node gone", condition(v1.ConditionNodeGone, metav1.ConditionTrue), []string{"Warning NodeGone HostSubnet node2"}},
		{"agent not ready", pod("agent-node2", corev1.ConditionFalse), []string{"Error AgentNotReady Pod egressip-system/agent-node2"}},
		{"controller not ready", pod("controller", corev1.ConditionFalse), []string{
			"Error NoControllerReady Deployment egressip-system/egressip-controller", "Warning ControllerNotReady Pod egressip-system/controller",
		}},
		// The pod stays away: the next case is about that node, too.
		{"no agent", gone(&corev1.Pod{ObjectMeta: in("agent-node2")}, func(*testing.T) {}), []string{"Error AgentMissing Node node2"}},
		{"node that agents leave out", func(t *testing.T) {
			t.Helper()

			h.changed(t, &appsv1.DaemonSet{ObjectMeta: in("egressip-agent")}, func(o client.Object) {
				o.(*appsv1.DaemonSet).Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
			})
		}, []string{"Warning NodeWithoutAgent Node node2"}},
		{"a Node alone", func(t *testing.T) {
			t.Helper()

			h.part(t, componentAgent, "agent-again", "node2")
			h.part(t, componentAgent, "agent-node3", "node3")
			h.there(t, objects.Node("node3", corev1.ConditionTrue))
		}, []string{"Error HostMissing Node node3"}},
		{"images", func(t *testing.T) {
			t.Helper()

			h.changed(t, &corev1.Pod{ObjectMeta: in("agent-node1")}, func(o client.Object) { o.(*corev1.Pod).Spec.Containers[0].Image = "egressip-operator:2" })
		}, []string{"Warning VersionsMixed images of pods"}},
		{"dropped", request(func(n *v1.NetNamespace) { n.EgressIPs = []string{"10.1.8.77"} }), []string{"Error Dropped NetNamespace test"}},
		{"bad value", request(func(n *v1.NetNamespace) { n.Annotations = map[string]string{v1.AnnotationMode: "fast"} }), []string{"Warning BadValue NetNamespace test"}},
		{"not reported", func(t *testing.T) {
			t.Helper()

			h.changed(t, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}, func(o client.Object) { o.(*v1.HostSubnet).Status.EgressIPs = nil })
		}, []string{"Warning NotSure NetNamespace shop"}},
		{"refused", func(t *testing.T) {
			t.Helper()

			h.there(t, &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, Reason: "NodeAddressRefused", Message: "It is an egress IP.",
				Source: corev1.EventSource{Component: controllerName}, InvolvedObject: corev1.ObjectReference{Kind: "HostSubnet", Name: "node2"},
			})
		}, []string{"Warning NodeAddressRefused HostSubnet node2"}},
		{"clock", func(t *testing.T) {
			t.Helper()

			h.skew.Store(int64(time.Minute))
			t.Cleanup(func() { h.skew.Store(0) })
			h.renewed(t)
		}, []string{"Warning ClockSkew Lease egressip-system/egressip-controller"}},
		{"stale Lease", func(t *testing.T) {
			t.Helper()

			h.renewed(t)
			h.renews.Store(false)
			t.Cleanup(func() { h.renews.Store(true) })
		}, []string{"Error LeaseStale Lease egressip-system/egressip-controller"}},
		{"second install", func(t *testing.T) {
			t.Helper()
			h.controller(t, "free")
		}, []string{"Error NoLeader Lease free/egressip-controller", "Error SecondInstall namespaces egressip-system, free"}},
		{"no controller", func(t *testing.T) {
			t.Helper()

			gone(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: controllerName}}, func(*testing.T) {})(t)
			gone(&appsv1.Deployment{ObjectMeta: in(controllerName)}, func(*testing.T) {})(t)
		}, []string{"Error ControllerMissing Deployment with label app.kubernetes.io/name=egressip-operator"}},
		{"no Lease", func(t *testing.T) {
			t.Helper()

			h.controller(t, system)
			gone(&coordinationv1.Lease{ObjectMeta: in(controllerName)}, func(*testing.T) {})(t)
		}, []string{"Error NoLeader Lease egressip-system/egressip-controller"}},
		{"no agents at all", gone(&appsv1.DaemonSet{ObjectMeta: in("egressip-agent")}, func(*testing.T) {}), []string{
			"Error AgentsMissing DaemonSet with label app.kubernetes.io/name=egressip-operator", "Error NoLeader Lease egressip-system/egressip-controller",
		}},
		{"definitions", func(t *testing.T) {
			t.Helper()
			h.definitionsRot(t)
		}, []string{
			"Error AgentsMissing DaemonSet with label app.kubernetes.io/name=egressip-operator",
			"Error DefinitionMissing CustomResourceDefinition netnamespaces.network.openshift.io",
			"Error DefinitionOld CustomResourceDefinition hostsubnets.network.openshift.io",
			"Error NoLeader Lease egressip-system/egressip-controller",
			"Warning ForeignDefinition CustomResourceDefinition egressips.k8s.ovn.org",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.provoke(t)
			codes, found, exit := h.codes(t)
			if !slices.Equal(codes, c.want) {
				t.Errorf("want %q, found %q: %+v", c.want, codes, found)
			}
			worst := exitWarnings
			if strings.HasPrefix(c.want[0], "Error") {
				worst = exitErrors
			}
			if exit != worst {
				t.Errorf("exit code %d, want %d", exit, worst)
			}
		})
	}
	out, code := h.exits(t, "", "check")
	check(t, out, []string{"Error DefinitionOld: CustomResourceDefinition hostsubnets", "it lacks fields, which the API server drops when they are written: assignedEgressIPs\n    To do: ", "Errors: 4, warnings: 1\n"}, nil)
	if code != exitErrors {
		t.Errorf("exit code %d", code)
	}
	h.create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{v1.GroupName, ovnv1.GroupName}, Verbs: []string{"list"}, Resources: []string{"netnamespaces", "hostsubnets", "egressips"},
	}}}, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "few"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "few"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "few"}},
	})
	h.kubeconfig = h.user(t, envtest.User{Name: "few"})
	out, _ = h.exits(t, "", "check")
	check(t, out, []string{"Warning NotReadable: Nodes\n", "Warning NotReadable: Pods of the operator\n", "what is wrong there is not known"}, []string{"AgentMissing", "AgentsMissing"})
}

// renewed waits until the Lease is renewed twice, so that what is provoked shows.
func (h *healthy) renewed(t *testing.T) {
	t.Helper()
	var lease coordinationv1.Lease
	key := client.ObjectKey{Namespace: system, Name: controllerName}
	for seen := map[string]bool{}; len(seen) < 3; seen[lease.ResourceVersion] = true {
		if err := h.Get(t.Context(), key, &lease); err != nil {
			t.Fatal(err)
		}
	}
}

// definitionsRot takes a field out of one definition, makes one another software's, and removes one.
func (h *healthy) definitionsRot(t *testing.T) {
	t.Helper()
	crd := definition(definitionNames()[1])
	patch := `[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/assignedEgressIPs"}]`
	if err := h.Patch(t.Context(), crd, client.RawPatch(types.JSONPatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
	if err := h.Patch(t.Context(), definition(ovnv1.CRDName), mergePatch(`{"metadata": {"annotations": {"`+ovnv1.AnnotationServedBy+`": null}}}`)); err != nil {
		t.Fatal(err)
	}
	missing := &unstructured.Unstructured{}
	missing.SetGroupVersionKind(crd.GroupVersionKind())
	missing.SetName(definitionNames()[0])
	if err := h.Delete(t.Context(), missing); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		var list v1.NetNamespaceList
		if h.List(ctx, &list) == nil {
			return "NetNamespaces are still served"
		}
		return ""
	})
}
