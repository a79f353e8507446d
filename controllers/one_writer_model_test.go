package controllers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// span is a time from the beginning of a run.
type span struct{ from, to time.Duration }

// plight is what befalls one controller.
type plight struct {
	// paused: it stands still, as by SIGSTOP or in a virtual machine that is frozen.
	paused []span
	// cut: what it sends arrives when the span is over, or never.
	cut []span
	// refused: what it writes to host unwritten is refused, while all else is not.
	refused   []span
	unwritten string
	// fooled: it considers the leader's host dead.
	fooled []span
	// lag is how far its caches are behind.
	lag time.Duration
	// jumps are steps of its clock. bare: its times have no monotonic reading, so that
	// everything which compares times takes part in the jumps.
	jumps []jump
	bare  bool
}

// jump is a step of a clock, forward or back.
type jump struct{ at, by time.Duration }

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
	_, wrong := h.play()
	return wrong
}

// play runs the model, and returns it with what was wrong.
func (h history) play() (m *model, wrong string) {
	m = &model{
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
	wrong = m.verdict()
	cancel()
	all.Wait()
	time.Sleep(time.Minute) // until all that was sent has arrived
	if wrong == "" && len(m.wrong) > 0 {
		wrong = m.wrong[0]
	}
	return m, wrong
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
	if m.lostTime() {
		return ""
	}
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
