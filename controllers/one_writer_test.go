package controllers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// leases is the API of one Lease.
type leases struct {
	coordinationv1client.LeaseInterface // what is not used
	mu                                  sync.Mutex
	stored                              *coordinationv1.Lease
	version                             int
}

func leaseResource() schema.GroupResource {
	return schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
}

func (l *leases) Get(context.Context, string, metav1.GetOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored == nil {
		return nil, apierrors.NewNotFound(leaseResource(), FieldManager)
	}
	return l.stored.DeepCopy(), nil
}

func (l *leases) Create(_ context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored != nil {
		return nil, apierrors.NewAlreadyExists(leaseResource(), FieldManager)
	}
	return l.store(lease), nil
}

func (l *leases) Update(_ context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stored == nil:
		return nil, apierrors.NewNotFound(leaseResource(), FieldManager)
	case l.stored.ResourceVersion != lease.ResourceVersion:
		return nil, apierrors.NewConflict(leaseResource(), FieldManager, errors.New("it has changed"))
	}
	return l.store(lease), nil
}

func (l *leases) store(lease *coordinationv1.Lease) *coordinationv1.Lease {
	l.version++
	l.stored = lease.DeepCopy()
	l.stored.ResourceVersion = strconv.Itoa(l.version)
	return l.stored.DeepCopy()
}

func (l *leases) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored == nil || l.stored.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.stored.Spec.HolderIdentity
}

func (l *leases) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = nil
}

// span is a time from the beginning of a run.
type span struct{ from, to time.Duration }

// plight is what befalls one controller.
type plight struct {
	// paused: it stands still, as by SIGSTOP or in a virtual machine that is frozen.
	paused []span
	// cut: what it sends arrives when the span is over, or never.
	cut []span
	// fooled: it considers the leader's host dead.
	fooled []span
	// lag is how far its caches are behind.
	lag time.Duration
}

// change is something that others do.
type change struct {
	at   time.Duration
	what string
	host string
	i    int
}

// history is one run of the model.
type history struct {
	seed     uint64
	plights  []plight
	changes  []change
	requests int
	// loss is the percentage of requests, and of answers, that are lost.
	loss int
}

const (
	troubled = 20 * time.Second // how long everything goes wrong
	settling = 30 * time.Second // and how long nothing does afterwards
)

// model is a cluster with several controllers under the time of a synctest bubble:
// sleeps are its events, and cost no time.
type model struct {
	history
	*store
	leases leases
	began  time.Time
	hosts  []string

	mu sync.Mutex
	// rng is used under mu.
	rng *rand.Rand
	// turns are the writers of claims in the order in which they were stored.
	turns []mark
	// leading are the controllers that lead, as they believe.
	leading  map[int]bool
	violated string
}

func (m *model) now() time.Duration { return time.Since(m.began) }

func (m *model) chance(percent int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(100) < percent
}

func (m *model) upTo(most time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Duration(m.rng.Int64N(int64(most)))
}

// within returns the end of the span that contains now.
func (m *model) within(spans []span) (time.Duration, bool) {
	now := m.now()
	for _, s := range spans {
		if s.from <= now && now < s.to {
			return s.to, true
		}
	}
	return 0, false
}

// link is a controller's way to the API.
type link struct {
	*model
	*plight
}

// standStill returns when the controller is not paused.
func (l link) standStill() {
	for {
		end, paused := l.within(l.paused)
		if !paused {
			return
		}
		time.Sleep(end - l.now())
	}
}

var errNoAnswer = errors.New("no answer")

