package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

//nolint:gochecknoglobals // TestMain ends what any test may start
var servers = Pool{Options: Options{CRDs: []string{filepath.Join("..", "..", "..", "config", "crd")}}}

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

// given: an API server in which a test creates objects, one with a finalizer, and changes
// and deletes what was there from the beginning; when the next test asks for one; then it
// is the same one, and all is as in the beginning. After a test that left a policy, it is
// another one.
func TestPool(t *testing.T) {
	var first map[string]string
	var port string
	lend := func(name string, use func(t *testing.T, env *envtest.Environment, c client.Client)) {
		t.Helper()
		ok := t.Run(name, func(t *testing.T) {
			env := servers.Start(t)
			all := scheme.Scheme
			if err := v1.AddToScheme(all); err != nil {
				t.Fatal(err)
			}
			c, err := client.New(env.Config, client.Options{Scheme: all})
			if err != nil {
				t.Fatal(err)
			}
			use(t, env, c)
		})
		if !ok {
			t.FailNow()
		}
	}
	lend("the first one", func(t *testing.T, env *envtest.Environment, c client.Client) {
		t.Helper()
		first, port = contents(t, c), env.Config.Host
		change(t, c)
		if after := contents(t, c); len(after) < len(first) {
			t.Fatalf("nothing changed: %v", after)
		}
	})
	lend("the same one", func(t *testing.T, env *envtest.Environment, c client.Client) {
		t.Helper()
		if env.Config.Host != port {
			t.Errorf("it is another one: %s, and not %s", env.Config.Host, port)
		}
		now := contents(t, c)
		for key, value := range first {
			if now[key] != value {
				t.Errorf("%s is %q, and was %q", key, now[key], value)
			}
		}
		for key := range now {
			if _, ok := first[key]; !ok {
				t.Errorf("%s is left", key)
			}
		}
		create(t, c, &admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "left"},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}}},
				Validations: []admissionv1.Validation{{Expression: "false"}},
			},
		})
	})
	lend("another one", func(t *testing.T, env *envtest.Environment, _ client.Client) {
		t.Helper()
		if env.Config.Host == port {
			t.Error("one that may still act on a policy is lent again")
		}
	})
}

// change creates, changes and deletes objects.
func change(t *testing.T, c client.Client) {
	t.Helper()
	create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "left"}})
	create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "left", Name: "left", Finalizers: []string{"example.com/never"}}})
	create(t, c, &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "left"}, NetName: "left"})
	// A Namespace stays for as long as nothing empties it.
	if err := c.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "left"}}); err != nil {
		t.Fatal(err)
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"labels": {"changed": "yes"}}}`))
	if err := c.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, patch); err != nil {
		t.Fatal(err)
	}
	gone := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-apiserver-legacy-service-account-token-tracking"}}
	if err := c.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatalf("create %s: %v", o.GetName(), err)
	}
}

// contents returns the labels of some kinds of objects, as text, by kind and name.
func contents(t *testing.T, c client.Client) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, list := range []client.ObjectList{&corev1.NamespaceList{}, &corev1.ConfigMapList{}, &corev1.ServiceList{}, &v1.NetNamespaceList{}, &admissionv1.ValidatingAdmissionPolicyList{}} {
		if err := c.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		err := meta.EachListItem(list, func(o runtime.Object) error {
			object := o.(client.Object)
			found[fmt.Sprintf("%T %s/%s", o, object.GetNamespace(), object.GetName())] = fmt.Sprint(object.GetUID(), object.GetLabels())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
