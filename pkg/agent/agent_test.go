package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// api is a real API server, and its administrator.
type api struct {
	client.Client
	cfg *rest.Config
}

func startAPI(t *testing.T) *api {
	t.Helper()
	ctrl.SetLogger(logr.Discard()) // the agents log to their tests
	cfg := apiserver.Start(t, apiserver.Options{}).Config
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &api{Client: c, cfg: cfg}
}

// installCRDs brings the project's own kinds.
func (a *api) installCRDs(t *testing.T) {
	t.Helper()
	_, err := envtest.InstallCRDs(a.cfg, envtest.CRDInstallOptions{
		Paths: []string{filepath.Join("..", "..", "config", "crd")}, ErrorIfPathMissing: true,
	})
	if err != nil {
		t.Fatalf("install the CRDs: %v", err)
	}
}

// wire is what stands between an agent and the API server.
type wire struct {
	next http.RoundTripper

	mu     sync.Mutex
	broken func(*http.Request) error // nil: all is well
	writes atomic.Int32              // of any kind, that were answered
}

func (w *wire) breaks(f func(*http.Request) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = f
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	broken := w.broken
	w.mu.Unlock()
	if broken != nil {
		if err := broken(r); err != nil {
			return nil, err
		}
	}
	if r.Method != http.MethodGet {
		w.writes.Add(1)
	}
	return w.next.RoundTrip(r)
}

// agentUnderTest is an agent on a fake kernel and a real API server.
type agentUnderTest struct {
	kernel *fakeKernel
	wire   *wire
	health string // base URL
	// metrics is where metrics are served; "0" for nowhere.
	metrics string
	end     func()
}

// startAgent runs an agent for node until end is called or the test ends.
func startAgent(t *testing.T, a *api, node string, change ...func(*agentUnderTest)) *agentUnderTest {
	t.Helper()
	u := &agentUnderTest{kernel: &fakeKernel{}, wire: &wire{}, health: freeAddress(t), metrics: "0"}
	for _, c := range change {
		c(u)
	}
	cfg := rest.CopyConfig(a.cfg)
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		u.wire.next = rt
		return u.wire
	})
	log := testr.New(t)
	ctx, cancel := context.WithCancel(ctrl.LoggerInto(context.Background(), log))
	var registry prometheus.Registerer = prometheus.NewRegistry()
	if u.metrics != "0" {
		registry = ctrlmetrics.Registry // which the endpoint serves
	}
	done := make(chan error, 1)
	go func() {
		done <- serve(ctx, cfg, Options{
			NodeName: node, MetricsAddress: u.metrics, HealthAddress: u.health, ResyncPeriod: 100 * time.Millisecond, Version: "v1",
		}, u.kernel, registry)
	}()
	u.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent of %s ended with %v", node, err)
		}
	})
	t.Cleanup(u.end)
	return u
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get asks a health endpoint; it returns "" where all is well.
func (u *agentUnderTest) get(path string) string {
	r, err := http.Get("http://" + u.health + path) //nolint:noctx // bounded by eventually
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s: %s %v", r.Status, body, err)
	}
	return ""
}

// waitsFor returns "" where the agent says that it waits for what, and that it
// is well.
func (u *agentUnderTest) waitsFor(what string) string {
	if said := u.get("/readyz"); !strings.Contains(said, "waiting for "+what) {
		return "readyz says " + said
	}
	return u.get("/healthz")
}

// scene is a namespace with an egress IP on a node of its own, so that scenes
// share one API server without meeting.
type scene struct {
	*api
	node, namespace, egressIP, hostIP string
	n                                 int
}

func newScene(t *testing.T, a *api, n int) *scene {
	t.Helper()
	s := &scene{
		api: a, n: n,
		node: fmt.Sprintf("node%d", n), namespace: fmt.Sprintf("ns%d", n),
		egressIP: fmt.Sprintf("10.1.8.%d", 200+n), hostIP: fmt.Sprintf("10.1.8.%d", 10+n),
	}
	s.must(t, a.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}))
	nn := objects.NetNamespace(s.namespace, uint32(100+n), s.egressIP)
	s.must(t, a.Create(t.Context(), &nn))
	s.createHostSubnet(t)
	return s
}

