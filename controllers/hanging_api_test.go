package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// through returns an api whose controllers' requests pass through a function that sends
// them on.
func (a *api) through(pass func(r *http.Request, next http.RoundTripper) (*http.Response, error)) *api {
	behind := *a
	behind.cfg = rest.CopyConfig(a.cfg)
	behind.cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) { return pass(r, next) })
	})
	return &behind
}

// hanging are the requests that the API server takes and never answers.
type hanging struct {
	mu sync.Mutex
	// open are those that hang now, and ended are the errors of those that hung, by what
	// they were.
	open  map[string]int
	ended map[string][]error
	// unbounded are the writes that would have waited for ever, or for longer than is
	// allowed.
	unbounded []string
}

// longest is the longest that any write may wait for an answer.
const longest = 30 * time.Second

// hang returns an api to which the requests that what names get no answer.
func (a *api) hang(what func(r *http.Request) (name string)) (*api, *hanging) {
	h := &hanging{open: make(map[string]int), ended: make(map[string][]error)}
	return a.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if deadline, ok := r.Context().Deadline(); r.Method != http.MethodGet && (!ok || time.Until(deadline) > longest) {
			h.mu.Lock()
			h.unbounded = append(h.unbounded, r.Method+" "+r.URL.Path)
			h.mu.Unlock()
		}
		name := what(r)
		if name == "" {
			return next.RoundTrip(r)
		}
		h.mu.Lock()
		h.open[name]++
		h.mu.Unlock()
		<-r.Context().Done()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.open[name]--
		h.ended[name] = append(h.ended[name], context.Cause(r.Context()))
		return nil, r.Context().Err()
	}), h
}

func (h *hanging) hangs(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open[name] == 0 {
		return fmt.Sprintf("%s does not hang; it ended %d times", name, len(h.ended[name]))
	}
	return ""
}

// TestHangingWritesHoldUpNoOther: the API server takes one write of claims, and all writes
// of one status, and never answers. What others need is decided and written meanwhile, and
// the write of claims ends by its timeout and is tried again. Every write has a timeout.
//
// Mutants killed: passes-wait-for-answers, events-wait-for-ever.
func TestHangingWritesHoldUpNoOther(t *testing.T) {
	a := startAPI(t)
	const claims, status = "claims of node1", "status of mute"
	var first sync.Once
	hung, requests := a.hang(func(r *http.Request) (name string) {
		switch {
		case r.Method != http.MethodPatch:
		case strings.HasSuffix(r.URL.Path, "/netnamespaces/mute/status"):
			return status
		case strings.HasSuffix(r.URL.Path, "/hostsubnets/node1") && strings.Contains(bodyOf(t, r), `"egressIPs"`):
			first.Do(func() { name = claims })
		}
		return name
	})
	for i, name := range []string{"node1", "node2"} {
		a.node(t, name, "", fmt.Sprintf("192.168.7.%d", i+11))
		h := objects.HostSubnet(name, fmt.Sprintf("192.168.7.%d", i+11))
		h.EgressCIDRs = []string{fmt.Sprintf("10.%d.0.0/24", i+1)}
		a.create(t, &h)
	}
	for i, name := range []string{"shop", "bank", "mute"} { // nobody can have that of mute
		n := objects.NetNamespace(name, uint32(10+i), fmt.Sprintf("10.%d.0.1", i+1))
		a.create(t, &n)
	}
	a.agents(t)
	for _, name := range []string{"node1", "node2"} {
		a.awaitHost(t, name, func(h *v1.HostSubnet) string {
			if h.Status.Agent == nil {
				return "no agent has reported"
			}
			return ""
		})
	}
	hung.controlAlone(t, controllers.Options{})

	testenv.Eventually(t, func(context.Context) string { return requests.hangs(claims) })
	a.awaitHost(t, "node2", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "10.2.0.1") })
	late := objects.NetNamespace("late", 20, "10.2.0.20")
	a.create(t, &late)
	a.awaitHost(t, "node2", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "10.2.0.1", "10.2.0.20") })
	if wrong := requests.hangs(claims); wrong != "" {
		t.Errorf("when the egress IPs of namespaces bank and late were claimed: %s", wrong)
	}
	a.awaitNamespace(t, "shop", wantActive("10.1.0.1", "node1"))

	testenv.Eventually(t, func(context.Context) string { return requests.hangs(status) })
	a.request(t, "bank", "10.2.0.2")
	a.awaitNamespace(t, "bank", wantActive("10.2.0.2", "node2"))
	a.ready(t, "node1", corev1.ConditionFalse)
	a.awaitHost(t, "node1", wantOnline(metav1.ConditionFalse, "NodeNotReady"))
	if wrong := requests.hangs(status); wrong != "" {
		t.Errorf("when all others had been written: %s", wrong)
	}

	requests.bounded(t)
	requests.mu.Lock()
	defer requests.mu.Unlock()
	if ended := requests.ended[claims]; len(ended) != 1 || !errors.Is(ended[0], context.DeadlineExceeded) {
		t.Errorf("the write of claims ended with %v, want its timeout", ended)
	}
}

