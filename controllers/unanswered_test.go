package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// late is an API server that stores the first claims of node1 only at a certain time, long
// after the controller has given up; sent are the lists that it was asked to write to node1.
type late struct {
	*store
	stores time.Time
	sent   []string
}

var errLate = errors.New("no answer")

func (l *late) Patch(ctx context.Context, object client.Object, patch client.Patch, o ...client.PatchOption) error {
	h := object.(*v1.HostSubnet)
	l.mu.Lock()
	first := h.Name == "node1" && len(h.EgressIPs) > 0 && len(l.sent) == 0
	if h.Name == "node1" && len(h.EgressIPs) > 0 {
		l.sent = append(l.sent, strings.Join(h.EgressIPs, " "))
	}
	l.mu.Unlock()
	if !first {
		return l.store.Patch(ctx, object, patch, o...)
	}
	sent, later := h.DeepCopy(), context.WithoutCancel(ctx)
	time.AfterFunc(time.Until(l.stores), func() { _ = l.store.Patch(later, sent, patch) })
	time.Sleep(requestTimeout)
	return errLate
}

// TestUnansweredClaimsAreOnNoOtherList: a write of claims gets no answer, and is stored much
// later. Meanwhile another host becomes automatic that some of these addresses would go to.
// They do not, before it is known what became of the write. The controller finds out by
// writing the same again.
//
// Mutants killed: unanswered-forgotten, unanswered-never-known.
func TestUnansweredClaimsAreOnNoOtherList(t *testing.T) {
	for _, stores := range []time.Duration{time.Second, 5 * time.Second, requestTimeout + time.Millisecond, time.Hour} {
		for _, next := range []string{"node2", "node0"} {
			t.Run(fmt.Sprintf("%s %s", next, stores), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { unansweredClaims(t, stores, next) })
			})
		}
	}
}

// unansweredClaims has next become automatic: node2, which would get some of the addresses,
// and of two further ones the last; or node0, which would get the only one.
func unansweredClaims(t *testing.T, stores time.Duration, next string) {
	t.Helper()
	before, after := 4, 6
	if next == "node0" {
		before, after = 1, 1
	}
	s := newStore()
	for i, name := range []string{"node1", next} {
		s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		setReady(s.nodes[name], true)
		s.hosts[name] = &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Host: name, HostIP: fmt.Sprintf("192.168.7.%d", 11+i),
		}
		objects.AgentReports(s.hosts[name])
		s.stamp(s.nodes[name], true)
		s.stamp(s.hosts[name], true)
	}
	request := func(i int) {
		name := fmt.Sprintf("team%d", i)
		n := objects.NetNamespace(name, uint32(10+i), fmt.Sprintf("192.168.7.%d", 200+i)) //nolint:gosec // small
		n.UID = types.UID(name)
		s.namespaces[name] = &n
		s.stamp(s.namespaces[name], true)
	}
	for i := range before {
		request(i)
	}
	cache := &lagging{store: s}
	api := &late{store: s, stores: time.Now().Add(stores)}
	job := onStore(s, cache, clock.RealClock{})
	job.writer, job.live, job.fence.writer = api, api, api
	pass := func() error {
		s.mu.Lock()
		newest := len(s.past) - 1
		cache.namespaces, cache.hosts, cache.node = newest, newest, newest
		s.mu.Unlock()
		// Without statuses: they would make a new version of node1.
		_, err := job.Reconcile(t.Context(), reconcile.Request{})
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.wrong) > 0 {
			t.Fatal(s.wrong[0])
		}
		return err
	}
	automatic := func(name string) {
		s.hosts[name].EgressCIDRs = []string{"192.168.7.128/25"}
		s.stamp(s.hosts[name], true)
	}
	if err := pass(); err != nil {
		t.Fatal(err)
	}
	automatic("node1")
	for range 3 {
		if err := pass(); err != nil {
			t.Fatal(err)
		}
	}
	if len(api.sent) != 1 {
		t.Fatalf("written to node1: %q", api.sent)
	}
	began := time.Now()
	automatic(next)
	for i := before; i < after; i++ {
		request(i)
	}
	for range 3 {
		if err := pass(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 2*passPatience {
		t.Errorf("passes took %s while the write was under way", took)
	}
	if after > before && len(s.hosts[next].EgressIPs) == 0 {
		t.Errorf("%s has got nothing while the write to node1 was under way", next)
	}
	var errs []error
	for time.Since(began) < 2*requestTimeout {
		errs = append(errs, pass())
		time.Sleep(100 * time.Millisecond)
	}
	if stores > requestTimeout && !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, errLate) }) {
		t.Error("no pass reports that the write got no answer")
	}
	var all []string
	for _, h := range s.hosts {
		all = append(all, h.EgressIPs...)
	}
	if len(all) != after {
		t.Errorf("in the end %q are claimed; written to node1: %q", all, api.sent)
	}
	time.Sleep(2 * time.Hour)
	if err := pass(); err != nil {
		t.Error(err)
	}
}

// TestRefused: only a clear answer says that a write was not stored.
func TestRefused(t *testing.T) {
	hosts := schema.GroupResource{Resource: "hostsubnets"}
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{apierrors.NewConflict(hosts, "node1", errLate), true},
		{apierrors.NewForbidden(hosts, "node1", errLate), true},
		{apierrors.NewInvalid(schema.GroupKind{}, "node1", nil), true},
		{fmt.Errorf("write: %w", apierrors.NewNotFound(hosts, "node1")), true},
		{apierrors.NewTimeoutError("storage", 1), false},
		{apierrors.NewServerTimeout(hosts, "patch", 1), false},
		{apierrors.NewInternalError(errLate), false},
		{apierrors.NewGenericServerResponse(http.StatusRequestTimeout, "patch", hosts, "node1", "", 0, true), false},
		{context.DeadlineExceeded, false},
		{errLate, false},
	} {
		if got := refused(tc.err); got != tc.want {
			t.Errorf("%v: %t", tc.err, got)
		}
	}
}