func (s *scene) createHostSubnet(t *testing.T) {
	t.Helper()
	hs := hostSubnet(s.node, s.hostIP, fmt.Sprintf("10.244.%d.0/24", s.n), s.egressIP)
	hs.Generation = 0
	s.must(t, s.Create(t.Context(), &hs))
}

func (s *scene) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// podIP is the address of the scene's i-th pod.
func (s *scene) podIP(i int) string { return fmt.Sprintf("10.244.%d.%d", s.n, 5+i) }

// createPod makes the i-th pod, which runs and has its address.
func (s *scene) createPod(t *testing.T, i int) {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: fmt.Sprintf("pod%d", i)},
		Spec: corev1.PodSpec{
			NodeName:   s.node,
			Containers: []corev1.Container{{Name: "c", Image: "none"}},
		},
	}
	s.must(t, s.Create(t.Context(), p))
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: s.hostIP, PodIP: s.podIP(i), PodIPs: []corev1.PodIP{{IP: s.podIP(i)}},
		HostIPs: []corev1.HostIP{{IP: s.hostIP}},
	}
	s.must(t, s.Status().Update(t.Context(), p))
}

func (s *scene) deletePod(t *testing.T, i int) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: fmt.Sprintf("pod%d", i)}}
	s.must(t, s.Delete(t.Context(), p, client.GracePeriodSeconds(0)))
}

func (s *scene) hostSubnet(ctx context.Context, t *testing.T) *v1.HostSubnet {
	t.Helper()
	var hs v1.HostSubnet
	s.must(t, s.Get(ctx, client.ObjectKey{Name: s.node}, &hs))
	return &hs
}

// paths tells how the last state treats the scene's pods.
func paths(k *fakeKernel) map[string]dataplane.PodKind {
	s := k.last()
	m := map[string]dataplane.PodKind{}
	for _, p := range s.Pods {
		m[p.IP.String()] = p.Kind
	}
	return m
}

func wantPaths(k *fakeKernel, want map[string]dataplane.PodKind) func(context.Context) string {
	return func(context.Context) string {
		if got := paths(k); k.count() == 0 || !reflect.DeepEqual(got, want) {
			return fmt.Sprintf("paths are %v, want %v", got, want)
		}
		return ""
	}
}

// settled waits until the agent is ready and its status says so.
func (s *scene) settled(t *testing.T, u *agentUnderTest) *v1.HostSubnet {
	t.Helper()
	testenv.Eventually(t, func(context.Context) string { return u.get("/readyz") })
	var hs *v1.HostSubnet
	testenv.Eventually(t, func(ctx context.Context) string {
		hs = s.hostSubnet(ctx, t)
		c := meta.FindStatusCondition(hs.Status.Conditions, v1.ConditionAgentReady)
		if c == nil || c.Status != metav1.ConditionTrue || hs.Status.ObservedGeneration != hs.Generation {
			return fmt.Sprintf("status is %+v", hs.Status)
		}
		return ""
	})
	return hs
}

// morePasses waits until the agent has gone over the kernel n times more.
func morePasses(t *testing.T, u *agentUnderTest, n int) {
	t.Helper()
	until := u.kernel.count() + n
	testenv.Eventually(t, func(context.Context) string {
		if u.kernel.count() < until {
			return "the agent makes no passes"
		}
		return ""
	})
}