// TestHangingVerdictsAndMarksHoldUpNoOther: the API server answers no write of one host's
// status, and none of the mark of another, which has become automatic. Passes go on: the
// first host's egress IP moves as soon as it is offline, what is requested is claimed, and a
// host that becomes automatic after them gets its claims.
//
// Mutants killed: hanging-marks-stop-all, new-hosts-wait-for-marks.
func TestHangingVerdictsAndMarksHoldUpNoOther(t *testing.T) {
	a := startAPI(t)
	const verdict, mark = "verdict on node1", "mark of node3"
	var hangs atomic.Bool
	hung, requests := a.hang(func(r *http.Request) (name string) {
		switch {
		case r.Method != http.MethodPatch || !hangs.Load():
		case strings.HasSuffix(r.URL.Path, "/hostsubnets/node1/status"):
			return verdict
		case strings.HasSuffix(r.URL.Path, "/hostsubnets/node3") && strings.Contains(bodyOf(t, r), v1.AnnotationClaimsWriter):
			return mark
		}
		return ""
	})
	for i, name := range []string{"node1", "node2", "node3", "node4"} {
		a.node(t, name, "", fmt.Sprintf("192.168.7.%d", i+11))
		h := objects.HostSubnet(name, fmt.Sprintf("192.168.7.%d", i+11))
		a.create(t, &h)
	}
	a.agents(t)
	hung.controlAlone(t, controllers.Options{})
	a.ranges(t, "node1", "10.1.0.0/24")
	shop := objects.NetNamespace("shop", 10, "10.1.0.1")
	a.create(t, &shop)
	a.awaitNamespace(t, "shop", wantActive("10.1.0.1", "node1"))
	a.ranges(t, "node2", "10.1.0.0/24", "10.2.0.0/24")
	bank := objects.NetNamespace("bank", 11, "10.2.0.1")
	a.create(t, &bank)
	a.awaitNamespace(t, "bank", wantActive("10.2.0.1", "node2"))

	hangs.Store(true)
	a.ranges(t, "node3", "10.3.0.0/24")
	testenv.Eventually(t, func(context.Context) string { return requests.hangs(mark) })
	a.ready(t, "node1", corev1.ConditionFalse)
	testenv.Eventually(t, func(context.Context) string { return requests.hangs(verdict) })
	a.awaitHost(t, "node2", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "10.1.0.1", "10.2.0.1") })
	a.request(t, "bank", "10.2.0.2")
	a.awaitHost(t, "node2", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "10.1.0.1", "10.2.0.2") })
	a.ranges(t, "node4", "10.4.0.0/24")
	a.request(t, "shop", "10.4.0.1")
	a.awaitHost(t, "node4", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "10.4.0.1") })
	for _, what := range []string{mark, verdict} {
		if wrong := requests.hangs(what); wrong != "" {
			t.Errorf("when the egress IPs were claimed: %s", wrong)
		}
		if n := requests.endedCount(what); n > 0 {
			t.Errorf("%s ended %d times before that", what, n)
		}
	}

	hangs.Store(false)
	a.request(t, "bank", "10.3.0.1")
	a.awaitHost(t, "node3", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "10.3.0.1") })
	requests.bounded(t)
}

