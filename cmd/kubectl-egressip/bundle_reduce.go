package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// What is taken into a bundle is listed here. All else of an object stays out: nobody can list all places
// where somebody may have put a secret.

// ourKeys begin the labels and annotations that the operator knows.
func ourKeys() []string {
	return append([]string{
		"egressip.network.openshift.io/", "pod.network.openshift.io/", "k8s.ovn.org/egress-assignable", "app.kubernetes.io/",
		"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "topology.kubernetes.io/", egress.AnnotationCloudConfig,
	}, egress.NodeNetworkAnnotations()...)
}

func known(all map[string]string) map[string]string {
	kept := maps.Clone(all)
	maps.DeleteFunc(kept, func(key, _ string) bool {
		for _, prefix := range ourKeys() {
			if strings.HasPrefix(key, prefix) {
				return false
			}
		}
		return true
	})
	return kept
}

// reduceMeta keeps what identifies an object, and when it was written.
func reduceMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	reduced := metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp, Labels: known(m.Labels), Annotations: known(m.Annotations),
	}
	// Who wrote last, without the values.
	for _, f := range m.ManagedFields {
		reduced.ManagedFields = append(reduced.ManagedFields, metav1.ManagedFieldsEntry{Manager: f.Manager, Operation: f.Operation, Subresource: f.Subresource, Time: f.Time})
	}
	return reduced
}

// metaObject is what has metadata.
type metaObject[T any] interface {
	*T
	metav1.Object
}

// reducedAll are our own objects, whole but for their metadata.
func reducedAll[T any, P metaObject[T]](list []T) []T {
	reduced := make([]T, 0, len(list))
	for i := range list {
		copied := list[i]
		p := P(&copied)
		m := metav1.ObjectMeta{
			Namespace: p.GetNamespace(), Name: p.GetName(), UID: p.GetUID(), ResourceVersion: p.GetResourceVersion(), Generation: p.GetGeneration(),
			CreationTimestamp: p.GetCreationTimestamp(), DeletionTimestamp: p.GetDeletionTimestamp(), Labels: p.GetLabels(), Annotations: p.GetAnnotations(),
			ManagedFields: p.GetManagedFields(),
		}
		m = reduceMeta(&m)
		p.SetLabels(m.Labels)
		p.SetAnnotations(m.Annotations)
		p.SetManagedFields(m.ManagedFields)
		p.SetOwnerReferences(nil)
		p.SetFinalizers(nil)
		reduced = append(reduced, copied)
	}
	return reduced
}

// pools adds the objects of pools, if there are any.
func (b *bundle) pools(ctx context.Context, c client.Reader) {
	var pools v1alpha1.EgressIPPoolList
	if err := c.List(ctx, &pools); err == nil {
		b.object("objects/egressippools.yaml", reducedAll(pools.Items))
	} else if !isNoSuchKind(err) {
		b.errs = append(b.errs, fmt.Errorf("list EgressIPPools: %w", err))
	}
	var requests v1alpha1.EgressIPRequestList
	if err := c.List(ctx, &requests); err == nil {
		b.object("objects/egressiprequests.yaml", reducedAll(requests.Items))
	} else if !isNoSuchKind(err) {
		b.errs = append(b.errs, fmt.Errorf("list EgressIPRequests: %w", err))
	}
}

func reducedNodes(nodes []corev1.Node) []corev1.Node {
	reduced := make([]corev1.Node, 0, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		r := corev1.Node{ObjectMeta: reduceMeta(&n.ObjectMeta)}
		r.Spec = corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: n.Spec.Taints, Unschedulable: n.Spec.Unschedulable}
		r.Status.Addresses, r.Status.NodeInfo = n.Status.Addresses, n.Status.NodeInfo
		r.Status.NodeInfo.MachineID, r.Status.NodeInfo.SystemUUID, r.Status.NodeInfo.BootID = "", "", ""
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady || c.Type == corev1.NodeNetworkUnavailable {
				r.Status.Conditions = append(r.Status.Conditions, c)
			}
		}
		reduced = append(reduced, r)
	}
	return reduced
}

func reducedPods(pods []corev1.Pod) []corev1.Pod {
	reduced := make([]corev1.Pod, 0, len(pods))
	for i := range pods {
		p := &pods[i]
		r := corev1.Pod{ObjectMeta: reduceMeta(&p.ObjectMeta), Status: p.Status}
		r.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, PriorityClassName: p.Spec.PriorityClassName}
		r.Spec.InitContainers, r.Spec.Containers = reducedContainers(p.Spec.InitContainers), reducedContainers(p.Spec.Containers)
		reduced = append(reduced, r)
	}
	return reduced
}

