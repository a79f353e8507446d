package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// controllerName is the name of the controller's Lease, its field manager, and the source of its events.
const controllerName = "egressip-controller"

// nodeLeases is the namespace in which kubelets renew their Leases.
const nodeLeases = "kube-node-lease"

// installation is all that check looks at.
type installation struct {
	egress.Objects
	// definitions are our CustomResourceDefinitions, by name; nil for one that is missing.
	definitions map[string]*unstructured.Unstructured
	nodes       []corev1.Node
	// pods are those of the chart.
	pods        []corev1.Pod
	daemonSets  []appsv1.DaemonSet
	deployments []appsv1.Deployment
	// leases are those of controllers, and renewed are the ones that were renewed while we looked, by
	// namespace. nodeLeases are those of kubelets.
	leases     []coordinationv1.Lease
	renewed    map[string]bool
	nodeLeases []coordinationv1.Lease
	events     []corev1.Event
	// unread is what could not be read.
	unread findings
}

// definitionNames are those of the definitions that each installation has.
func definitionNames() []string {
	return []string{"netnamespaces." + v1.GroupName, "hostsubnets." + v1.GroupName}
}

// readInstallation reads everything. Leases are read again every so often until they are renewed.
func readInstallation(ctx context.Context, c client.Reader, every time.Duration) (*installation, error) {
	i := &installation{definitions: make(map[string]*unstructured.Unstructured), renewed: make(map[string]bool)}
	for _, name := range append(definitionNames(), ovnv1.CRDName) {
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		err := c.Get(ctx, client.ObjectKey{Name: name}, crd)
		switch {
		case err == nil:
			i.definitions[name] = crd
		case apierrors.IsNotFound(err):
			i.definitions[name] = nil
		case apierrors.IsForbidden(err):
			i.notRead("CustomResourceDefinition "+name, err)
		default:
			return nil, fmt.Errorf("read CustomResourceDefinition %s: %w", name, err)
		}
	}
	var netNamespaces v1.NetNamespaceList
	var hostSubnets v1.HostSubnetList
	var nodes corev1.NodeList
	var pods corev1.PodList
	var daemonSets appsv1.DaemonSetList
	var deployments appsv1.DeploymentList
	var kubelets coordinationv1.LeaseList
	var events corev1.EventList
	for _, kind := range []struct {
		name    string
		list    client.ObjectList
		options []client.ListOption
	}{
		{"NetNamespaces", &netNamespaces, nil},
		{"HostSubnets", &hostSubnets, nil},
		{"Nodes", &nodes, nil},
		{"Pods of the operator", &pods, []client.ListOption{ours()}},
		{"DaemonSets of the operator", &daemonSets, []client.ListOption{ours()}},
		{"Deployments of the operator", &deployments, []client.ListOption{ours()}},
		{"Leases of Nodes", &kubelets, []client.ListOption{client.InNamespace(nodeLeases)}},
		{"Events", &events, []client.ListOption{client.MatchingFields{"source": controllerName}}},
	} {
		switch err := c.List(ctx, kind.list, kind.options...); {
		case err == nil, isNoSuchKind(err): // of ours, checkDefinitions says so
		case apierrors.IsForbidden(err):
			i.notRead(kind.name, err)
		default:
			return nil, fmt.Errorf("list %s: %w", kind.name, err)
		}
	}
	egressIPs, err := servedEgressIPs(ctx, c)
	if err != nil {
		return nil, err
	}
	i.Objects = egress.Objects{NetNamespaces: netNamespaces.Items, HostSubnets: hostSubnets.Items, EgressIPs: egressIPs}
	i.nodes, i.pods, i.daemonSets, i.deployments = nodes.Items, pods.Items, daemonSets.Items, deployments.Items
	i.nodeLeases, i.events = kubelets.Items, events.Items
	return i, i.readLeases(ctx, c, every)
}

func (i *installation) notRead(what string, err error) {
	i.unread.add(isWarning, "NotReadable", what, "check again as a user who may read it, such as a cluster administrator", "what is wrong there is not known: %v", err)
}

// readLeases reads the Leases of controllers, and finds out whether they are renewed: by changes, not by
// the times in them, which are of another machine's clock.
func (i *installation) readLeases(ctx context.Context, c client.Reader, every time.Duration) error {
	for _, namespace := range i.namespacesOf(componentController) {
		var first coordinationv1.Lease
		key := client.ObjectKey{Namespace: namespace, Name: controllerName}
		switch err := c.Get(ctx, key, &first); {
		case apierrors.IsNotFound(err):
			continue
		case apierrors.IsForbidden(err):
			i.notRead("Lease "+key.String(), err)
			continue
		case err != nil:
			return fmt.Errorf("read Lease %s: %w", key, err)
		}
		term := 6 * time.Second
		if first.Spec.LeaseDurationSeconds != nil {
			term = time.Duration(*first.Spec.LeaseDurationSeconds) * time.Second
		}
		newest := first
		// The deadline is for the wait, and not for a request.
		err := wait.PollUntilContextTimeout(ctx, every, term+time.Second, true, func(context.Context) (bool, error) {
			err := c.Get(ctx, key, &newest)
			return newest.ResourceVersion != first.ResourceVersion, err
		})
		if err != nil && !wait.Interrupted(err) {
			return fmt.Errorf("read Lease %s: %w", key, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		i.leases = append(i.leases, newest)
		i.renewed[namespace] = newest.ResourceVersion != first.ResourceVersion
	}
	return nil
}

// namespacesOf are the namespaces in which a part is installed, in order.
func (i *installation) namespacesOf(component string) []string {
	var names []string
	add := func(namespace string, template *corev1.PodTemplateSpec) {
		if _, ok := argumentsOf(template, component); ok {
			names = append(names, namespace)
		}
	}
	for n := range i.daemonSets {
		add(i.daemonSets[n].Namespace, &i.daemonSets[n].Spec.Template)
	}
	for n := range i.deployments {
		add(i.deployments[n].Namespace, &i.deployments[n].Spec.Template)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// podsOf are the pods of a part.
func (i *installation) podsOf(component string) []corev1.Pod {
	return slices.DeleteFunc(slices.Clone(i.pods), func(p corev1.Pod) bool { return p.Labels[labelComponent] != component })
}

// agentTemplate is what the pods of agents are made of; nil without a DaemonSet.
func (i *installation) agentTemplate() *corev1.PodTemplateSpec {
	for n := range i.daemonSets {
		if _, ok := argumentsOf(&i.daemonSets[n].Spec.Template, componentAgent); ok {
			return &i.daemonSets[n].Spec.Template
		}
	}
	return nil
}

// couldNotRead reports whether something is not known because the user may not read it.
func (i *installation) couldNotRead(what string) bool {
	return slices.ContainsFunc(i.unread, func(f finding) bool { return f.Object == what })
}