// bounded checks that no write may wait for too long.
func (h *hanging) bounded(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.unbounded) > 0 {
		t.Errorf("these may wait for longer than %s: %q", longest, slices.Compact(slices.Sorted(slices.Values(h.unbounded))))
	}
}

// endedCount is how many requests of that name have ended.
func (h *hanging) endedCount(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ended[name])
}

// bodyOf is what a request sends.
func bodyOf(t *testing.T, r *http.Request) string {
	t.Helper()
	body, err := r.GetBody()
	if err != nil {
		t.Error(err)
		return ""
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// lists notes the collections that are listed, not watched.
type lists struct {
	mu  sync.Mutex
	all []string
}

func (l *lists) note(r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method != http.MethodGet || r.URL.Query().Get("watch") != "":
		return
	case len(parts) > 1 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 2 && parts[0] == "apis":
		parts = parts[3:]
	default:
		return
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	if len(parts) == 1 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, r.URL.Path)
	}
}

func (l *lists) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// TestSteadyClusterIsNotListed: once its caches have synced, a leader lists nothing, while
// nothing happens and while Namespaces, requests, claims, Nodes and agents' reports change.
//
// Mutant killed: verifies-again.
func TestSteadyClusterIsNotListed(t *testing.T) {
	a := startAPI(t)
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})
	listed := &lists{}
	counted := a.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		answer, err := next.RoundTrip(r)
		// Before Kubernetes 1.33 there are no ServiceCIDRs to list; it is asked for them again.
		if err != nil || answer.StatusCode != http.StatusNotFound {
			listed.note(r)
		}
		return answer, err
	})
	counted.control(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: system, FindNetworks: true})
	for i, name := range []string{"node1", "node2"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
		a.ranges(t, name, "192.168.7.128/25")
	}
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	host := a.awaitNamespace(t, "shop", served).Status.Active.Host
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", host))
	if listed.count() == 0 {
		t.Fatal("not even the caches' first lists were noted")
	}

	before := a.steady(t, listed, 0)
	a.namespace(t, "bank")
	a.request(t, "bank", "192.168.7.202")
	a.awaitNamespace(t, "bank", served)
	a.request(t, "shop", "192.168.7.200", "192.168.7.201")
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		if len(n.Status.EgressIPs) != 2 || n.Status.EgressIPs[1].State != v1.StateStandby {
			return fmt.Sprintf("requests are %v", n.Status.EgressIPs)
		}
		return ""
	})
	a.ready(t, host, corev1.ConditionFalse)
	a.awaitHost(t, host, func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs) })
	a.ready(t, host, corev1.ConditionTrue)
	a.awaitHost(t, host, func(h *v1.HostSubnet) string {
		if len(h.EgressIPs) == 0 {
			return host + " has no claims again"
		}
		return ""
	})
	if after := a.steady(t, listed, before); after > before {
		listed.mu.Lock()
		defer listed.mu.Unlock()
		t.Errorf("listed while nothing but these changed: %q", listed.all[before:])
	}
}

// steady waits until the leader has renewed its Lease for some seconds without a list,
// after so many that are allowed, or has made one that is not. It returns how many there
// were.
func (a *api) steady(t *testing.T, listed *lists, allowed int) int {
	t.Helper()
	const calm = 5 * time.Second
	var since time.Time
	last := -1
	testenv.Eventually(t, func(ctx context.Context) string {
		var lease coordinationv1.Lease
		if err := a.Get(ctx, client.ObjectKey{Namespace: system, Name: "egressip-controller"}, &lease); err != nil {
			return err.Error()
		}
		n := listed.count()
		if allowed > 0 && n > allowed {
			last = n
			return ""
		}
		if renewed := lease.Spec.RenewTime.Time; n != last {
			last, since = n, renewed
		} else if renewed.Sub(since) >= calm {
			return ""
		}
		return fmt.Sprintf("%d lists, the last a moment ago", n)
	})
	return last
}
