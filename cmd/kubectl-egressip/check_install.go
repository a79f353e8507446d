package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// checkDefinitions: those that are missing, and those that lack fields that this version of the plugin
// knows.
func (i *installation) checkDefinitions(f *findings) {
	const remedy = "apply the definitions of the version that is installed: kubectl apply --server-side -k config/crd, or upgrade the chart"
	for name, object := range map[string]any{definitionNames()[0]: v1.NetNamespace{}, definitionNames()[1]: v1.HostSubnet{}, ovnv1.CRDName: ovnv1.EgressIP{}} {
		crd, read := i.definitions[name]
		switch {
		case !read:
		case crd == nil && name != ovnv1.CRDName:
			f.add(isError, "DefinitionMissing", "CustomResourceDefinition "+name, remedy, "the API server does not have it, so that nothing works")
		case crd == nil:
		case name == ovnv1.CRDName && crd.GetAnnotations()[ovnv1.AnnotationServedBy] != ovnv1.ServedBy:
			f.add(isWarning, "ForeignDefinition", "CustomResourceDefinition "+name,
				"none, if another software such as OVN-Kubernetes serves them; otherwise annotate it with "+ovnv1.AnnotationServedBy+"="+ovnv1.ServedBy,
				"it is another software's: the operator does not serve EgressIPs, nor requests to pools")
		default:
			if missing := missingFields(crd, reflect.TypeOf(object)); len(missing) > 0 {
				f.add(isError, "DefinitionOld", "CustomResourceDefinition "+name, remedy,
					"it lacks fields, which the API server drops when they are written: %s", strings.Join(missing, ", "))
			}
		}
	}
}

// missingFields are the fields of a type, with dots between the names, that the schema of a definition does not
// have.
func missingFields(crd *unstructured.Unstructured, of reflect.Type) []string {
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil || len(versions) == 0 {
		return []string{"spec.versions"}
	}
	version, _ := versions[0].(map[string]any)
	root, _, err := unstructured.NestedMap(version, "schema", "openAPIV3Schema")
	if err != nil {
		return []string{"schema.openAPIV3Schema"}
	}
	var missing []string
	compareFields(root, of, "", &missing)
	slices.Sort(missing)
	return missing
}

func compareFields(schema map[string]any, of reflect.Type, path string, missing *[]string) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		if of.Kind() == reflect.Slice {
			schema, _ = schema["items"].(map[string]any)
		}
		of = of.Elem()
	}
	// Types of Kubernetes have schemas of their own, in parts without fields.
	if of.Kind() != reflect.Struct || !strings.Contains(of.PkgPath(), "egressip-operator") || schema == nil {
		return
	}
	properties, _ := schema["properties"].(map[string]any)
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" || name == "metadata" {
			continue
		}
		inner, ok := properties[name].(map[string]any)
		if !ok {
			*missing = append(*missing, strings.TrimPrefix(path+"."+name, "."))
			continue
		}
		compareFields(inner, field.Type, path+"."+name, missing)
	}
}

// checkController: whether there is one, and only one install.
func (i *installation) checkController(f *findings) {
	if i.couldNotRead("Deployments of the operator") || i.couldNotRead("Pods of the operator") {
		return
	}
	in := i.namespacesOf(componentController)
	switch {
	case len(in) == 0:
		f.add(isError, "ControllerMissing", "Deployment with label "+labelName+"="+ourName, "install the chart", "there is none that runs the controller: nothing is assigned, and statuses are of the past")
	case len(in) > 1:
		f.add(isError, "SecondInstall", "namespaces "+strings.Join(in, ", "), "uninstall all but one", "the operator is installed more than once: all but one wait, and agents of both change the same kernels")
	}
	ready := 0
	for _, pod := range i.podsOf(componentController) {
		if why := notReady(&pod); why != "" {
			f.add(isWarning, "ControllerNotReady", "Pod "+pod.Namespace+"/"+pod.Name, "kubectl logs; kubectl describe pod", "%s", why)
		} else {
			ready++
		}
	}
	if len(in) > 0 && ready == 0 {
		f.add(isError, "NoControllerReady", "Deployment "+in[0]+"/"+controllerName, "see its pods and their events", "no pod of the controller is ready: nothing moves if a host dies")
	}
}

// notReady says why a pod is not ready; "" if it is.
func notReady(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			return fmt.Sprintf("its container %s waits: %s %s", s.Name, w.Reason, w.Message)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return ""
		} else if c.Type == corev1.PodReady {
			return fmt.Sprintf("it is not ready: %s %s", c.Reason, c.Message)
		}
	}
	return fmt.Sprintf("it is not ready, in phase %s", pod.Status.Phase)
}

