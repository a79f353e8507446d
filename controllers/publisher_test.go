package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientrecord "k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/record"
)

// writes is the way to a store: it notes all writes of statuses, in the order in which
// they begin, and may delay, refuse or ignore them.
type writes struct {
	*store
	// before is called before a write; nil for nothing. An error is the answer.
	before func(name string) error
	// ignore answers as if nothing changed.
	ignore func(name string) bool

	noted sync.Mutex
	begun []string
}

func (w *writes) Status() client.SubResourceWriter { return writesOf{writes: w} }

type writesOf struct {
	client.SubResourceWriter
	writes *writes
}

func (s writesOf) Apply(ctx context.Context, applied runtime.ApplyConfiguration, _ ...client.SubResourceApplyOption) error {
	w := s.writes
	encoded, err := json.Marshal(applied)
	if err != nil {
		return err
	}
	var named metav1.PartialObjectMetadata
	if err := json.Unmarshal(encoded, &named); err != nil {
		return err
	}
	w.noted.Lock()
	w.begun = append(w.begun, named.Name)
	w.noted.Unlock()
	if w.before != nil {
		if err := w.before(named.Name); err != nil {
			return err
		}
	}
	if w.ignore != nil && w.ignore(named.Name) {
		w.mu.Lock()
		defer w.mu.Unlock()
		stored := *w.hosts[named.Name]
		stored.TypeMeta = named.TypeMeta
		if encoded, err = json.Marshal(stored); err != nil {
			return err
		}
		return json.Unmarshal(encoded, applied)
	}
	return w.store.Status().Apply(ctx, applied)
}

func (w *writes) order() []string {
	w.noted.Lock()
	defer w.noted.Unlock()
	return slices.Clone(w.begun)
}

func (w *writes) count(name string) (n int) {
	for _, begun := range w.order() {
		if begun == name {
			n++
		}
	}
	return n
}

// newest is a cache that never lags.
type newest struct{ lagging }

func (n *newest) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	last := len(n.store.past) - 1
	at := &lagging{store: n.store, namespaces: last, hosts: last, node: last}
	return at.get(key, object)
}

// published is a publisher that runs on a store.
type published struct {
	*publisher
	writes *writes
	events *clientrecord.FakeRecorder
}

// inBubble runs f with a publisher on a store with one host and the namespaces, on the
// bubble's clock.
func inBubble(t *testing.T, namespaces []string, f func(t *testing.T, p published)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.hosts["node1"] = &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "node1", Generation: 1}}
		for _, name := range namespaces {
			s.namespaces[name] = &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 1, ResourceVersion: "1"}}
		}
		s.stamp(s.hosts["node1"], false)
		w := &writes{store: s}
		events := clientrecord.NewFakeRecorder(1000)
		cache := &newest{lagging{store: s}}
		p := newPublisher(logr.Discard(), deps{writer: w, recorder: events, metrics: newMetrics(), clock: clock.RealClock{}},
			newObserver(cache, clock.RealClock{}, noProbes, 0), nil)
		p.uses = newUses(logr.Discard(), deps{live: cache, cache: cache, clock: clock.RealClock{}}, nil,
			record.New(record.Config{Writer: "node1", Term: "a", Now: time.Now}))
		p.uses.report, p.uses.reportDeleted = p.report, p.reportDeleted
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Start(ctx) }()
		if err := p.uses.begin(ctx); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		f(t, published{publisher: p, writes: w, events: events})
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Start: %v", err)
		}
	})
}

// view is what is stored.
func (p published) view() view {
	p.writes.mu.Lock()
	defer p.writes.mu.Unlock()
	var v view
	last := p.writes.past[len(p.writes.past)-1]
	v.hosts, v.namespaces = pointers(last.hosts), pointers(last.namespaces)
	slices.SortFunc(v.hosts, byObjectName)
	slices.SortFunc(v.namespaces, byObjectName)
	return v
}

func wantNamespace(name, message string) wantedStatus {
	return wantedStatus{key: statusKey{kindNetNamespace, name}, uid: types.UID(name), namespace: &v1.NetNamespaceStatus{
		ObservedGeneration: 1,
		EgressIPs:          []v1.RequestStatus{{IP: "192.168.7.200", Host: "node1", State: v1.StateStandby, Message: message}},
		Active:             &v1.Assignment{IP: "192.168.7.200", Host: "node1"},
	}}
}

func wantDroppedNamespace(name string) wantedStatus {
	w := wantNamespace(name, "")
	w.namespace.Active = nil
	return w
}

