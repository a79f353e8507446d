package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// startPeers runs the probes of a host.
func startPeers(t *testing.T, node string, ready func() bool) (*peers, signal) {
	t.Helper()
	changed := newSignal()
	p, err := newPeers(peersConfig{
		log: testr.New(t), clock: clock.RealClock{}, node: node, port: 19788, probe: probeConfig(20 * time.Millisecond),
		ready: ready, changed: changed, voted: newSignal(), metrics: newMetrics("test"),
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