func TestAgentOnARealAPIServer(t *testing.T) {
	a := startAPI(t)

	t.Run("an agent waits for the CRDs", func(t *testing.T) {
		u := startAgent(t, a, "node12")
		testenv.Eventually(t, func(context.Context) string { return u.waitsFor("the list of NetNamespaces") })
		// Meanwhile it keeps up what an agent before it did with unknown pods.
		testenv.Eventually(t, func(context.Context) string {
			if u.kernel.stays() == 0 {
				return "a waiting agent is not present"
			}
			return ""
		})
		a.installCRDs(t)
		s := newScene(t, a, 12)
		s.settled(t, u)
	})

	t.Run("a port is taken", func(t *testing.T) { testTakenPort(t, a) })
	t.Run("metrics", func(t *testing.T) { testServedMetrics(t, a) })

	t.Run("pods come and go", func(t *testing.T) {
		s := newScene(t, a, 1)
		u := startAgent(t, a, s.node)
		s.createPod(t, 0)
		s.createPod(t, 1)
		testenv.Eventually(t, wantPaths(u.kernel, map[string]dataplane.PodKind{s.podIP(0): dataplane.Local, s.podIP(1): dataplane.Local}))
		s.deletePod(t, 0)
		testenv.Eventually(t, wantPaths(u.kernel, map[string]dataplane.PodKind{s.podIP(1): dataplane.Local}))

		// Another node's pod is of no concern.
		other := newScene(t, a, 2)
		other.createPod(t, 0)
		s.must(t, s.Patch(t.Context(), &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}},
			client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":null}`))))
		testenv.Eventually(t, wantPaths(u.kernel, map[string]dataplane.PodKind{s.podIP(1): dataplane.Node}))
		if st := u.kernel.last(); len(st.Hosted) != 0 {
			t.Errorf("nobody requests it, and the node hosts %v", st.Hosted)
		}
	})

	t.Run("networks that kubeadm made the cluster with", func(t *testing.T) { testKubeadm(t, a) })

	// A mutant that does not wait for the caches applies a state without the
	// pods, or none of the claims, first.
	t.Run("nothing is changed before all is known", func(t *testing.T) {
		s := newScene(t, a, 3)
		s.createPod(t, 0)
		release, early := make(chan struct{}), make(chan struct{})
		u := startAgent(t, a, s.node, func(u *agentUnderTest) {
			u.kernel.apply = func(_ context.Context, n int, st dataplane.State) (dataplane.Report, error) {
				if n == 1 {
					close(early)
				}
				return healthyReport(st), nil
			}
			u.wire.breaks(func(r *http.Request) error {
				if strings.HasSuffix(r.URL.Path, "/pods") {
					<-release
				}
				return nil
			})
		})
		testenv.Eventually(t, func(context.Context) string { return u.waitsFor("the list of this node's Pods") })
		select {
		case <-early:
			t.Error("the kernel was changed before the pods were known")
		case <-time.After(500 * time.Millisecond): // what must not happen has no event to wait for
		}
		close(release)
		s.settled(t, u)
		first := u.kernel.all()[0]
		if len(first.Hosted) != 1 || len(first.Pods) != 1 || first.Pods[0].Kind != dataplane.Local {
			t.Errorf("the first state was hosted %v, pods %v", first.Hosted, first.Pods)
		}
	})

	t.Run("the status tells what was done", func(t *testing.T) {
		s := newScene(t, a, 4)
		u := startAgent(t, a, s.node)
		hs := s.settled(t, u)
		want := v1.HostSubnetStatus{
			ObservedGeneration: hs.Generation,
			Agent:              &v1.AgentStatus{Version: "v1", Uplink: "eth0", UplinkCIDR: s.hostIP + "/24", Families: []string{v1.FamilyIPv4}, Backend: "iptables", IPTables: []string{"nft"}},
		}
		if hs.Status.ObservedGeneration != want.ObservedGeneration || !reflect.DeepEqual(hs.Status.Agent, want.Agent) {
			t.Errorf("status %+v of agent %+v, want %+v", hs.Status, hs.Status.Agent, want.Agent)
		}
		if len(hs.Status.EgressIPs) != 1 {
			t.Fatalf("claims are %+v", hs.Status.EgressIPs)
		}
		if c := hs.Status.EgressIPs[0]; c.IP != s.egressIP || c.Namespace != s.namespace || c.State != v1.StateActive || !c.Configured {
			t.Errorf("claim is %+v", c)
		}
		for _, f := range hs.ManagedFields {
			if f.Manager == FieldManager && (f.Operation != metav1.ManagedFieldsOperationApply || f.Subresource != "status") {
				t.Errorf("the agent wrote %s of %q", f.Operation, f.Subresource)
			}
		}

		before, writes := hs.ResourceVersion, u.wire.writes.Load()
		morePasses(t, u, 20)
		if hs := s.hostSubnet(t.Context(), t); hs.ResourceVersion != before || u.wire.writes.Load() != writes {
			t.Errorf("nothing happened, and the agent wrote %d times more", u.wire.writes.Load()-writes)
		}
	})

	t.Run("a failing kernel is told, and what works works", func(t *testing.T) {
		s := newScene(t, a, 5)
		var fails atomic.Bool
		fails.Store(true)
		u := startAgent(t, a, s.node, func(u *agentUnderTest) {
			u.kernel.apply = func(_ context.Context, n int, st dataplane.State) (dataplane.Report, error) {
				r := healthyReport(st)
				if !fails.Load() {
					return r, nil
				}
				r.Hosted[0].Configured, r.Hosted[0].Error = false, "no room"
				return r, fmt.Errorf("attempt %d: no room", n) // other words each time
			}
		})
		testenv.Eventually(t, func(ctx context.Context) string {
			hs := s.hostSubnet(ctx, t)
			c := meta.FindStatusCondition(hs.Status.Conditions, v1.ConditionAgentReady)
			if c == nil || c.Status != metav1.ConditionFalse || c.Reason != ReasonApplyFailed || !strings.Contains(c.Message, "no room") {
				return fmt.Sprintf("condition is %+v", c)
			}
			if e := hs.Status.EgressIPs; len(e) != 1 || e[0].Configured || e[0].Reason != ReasonNotConfigured || e[0].Message != "no room" {
				return fmt.Sprintf("claims are %+v", e)
			}
			if hs.Status.ObservedGeneration != 0 {
				t.Fatalf("observedGeneration %d was never brought to the kernel", hs.Status.ObservedGeneration)
			}
			return ""
		})
		writes := u.wire.writes.Load()
		morePasses(t, u, 10)
		if n := u.wire.writes.Load() - writes; n > 2 {
			t.Errorf("%d writes in 10 passes that failed in the same way", n)
		}
		if said := u.get("/healthz"); said != "" {
			t.Errorf("healthz says %s", said)
		}
		fails.Store(false)
		s.settled(t, u)
	})

	t.Run("the controller's part is left alone", func(t *testing.T) {
		s := newScene(t, a, 6)
		u := startAgent(t, a, s.node)
		s.settled(t, u)
		writes := u.wire.writes.Load()
		for round := range 30 {
			s.asController(t, round)
		}
		// One write of the agent among them, that takes back nothing.
		s.must(t, s.Patch(t.Context(), s.hostSubnet(t.Context(), t), client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":[]}`))))
		testenv.Eventually(t, func(ctx context.Context) string {
			hs := s.hostSubnet(ctx, t)
			if len(hs.Status.EgressIPs) != 0 || hs.Status.ObservedGeneration != hs.Generation {
				return fmt.Sprintf("status is %+v", hs.Status)
			}
			return ""
		})
		hs := s.hostSubnet(t.Context(), t)
		online := meta.FindStatusCondition(hs.Status.Conditions, v1.ConditionOnline)
		ready := meta.FindStatusCondition(hs.Status.Conditions, v1.ConditionEgressReady)
		if online == nil || online.Status != metav1.ConditionTrue || ready == nil || ready.Message != "round 29" {
			t.Errorf("the controller's conditions are %+v, %+v", online, ready)
		}
		if n := u.wire.writes.Load() - writes; n > 3 {
			t.Errorf("the agent wrote %d times for one change of its own", n)
		}
	})

	t.Run("what others take from the status comes back", func(t *testing.T) {
		s := newScene(t, a, 7)
		u := startAgent(t, a, s.node)
		hs := s.settled(t, u)
		hs.Status = v1.HostSubnetStatus{}
		s.must(t, s.Status().Update(t.Context(), hs))
		s.settled(t, u)
	})

	t.Run("without the API server the kernel is kept", func(t *testing.T) {
		s := newScene(t, a, 8)
		s.createPod(t, 0)
		u := startAgent(t, a, s.node)
		s.settled(t, u)
		want := u.kernel.last()
		u.wire.breaks(func(*http.Request) error { return errors.New("connection refused") })
		morePasses(t, u, 10)
		before := u.kernel.count()
		u.kernel.drifts()
		morePasses(t, u, 1)
		if got := u.kernel.last(); !reflect.DeepEqual(got, want) || u.kernel.count() == before {
			t.Errorf("state is %+v, want %+v", got, want)
		}
		if said := u.get("/healthz") + u.get("/readyz"); said != "" {
			t.Errorf("the health endpoints say %s", said)
		}
		u.wire.breaks(nil)
	})

	t.Run("an agent that finds no API server waits, and ends when told", func(t *testing.T) {
		u := startAgent(t, a, "node99", func(u *agentUnderTest) {
			u.wire.breaks(func(*http.Request) error { return errors.New("no route to host") })
		})
		testenv.Eventually(t, func(context.Context) string { return u.waitsFor("the list of NetNamespaces") })
		u.end()
		if n := u.kernel.count(); n != 0 {
			t.Errorf("%d passes over the kernel without an API server", n)
		}
	})

	t.Run("a status that could not be written is written later", func(t *testing.T) {
		s := newScene(t, a, 9)
		u := startAgent(t, a, s.node, func(u *agentUnderTest) {
			u.wire.breaks(func(r *http.Request) error {
				if r.Method == http.MethodPatch {
					return errors.New("connection reset")
				}
				return nil
			})
		})
		testenv.Eventually(t, func(context.Context) string { return u.get("/readyz") })
		morePasses(t, u, 5)
		if hs := s.hostSubnet(t.Context(), t); hs.Status.Agent != nil {
			t.Errorf("status is %+v", hs.Status)
		}
		u.wire.breaks(nil)
		s.settled(t, u)
	})

	t.Run("a new agent begins where the old one ended", func(t *testing.T) {
		s := newScene(t, a, 10)
		s.createPod(t, 0)
		s.createPod(t, 1)
		old := startAgent(t, a, s.node)
		testenv.Eventually(t, func(context.Context) string {
			if len(paths(old.kernel)) != 2 {
				return "the pods are not known"
			}
			return ""
		})
		before := s.settled(t, old)
		want := old.kernel.last()
		passes := old.kernel.count()
		old.end()
		if got := old.kernel.last(); !reflect.DeepEqual(got, want) || old.kernel.count() > passes+5 {
			t.Errorf("the end changed the kernel to %+v", got)
		}
		u := startAgent(t, a, s.node)
		s.settled(t, u)
		for i, got := range u.kernel.all() {
			if diff := diffState(want, got); diff != "" {
				t.Fatalf("state %d of the new agent (-old +new):\n%s", i, diff)
			}
		}
		morePasses(t, u, 5)
		if hs := s.hostSubnet(t.Context(), t); hs.ResourceVersion != before.ResourceVersion {
			t.Errorf("the restart changed the status:\n%+v\n%+v", before.Status, hs.Status)
		}
	})

	t.Run("a node without a HostSubnet hosts nothing and leaks nothing", func(t *testing.T) {
		s := newScene(t, a, 11)
		s.createPod(t, 0)
		u := startAgent(t, a, s.node)
		s.settled(t, u)
		s.must(t, s.Delete(t.Context(), s.hostSubnet(t.Context(), t)))
		testenv.Eventually(t, wantPaths(u.kernel, map[string]dataplane.PodKind{s.podIP(0): dataplane.Drop}))
		if st := u.kernel.last(); len(st.Hosted) != 0 || st.HostIP.String() != s.hostIP {
			t.Errorf("state is %+v", st)
		}
		testenv.Eventually(t, func(context.Context) string {
			if said := u.get("/readyz"); !strings.Contains(said, "there is no HostSubnet for this node") {
				return "readyz says " + said
			}
			return ""
		})
		s.createHostSubnet(t)
		s.settled(t, u)
		testenv.Eventually(t, wantPaths(u.kernel, map[string]dataplane.PodKind{s.podIP(0): dataplane.Local}))
	})
}

// asController writes the controller's part of the status as the controller
// does.
func (s *scene) asController(t *testing.T, round int) {
	t.Helper()
	condition := func(kind, message string) map[string]any {
		return map[string]any{
			"type": kind, "status": "True", "reason": "Test", "message": message,
			"lastTransitionTime": metav1.Now().UTC().Format(time.RFC3339),
		}
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{
		condition(v1.ConditionOnline, "probe"), condition(v1.ConditionEgressReady, fmt.Sprintf("round %d", round)),
	}}}}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
	u.SetName(s.node)
	s.must(t, s.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u),
		client.FieldOwner("egressip-controller"), client.ForceOwnership))
}
