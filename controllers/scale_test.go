package controllers_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestScale: a cluster from its first Node and Namespace on to one change in a settled
// cluster: every Namespace gets a NetNamespace and every Node a HostSubnet, every request a
// claim, every object a status and every assignment an event. Then nothing is listed or
// written until something changes, which costs some writes. Each step logs how long it took,
// what the controller wrote, and how long its decisions took.
//
// EGRESSIP_TEST_HOSTS and EGRESSIP_TEST_NAMESPACES set another size; make scale has that of
// a large cluster. One namespace of five has two egress IPs.
func TestScale(t *testing.T) {
	s := newScale(t)
	s.step("Nodes and Namespaces are created by the test", func() string { s.fill(); return "" })
	s.control(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: system})
	s.step("a NetNamespace for each Namespace, and a HostSubnet for each Node", s.created)
	s.step("all hosts are made automatic by the test", func() string { s.automatic(); return "" })
	s.step("all egress IPs are requested by the test, and meanwhile a host fails", func() string {
		failing := make(chan string, 1)
		go func() { failing <- s.failAmidst(scaleHost(2)) }()
		s.request()
		return <-failing
	})
	s.step("then until each is claimed", s.placed(s.requests()))
	s.step("then until each status says so", s.told)
	s.step("then until an event reports each assignment", s.reported)
	s.step(fmt.Sprintf("then until nothing is listed or written for %s", s.calm), s.settled)
	s.steady = true

	name := team(0)
	s.step("one more egress IP is requested, and claimed", func() string {
		s.a.request(t, name, scaleIP(0), scaleIP(1), "10.9.0.1")
		return s.placed(s.requests() + 1)()
	})
	s.step("what follows from that", s.settled)
	s.step("it is no longer requested, and released", func() string {
		s.a.request(t, name, scaleIP(0), scaleIP(1))
		return s.placed(s.requests())()
	})
	s.step("what follows from that", s.settled)
	s.step("a host is evacuated", func() string {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: scaleHost(1)}}
		s.a.patch(t, node, fmt.Sprintf(`{"metadata": {"annotations": {%q: "true"}}}`, v1.AnnotationEvacuate))
		return s.placedWithout(scaleHost(1))()
	})
	s.step("what follows from that", s.settled)
	s.step("a host fails: its egress IPs are claimed by others", func() string {
		s.a.ready(t, scaleHost(0), corev1.ConditionFalse)
		return s.placedWithout(scaleHost(0), scaleHost(1))()
	})
	s.step(fmt.Sprintf("then until nothing is listed or written for %s", s.calm), s.settled)
}

// scale is a cluster of a certain size.
type scale struct {
	*api
	t                 *testing.T
	a                 *api // apart from what is noted
	watched           cache.Cache
	hosts, namespaces int
	limit, calm       time.Duration

	mu sync.Mutex
	// wrote are the controller's writes in this step, listed its lists, last is the last
	// of either.
	wrote, listed map[string]int
	last          time.Time
	// steady: from now on nothing may be listed.
	steady bool
}

