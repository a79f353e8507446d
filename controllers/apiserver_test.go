package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
)

// api is a real API server with the CRDs of config/crd and config/egressip, and its administrator.
type api struct {
	client.Client
	env *envtest.Environment
	cfg *rest.Config
	bin string
	// metrics are those of its controllers.
	metrics ctrlmetrics.RegistererGatherer
}

// startAPI brings up etcd and an API server that end with the test. The test runs in parallel
// with others from then on: most of the time it waits.
func startAPI(t *testing.T) *api {
	t.Helper()
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme), ovnv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	env := apiserver.Start(t, apiserver.Options{CRDs: []string{"../config/crd", "../config/egressip"}, Scheme: scheme})
	c, err := client.New(env.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &api{Client: c, env: env, cfg: env.Config, bin: env.BinaryAssetsDirectory, metrics: prometheus.NewRegistry()}
}

// control runs the controller, and agents beside it, until stop is called or the test
// ends. If the controller loses the lead, it is started again, as the kubelet does.
func (a *api) control(t *testing.T, o controllers.Options) (stop func()) {
	t.Helper()
	a.agents(t)
	return a.controlAlone(t, o)
}

// controlAlone is control without agents.
func (a *api) controlAlone(t *testing.T, o controllers.Options) (stop func()) {
	t.Helper()
	var log lines
	logger := funcr.New(func(prefix, args string) { log.add(prefix + " " + args) }, funcr.Options{Verbosity: 1})
	// Its end is asked for by stop.
	ctx, cancel := context.WithCancel(logr.NewContext(context.WithoutCancel(t.Context()), logger))
	done := make(chan error, 1)
	go func() {
		err := controllers.RunWithMetrics(ctx, a.cfg, o, a.metrics)
		for err != nil && ctx.Err() == nil {
			log.add("ended: " + err.Error())
			err = controllers.RunWithMetrics(ctx, a.cfg, o, a.metrics)
		}
		done <- err
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the controller:\n%s", log.String())
		}
	})
	t.Cleanup(stop)
	return stop
}

// lines keeps a log for failures.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

func (a *api) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := a.Create(t.Context(), o); err != nil {
			t.Fatalf("create %s: %v", o.GetName(), err)
		}
	}
}

// namespace creates a Namespace.
func (a *api) namespace(t *testing.T, name string) {
	t.Helper()
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// removeNamespace deletes a Namespace to the end, which is otherwise the
// controller manager's work.
func (a *api) removeNamespace(t *testing.T, name string) {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := clientset.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		namespace, err := clientset.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		namespace.Spec.Finalizers = nil
		_, err = clientset.CoreV1().Namespaces().Finalize(ctx, namespace, metav1.UpdateOptions{})
		return fmt.Sprintf("Namespace %s is still there: %v", name, err)
	})
}

// node creates a Node that is Ready.
func (a *api) node(t *testing.T, name, podCIDR string, addresses ...string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: podCIDR}}
	if podCIDR != "" {
		node.Spec.PodCIDRs = []string{podCIDR}
	}
	a.create(t, node)
	a.nodeStatus(t, name, func(s *corev1.NodeStatus) {
		s.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}
		for _, address := range addresses {
			s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
		}
	})
	a.ready(t, name, corev1.ConditionTrue)
	return node
}

func (a *api) ready(t *testing.T, name string, status corev1.ConditionStatus) {
	t.Helper()
	a.nodeStatus(t, name, func(s *corev1.NodeStatus) {
		s.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, Reason: "Test"}}
	})
}