// call carries a request to the API and the answer back. A request may arrive long after
// its sender has given up or ended.
func (l link) call(ctx context.Context, timeout time.Duration, request func() error) error {
	l.standStill()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answer := make(chan error, 1)
	lost, unheard := l.troubled() && l.chance(l.loss), l.troubled() && l.chance(l.loss)
	go func() {
		time.Sleep(l.upTo(20 * time.Millisecond))
		if end, cut := l.within(l.cut); cut {
			lost = lost || l.chance(30)
			time.Sleep(end - l.now())
		}
		if lost {
			return
		}
		err := request()
		time.Sleep(l.upTo(20 * time.Millisecond))
		if !unheard {
			answer <- err
		}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	defer l.standStill()
	select {
	case err := <-answer:
		return err
	case <-timer.C:
		return errNoAnswer
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *model) troubled() bool { return m.now() < troubled }

// remote is the API as a controller reaches it.
type remote struct {
	client.Client
	link
	writer string
}

func (r remote) Patch(ctx context.Context, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
	sent := object.DeepCopyObject().(*v1.HostSubnet)
	err := r.call(ctx, requestTimeout, func() error {
		r.store.mu.Lock()
		claims := !slices.Equal(r.store.hosts[sent.Name].EgressIPs, sent.EgressIPs)
		r.store.mu.Unlock()
		if err := r.store.Patch(ctx, sent, patch); err != nil {
			return err
		}
		if claims {
			r.wroteClaims(markOf(sent), r.writer)
		}
		return nil
	})
	if err == nil {
		sent.DeepCopyInto(object.(*v1.HostSubnet))
	}
	return err
}

// wroteClaims notes who wrote, and whether it may.
func (m *model) wroteClaims(at mark, writer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.writer != writer && m.violated == "" {
		m.violated = fmt.Sprintf("%s wrote claims to a HostSubnet that is marked %q", writer, at)
	}
	if i := slices.Index(m.turns, at); i >= 0 && i != len(m.turns)-1 && !m.tampered() && m.violated == "" {
		m.violated = fmt.Sprintf("%q wrote claims after %q had", at, m.turns[len(m.turns)-1])
	}
	if len(m.turns) == 0 || m.turns[len(m.turns)-1] != at {
		m.turns = append(m.turns, at)
	}
}

// tampered reports whether somebody removes marks: then a controller may write again
// after another one, but of course not to what that one has claimed.
func (m *model) tampered() bool {
	return slices.ContainsFunc(m.changes, func(c change) bool { return c.what == "mark removed" })
}

func (r remote) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	answer := list.DeepCopyObject().(client.ObjectList)
	err := r.call(ctx, requestTimeout, func() error { return r.store.List(ctx, answer, o...) })
	if err == nil {
		switch l := list.(type) {
		case *v1.HostSubnetList:
			*l = *answer.(*v1.HostSubnetList)
		case *v1.NetNamespaceList:
			*l = *answer.(*v1.NetNamespaceList)
		}
	}
	return err
}

func (r remote) Status() client.SubResourceWriter { return remoteStatus{remote: r} }

type remoteStatus struct {
	client.SubResourceWriter
	remote remote
}

func (r remoteStatus) Apply(ctx context.Context, applied runtime.ApplyConfiguration, o ...client.SubResourceApplyOption) error {
	return r.remote.call(ctx, requestTimeout, func() error { return r.remote.store.Status().Apply(ctx, applied, o...) })
}

// remoteLeases is the API of Leases as a controller reaches it.
type remoteLeases struct {
	coordinationv1client.LeaseInterface
	link
}

func (r remoteLeases) Leases(string) coordinationv1client.LeaseInterface { return r }

func (r remoteLeases) Get(ctx context.Context, name string, o metav1.GetOptions) (lease *coordinationv1.Lease, err error) {
	return r.do(ctx, func() (*coordinationv1.Lease, error) { return r.leases.Get(ctx, name, o) })
}

func (r remoteLeases) Create(ctx context.Context, lease *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	sent := lease.DeepCopy()
	return r.do(ctx, func() (*coordinationv1.Lease, error) { return r.leases.Create(ctx, sent, o) })
}

func (r remoteLeases) Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	sent := lease.DeepCopy()
	return r.do(ctx, func() (*coordinationv1.Lease, error) { return r.leases.Update(ctx, sent, o) })
}