func newScale(t *testing.T) *scale {
	t.Helper()
	hosts, namespaces, calm := 12, manyNamespaces(t, 100), 3*time.Second
	if text := os.Getenv("EGRESSIP_TEST_HOSTS"); text != "" {
		var err error
		if hosts, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		calm = 10 * time.Second
	}
	a := startAPI(t)
	a.cfg.QPS = -1
	c, err := client.New(a.cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	a.Client = c
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})
	s := &scale{
		t: t, a: a, hosts: hosts, namespaces: namespaces, calm: calm,
		limit: 4*testenv.Patience + time.Duration(hosts+namespaces)*100*time.Millisecond,
		wrote: make(map[string]int), listed: make(map[string]int),
	}
	s.api = a.through(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		s.note(r)
		return next.RoundTrip(r)
	})
	if s.watched, err = cache.New(a.cfg, cache.Options{Scheme: a.Scheme(), DefaultUnsafeDisableDeepCopy: new(true)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = s.watched.Start(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// note notes a write of the controller, but for those to its Lease and of events, or a list.
func (s *scale) note(r *http.Request) {
	var l lists
	l.note(r)
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.count() > 0:
		s.listed[r.URL.Path]++
	case r.Method == http.MethodGet || slices.Contains(parts, "leases") || slices.Contains(parts, "events"):
		return
	default:
		what := parts[min(3, len(parts)-1)]
		if parts[len(parts)-1] == "status" {
			what += "/status"
		}
		s.wrote[what]++
	}
	s.last = time.Now()
}

// step does something, waits until wrong is "", and logs what that took. do is called once
// if it does the work itself.
func (s *scale) step(what string, do func() string) {
	s.t.Helper()
	s.mu.Lock()
	clear(s.wrote)
	clear(s.listed)
	s.mu.Unlock()
	decisions, passes := s.histogram(s.t, "egressip_allocation_duration_seconds"), s.histogram(s.t, "egressip_reconcile_duration_seconds")
	began := time.Now()
	if wrong := do(); wrong != "" {
		s.t.Fatalf("%s: %s", what, wrong)
	}
	took := time.Since(began)
	d, p := s.histogram(s.t, "egressip_allocation_duration_seconds").less(decisions), s.histogram(s.t, "egressip_reconcile_duration_seconds").less(passes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Logf("%s: %s; writes %v; lists %v; %s in %s", what, took.Round(time.Millisecond), s.wrote, s.listed, d.text("decisions"), p.text("passes"))
	if s.steady && len(s.listed) > 0 {
		s.t.Errorf("%s: listed %v", what, s.listed)
	}
}

// settled waits until nothing has been written or listed for a while: what the next step
// costs is its own.
func (s *scale) settled() string {
	return testenv.Await(s.t.Context(), s.limit, func(context.Context) string { return s.quiet(s.calm) })
}

// quiet is "" if the controller has neither written nor listed anything for a while, which
// it waits for.
func (s *scale) quiet(calm time.Duration) string {
	var last time.Time
	began := time.Now()
	for ctx := s.t.Context(); ctx.Err() == nil; {
		s.mu.Lock()
		last = s.last
		s.mu.Unlock()
		left := calm - time.Since(began)
		switch {
		case last.After(began):
			return fmt.Sprintf("%s ago something was written or listed", time.Since(last))
		case left <= 0:
			return ""
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, 50*time.Millisecond)):
		}
	}
	return "the test has ended"
}

func scaleHost(i int) string { return fmt.Sprintf("node%04d", i) }
func team(i int) string      { return fmt.Sprintf("team%05d", i) }

// scaleIP is the i-th egress IP.
func scaleIP(i int) string { return fmt.Sprintf("10.%d.%d.%d", 1+i/62500, i/250%250, 1+i%250) }

// fill creates Nodes and Namespaces.
func (s *scale) fill() {
	s.a.parallel(s.t, s.hosts, func(ctx context.Context, i int) error {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: scaleHost(i)}}
		if err := s.a.Create(ctx, node); err != nil {
			return err
		}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", i/250, 1+i%250)}}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test"}}
		return s.a.Status().Update(ctx, node)
	})
	s.a.parallel(s.t, s.namespaces, func(ctx context.Context, i int) error {
		return s.a.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team(i)}})
	})
}

// automatic gives all hosts the range of all egress IPs.
func (s *scale) automatic() {
	s.a.parallel(s.t, s.hosts, func(ctx context.Context, i int) error {
		return s.a.Patch(ctx, hostSubnet(scaleHost(i)), client.RawPatch("application/merge-patch+json", []byte(`{"egressCIDRs": ["10.0.0.0/12"]}`)))
	})
}

// twice reports whether a namespace requests two egress IPs.
func twice(i int) bool { return i%5 == 0 }

func (s *scale) requests() int { return s.namespaces + (s.namespaces+4)/5 }

