package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// life plays how objects come, change and go with Namespaces and Nodes.
type life struct {
	*driver
	// nodeUIDs are the UIDs that the API server gave to those of the scenario.
	nodeUIDs map[string]string
}

func newLife(t *testing.T, c *cluster) *life {
	t.Helper()
	return &life{driver: newDriver(t, c, ""), nodeUIDs: make(map[string]string)}
}

// play plays a scenario up to the first step at which something is wrong.
func (l *life) play(scenario conformance.Scenario) conformance.Outcome {
	out := conformance.Outcome{Wrong: scenario.Problems, NotHere: conformance.OnAPIServer.NotHere(scenario)}
	if len(out.Wrong) > 0 {
		return out
	}
	ctx := l.t.Context()
	placed := conformance.NewState()
	for i, step := range scenario.Steps {
		if conformance.OnAPIServer.PassesOver(step) {
			continue
		}
		expect, err := conformance.Expected[conformance.LifecycleExpect](step)
		if err != nil {
			return out.At(scenario, i, err.Error())
		}
		before, err := l.objects(ctx)
		if err != nil {
			return out.At(scenario, i, err.Error())
		}
		err = l.as(ctx, step.AsUser).step(ctx, step)
		switch {
		case expect.Error != nil:
			if err == nil || string(apierrors.ReasonForError(err)) != *expect.Error {
				return out.At(scenario, i, fmt.Sprintf("want %s, got %v", *expect.Error, err))
			}
			continue
		case err != nil:
			return out.At(scenario, i, err.Error())
		}
		now, wrong := l.until(ctx, expect, before, placed)
		if len(wrong) > 0 {
			return out.At(scenario, i, wrong...)
		}
		if step.Op == "settle" {
			placed = now.state
		}
	}
	return out
}

// as is the scenario in the hands of a user; "" is the administrator.
func (l *life) as(ctx context.Context, user string) *life {
	if user == "" {
		return l
	}
	withUser, asDriver, as := *l.cluster, *l.driver, *l
	withUser.Client = l.projectAdmin(ctx, l.t)
	asDriver.cluster, as.driver = &withUser, &asDriver
	return &as
}

// until waits until what is expected holds, and returns what does not.
func (l *life) until(ctx context.Context, expect conformance.LifecycleExpect, before snapshot, placed conformance.State) (now snapshot, wrong []string) {
	testenv.Await(ctx, settleWithin/3, func(ctx context.Context) string {
		seen, err := l.objects(ctx)
		if err != nil {
			if ctx.Err() == nil {
				wrong = []string{err.Error()}
			}
			return err.Error()
		}
		now = seen
		wrong = slices.Concat(
			l.compare("netnamespace", expect.NetNamespaces, now.netNamespaces, before.netNamespaces),
			l.compare("hostsubnet", expect.HostSubnets, now.hostSubnets, before.hostSubnets),
			conformance.CheckConstraints(expect.Constraints, now.state, before.state, placed),
		)
		return strings.Join(wrong, "; ")
	})
	return now, wrong
}

// snapshot is the fields of all objects by name, as JSON has them, and what they
// say about the cluster.
type snapshot struct {
	netNamespaces, hostSubnets map[string]map[string]any
	state                      conformance.State
}

