package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// store is an API server in miniature: what it stores, and every state that it
// had before, for caches that lag.
type store struct {
	client.Client // what is not used
	mu            sync.Mutex
	version       int
	namespaces    map[string]*v1.NetNamespace
	hosts         map[string]*v1.HostSubnet
	nodes         map[string]*corev1.Node
	past          []moment
	// forgetful: past moments are not kept, but for the first.
	forgetful bool
	// refused is a HostSubnet whose list the API server refuses to write, busy one
	// that somebody else writes each time.
	refused, busy string
	// mute is one whose status it refuses to write.
	mute string
	// wrong is what must never happen.
	wrong []string
}

// moment is all that was stored at one time.
type moment struct {
	namespaces []v1.NetNamespace
	hosts      []v1.HostSubnet
	nodes      []corev1.Node
	at         time.Time
}

func newStore() *store {
	return &store{
		namespaces: make(map[string]*v1.NetNamespace),
		hosts:      make(map[string]*v1.HostSubnet),
		nodes:      make(map[string]*corev1.Node),
	}
}

// stamp gives an object the next resource version, and remembers the moment.
func (s *store) stamp(object client.Object, newGeneration bool) {
	s.version++
	object.SetResourceVersion(strconv.Itoa(s.version))
	if newGeneration {
		object.SetGeneration(object.GetGeneration() + 1)
	}
	if s.forgetful && len(s.past) > 0 {
		return
	}
	m := moment{at: time.Now()}
	for _, n := range s.namespaces {
		m.namespaces = append(m.namespaces, *n.DeepCopy())
	}
	for _, h := range s.hosts {
		m.hosts = append(m.hosts, *h.DeepCopy())
	}
	for _, n := range s.nodes {
		m.nodes = append(m.nodes, *n.DeepCopy())
	}
	s.past = append(s.past, m)
}

// Patch stores the object whole, if nobody wrote since it was read.
func (s *store) Patch(_ context.Context, object client.Object, _ client.Patch, _ ...client.PatchOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := object.(*v1.HostSubnet)
	if !ok {
		return fmt.Errorf("patch of %T", object)
	}
	stored := s.hosts[h.Name]
	claims := !slices.Equal(stored.EgressIPs, h.EgressIPs)
	if h.Name == s.refused && claims {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "HostSubnet"}, h.Name, nil)
	}
	if stored.ResourceVersion != h.ResourceVersion || (h.Name == s.busy && claims) {
		return apierrors.NewConflict(schema.GroupResource{Resource: "hostsubnets"}, h.Name, errors.New("it has changed"))
	}
	for name, other := range s.hosts {
		for _, ip := range other.EgressIPs {
			if claims && name != h.Name && slices.Contains(h.EgressIPs, ip) {
				s.wrong = append(s.wrong, fmt.Sprintf("%s is written to %s while it is on the list of %s", ip, h.Name, name))
			}
		}
	}
	stored.EgressIPs, stored.Annotations = slices.Clone(h.EgressIPs), maps.Clone(h.Annotations)
	s.stamp(stored, claims)
	stored.DeepCopyInto(h)
	return nil
}

func (s *store) Status() client.SubResourceWriter { return statusOf{store: s} }

type statusOf struct {
	client.SubResourceWriter
	store *store
}