func wantHost(online metav1.ConditionStatus) wantedStatus {
	return wantedStatus{key: statusKey{kindHostSubnet, "node1"}, uid: "node1", host: &v1.HostSubnetStatus{
		Conditions: []metav1.Condition{{Type: v1.ConditionOnline, Status: online, Reason: "Test", ObservedGeneration: 1}},
	}}
}

func wantNamespaces(names []string, message string) (wanted []wantedStatus) {
	for _, name := range names {
		wanted = append(wanted, wantNamespace(name, message))
	}
	return wanted
}

func numbered(format string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf(format, i))
	}
	return names
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestFailingWritesDelayNobody: statuses that cannot be written, more of them than are
// written concurrently, delay neither others nor each other, however often a pass asks
// for them; they are tried ever more seldom, and written when that is possible again.
//
// Mutant: back-off-shared.
func TestFailingWritesDelayNobody(t *testing.T) {
	failing := numbered("a%02d", 4*statusWriters)
	inBubble(t, append(slices.Clone(failing), "once", "z"), func(t *testing.T, p published) {
		t.Helper()
		refused := errors.New("admission webhook denied the request")
		broken, once := true, true
		p.writes.before = func(name string) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case broken && strings.HasPrefix(name, "a"):
				return refused
			case once && name == "once":
				once = false
				return refused
			}
			return nil
		}
		wanted := wantNamespaces(failing, "")
		for range 600 { // a pass a second, for ten minutes
			p.publish(p.view(), wanted)
			pass(time.Second)
		}
		if n := p.writes.count("a00"); n < 10 || n > 40 {
			t.Errorf("%d attempts for one status in ten minutes", n)
		}
		p.publish(p.view(), append(slices.Clone(wanted), wantNamespace("z", ""), wantNamespace("once", "")))
		pass(firstRetry - time.Millisecond)
		if n := p.writes.count("z"); n != 1 {
			t.Errorf("%d writes of a status that can be written, want 1 at once", n)
		}
		pass(2 * time.Millisecond)
		if n := p.writes.count("once"); n != 2 {
			t.Errorf("%d attempts for a status that failed once, want the second after %s", n, firstRetry)
		}
		p.mu.Lock()
		broken = false
		p.mu.Unlock()
		pass(lastRetry)
		for _, name := range append(failing, "z", "once") {
			if p.writes.namespaces[name].Status.Active == nil {
				t.Errorf("%s has no status", name)
			}
		}
	})
}

// TestUrgentStatusesOvertake: a verdict that comes while hundreds of statuses are due is
// among the next to be written, and so is a namespace that is dropped.
//
// Mutant: priority-ignored.
func TestUrgentStatusesOvertake(t *testing.T) {
	names := numbered("team%03d", 300)
	inBubble(t, append(slices.Clone(names), "dropped"), func(t *testing.T, p published) {
		t.Helper()
		release := make(chan struct{})
		p.writes.before = func(string) error { <-release; return nil }
		wanted := wantNamespaces(names, "")
		p.publish(p.view(), wanted)
		synctest.Wait()
		if n := len(p.writes.order()); n != statusWriters {
			t.Fatalf("%d writes at once, want %d", n, statusWriters)
		}
		p.publish(p.view(), append(slices.Clone(wanted), wantDroppedNamespace("dropped"), wantHost(metav1.ConditionFalse)))
		synctest.Wait()
		close(release)
		pass(time.Second)
		order := p.writes.order()
		if len(order) != len(names)+2 {
			t.Errorf("%d writes, want one for each status", len(order))
		}
		// Those that are written concurrently begin in any order.
		next := order[statusWriters : 2*statusWriters]
		if !slices.Contains(next, "node1") || !slices.Contains(next, "dropped") {
			t.Errorf("the next are %v, want the verdict and the namespace that is dropped among them", next)
		}
	})
}

// TestVerdictsAreNotOvertakenByOlderOnes: a verdict that is written while an older
// status of the same host is on its way waits for that one alone, and is the last, even
// if the API server answers the older write later than any other.
//
// Mutant: verdict-overtaken.
func TestVerdictsAreNotOvertakenByOlderOnes(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p published) {
		t.Helper()
		// The first write arrives when it is released, a second at once.
		release, first := make(chan struct{}), make(chan struct{}, 1)
		first <- struct{}{}
		p.writes.before = func(string) error {
			select {
			case <-first:
				<-release
			default:
			}
			return nil
		}
		p.publish(p.view(), []wantedStatus{wantHost(metav1.ConditionTrue)})
		synctest.Wait()
		done := make(chan bool)
		go func() {
			wrote, err := p.writeNow(t.Context(), wantHost(metav1.ConditionFalse))
			done <- wrote && err == nil
		}()
		synctest.Wait()
		close(release)
		if !<-done {
			t.Error("the verdict was not written")
		}
		pass(time.Minute)
		status := conditionStatus(p.writes.hosts["node1"].Status.Conditions, v1.ConditionOnline, "")
		if n := p.writes.count("node1"); n != 2 || status != metav1.ConditionFalse {
			t.Errorf("Online is %s after %d writes, want False after 2", status, n)
		}
	})
}