// checkLease: whether a leader renews its Lease.
func (i *installation) checkLease(f *findings) {
	for _, namespace := range i.namespacesOf(componentController) {
		object := "Lease " + namespace + "/" + controllerName
		n := slices.IndexFunc(i.leases, func(l coordinationv1.Lease) bool { return l.Namespace == namespace })
		switch {
		case i.couldNotRead(object):
		case n < 0:
			f.add(isError, "NoLeader", object, "see the controller's log; it needs the right to create Leases in its namespace", "there is none: no controller has ever led")
		case i.leases[n].Spec.HolderIdentity == nil || *i.leases[n].Spec.HolderIdentity == "":
			f.add(isError, "NoLeader", object, "see whether a controller runs, and its log", "nobody holds it: no controller leads")
		case !i.renewed[namespace]:
			f.add(isError, "LeaseStale", object, "see whether the pod of that controller runs, and whether it reaches the API server",
				"%s holds it and does not renew it: no controller leads", *i.leases[n].Spec.HolderIdentity)
		}
	}
}

// maxSkew is how far the clock of a machine may be from that of the API server. The times of the API
// server's own record are of whole seconds.
const maxSkew = 5 * time.Second

// checkClocks compares the times that machines write into their Leases with those at which the API
// server noted the writes.
func (i *installation) checkClocks(f *findings) {
	for _, l := range slices.Concat(i.leases, i.nodeLeases) {
		at := lastWrite(l.ManagedFields)
		if l.Spec.RenewTime == nil || at.IsZero() {
			continue
		}
		if skew := l.Spec.RenewTime.Sub(at).Round(time.Second); skew.Abs() > maxSkew {
			who := "node " + l.Name
			if l.Name == controllerName && l.Spec.HolderIdentity != nil {
				who = "controller " + *l.Spec.HolderIdentity
			}
			f.add(isWarning, "ClockSkew", "Lease "+l.Namespace+"/"+l.Name, "set the clocks of all machines by NTP",
				"the clock of %s is %v from that of the API server: times in statuses and events mislead", who, skew)
		}
	}
}

func lastWrite(fields []metav1.ManagedFieldsEntry) (last time.Time) {
	for _, f := range fields {
		if f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

// checkAgents: whether one runs on each node.
func (i *installation) checkAgents(f *findings) {
	if i.couldNotRead("DaemonSets of the operator") || i.couldNotRead("Pods of the operator") {
		return
	}
	template := i.agentTemplate()
	if template == nil {
		f.add(isError, "AgentsMissing", "DaemonSet with label "+labelName+"="+ourName, "install the chart", "there is none that runs the agent: egress IPs are configured nowhere")
		return
	}
	on := make(map[string]*corev1.Pod)
	for _, pod := range i.podsOf(componentAgent) {
		on[pod.Spec.NodeName] = &pod
	}
	for n := range i.nodes {
		node := &i.nodes[n]
		pod := on[node.Name]
		switch {
		case pod == nil && !selects(template.Spec.NodeSelector, node.Labels):
			f.add(isWarning, "NodeWithoutAgent", "Node "+node.Name, "extend agent.nodeSelector, unless no pod with egress IPs runs there",
				"the DaemonSet of agents does not select it: pods there leave as without egress IPs")
		case pod == nil:
			f.add(isError, "AgentMissing", "Node "+node.Name, "see the events of DaemonSet egressip-agent; taints need agent.tolerations", "no pod of the agent is on it: new pods there leave as without egress IPs")
		default:
			if why := notReady(pod); why != "" {
				f.add(isError, "AgentNotReady", "Pod "+pod.Namespace+"/"+pod.Name, "kubectl logs; kubectl describe pod; it is on node "+node.Name, "%s", why)
			}
		}
	}
}

func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// checkVersions: whether all run the same.
func (i *installation) checkVersions(f *findings) {
	hosts := make(map[string][]string)
	for n := range i.HostSubnets {
		if a := i.HostSubnets[n].Status.Agent; a != nil && a.Version != "" {
			hosts[a.Version] = append(hosts[a.Version], i.HostSubnets[n].Name)
		}
	}
	images := make(map[string][]string)
	for _, pod := range i.pods {
		for _, c := range pod.Spec.Containers {
			images[c.Image] = append(images[c.Image], pod.Name)
		}
	}
	const remedy = "wait if an upgrade is under way; otherwise restart the pods that were left behind"
	for what, by := range map[string]map[string][]string{"versions of agents": hosts, "images of pods": images} {
		if len(by) < 2 {
			continue
		}
		var texts []string
		for _, version := range slices.Sorted(maps.Keys(by)) {
			texts = append(texts, fmt.Sprintf("%s (%d, such as %s)", version, len(by[version]), slices.Min(by[version])))
		}
		f.add(isWarning, "VersionsMixed", what, remedy, "there are several: %s", strings.Join(texts, ", "))
	}
}
