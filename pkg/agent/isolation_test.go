package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// surroundings are what a host can reach.
type surroundings struct {
	mu                 sync.Mutex
	watched, answering int
	apiErr             error
	current            bool
	takes              time.Duration // of an answer
	asked              int
}

func (s *surroundings) set(answering int, apiErr error, current bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answering, s.apiErr, s.current = answering, apiErr, current
}

// slow sets how long the API server takes to answer.
func (s *surroundings) slow(takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = takes
}

func (s *surroundings) contact() (int, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watched, s.answering
}

func (s *surroundings) ask(ctx context.Context) (bool, error) {
	s.mu.Lock()
	s.asked++
	takes, current, err := s.takes, s.current, s.apiErr
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-time.After(takes):
		return current, err
	}
}

// TestIsolation: a host that reaches nobody gives its addresses up in time, asks
// the API server only where there is need, and comes back on its word.
//
// Mutant killed: slow-is-away.
func TestIsolation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &surroundings{watched: 3, answering: 3, apiErr: errors.New("no route to host")}
		i := &isolation{
			log: testr.New(t), clock: clock.RealClock{}, after: time.Second, contact: s.contact, ask: s.ask,
			changed: newSignal(), metrics: newMetrics("v1"),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- i.run(ctx) }()
		want := func(what string, withdrawn bool) {
			t.Helper()
			if i.withdrawn() != withdrawn {
				t.Fatalf("%s: withdrawn is %t", what, !withdrawn)
			}
		}
		pass(time.Minute)
		if want("all is well", false); s.asked > 0 {
			t.Errorf("the API server was asked %d times while all is well", s.asked)
		}
		s.set(0, nil, true)
		pass(time.Minute)
		want("the API server answers", false)
		s.slow(700 * time.Millisecond)
		pass(time.Minute)
		want("the API server answers slowly", false)
		s.slow(0)
		s.set(2, errors.New("no route to host"), false)
		pass(time.Minute)
		want("most hosts answer", false)
		s.set(1, errors.New("no route to host"), false) // itself and one, of four
		pass(900 * time.Millisecond)
		want("cut off for a moment", false)
		pass(300 * time.Millisecond)
		want("cut off", true)
		select {
		case <-i.changed:
		default:
			t.Error("nobody was told")
		}
		s.set(3, errors.New("no route to host"), false)
		pass(time.Minute)
		want("all hosts answer, and which host has the addresses is not known", true)
		s.set(3, nil, false)
		pass(time.Minute)
		want("the cache lags behind the API server", true)
		s.set(3, nil, true)
		pass(600 * time.Millisecond)
		want("all is well again", false)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestDecideWithdrawn: the node hosts nothing, and its pods leave by another
// egress host or not at all.
func TestDecideWithdrawn(t *testing.T) {
	t.Parallel()
	in := given()
	in.reach.Withdrawn = true
	d, ok := decide(in)
	if !ok || len(d.state.Hosted) > 0 || d.state.Pods[0].Kind != dataplane.Drop || d.state.Pods[1].Kind != dataplane.Node {
		t.Errorf("state %+v", d.state)
	}
	in.netNamespaces[1].EgressIPs = []string{"10.1.8.200", "10.1.8.201"}
	in.hostSubnets[1].EgressIPs = []string{"10.1.8.201"}
	for _, silent := range []map[string]bool{nil, {"node2": true}} {
		in.reach.Silent = silent
		d, ok = decide(in)
		if p := d.state.Pods[0]; !ok || len(d.state.Hosted) > 0 || p.Kind != dataplane.Remote || p.Via[0] != testenv.Addr("10.1.8.12") {
			t.Errorf("silent %v: state %+v", silent, d.state)
		}
	}
	got := statusOf(observation{decision: d, report: healthyReport(d.state)}, "v1", 4)
	if got.ready.Status != metav1.ConditionFalse || got.ready.Reason != ReasonWithdrawn {
		t.Errorf("AgentReady is %+v", got.ready)
	}
}