func (a *api) nodeStatus(t *testing.T, name string, change func(*corev1.NodeStatus)) {
	t.Helper()
	node := &corev1.Node{}
	if err := a.Get(t.Context(), client.ObjectKey{Name: name}, node); err != nil {
		t.Fatal(err)
	}
	before := node.DeepCopy()
	change(&node.Status)
	if err := a.Status().Patch(t.Context(), node, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// patch applies a JSON merge patch, as kubectl patch --type=merge does.
func (a *api) patch(t *testing.T, object client.Object, patch string) {
	t.Helper()
	if err := a.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		t.Fatalf("patch %s: %v", object.GetName(), err)
	}
}

func netNamespace(name string) *v1.NetNamespace {
	return &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func hostSubnet(name string) *v1.HostSubnet {
	return &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// request sets a namespace's egress IPs, once the controller has made its
// NetNamespace.
func (a *api) request(t *testing.T, name string, ips ...string) {
	t.Helper()
	testenv.Eventually(t, func(ctx context.Context) string {
		return text(a.Get(ctx, client.ObjectKey{Name: name}, netNamespace(name)))
	})
	a.patch(t, netNamespace(name), fmt.Sprintf(`{"egressIPs": [%s]}`, quoted(ips)))
}

func (a *api) claim(t *testing.T, name string, ips ...string) {
	t.Helper()
	a.hostField(t, name, "egressIPs", ips)
}

func (a *api) ranges(t *testing.T, name string, cidrs ...string) {
	t.Helper()
	a.hostField(t, name, "egressCIDRs", cidrs)
}

func (a *api) hostField(t *testing.T, name, field string, values []string) {
	t.Helper()
	testenv.Eventually(t, func(ctx context.Context) string {
		return text(a.Get(ctx, client.ObjectKey{Name: name}, hostSubnet(name)))
	})
	a.patch(t, hostSubnet(name), fmt.Sprintf(`{%q: [%s]}`, field, quoted(values)))
}

func quoted(values []string) string {
	var all []string
	for _, v := range values {
		all = append(all, fmt.Sprintf("%q", v))
	}
	return strings.Join(all, ",")
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// awaitNamespace polls until wrong has nothing to say of the NetNamespace.
func (a *api) awaitNamespace(t *testing.T, name string, wrong func(*v1.NetNamespace) string) *v1.NetNamespace {
	t.Helper()
	n := &v1.NetNamespace{}
	testenv.Eventually(t, func(ctx context.Context) string {
		n = &v1.NetNamespace{}
		if err := a.Get(ctx, client.ObjectKey{Name: name}, n); err != nil {
			return err.Error()
		}
		return wrong(n)
	})
	return n
}

// awaitHost polls until wrong has nothing to say of the HostSubnet.
func (a *api) awaitHost(t *testing.T, name string, wrong func(*v1.HostSubnet) string) *v1.HostSubnet {
	t.Helper()
	h := &v1.HostSubnet{}
	testenv.Eventually(t, func(ctx context.Context) string {
		h = &v1.HostSubnet{}
		if err := a.Get(ctx, client.ObjectKey{Name: name}, h); err != nil {
			return err.Error()
		}
		return wrong(h)
	})
	return h
}

// wantCondition says what is wrong with a condition; reason and word may be "".
func wantCondition(conditions []metav1.Condition, kind string, status metav1.ConditionStatus, reason, word string) string {
	c := meta.FindStatusCondition(conditions, kind)
	switch {
	case c == nil:
		return fmt.Sprintf("no condition %s", kind)
	case c.Status != status || (reason != "" && c.Reason != reason) || !strings.Contains(c.Message, word):
		return fmt.Sprintf("condition %s is %s, %s, %q; want %s, %s, with %q", kind, c.Status, c.Reason, c.Message, status, reason, word)
	}
	return ""
}

func wantEgressIPs(got []string, want ...string) string {
	if slices.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("egressIPs are %q, want %q", got, want)
}

// events returns the reasons and messages of an object's events, oldest first.
func (a *api) events(ctx context.Context, kind, name string) ([]string, error) {
	var list corev1.EventList
	if err := a.List(ctx, &list); err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.FirstTimestamp.Compare(b.FirstTimestamp.Time) })
	var all []string
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name {
			all = append(all, fmt.Sprintf("%s: %s (%d)", e.Reason, e.Message, e.Count))
		}
	}
	return all, nil
}

// awaitEvent polls until there is exactly one event, told once, with the reason
// and the word.
func (a *api) awaitEvent(t *testing.T, kind, name, reason, word string) {
	t.Helper()
	testenv.Eventually(t, func(ctx context.Context) string {
		all, err := a.events(ctx, kind, name)
		if err != nil {
			return err.Error()
		}
		count := 0
		for _, e := range all {
			if strings.HasPrefix(e, reason+":") && strings.Contains(e, word) && strings.HasSuffix(e, "(1)") {
				count++
			}
		}
		if count != 1 {
			return fmt.Sprintf("%d events %s with %q of %s %s, want 1; all: %q", count, reason, word, kind, name, all)
		}
		return ""
	})
}

// kubectl runs the real kubectl as the administrator, with stdin.
func (a *api) kubectl(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, a.env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(a.bin, "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