func (r remoteLeases) do(ctx context.Context, request func() (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	got := make(chan *coordinationv1.Lease, 1)
	err := r.call(ctx, leaseTimeout, func() error {
		lease, err := request()
		got <- lease
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-got, nil
}

// delayed is a cache that shows what was stored some time ago, and never anything older
// than before.
type delayed struct {
	client.Reader
	link
	mu    sync.Mutex
	shown int
}

func (d *delayed) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	d.standStill()
	lag := d.lag
	if !d.troubled() {
		lag = 5 * time.Millisecond
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	_, cut := d.within(d.cut)
	for !cut && d.shown+1 < len(d.past) && time.Since(d.past[d.shown+1].at) >= lag {
		d.shown++
	}
	return d.store.past[d.shown].list(list)
}

// Get reads one object of the moment that was listed last.
func (d *delayed) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return (&lagging{store: d.store, namespaces: d.shown, hosts: d.shown, node: d.shown}).get(key, object)
}

// controller is one pod: a process that is started again whenever it ends.
func (m *model) controller(ctx context.Context, i int) {
	l := link{model: m, plight: &m.plights[i]}
	identity := fmt.Sprintf("node%d_pod", i)
	for life := 0; ctx.Err() == nil; life++ {
		m.live(ctx, l, i, identity, fmt.Sprintf("%s/%d", identity, life))
		pause(ctx, time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// live is the life of one process, with the elector, lock, reconciler and fence that the
// program has.
func (m *model) live(ctx context.Context, l link, i int, identity, writer string) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	cache := &delayed{link: l}
	api := remote{link: l, writer: writer}
	d := deps{
		cache: cache, live: api, writer: api, recorder: &record.FakeRecorder{}, metrics: newMetrics(), clock: clock.RealClock{},
		claimsWriter: writer, deposed: func(error) { end() },
	}
	o := newObserver(cache, clock.RealClock{}, noProbes, 0)
	job := newEgressReconciler(d, o, newPublisher(logr.Discard(), d, o, nil))
	lock := &leaseLock{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: "system", Name: FieldManager}, Client: remoteLeases{link: l},
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		dead: func(context.Context, string) bool { _, fooled := m.within(l.fooled); return fooled },
		lost: func(error) { end() },
	}
	var working sync.WaitGroup
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {},
			OnStoppedLeading: end,
		},
	})
	if err != nil {
		panic(err) // a mistake of the test
	}
	// As the manager, which starts the reconcilers when the lead was gained. They end
	// before the Lease is released.
	electing, release := context.WithCancel(context.WithoutCancel(ctx))
	working.Go(func() {
		for ctx.Err() == nil && !lock.held.Load() {
			pause(ctx, 5*time.Millisecond)
		}
		m.lead(i, true)
		defer m.lead(i, false)
		for ctx.Err() == nil {
			l.standStill()
			result, err := job.Reconcile(ctx, reconcile.Request{})
			wait := 250 * time.Millisecond // as if an event came
			if err == nil && result.RequeueAfter > 0 {
				wait = min(wait, result.RequeueAfter)
			}
			pause(ctx, wait)
		}
	})
	go func() {
		<-ctx.Done()
		working.Wait()
		release()
	}()
	elector.Run(electing)
	end()
	working.Wait()
}

func (m *model) lead(i int, leads bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leading[i] = leads
}

// do is something that people or nodes do.
func (m *model) do(c change) {
	if c.what == "Lease deleted" {
		m.leases.remove()
		return
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	h := m.store.hosts[c.host]
	switch c.what {
	case "node flips":
		node := m.nodes[c.host]
		setReady(node, nodeState(node) != online.NodeReady)
		m.stamp(node, false)
	case "request flips":
		name := fmt.Sprintf("team%d", c.i%m.requests)
		n := m.namespaces[name]
		if len(n.EgressIPs) == 0 {
			n.EgressIPs = []string{requested(c.i % m.requests)}
		} else {
			n.EgressIPs = nil
		}
		m.stamp(n, true)
	case "host flips":
		if len(h.EgressCIDRs) == 0 {
			h.EgressCIDRs = []string{"192.168.7.128/25"}
		} else {
			h.EgressCIDRs, h.EgressIPs = nil, nil
		}
		m.stamp(h, true)
	case "mark removed":
		h.Annotations = nil
		m.stamp(h, false)
	case "mark restored":
		h.Annotations = map[string]string{v1.AnnotationClaimsWriter: mark{epoch: uint64(900 + c.i), writer: "of a backup"}.String()}
		m.stamp(h, false)
	}
}

func requested(i int) string { return fmt.Sprintf("192.168.7.%d", 200+i) }

// run runs the model, and returns what was wrong, "" for nothing.
func (h history) run() string {
	m := &model{
		history: h, store: newStore(), began: time.Now(), hosts: []string{"node0", "node1", "node2"},
		rng: rand.New(rand.NewPCG(h.seed, 1)), leading: make(map[int]bool),
	}
	for i, name := range m.hosts {
		m.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		setReady(m.nodes[name], true)
		m.store.hosts[name] = &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Host:       name, HostIP: fmt.Sprintf("192.168.7.%d", 11+i), EgressCIDRs: []string{"192.168.7.128/25"},
		}
		objects.AgentReports(m.store.hosts[name])
		m.stamp(m.nodes[name], true)
		m.stamp(m.store.hosts[name], true)
	}
	for i := range h.requests {
		name := fmt.Sprintf("team%d", i)
		m.namespaces[name] = &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, NetName: name, NetID: new(uint32(10 + i)), EgressIPs: []string{requested(i)},
		}
		m.stamp(m.namespaces[name], true)
	}
	silent := logr.Discard()
	ctx, cancel := context.WithCancel(crlog.IntoContext(klog.NewContext(context.Background(), silent), silent))
	var all sync.WaitGroup
	for i := range h.plights {
		all.Go(func() { m.controller(ctx, i) })
	}
	slices.SortStableFunc(h.changes, func(a, b change) int { return int(a.at - b.at) })
	for _, c := range h.changes {
		time.Sleep(c.at - m.now())
		m.do(c)
	}
	time.Sleep(troubled + settling - m.now())
	wrong := m.verdict()
	cancel()
	all.Wait()
	time.Sleep(time.Minute) // until all that was sent has arrived
	if wrong == "" && len(m.wrong) > 0 {
		wrong = m.wrong[0]
	}
	return wrong
}