// request requests all egress IPs.
func (s *scale) request() {
	first := make([]int, s.namespaces)
	next := 0
	for i := range first {
		first[i] = next
		next++
		if twice(i) {
			next++
		}
	}
	s.a.parallel(s.t, s.namespaces, func(ctx context.Context, i int) error {
		ips := []string{scaleIP(first[i])}
		if twice(i) {
			ips = append(ips, scaleIP(first[i]+1))
		}
		return s.a.Patch(ctx, netNamespace(team(i)), client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"egressIPs": [%s]}`, quoted(ips))))
	})
}

// await waits until wrong is "" for all objects.
func (s *scale) await(wrong func([]v1.HostSubnet, []v1.NetNamespace) string) string {
	return testenv.Await(s.t.Context(), s.limit, func(ctx context.Context) string {
		var hosts v1.HostSubnetList
		var namespaces v1.NetNamespaceList
		if err := s.watched.List(ctx, &hosts); err != nil {
			return err.Error()
		}
		if err := s.watched.List(ctx, &namespaces); err != nil {
			return err.Error()
		}
		return wrong(hosts.Items, namespaces.Items)
	})
}

func (s *scale) created() string {
	return s.await(func(hosts []v1.HostSubnet, namespaces []v1.NetNamespace) string {
		numbered := 0
		for i := range namespaces {
			if _, ok := namespaces[i].ID(); ok && strings.HasPrefix(namespaces[i].Name, "team") {
				numbered++
			}
		}
		reported := 0
		for i := range hosts {
			if hosts[i].Status.Agent != nil {
				reported++
			}
		}
		if numbered < s.namespaces || reported < s.hosts {
			return fmt.Sprintf("%d NetNamespaces of %d have a netid, %d agents of %d have reported", numbered, s.namespaces, reported, s.hosts)
		}
		return ""
	})
}

// placed waits until so many addresses are claimed.
func (s *scale) placed(want int) func() string {
	return func() string {
		return s.await(func(hosts []v1.HostSubnet, _ []v1.NetNamespace) string {
			claimed := 0
			for i := range hosts {
				claimed += len(hosts[i].EgressIPs)
			}
			if claimed != want {
				return fmt.Sprintf("%d egress IPs are claimed, want %d", claimed, want)
			}
			return ""
		})
	}
}

// placedWithout waits until all requests are claimed by other hosts.
func (s *scale) placedWithout(without ...string) func() string {
	return func() string {
		return s.await(func(hosts []v1.HostSubnet, _ []v1.NetNamespace) string {
			claimed := 0
			for i := range hosts {
				if !slices.Contains(without, hosts[i].Name) {
					claimed += len(hosts[i].EgressIPs)
				}
			}
			if claimed != s.requests() {
				return fmt.Sprintf("%d egress IPs are claimed by others, want %d", claimed, s.requests())
			}
			return ""
		})
	}
}

func (s *scale) told() string {
	return s.await(func(_ []v1.HostSubnet, namespaces []v1.NetNamespace) string {
		told := 0
		for i := range namespaces {
			if served(&namespaces[i]) == "" && namespaces[i].Status.ObservedGeneration == namespaces[i].Generation {
				told++
			}
		}
		if told < s.namespaces {
			return fmt.Sprintf("%d statuses of %d", told, s.namespaces)
		}
		return ""
	})
}

// reported waits until every assignment has its event on the NetNamespace.
func (s *scale) reported() string {
	return testenv.Await(s.t.Context(), s.limit, func(ctx context.Context) string {
		var events corev1.EventList
		if err := s.watched.List(ctx, &events); err != nil {
			return err.Error()
		}
		assigned := 0
		for i := range events.Items {
			if e := &events.Items[i]; e.Reason == "EgressIPAssigned" && e.InvolvedObject.Kind == "NetNamespace" {
				assigned++
			}
		}
		if assigned < s.requests() {
			return fmt.Sprintf("%d events of %d", assigned, s.requests())
		}
		return ""
	})
}