// Apply stores a status, and keeps the conditions of others.
func (s statusOf) Apply(_ context.Context, applied runtime.ApplyConfiguration, _ ...client.SubResourceApplyOption) error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	encoded, err := json.Marshal(applied)
	if err != nil {
		return err
	}
	var meta metav1.PartialObjectMetadata
	if err := json.Unmarshal(encoded, &meta); err != nil {
		return err
	}
	var answer any
	switch meta.Kind {
	case "HostSubnet":
		var h v1.HostSubnet
		if err := json.Unmarshal(encoded, &h); err != nil {
			return err
		}
		if h.Name == s.store.mute {
			return apierrors.NewInvalid(schema.GroupKind{Kind: "HostSubnet"}, h.Name, nil)
		}
		stored := s.store.hosts[h.Name]
		others := slices.DeleteFunc(slices.Clone(stored.Status.Conditions), func(c metav1.Condition) bool {
			return c.Type != v1.ConditionAgentReady && c.Type != v1.ConditionAddressInUse && c.Type != v1.ConditionWarnings
		})
		stored.Status.Conditions = slices.Concat(others, h.Status.Conditions)
		stored.Status.Witnesses, stored.Status.Placement, stored.TypeMeta = h.Status.Witnesses, h.Status.Placement, meta.TypeMeta
		stored.Status.HostIPs = h.Status.HostIPs
		s.store.stamp(stored, false)
		answer = stored
	case "NetNamespace":
		var n v1.NetNamespace
		if err := json.Unmarshal(encoded, &n); err != nil {
			return err
		}
		stored := s.store.namespaces[n.Name]
		stored.Status, stored.TypeMeta = n.Status, meta.TypeMeta
		s.store.stamp(stored, false)
		answer = stored
	}
	if encoded, err = json.Marshal(answer); err != nil {
		return err
	}
	return json.Unmarshal(encoded, applied)
}

// List lists what is stored now.
func (s *store) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.past) == 0 {
		return nil
	}
	return s.past[len(s.past)-1].list(list)
}

func (m moment) list(list client.ObjectList) error {
	switch l := list.(type) {
	case *v1.NetNamespaceList:
		l.Items = slices.Clone(m.namespaces)
	case *v1.HostSubnetList:
		l.Items = slices.Clone(m.hosts)
	case *corev1.NodeList:
		l.Items = slices.Clone(m.nodes)
	default:
		return fmt.Errorf("list of %T", list)
	}
	return nil
}

// onStore returns a reconciler on the store, which it sees through the cache.
func onStore(s *store, cache client.Reader, clock clock.Clock) *egressReconciler {
	d := deps{
		cache: cache, live: s, writer: s, recorder: &record.FakeRecorder{}, metrics: newMetrics(), clock: clock,
		claimsWriter: string(uuid.NewUUID()), deposed: func(error) {},
	}
	o := newObserver(cache, clock, noProbes, 0)
	return newEgressReconciler(d, o, newPublisher(logr.Discard(), d, o, nil))
}

// passAndPublish makes a pass, and then tries each status that it leaves to the
// publisher once, in order of priority.
func passAndPublish(r *egressReconciler) (reconcile.Result, error) {
	result, err := r.Reconcile(context.Background(), reconcile.Request{})
	p := r.publisher
	due := p.early
	p.early = make(map[statusKey]int)
	keys := slices.SortedFunc(maps.Keys(due), func(a, b statusKey) int {
		return cmp.Or(-cmp.Compare(due[a], due[b]), cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
	})
	for _, key := range keys {
		p.try(context.Background(), key)
	}
	return result, err
}

// lagging is a cache: of each kind it shows some moment of the past.
type lagging struct {
	client.Reader
	store                   *store
	namespaces, hosts, node int
}

func (l *lagging) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	at := map[string]int{
		"*v1.NetNamespaceList": l.namespaces, "*v1.HostSubnetList": l.hosts, "*v1.NodeList": l.node,
	}[fmt.Sprintf("%T", list)]
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.past[at].list(list)
}

func (l *lagging) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.get(key, object)
}

