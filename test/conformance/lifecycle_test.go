package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// life plays how objects come, change and go with Namespaces and Nodes.
type life struct {
	*driver
	// nodeUIDs are the UIDs that the API server gave to those of the scenario.
	nodeUIDs   map[string]string
	namespaces []string
}

func newLife(t *testing.T, c *cluster) *life {
	t.Helper()
	l := &life{driver: newDriver(t, c, ""), nodeUIDs: make(map[string]string)}
	t.Cleanup(func() {
		for _, name := range l.namespaces {
			if err := l.deleteNamespace(context.WithoutCancel(t.Context()), name); err != nil {
				t.Errorf("delete namespace %s: %v", name, err)
			}
		}
	})
	return l
}

// lifeExpect is what a lifecycle scenario expects.
type lifeExpect struct {
	NetNamespaces map[string]map[string]any `json:"netnamespaces"`
	HostSubnets   map[string]map[string]any `json:"hostsubnets"`
	Constraints   []struct {
		Kind  string   `json:"kind"`
		Names []string `json:"names"`
		Of    string   `json:"of"`
	} `json:"constraints"`
	Error *string `json:"error"`
}

func (l *life) play(scenario conformance.Scenario) []string {
	ctx := l.t.Context()
	for i, step := range scenario.Steps {
		at := func(wrong ...string) []string {
			for w := range wrong {
				wrong[w] = fmt.Sprintf("step %d, %s %s: %s", i+1, step.Op, step.Name, wrong[w])
			}
			return wrong
		}
		var expect lifeExpect
		if len(step.Expect) > 0 {
			decoder := json.NewDecoder(bytes.NewReader(step.Expect))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&expect); err != nil {
				return at(err.Error())
			}
		}
		before, err := l.objects(ctx)
		if err != nil {
			return at(err.Error())
		}
		err = l.step(ctx, step)
		switch {
		case expect.Error != nil:
			if err == nil || string(apierrors.ReasonForError(err)) != *expect.Error {
				return at(fmt.Sprintf("want %s, got %v", *expect.Error, err))
			}
			continue
		case err != nil:
			return at(err.Error())
		}
		if wrong := l.until(ctx, expect, before); len(wrong) > 0 {
			return at(wrong...)
		}
	}
	return nil
}

// until waits until what is expected holds, and returns what does not.
func (l *life) until(ctx context.Context, expect lifeExpect, before objects) (wrong []string) {
	err := wait.PollUntilContextTimeout(ctx, pollEvery, settleWithin/3, true, func(ctx context.Context) (bool, error) {
		now, err := l.objects(ctx)
		if err != nil {
			return false, err
		}
		wrong = append(
			l.compare("netnamespace", expect.NetNamespaces, now.netNamespaces, before.netNamespaces),
			l.compare("hostsubnet", expect.HostSubnets, now.hostSubnets, before.hostSubnets)...,
		)
		for _, c := range expect.Constraints {
			if c.Kind != "netids-distinct" {
				wrong = append(wrong, fmt.Sprintf("constraint %q is not known", c.Kind))
				continue
			}
			seen := make(map[string]string)
			for _, name := range c.Names {
				id := fmt.Sprint(now.netNamespaces[name]["netid"])
				if other, taken := seen[id]; taken {
					wrong = append(wrong, fmt.Sprintf("%s and %s have netid %s", other, name, id))
				}
				seen[id] = name
			}
		}
		return len(wrong) == 0, nil
	})
	if err != nil && !wait.Interrupted(err) {
		return append(wrong, err.Error())
	}
	return wrong
}

// objects are the fields of all objects by name, as JSON has them.
type objects struct{ netNamespaces, hostSubnets map[string]map[string]any }

func (l *life) objects(ctx context.Context) (objects, error) {
	var netNamespaces v1.NetNamespaceList
	var hostSubnets v1.HostSubnetList
	if err := errors.Join(l.List(ctx, &netNamespaces), l.List(ctx, &hostSubnets)); err != nil {
		return objects{}, err
	}
	o := objects{netNamespaces: make(map[string]map[string]any), hostSubnets: make(map[string]map[string]any)}
	for _, n := range netNamespaces.Items {
		o.netNamespaces[n.Name] = fields(n)
	}
	for _, h := range hostSubnets.Items {
		o.hostSubnets[h.Name] = fields(h)
	}
	return o, nil
}

func fields(object any) map[string]any {
	all := make(map[string]any)
	data, err := json.Marshal(object)
	if err != nil || json.Unmarshal(data, &all) != nil {
		return nil
	}
	return all
}