// TestWritesThatChangeNothing: where the API server answers a write with what was
// stored, as it does if another manager owns the field too, the write counts for
// nothing, and is not repeated before the object or the wanted status changes.
//
// Mutant: noop-counts-as-written.
func TestWritesThatChangeNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p published) {
		t.Helper()
		p.writes.ignore = func(string) bool { return true }
		wanted := wantHost(metav1.ConditionFalse)
		attempts := func(t *testing.T, want int) {
			t.Helper()
			for range 100 {
				if wrote, err := p.writeNow(t.Context(), wanted); wrote || err != nil {
					t.Errorf("wrote %v, %v", wrote, err)
				}
				p.publish(p.view(), []wantedStatus{wanted})
				p.repair(t.Context(), p.view().hosts[0])
				pass(10 * time.Millisecond)
			}
			if n := p.writes.count("node1"); n != want {
				t.Errorf("%d writes, want %d", n, want)
			}
			if len(p.events.Events) > 0 {
				t.Errorf("event of a write that changed nothing: %s", <-p.events.Events)
			}
		}
		attempts(t, 1)
		p.writes.mu.Lock()
		p.writes.stamp(p.writes.hosts["node1"], false)
		p.writes.mu.Unlock()
		attempts(t, 2)
		wanted = wantHost(metav1.ConditionFalse)
		wanted.host.Conditions[0].Reason = "Again"
		attempts(t, 3)
	})
}

// TestForeignChangesAreRepaired: what someone else writes into the controller's part is
// written over at once, and by one who insists, once a second; what agents and others
// write into their own parts, and what this controller wrote, is not.
//
// Mutants: foreign-online-kept, repair-without-rest.
func TestForeignChangesAreRepaired(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p published) {
		t.Helper()
		p.publish(p.view(), []wantedStatus{wantHost(metav1.ConditionTrue)})
		pass(time.Minute)
		change := func(change func(*v1.HostSubnetStatus)) {
			p.writes.mu.Lock()
			change(&p.writes.hosts["node1"].Status)
			p.writes.stamp(p.writes.hosts["node1"], false)
			p.writes.mu.Unlock()
			p.repair(t.Context(), p.view().hosts[0])
			synctest.Wait()
		}
		change(func(s *v1.HostSubnetStatus) {
			s.Agent = &v1.AgentStatus{Version: "2"}
			s.Conditions = append(s.Conditions, inUse()...)
		})
		if n := p.writes.count("node1"); n != 1 {
			t.Fatalf("%d writes after the report of an agent, want the first alone", n)
		}
		offline := func(s *v1.HostSubnetStatus) {
			meta.FindStatusCondition(s.Conditions, v1.ConditionOnline).Status = metav1.ConditionFalse
		}
		online := func() bool {
			return conditionStatus(p.view().hosts[0].Status.Conditions, v1.ConditionOnline, "") == metav1.ConditionTrue
		}
		change(offline)
		if !online() || p.writes.count("node1") != 2 {
			t.Errorf("Online is kept as someone else wrote it; %d writes", p.writes.count("node1"))
		}
		for range 1000 { // for ten seconds
			change(offline)
			pass(10 * time.Millisecond)
		}
		pass(repairEvery)
		if n := p.writes.count("node1"); n < 10 || n > 14 || !online() {
			t.Errorf("%d writes in ten seconds against one who insists, want one each second; online: %v", n, online())
		}
	})
}

// TestOlderAnswersAreIgnored: of two concurrent writes of one object, the answer to the
// first may come last.
func TestOlderAnswersAreIgnored(t *testing.T) {
	host := func(version string, claims ...string) *v1.HostSubnet {
		return &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "u", ResourceVersion: version}, EgressIPs: claims}
	}
	c := make(assumeCache[*v1.HostSubnet])
	c.wrote(host("7", "192.168.7.200"))
	c.wrote(host("6"))
	if got := c.newest(host("5")); len(got.EgressIPs) != 1 {
		t.Errorf("the newest is version %s", got.ResourceVersion)
	}
	replaced := host("3")
	replaced.UID = "v"
	c.wrote(replaced)
	if got := c["node1"]; got.UID != "v" {
		t.Error("the object that took its place is ignored")
	}
}