// get is Get for a caller that holds the store's lock.
func (l *lagging) get(key client.ObjectKey, object client.Object) error {
	switch object := object.(type) {
	case *v1.NetNamespace:
		for _, n := range l.store.past[l.namespaces].namespaces {
			if n.Name == key.Name {
				n.DeepCopyInto(object)
				return nil
			}
		}
	case *v1.HostSubnet:
		for _, h := range l.store.past[l.hosts].hosts {
			if h.Name == key.Name {
				h.DeepCopyInto(object)
				return nil
			}
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

// TestPropertyClaimsStayApart: whatever the caches show, and whenever the
// controller is replaced by another, it writes no address to the list of a host
// while it is on another's; and once all stand still, everything that fits is
// claimed.
//
// Mutants killed: own-write-forgotten, leader-trusts-caches, cache-wins.
func TestPropertyClaimsStayApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStore()
		hosts := []string{"node1", "node2", "node3"}
		var names []string
		for i := range rapid.IntRange(2, 6).Draw(t, "namespaces") {
			names = append(names, fmt.Sprintf("team%d", i))
		}
		address := func(i int) string { return fmt.Sprintf("192.168.7.%d", 200+i) }
		for i, name := range hosts {
			s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
			setReady(s.nodes[name], true)
			s.hosts[name] = &v1.HostSubnet{
				ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
				Host:       name, HostIP: fmt.Sprintf("192.168.7.%d", 11+i), EgressCIDRs: []string{"192.168.7.128/25"},
			}
			s.stamp(s.nodes[name], true)
			objects.AgentReports(s.hosts[name])
			s.stamp(s.hosts[name], true)
		}
		for i, name := range names {
			s.namespaces[name] = &v1.NetNamespace{
				ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
				NetName:    name, NetID: new(uint32(10 + i)), EgressIPs: []string{address(i)},
			}
			s.stamp(s.namespaces[name], true)
		}
		cache := &lagging{store: s}
		clock := testclock.NewFakeClock(time.Unix(1e9, 0))
		start := func() *egressReconciler {
			return onStore(s, cache, clock)
		}
		job := start()
		pass := func() {
			if _, err := passAndPublish(job); err != nil {
				t.Fatalf("pass: %v", err)
			}
			if len(s.wrong) > 0 {
				t.Fatal(s.wrong[0])
			}
		}
		catchUp := func() {
			cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		}
		catchUp()
		forward := func(at int, what string) int {
			return rapid.IntRange(at, len(s.past)-1).Draw(t, what)
		}
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1:
				node := s.nodes[rapid.SampledFrom(hosts).Draw(t, "node")]
				setReady(node, nodeState(node) != online.NodeReady)
				s.stamp(node, false)
				if rapid.Bool().Draw(t, "seen at once") {
					cache.node = len(s.past) - 1
				}
			case 2:
				i := rapid.IntRange(0, len(names)-1).Draw(t, "namespace")
				n := s.namespaces[names[i]]
				if len(n.EgressIPs) == 0 {
					n.EgressIPs = []string{address(i)}
				} else {
					n.EgressIPs = nil
				}
				s.stamp(n, true)
			case 3:
				cache.namespaces = forward(cache.namespaces, "namespaces seen")
			case 4:
				cache.node = forward(cache.node, "nodes seen")
			case 5:
				cache.hosts = forward(cache.hosts, "hosts seen")
			case 6:
				job = start() // the former is gone, the caches of the new one lag as well
			default:
				pass()
			}
		}
		// All stand still.
		for _, node := range s.nodes {
			setReady(node, true)
			s.stamp(node, false)
		}
		for range 6 {
			catchUp()
			pass()
		}
		claimed := make(map[string]bool)
		for _, h := range s.hosts {
			for _, ip := range h.EgressIPs {
				claimed[ip] = true
			}
		}
		for _, n := range s.namespaces {
			for _, ip := range n.EgressIPs {
				if !claimed[ip] {
					t.Fatalf("%s of %s is claimed nowhere", ip, n.Name)
				}
			}
			if (n.Status.Active == nil) != (len(n.EgressIPs) == 0) {
				t.Fatalf("%s requests %v, its status is %+v", n.Name, n.EgressIPs, n.Status)
			}
		}
		before := s.version
		pass()
		if s.version != before {
			t.Fatalf("a settled cluster was written to")
		}
	})
}

func setReady(node *corev1.Node, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
}