func (m *model) verdict() string {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case len(m.wrong) > 0:
		return m.wrong[0]
	case m.violated != "":
		return m.violated
	}
	leaders := 0
	for _, leads := range m.leading {
		if leads {
			leaders++
		}
	}
	if leaders != 1 {
		return fmt.Sprintf("%d controllers lead in the end", leaders)
	}
	var claimed []string
	usable := false
	for _, h := range m.store.hosts {
		claimed = append(claimed, h.EgressIPs...)
		usable = usable || (len(h.EgressCIDRs) > 0 && m.store.nodes[h.Name].Status.Conditions[0].Status == corev1.ConditionTrue)
	}
	for name, n := range m.namespaces {
		for _, ip := range n.EgressIPs {
			if usable && !slices.Contains(claimed, ip) {
				return fmt.Sprintf("%s of %s is claimed nowhere in the end; claims are %s", ip, name, strings.Join(claimed, ","))
			}
		}
	}
	return ""
}

// TestPropertyOneWriterOfClaims: whatever is delayed, lost, paused, cut off or wrongly
// considered dead, no two controllers write claims in turns, no address is on two lists,
// and when all is well again one controller leads and everything is claimed. Elector,
// lock, reconciler and fence are those of the program; the API and the time are not.
//
// Mutant killed: fence-not-checked.
func TestPropertyOneWriterOfClaims(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		var wrong string
		synctest.Test(t, func(*testing.T) { wrong = h.run() })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func drawHistory(t *rapid.T) history {
	h := history{
		seed:     rapid.Uint64().Draw(t, "seed"),
		requests: rapid.IntRange(1, 4).Draw(t, "requests"),
		loss:     rapid.SampledFrom([]int{0, 0, 5, 20}).Draw(t, "loss"),
	}
	milliseconds := func(most time.Duration, what string) time.Duration {
		return time.Duration(rapid.Int64Range(0, most.Milliseconds()).Draw(t, what)) * time.Millisecond
	}
	spans := func(what string) []span {
		var all []span
		for range rapid.IntRange(0, 3).Draw(t, what) {
			from := milliseconds(troubled, what+" from")
			all = append(all, span{from, min(troubled, from+milliseconds(12*time.Second, what+" for"))})
		}
		return all
	}
	for range rapid.IntRange(2, 3).Draw(t, "controllers") {
		h.plights = append(h.plights, plight{
			paused: spans("paused"), cut: spans("cut"), fooled: spans("fooled"), lag: milliseconds(2*time.Second, "lag"),
		})
	}
	kinds := []string{"node flips", "node flips", "request flips", "host flips", "host flips", "Lease deleted", "mark restored"}
	if rapid.Bool().Draw(t, "tampered") {
		kinds = append(kinds, "mark removed")
	}
	for range rapid.IntRange(0, 25).Draw(t, "changes") {
		h.changes = append(h.changes, change{
			at: milliseconds(troubled, "at"), what: rapid.SampledFrom(kinds).Draw(t, "what"),
			host: rapid.SampledFrom([]string{"node0", "node1", "node2"}).Draw(t, "host"), i: rapid.IntRange(0, 99).Draw(t, "i"),
		})
	}
	return h
}