// reducedContainers have no environment, no volumes and no commands but our own flags.
func reducedContainers(containers []corev1.Container) []corev1.Container {
	var reduced []corev1.Container
	for _, c := range containers {
		r := corev1.Container{Name: c.Name, Image: c.Image, Resources: c.Resources, SecurityContext: c.SecurityContext}
		for _, part := range []string{componentAgent, componentController} {
			if len(c.Args) > 0 && c.Args[0] == part {
				r.Args = c.Args
			}
		}
		reduced = append(reduced, r)
	}
	return reduced
}

// workload is a DaemonSet or Deployment.
type workload struct {
	Kind       string             `json:"kind"`
	Metadata   metav1.ObjectMeta  `json:"metadata"`
	Containers []corev1.Container `json:"containers"`
	Selector   map[string]string  `json:"nodeSelector,omitempty"`
	Status     any                `json:"status"`
}

func reducedWorkloads(i *installation) []workload {
	var all []workload
	for n := range i.daemonSets {
		d := &i.daemonSets[n]
		all = append(all, workload{"DaemonSet", reduceMeta(&d.ObjectMeta), reducedContainers(d.Spec.Template.Spec.Containers), d.Spec.Template.Spec.NodeSelector, d.Status})
	}
	for n := range i.deployments {
		d := &i.deployments[n]
		all = append(all, workload{"Deployment", reduceMeta(&d.ObjectMeta), reducedContainers(d.Spec.Template.Spec.Containers), d.Spec.Template.Spec.NodeSelector, d.Status})
	}
	return all
}

func reducedLeases(leases []coordinationv1.Lease) []coordinationv1.Lease {
	var reduced []coordinationv1.Lease
	for i := range leases {
		reduced = append(reduced, coordinationv1.Lease{ObjectMeta: reduceMeta(&leases[i].ObjectMeta), Spec: leases[i].Spec})
	}
	return reduced
}

// reducedDefinitions are the names of our definitions, whose they are, and what the plugin misses in them.
func reducedDefinitions(definitions map[string]*unstructured.Unstructured) map[string]any {
	reduced := make(map[string]any)
	for name, crd := range definitions {
		if crd == nil {
			reduced[name] = "missing"
			continue
		}
		reduced[name] = map[string]any{
			"servedBy": crd.GetAnnotations()[ovnv1.AnnotationServedBy], "generation": crd.GetGeneration(),
			"controllerGen": crd.GetAnnotations()["controller-gen.kubebuilder.io/version"], "created": timeText(crd.GetCreationTimestamp()),
		}
	}
	return reduced
}

func reducedEvents(events []corev1.Event) []corev1.Event {
	var reduced []corev1.Event
	for i := range events {
		e := &events[i]
		reduced = append(reduced, corev1.Event{
			InvolvedObject: e.InvolvedObject, Reason: e.Reason, Message: e.Message, Type: e.Type, Count: e.Count,
			FirstTimestamp: e.FirstTimestamp, LastTimestamp: e.LastTimestamp, Source: e.Source,
		})
	}
	return reduced
}

// logs adds the logs of our containers, of this and of the last run.
func (b *bundle) logs(ctx context.Context, core corev1client.PodsGetter, i *installation) {
	for n := range i.pods {
		pod := &i.pods[n]
		restarted := make(map[string]bool)
		for _, s := range pod.Status.ContainerStatuses {
			restarted[s.Name] = s.RestartCount > 0
		}
		for _, container := range pod.Spec.Containers {
			for _, previous := range []bool{false, true} {
				if previous && !restarted[container.Name] {
					continue
				}
				name := path.Join("logs", pod.Name+"_"+container.Name+map[bool]string{true: "_before"}[previous]+".log")
				stream, err := core.Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: container.Name, TailLines: &b.lines, Previous: previous}).Stream(ctx)
				if err != nil {
					b.errs = append(b.errs, fmt.Errorf("%s: %w", name, err))
					continue
				}
				text, err := io.ReadAll(stream)
				if err != nil {
					b.errs = append(b.errs, fmt.Errorf("%s: %w", name, err))
				}
				_ = stream.Close() // it was only read
				b.add(name, text)
			}
		}
	}
}
