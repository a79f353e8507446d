package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// startPeers runs the probes of a host.
func startPeers(t *testing.T, node string, ready func() bool) (*peers, signal) {
	t.Helper()
	changed := newSignal()
	p, err := newPeers(peersConfig{
		log: testr.New(t), clock: clock.RealClock{}, node: node, port: 19788, probe: probeConfig(20 * time.Millisecond),
		ready: ready, answer: func(dataplane.Answer) error { return dataplane.ErrNotOpen }, changed: changed, voted: newSignal(), metrics: newMetrics("test"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.run(ctx); err != nil {
			t.Errorf("peers of %s: %v", node, err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p, changed
}

func TestPeersTellWhoIsSilent(t *testing.T) {
	b := netip.MustParseAddr("127.0.0.42")
	works := make(chan bool, 1) // holds whether the data plane of b works
	works <- true
	asker, changed := startPeers(t, "asker", func() bool { return true })
	other, _ := startPeers(t, "b", func() bool {
		v := <-works
		works <- v
		return v
	})
	asker.setTargets(netip.MustParseAddr("127.0.0.40"), nil, []egress.Peer{{Name: "b", IP: b}}, nil)
	other.setTargets(b, []netip.Addr{netip.MustParseAddr("127.0.0.40")}, nil, nil)

	await := func(what string, offline bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for asker.reach().Silent["b"] != offline {
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("%s: b counts as offline: %t, wanted %t", what, !offline, offline)
			}
		}
	}
	<-works
	works <- false
	await("its data plane is broken", true)
	// A host that cannot serve is no sign of being cut off. One probe may be lost on a
	// busy machine; the next is 20 ms away.
	testenv.Eventually(t, func(context.Context) string {
		if watched, answering := asker.contact(); watched != 1 || answering != 1 {
			return fmt.Sprintf("%d of %d hosts are reached, want the one whose data plane is broken", answering, watched)
		}
		return ""
	})
	if got := asker.ballot(); got != nil {
		t.Errorf("a host that is no witness reports %v", got)
	}
	asker.setTargets(netip.MustParseAddr("127.0.0.40"), nil, []egress.Peer{{Name: "b", IP: b}}, []string{"b"})
	if got := asker.ballot(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("a witness reports %v, want the host whose data plane is broken", got)
	}
	<-works
	works <- true
	await("its data plane is mended", false)
}

// TestKernelAnswersForTheAgent: the kernel is told what to answer as soon as the agent
// knows its address, again when its data plane fails, and from time to time, as it would
// report the agent as away otherwise. The status says that it answers only while it does.
func TestKernelAnswersForTheAgent(t *testing.T) {
	now := testclock.NewFakeClock(time.Unix(1e9, 0))
	var said []dataplane.Answer
	var ready, broken bool
	p, err := newPeers(peersConfig{
		log: testr.New(t), clock: now, node: "b", port: 19788, probe: probeConfig(time.Second), metrics: newMetrics("test"),
		ready: func() bool { return ready }, changed: newSignal(), voted: newSignal(),
		answer: func(a dataplane.Answer) error {
			if broken {
				return dataplane.ErrNotOpen
			}
			said = append(said, a)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	step := func(what string, after time.Duration, want int, answers bool) {
		t.Helper()
		now.Step(after)
		if err := p.renewAnswer(); (err != nil) != broken {
			t.Fatalf("%s: %v", what, err)
		}
		if len(said) != want || p.answers() != answers {
			t.Fatalf("%s: the kernel was told %d times, want %d; it answers: %t", what, len(said), want, p.answers())
		}
	}
	step("the first pass is not over", 0, 0, false)
	ip := netip.MustParseAddr("127.0.0.42")
	p.setTargets(ip, nil, nil, nil)
	step("it is", 0, 1, true)
	if a := said[0]; a.HostIP != ip || a.Host != probe.HostHash("b") || a.Ready || a.Valid != answerValid || a.Instance == 0 {
		t.Errorf("the answer is %+v", a)
	}
	step("nothing has changed", answerEvery, 1, true)
	ready = true
	step("its data plane works", answerEvery, 2, true)
	if !said[1].Ready {
		t.Errorf("the answer is %+v", said[1])
	}
	step("time passes", renewEvery, 3, true)
	broken = true
	step("the kernel does not take it", renewEvery, 3, false)
	broken = false
	step("it does", answerEvery, 4, true)
	select {
	case <-p.voted:
	default:
		t.Error("nobody was told that the status has changed")
	}
}

func TestDecideWithASilentHost(t *testing.T) {
	t.Parallel()
	in := given()
	in.netNamespaces[1].EgressIPs = []string{"10.1.8.201", "10.1.8.202"}
	in.hostSubnets[0].EgressIPs = nil
	in.hostSubnets[1].EgressIPs = []string{"10.1.8.201"}
	in.hostSubnets = append(in.hostSubnets, hostSubnet("node3", "10.1.8.13", "10.244.3.0/24", "10.1.8.202"))
	via := func(held string, silent ...string) netip.Addr {
		t.Helper()
		in.reach = egress.Reach{Silent: map[string]bool{}, Held: map[string]bool{}}
		for _, name := range silent {
			in.reach.Silent[name] = true
		}
		if held != "" {
			in.reach.Held[held] = true
		}
		d, ok := decide(in)
		if !ok || len(d.peers) != 2 {
			t.Fatalf("silent %v: decided %t, peers %v; want both egress hosts", silent, ok, d.peers)
		}
		p := d.state.Pods[0]
		if p.Kind != dataplane.Remote || len(p.Via) != 1 {
			t.Fatalf("silent %v: pod %+v, want it to go over one host", silent, p)
		}
		return p.Via[0]
	}
	for _, c := range []struct {
		silent []string
		held   string
		want   string
	}{
		{nil, "", "10.1.8.12"},
		{[]string{"node2"}, "", "10.1.8.13"},
		{[]string{"node3"}, "", "10.1.8.12"},
		{[]string{"node2", "node3"}, "", "10.1.8.12"}, // a probe never takes the last
		{[]string{"node2"}, "node2", "10.1.8.13"},     // it has just come back: not to and fro
		{[]string{"node2", "node3"}, "node3", "10.1.8.13"},
		{[]string{"node2", "node3"}, "node2", "10.1.8.12"},
	} {
		if got := via(c.held, c.silent...); got != testenv.Addr(c.want) {
			t.Errorf("silent %v, held %q: over %v, want %s", c.silent, c.held, got, c.want)
		}
	}
}

// TestSilentForLong: a host that was online a moment ago, one that is trusted again soon,
// and one that answers that it cannot serve, are not unreached.
//
// Kills the mutant just-silent-is-unreached.
func TestSilentForLong(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	off := func(cause probe.Cause, ago time.Duration) probe.Health {
		return probe.Health{State: probe.Offline, Cause: cause, OfflineSince: now.Add(-ago)}
	}
	got := silentForLong(probe.Snapshot{
		View: probe.View{Held: map[string]bool{"held": true}},
		Hosts: map[string]probe.Health{
			"c": off(probe.Silent, time.Minute), "a": off(probe.Silent, unreachedAfter), "just": off(probe.Silent, unreachedAfter-1),
			"held": off(probe.Silent, time.Minute), "broken": off(probe.NotReady, time.Minute), "fine": {State: probe.Online},
		},
	}, now)
	if want := []string{"a", "c"}; !slices.Equal(got, want) {
		t.Errorf("%v are unreached, want %v", got, want)
	}
}

// The probes find the overlay by the name that the data plane gives it.
func TestProbesKnowTheOverlay(t *testing.T) {
	t.Parallel()
	if probe.OverlayDevice != overlay.Name {
		t.Errorf("probes are bound to %s, and the overlay is %s", probe.OverlayDevice, overlay.Name)
	}
}

// TestLastError: an error that lasts is logged once, and again if it comes back.
func TestLastError(t *testing.T) {
	t.Parallel()
	one, other := errors.New("one"), errors.New("other")
	var last lastError
	for i, step := range []struct {
		err  error
		news bool
	}{{nil, false}, {one, true}, {one, false}, {other, true}, {nil, false}, {other, true}} {
		if got := last.isNews(step.err); got != step.news {
			t.Errorf("step %d, %v: is news: %t", i, step.err, got)
		}
	}
}