func (l *life) objects(ctx context.Context) (snapshot, error) {
	var netNamespaces v1.NetNamespaceList
	var hostSubnets v1.HostSubnetList
	if err := l.reportAsAgents(ctx); err != nil {
		return snapshot{}, err
	}
	if err := errors.Join(l.List(ctx, &netNamespaces), l.List(ctx, &hostSubnets)); err != nil {
		return snapshot{}, err
	}
	o := snapshot{netNamespaces: make(map[string]map[string]any), hostSubnets: make(map[string]map[string]any)}
	for _, n := range netNamespaces.Items {
		o.netNamespaces[n.Name] = fields(n)
	}
	for _, h := range hostSubnets.Items {
		o.hostSubnets[h.Name] = fields(h)
	}
	o.state = seen{namespaces: netNamespaces.Items, hosts: hostSubnets.Items}.state(l.driver)
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
	return conformance.Match(want, conformance.Values{
		Got: plain(object[field]), Before: plain(before[field]),
		Of: func(name string) any { return plain(all[name][field]) },
	})
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
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: step.Name}}
	switch step.Op {
	case "create-namespace":
		return l.createNamespace(ctx, step.Name)
	case "delete-namespace":
		return l.deleteNamespace(ctx, step.Name)
	case "create-node":
		if err := l.createNode(ctx, step); err != nil {
			return err
		}
		return l.appear(ctx, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: step.Name}})
	case "patch-node":
		return l.mergeStatus(ctx, node, map[string]any{"addresses": addresses(step)})
	case "delete-node":
		return l.Delete(ctx, node)
	case "offline-replace-node":
		return l.restartController(ctx, func() error { return l.replaceNode(ctx, step) })
	case "create-hostsubnet":
		return l.createHostSubnet(ctx, step)
	case "delete-hostsubnet":
		return l.Delete(ctx, &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: step.Name}})
	case "annotate-netnamespace":
		return l.merge(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: step.Name}},
			map[string]any{"metadata": map[string]any{"annotations": map[string]string{step.Key: step.Value}}})
	case "resync-namespaces":
		return l.restartController(ctx, func() error { return nil })
	default:
		return l.do(ctx, step)
	}
}

func (l *life) createNamespace(ctx context.Context, name string) error {
	if name != metav1.NamespaceDefault {
		l.t.Cleanup(func() {
			if err := l.deleteNamespace(context.WithoutCancel(ctx), name); err != nil {
				l.t.Errorf("delete namespace %s: %v", name, err)
			}
		})
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := client.IgnoreAlreadyExists(l.Create(ctx, namespace)); err != nil {
		return err
	}
	return l.appear(ctx, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// createHostSubnet makes one by hand, without a Node.
func (l *life) createHostSubnet(ctx context.Context, step conformance.Step) error {
	h := &v1.HostSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: step.Name, Annotations: step.Annotations},
		Host:       step.Name, HostIP: *step.HostIP, EgressIPs: listOf(step.EgressIPs), EgressCIDRs: listOf(step.EgressCIDRs),
	}
	if step.Subnet != nil {
		h.Subnet = *step.Subnet
	}
	return l.Create(ctx, h)
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
	if cloud := conformance.CloudConfig(step); cloud != "" {
		node.Annotations = map[string]string{egress.AnnotationCloudConfig: cloud}
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

// replaceNode deletes a Node and creates another one with its name and, unless
// others are given, its addresses.
func (l *life) replaceNode(ctx context.Context, step conformance.Step) error {
	var old corev1.Node
	if err := l.Get(ctx, types.NamespacedName{Name: step.Name}, &old); err != nil {
		return err
	}
	if err := l.Delete(ctx, &old); err != nil {
		return err
	}
	if len(step.Addresses) == 0 {
		for _, a := range old.Status.Addresses {
			step.Addresses = append(step.Addresses, conformance.NodeAddress{Type: string(a.Type), Address: a.Address})
		}
	}
	return l.createNode(ctx, step)
}

// testEveryWord plays the scenarios that use each operation, expectation,
// predicate and constraint.
func testEveryWord(t *testing.T, c *cluster) {
	t.Helper()
	corpus, err := conformance.Load(conformance.EveryWord)
	if err != nil {
		t.Fatal(err)
	}
	judge := func(t *testing.T, out conformance.Outcome) {
		t.Helper()
		logNotHere(t, out)
		if len(out.Wrong) > 0 {
			t.Error(strings.Join(out.Wrong, "\n"))
		}
	}
	for _, scenario := range corpus.Scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			judge(t, conformance.Play(t.Context(), newDriver(t, c, scenario.Profile), scenario))
		})
	}
	for _, scenario := range corpus.LifecycleScenarios {
		t.Run(scenario.Name, func(t *testing.T) { judge(t, newLife(t, c).play(scenario)) })
	}
}
