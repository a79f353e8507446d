package controllers_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// statusWrites notes all writes of statuses that pass through a connection, in order.
type statusWrites struct {
	mu  sync.Mutex
	all []string // as kind/name
}

// watchWrites returns an api whose controllers' writes of statuses are noted.
func (a *api) watchWrites() (*api, *statusWrites) {
	w := &statusWrites{}
	noted := *a
	noted.cfg = rest.CopyConfig(a.cfg)
	noted.cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
			if n := len(parts); r.Method == http.MethodPatch && n > 3 && parts[n-1] == "status" {
				w.mu.Lock()
				w.all = append(w.all, parts[n-3]+"/"+parts[n-2])
				w.mu.Unlock()
			}
			return next.RoundTrip(r)
		})
	})
	return &noted, w
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// since returns the writes after the first n.
func (w *statusWrites) since(n int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.all[n:]...)
}

func (w *statusWrites) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// settled waits until no status is written for a while.
func (w *statusWrites) settled(t *testing.T) {
	t.Helper()
	last, since := -1, time.Now()
	testenv.Eventually(t, func(context.Context) string {
		if n := w.count(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < 3*time.Second {
			return fmt.Sprintf("statuses are still written, %d so far: %v", last, w.since(max(0, last-5)))
		}
		return ""
	})
}

// TestStatusBelongsToTheController: what others write into the controller's part of a
// status is written over at once, with a handful of writes. What they own as well, so
// that it cannot be taken away, and what is their own, keeps nobody busy and holds up
// no other status. Evacuating is written as False when it ends.
//
// Mutants: evacuating-removed, foreign-online-kept, noop-counts-as-written.
func TestStatusBelongsToTheController(t *testing.T) {
	a := startAPI(t)
	noted, writes := a.watchWrites()
	noted.control(t, controllers.Options{})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	for i, name := range []string{"shop", "bank"} {
		a.namespace(t, name)
		a.request(t, name, fmt.Sprintf("192.168.7.%d", 200+i))
	}
	a.claim(t, "node1", "192.168.7.200", "192.168.7.201")
	a.awaitNamespace(t, "bank", wantActive("192.168.7.201", "node1"))
	writes.settled(t)

	edit := func(t *testing.T, manager string, change func(*v1.HostSubnetStatus)) {
		t.Helper()
		h := a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
		before := h.DeepCopy()
		change(&h.Status)
		if err := a.Status().Patch(t.Context(), h, client.MergeFrom(before), client.FieldOwner(manager)); err != nil {
			t.Fatal(err)
		}
	}
	// few are the writes that any one change may cost.
	few := func(t *testing.T, before, most int) {
		t.Helper()
		writes.settled(t)
		if all := writes.since(before); len(all) > most {
			t.Errorf("%d writes of statuses, want at most %d: %v", len(all), most, all)
		}
	}

	for _, kind := range []string{v1.ConditionOnline, v1.ConditionEgressReady} {
		t.Run(kind+" is set to False by hand", func(t *testing.T) {
			before := writes.count()
			edit(t, "kubectl-edit", func(s *v1.HostSubnetStatus) {
				meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: "Test"})
			})
			a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
				return wantCondition(h.Status.Conditions, kind, metav1.ConditionTrue, "", "")
			})
			few(t, before, 4)
		})
	}

	t.Run("all conditions are removed by hand", func(t *testing.T) {
		before := writes.count()
		edit(t, "kubectl-edit", func(s *v1.HostSubnetStatus) { s.Conditions = nil })
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			return wantCondition(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionTrue, "", "")
		})
		few(t, before, 4)
	})

	t.Run("a namespace's status is changed by hand", func(t *testing.T) {
		before := writes.count()
		n := a.awaitNamespace(t, "shop", func(*v1.NetNamespace) string { return "" })
		was := n.DeepCopy()
		n.Status.Active = &v1.Assignment{IP: "192.168.7.99", Host: "nowhere"}
		if err := a.Status().Patch(t.Context(), n, client.MergeFrom(was)); err != nil {
			t.Fatal(err)
		}
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
		few(t, before, 4)
	})

	t.Run("Evacuating ends as False", func(t *testing.T) {
		annotate := func(value string) {
			a.patch(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}},
				fmt.Sprintf(`{"metadata": {"annotations": {%q: %s}}}`, v1.AnnotationEvacuate, value))
		}
		want := func(status metav1.ConditionStatus) func(*v1.HostSubnet) string {
			return func(h *v1.HostSubnet) string {
				return wantCondition(h.Status.Conditions, v1.ConditionEvacuating, status, "", "")
			}
		}
		a.awaitHost(t, "node1", want(metav1.ConditionFalse))
		annotate(`"true"`)
		a.awaitHost(t, "node1", want(metav1.ConditionTrue))
		annotate("null")
		a.awaitHost(t, "node1", want(metav1.ConditionFalse))
		a.awaitEvent(t, "HostSubnet", "node1", "Evacuating", "has ended")
	})

	t.Run("others own Evacuating too, and have a condition of their own", func(t *testing.T) {
		before := writes.count()
		edit(t, "somebody", func(s *v1.HostSubnetStatus) {
			meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1.ConditionEvacuating, Status: metav1.ConditionTrue, Reason: "Theirs"})
			meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: "Theirs", Status: metav1.ConditionTrue, Reason: "Theirs"})
		})
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if wrong := wantCondition(h.Status.Conditions, "Theirs", metav1.ConditionTrue, "Theirs", ""); wrong != "" {
				return wrong
			}
			return wantCondition(h.Status.Conditions, v1.ConditionEvacuating, metav1.ConditionFalse, "", "")
		})
		few(t, before, 4)
	})

	t.Run("an entry that another manager owns stays, and holds up nothing", func(t *testing.T) {
		before := writes.count()
		n := a.awaitNamespace(t, "shop", func(*v1.NetNamespace) string { return "" })
		was := n.DeepCopy()
		n.Status.EgressIPs = append(n.Status.EgressIPs, v1.RequestStatus{IP: "192.168.7.99", State: v1.StateStandby, Host: "nowhere"})
		if err := a.Status().Patch(t.Context(), n, client.MergeFrom(was), client.FieldOwner("somebody")); err != nil {
			t.Fatal(err)
		}
		a.request(t, "bank", "192.168.7.201", "192.168.7.202")
		a.awaitNamespace(t, "bank", func(n *v1.NetNamespace) string {
			if len(n.Status.EgressIPs) != 2 {
				return fmt.Sprintf("the status has %v", n.Status.EgressIPs)
			}
			return ""
		})
		few(t, before, 8)
	})
}