// TestPublishVotesAtOnce: who is silent is written at once, and not again without need.
func TestPublishVotesAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		var mu sync.Mutex
		var silent []string
		p.ballot = func() []string {
			mu.Lock()
			defer mu.Unlock()
			return silent
		}
		p.publish(observed(t))
		pass(5 * time.Second)
		api.expectWrites(t, 1)
		mu.Lock()
		silent = []string{"node3"}
		mu.Unlock()
		p.wake.raise() // as the probes do
		pass(time.Millisecond)
		api.expectWrites(t, 2)
		for range 5 {
			pass(time.Second)
			p.publish(observed(t))
		}
		pass(time.Second)
		api.expectWrites(t, 2)
		if a := api.stored.Status.Agent; !slices.Equal(a.Silent, silent) {
			t.Errorf("stored: silent %v", a.Silent)
		}
	})
}

func containsAll(s string, words ...string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(s, word) })
}

// TestPublishAddressInUseThatServes: an address that the host has, and somebody else
// too, is reported as both.
func TestPublishAddressInUseThatServes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		p.publish(observed(t, func(o *observation) {
			o.report.Hosted[0] = dataplane.HostedReport{IP: testenv.Addr("10.1.8.200"), Configured: true, InUseBy: "02:00:00:00:00:07"}
		}))
		pass(time.Second)
		if c := api.stored.Status.EgressIPs[0]; c.Reason != string(egress.ReasonAddressInUse) || !c.Configured ||
			!containsAll(c.Message, "is on this host", "02:00:00:00:00:07") {
			t.Errorf("claim %+v", c)
		}
		if c := meta.FindStatusCondition(api.stored.Status.Conditions, v1.ConditionAddressInUse); c == nil || c.Status != metav1.ConditionTrue {
			t.Errorf("condition %+v", c)
		}
		if c := meta.FindStatusCondition(api.stored.Status.Conditions, v1.ConditionAgentReady); c == nil || c.Status != metav1.ConditionTrue {
			t.Errorf("condition %+v", c)
		}
	})
}

// TestPublishAddressInUse: the condition is True for as long as somebody else has the
// address, and names the MAC address. It is False from then on: one that is left out
// would stay if anyone else wrote it too.
//
// Mutant: in-use-by-absence.
func TestPublishAddressInUse(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		inUse := func(o *observation) {
			o.report.Hosted[0] = dataplane.HostedReport{IP: testenv.Addr("10.1.8.200"), Error: "in use", InUseBy: "02:00:00:00:00:07"}
			o.err = errors.New("in use")
		}
		stored := func() string {
			for _, c := range api.stored.Status.Conditions {
				if c.Type == v1.ConditionAddressInUse {
					return string(c.Status) + " " + c.Message
				}
			}
			return ""
		}
		p.publish(observed(t))
		pass(time.Second)
		if got := stored(); got != "" {
			t.Errorf("AddressInUse says %q before there was any reason for it", got)
		}
		p.publish(observed(t, inUse))
		pass(time.Second)
		if got := stored(); !containsAll(got, "True ", "10.1.8.200", "shop", "02:00:00:00:00:07") {
			t.Errorf("AddressInUse says %q", got)
		}
		if c := api.stored.Status.EgressIPs[0]; c.Reason != string(egress.ReasonAddressInUse) || c.Configured {
			t.Errorf("claim %+v", c)
		}
		p.publish(observed(t, inUse))
		pass(time.Minute)
		api.expectWrites(t, 2)
		p.publish(observed(t))
		pass(time.Second)
		if got := stored(); !containsAll(got, "False ", "No other machine") {
			t.Errorf("AddressInUse still says %q", got)
		}
		p.publish(observed(t))
		pass(time.Minute)
		api.expectWrites(t, 3)
	})
}
