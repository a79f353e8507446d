package controllers_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// process runs a controller once, as a container does.
type process struct {
	stop context.CancelFunc
	done chan error
	log  *lines
}

func (a *api) start(t *testing.T, o controllers.Options) *process {
	t.Helper()
	p := &process{done: make(chan error, 1), log: &lines{}}
	logger := funcr.New(func(prefix, args string) { p.log.add(prefix + " " + args) }, funcr.Options{Verbosity: 1})
	ctx, cancel := context.WithCancel(logr.NewContext(context.WithoutCancel(t.Context()), logger))
	var ended sync.WaitGroup
	ended.Go(func() { p.done <- controllers.RunBeside(ctx, a.cfg, o) })
	p.stop = cancel
	t.Cleanup(func() {
		cancel()
		ended.Wait()
		if t.Failed() {
			t.Logf("log of the controller of %s:\n%s", o.NodeName, p.log)
		}
	})
	return p
}

// holders notes who holds the Lease, each time that this changes.
type holders struct {
	mu  sync.Mutex
	all []string
	at  []time.Time
}

func (a *api) watchLease(t *testing.T) *holders {
	t.Helper()
	w, err := client.NewWithWatch(a.cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	events, err := w.Watch(t.Context(), &coordinationv1.LeaseList{}, client.InNamespace(system))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Stop)
	h := &holders{}
	go func() {
		for event := range events.ResultChan() {
			if lease, ok := event.Object.(*coordinationv1.Lease); ok && lease.Spec.HolderIdentity != nil {
				h.note(*lease.Spec.HolderIdentity)
			}
		}
	}()
	return h
}

func (h *holders) note(holder string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == 0 || h.all[len(h.all)-1] != holder {
		h.all, h.at = append(h.all, holder), append(h.at, time.Now())
	}
}

func (h *holders) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *holders) await(t *testing.T, want ...string) {
	t.Helper()
	testenv.Eventually(t, func(context.Context) string {
		if got := h.list(); !slices.Equal(got, want) {
			return fmt.Sprintf("holders of the Lease were %q, want %q", got, want)
		}
		return ""
	})
}

// TestLeaderOnASilentHostIsReplacedOnce: the host of a leader answers no probes any
// more, and most agents report so, but the leader lives and reaches the API server. A
// standby takes the lead in one step, and moves what that host had; the former leader
// ends by itself and, started again, stands by. A rollout then hands the lead over.
func TestLeaderOnASilentHostIsReplacedOnce(t *testing.T) {
	if !ownNetwork(t, "192.168.7.11/32", "192.168.7.12/32", "192.168.7.13/32") {
		return
	}
	a := startAPI(t)
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})
	hosts := []*answering{{name: "node2", ip: "192.168.7.12"}, {name: "node3", ip: "192.168.7.13"}}
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	for i, h := range hosts {
		h.answer(t)
		a.node(t, h.name, fmt.Sprintf("10.254.%d.0/24", i+2), h.ip)
	}
	a.agents(t)
	seen := a.watchLease(t)
	options := func(node string) controllers.Options {
		return controllers.Options{
			LeaderElection: true, LeaderElectionNamespace: system, NodeName: node, PodUID: "pod",
			ProbePort: probe.Port, ProbeSource: netip.MustParseAddr("192.168.7.11"),
		}
	}
	first := a.start(t, options("node2"))
	seen.await(t, "node2_pod")
	second := a.start(t, options("node1"))
	for _, h := range hosts {
		a.ranges(t, h.name, "192.168.7.128/25")
	}
	a.vote(t, nil, "node1")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.awaitNamespace(t, "shop", served)
	// Both controllers ask five times a second, and have heard the hosts then.
	for _, h := range hosts {
		h.awaitQuestions(t, h.responder.Stats().Answered+20)
	}

	hosts[0].fall(t)
	a.vote(t, []string{"node2"}, "node1", "node3")
	seen.await(t, "node2_pod", "node1_pod")
	// Not because it could not renew its Lease, which takes seconds: the Lease or, if that is
	// seen first, a mark says who leads.
	err := <-first.done
	if err == nil || !strings.Contains(err.Error(), "node1_pod") ||
		!strings.Contains(err.Error(), "the lead was taken: ") && !strings.Contains(err.Error(), "another controller writes claims: ") {
		t.Fatalf("the first ended with: %v", err)
	}
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node3"))
	for _, h := range hosts {
		a.awaitHost(t, h.name, func(h *v1.HostSubnet) string {
			if mark := h.Annotations[v1.AnnotationClaimsWriter]; !strings.HasPrefix(mark, "2 "+system+"/node1_pod/") {
				return fmt.Sprintf("HostSubnet %s is marked %q", h.Name, mark)
			}
			return ""
		})
	}

	third := a.start(t, options("node2"))
	testenv.Eventually(t, func(context.Context) string {
		if !strings.Contains(third.log.String(), "Attempting to acquire leader lease") {
			return "the third does not ask for the lead"
		}
		return ""
	})
	seen.await(t, "node2_pod", "node1_pod")
	second.stop()
	if err := <-second.done; err != nil {
		t.Errorf("the second ended with: %v", err)
	}
	seen.await(t, "node2_pod", "node1_pod", "", "node2_pod")
	t.Logf("a rollout handed the lead over in %s", seen.at[3].Sub(seen.at[2]))
}