// TestWorstMessagesFit: the greatest objects that the CRDs accept, with everything
// wrong in them, have a status that the API server accepts.
//
// Mutant: message-unclipped.
func TestWorstMessagesFit(t *testing.T) {
	a := startAPI(t)
	long := func(prefix string, i int) string {
		label := strings.Repeat("x", 61)
		return fmt.Sprintf("%s%d.%s.%s.%s.%s", prefix, i, label, label, label, label[:40])
	}
	var ranges, claims []string
	for i := range 256 {
		ranges = append(ranges, fmt.Sprintf("172.16.%d.0/24", i))
	}
	for i := range 512 {
		claims = append(claims, fmt.Sprintf("10.0.%d.%d", i/256, i%256))
	}
	for i, fill := range []func(*v1.HostSubnet){
		func(h *v1.HostSubnet) { h.EgressCIDRs = ranges },
		func(h *v1.HostSubnet) { h.EgressIPs = claims },
		func(h *v1.HostSubnet) { h.EgressIPs = claims[:256] },
	} {
		address := fmt.Sprintf("10.0.4.%d", i+1)
		node := a.node(t, long("host", i), "", address)
		a.patch(t, node, fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, egress.AnnotationCloudConfig,
			`[{"ifaddr":{"ipv4":"10.0.0.0/18"},"capacity":{"ip":10}}]`)) // none of the ranges is in it
		h := hostSubnet(node.Name)
		h.Host, h.HostIP = node.Name, address
		fill(h)
		a.create(t, h)
	}
	n := netNamespace(long("team", 0))
	n.NetName, n.NetID, n.EgressIPs = n.Name, new(uint32(100)), claims[:256]
	a.create(t, n)
	a.control(t, controllers.Options{})
	// The API server checks all claims of an object whenever its status is written.
	testenv.EventuallyWithin(t, 3*testenv.Patience, func(ctx context.Context) string {
		var wrong []string
		var h v1.HostSubnet
		for i, word := range []string{"bytes more)", "", ""} {
			if err := a.Get(ctx, client.ObjectKey{Name: long("host", i)}, &h); err != nil {
				return err.Error()
			}
			wrong = append(wrong, wantCondition(h.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, "", word))
		}
		var n v1.NetNamespace
		if err := a.Get(ctx, client.ObjectKey{Name: long("team", 0)}, &n); err != nil {
			return err.Error()
		}
		wrong = append(wrong, wantCondition(n.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, "MultipleHosts", ""))
		return strings.Join(slices.DeleteFunc(wrong, func(w string) bool { return w == "" }), "; ")
	})
}