func (l *life) compare(kind string, want map[string]map[string]any, got, before map[string]map[string]any) (wrong []string) {
	for name, fields := range want {
		object, exists := got[name]
		if exists != (fields != nil) {
			wrong = append(wrong, fmt.Sprintf("%s %s exists: %t", kind, name, exists))
			continue
		}
		for field, value := range fields {
			if w := l.field(field, value, object, before[name], got); w != "" {
				wrong = append(wrong, fmt.Sprintf("%s %s, %s: %s", kind, name, field, w))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

func (l *life) field(field string, want any, object, before map[string]any, all map[string]map[string]any) string {
	metadata, _ := object["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	switch field {
	case "annotationAbsent":
		if _, present := annotations[fmt.Sprint(want)]; present {
			return "is there"
		}
		return ""
	case "annotations":
		wanted, _ := want.(map[string]any)
		for key, value := range wanted {
			if uid, ours := l.nodeUIDs[fmt.Sprint(value)]; ours {
				value = uid
			}
			if annotations[key] != value {
				return fmt.Sprintf("%s is %v", key, annotations[key])
			}
		}
		return ""
	}
	if same, ok := want.(map[string]any); ok && same["sameAs"] != nil {
		want = all[fmt.Sprint(same["sameAs"])][field]
	}
	return conformance.Match(want, plain(object[field]), plain(before[field]))
}

// plain makes a list of strings of a list of anything.
func plain(value any) any {
	list, ok := value.([]any)
	if !ok {
		return value
	}
	var words []string
	for _, element := range list {
		words = append(words, fmt.Sprint(element))
	}
	return words
}

func (l *life) step(ctx context.Context, step conformance.Step) error {
	switch step.Op {
	case "create-namespace":
		if !slices.Contains([]string{"default"}, step.Name) {
			l.namespaces = append(l.namespaces, step.Name)
		}
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}
		if err := client.IgnoreAlreadyExists(l.Create(ctx, namespace)); err != nil {
			return err
		}
		return l.appear(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: step.Name}})
	case "delete-namespace":
		return l.deleteNamespace(ctx, step.Name)
	case "create-node":
		if err := l.createNode(ctx, step); err != nil {
			return err
		}
		return l.appear(ctx, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: step.Name}})
	case "patch-node":
		return l.mergeStatus(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}, map[string]any{"addresses": addresses(step)})
	case "offline-replace-node":
		return l.restartController(ctx, func() error { return l.replaceNode(ctx, step) })
	case "create-hostsubnet":
		h := &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: step.Name, Annotations: step.Annotations},
			Host:       step.Name, HostIP: *step.HostIP, Subnet: *step.Subnet,
		}
		return l.Create(ctx, h)
	case "annotate-netnamespace":
		return l.merge(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: step.Name}},
			map[string]any{"metadata": map[string]any{"annotations": map[string]string{step.Key: step.Value}}})
	case "resync-namespaces":
		return l.restartController(ctx, func() error { return nil })
	case "patch-netnamespace", "patch-hostsubnet":
		if step.AsUser == "" {
			return l.do(ctx, step)
		}
		as := *l.driver
		withUser := *l.cluster
		withUser.Client = l.projectAdmin(ctx, l.t)
		as.cluster = &withUser
		return as.do(ctx, step)
	default:
		return fmt.Errorf("operation %q is not known", step.Op)
	}
}

// appear waits for an object that the controller makes.
func (l *life) appear(ctx context.Context, object client.Object) error {
	l.eventually(ctx, fmt.Sprintf("%T %s", object, object.GetName()), func() (bool, error) {
		err := l.Get(ctx, client.ObjectKeyFromObject(object), object)
		return err == nil, client.IgnoreNotFound(err)
	})
	return nil
}

// deleteNamespace does the work of the namespace controller too.
func (l *life) deleteNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := l.Delete(ctx, namespace); err != nil {
		return client.IgnoreNotFound(err)
	}
	if err := l.Get(ctx, types.NamespacedName{Name: name}, namespace); err != nil {
		return client.IgnoreNotFound(err)
	}
	namespace.Spec.Finalizers = nil
	return client.IgnoreNotFound(l.SubResource("finalize").Update(ctx, namespace))
}

func addresses(step conformance.Step) []corev1.NodeAddress {
	var list []corev1.NodeAddress
	for _, a := range step.Addresses {
		list = append(list, corev1.NodeAddress{Type: corev1.NodeAddressType(a.Type), Address: a.Address})
	}
	return list
}

func (l *life) createNode(ctx context.Context, step conformance.Step) error {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: step.Name},
		Spec:       corev1.NodeSpec{PodCIDR: "10.128.4.0/24", PodCIDRs: []string{"10.128.4.0/24"}},
	}
	if err := l.Create(ctx, node); err != nil {
		return err
	}
	l.nodeUIDs[step.UID] = string(node.UID)
	return l.mergeStatus(ctx, node, map[string]any{
		"addresses":  addresses(step),
		"conditions": []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	})
}

// replaceNode makes a Node of the same name and address anew.
func (l *life) replaceNode(ctx context.Context, step conformance.Step) error {
	var old corev1.Node
	if err := l.Get(ctx, types.NamespacedName{Name: step.Name}, &old); err != nil {
		return err
	}
	if err := l.Delete(ctx, &old); err != nil {
		return err
	}
	for _, a := range old.Status.Addresses {
		step.Addresses = append(step.Addresses, conformance.NodeAddress{Type: string(a.Type), Address: a.Address})
	}
	return l.createNode(ctx, step)
}
