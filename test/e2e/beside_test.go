package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	// besideNamespace has besideIP, of besideHost, all the time.
	besideNamespace = "beside"
	besideHost      = "node1"
	// uninvolvedNamespace has none.
	uninvolvedNamespace = "uninvolved"
	// besideGap bounds the time without a new connection while an agent is killed, or what
	// it made is deleted.
	besideGap = 4 * time.Second
)

// probers are pods that send all the time while the steps of a suite are played with other
// namespaces: some to the bastion with an egress IP, some without one to a machine on the
// LAN. From its first packet on, none has another source than that.
type probers struct {
	b *bed

	mu sync.Mutex
	// last is when a new connection of each was seen, longest the longest gap before one.
	last    map[string]time.Time
	longest map[string]time.Duration
	packets int
	wrong   []testbed.Packet

	stop []func() error
}

// probers starts them, and waits until each has been answered.
func (b *bed) probers(t *testing.T) *probers {
	t.Helper()
	p := &probers{b: b, last: map[string]time.Time{}, longest: map[string]time.Duration{}}
	wait, err := b.Background(context.WithoutCancel(t.Context()), testbed.LANHost, "traffic", "serve", net.JoinHostPort(b.lanHost, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceValue(func() error { _, err := wait(true); return err })
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Log(err)
		}
	})
	with, without := map[string]string{}, map[string]string{}
	for _, node := range b.Nodes() {
		with[node], without[node] = b.besideIP, b.nodeIP(node)
	}
	p.watch(t, testbed.Bastion, with)
	p.watch(t, testbed.LANHost, without)
	p.stop = append(p.stop, end)
	b.beside = []string{b.besideIP}
	for namespace, target := range map[string]string{besideNamespace: b.bastion, uninvolvedNamespace: b.lanHost} {
		if _, err := b.Kubectl(t.Context(), "create", "namespace", namespace); err != nil {
			t.Fatal(err)
		}
		if namespace == besideNamespace {
			b.eventually(t, func() error {
				_, err := b.Kubectl(t.Context(), "patch", "netnamespace", namespace, "--type=merge", "-p", list([]string{b.besideIP}))
				return err
			})
			b.patch(t, "hostsubnet", besideHost, list([]string{b.besideIP}))
		}
		if _, err := b.Apply(t.Context(), fmt.Sprintf(proberManifest, namespace, testbed.TrafficImage, net.JoinHostPort(target, "8080"), testenv.Stretch(100*time.Millisecond))); err != nil {
			t.Fatal(err)
		}
	}
	b.eventually(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if want := 2 * len(b.Nodes()); len(p.last) != want {
			return fmt.Errorf("%d probers were answered, want %d", len(p.last), want)
		}
		return nil
	})
	return p
}

const proberManifest = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: prober, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: prober}}
  template:
    metadata: {labels: {app: prober}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: prober
        image: %[2]s
        imagePullPolicy: Never
        args: [chatter, -every, %[4]s, -id, %[1]s/$(NODE), "%[3]s"]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
`

// watch judges what arrives at a place, by the source that the prober of each node should have.
func (p *probers) watch(t *testing.T, place string, want map[string]string) {
	t.Helper()
	k, err := p.b.Capture(context.WithoutCancel(t.Context()), place, "eth0", func(packet testbed.Packet) bool {
		p.see(packet, want)
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	p.stop = append(p.stop, func() error { _, err := k.Stop(); return err })
}

// proberLine reads "KIND ID NUMBER", which every packet with a payload begins with.
func proberLine(packet testbed.Packet) (kind, id string, ok bool) {
	if packet.Outgoing {
		return "", "", false
	}
	words := strings.Fields(string(packet.Payload[:min(len(packet.Payload), 64)]))
	if len(words) < 3 || !slices.Contains([]string{"C", "U", "S"}, words[0]) {
		return "", "", false
	}
	return words[0], words[1], true
}

// see judges a packet. The line of a new connection is sent once that is answered.
func (p *probers) see(packet testbed.Packet, want map[string]string) {
	kind, id, ok := proberLine(packet)
	if !ok {
		return
	}
	_, node, _ := strings.Cut(id, "/")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.packets++
	if packet.Source.Addr().String() != want[node] {
		p.wrong = append(p.wrong, packet)
	}
	if kind != "C" {
		return
	}
	if last, seen := p.last[id]; seen {
		p.longest[id] = max(p.longest[id], packet.At.Sub(last))
	}
	p.last[id] = packet.At
}

// gaps says how long each prober was without a new connection at most.
func (p *probers) gaps() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, id := range slices.Sorted(maps.Keys(p.longest)) {
		all = append(all, fmt.Sprintf("%s %s", id, p.longest[id].Round(time.Millisecond)))
	}
	return "longest gaps: " + strings.Join(all, ", ")
}

// verify ends the watch and the probers, and fails the test for each packet with a wrong source
// and each gap, but for those of a prober whose node was off.
func (p *probers) verify(t *testing.T) {
	t.Helper()
	now := time.Now()
	for _, stop := range p.stop {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.b.Kubectl(t.Context(), "delete", "namespace", besideNamespace, uninvolvedNamespace, "--timeout="+testenv.Stretch(time.Minute).String()); err != nil {
		t.Error(err)
	}
	p.b.patch(t, "hostsubnet", besideHost, list(nil))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, packet := range p.wrong {
		if i < maxLoggedPackets {
			t.Errorf("a packet with a wrong source: %+v", packet)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.last)) {
		gap := max(p.longest[id], now.Sub(p.last[id]))
		t.Logf("%s: no new connection for %s at most", id, gap.Round(time.Millisecond))
		if _, node, _ := strings.Cut(id, "/"); gap > testenv.Stretch(besideGap) && !p.b.lostPower[node] {
			t.Errorf("%s: no new connection for %s, want less than %s", id, gap, testenv.Stretch(besideGap))
		}
	}
	if want := 2 * len(p.b.Nodes()); len(p.last) != want || len(p.wrong) > 0 {
		t.Errorf("%d probers were seen, want %d; %d of %d packets had a wrong source", len(p.last), want, len(p.wrong), p.packets)
	}
}
