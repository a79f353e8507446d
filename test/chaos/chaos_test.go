package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
	"github.com/egressip-operator/egressip-operator/test/chaos/traffic"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// TestChaos is a short run, always the same. Its seed was chosen for what it breaks:
// eight faults of seven kinds; one with a bound for its outage ends it. "make chaos" runs
// for longer.
func TestChaos(t *testing.T) {
	root, err := binaries.Repository()
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(root, "build", "image.tar")
	if _, err := os.Stat(image); err != nil {
		t.Fatalf("%v: run \"make image\" first", err)
	}
	var out strings.Builder
	err = play(t.Context(), options{
		families: families{ipv4: true}, seed: 40769, length: 10 * time.Minute, faults: 8, last: apiStoppedAfterCuts, every: 100 * time.Millisecond, twoOwners: 2 * time.Second, prefix: "chaost",
		image: image, chart: filepath.Join(root, "charts", "egressip-operator"), out: &out,
	})
	t.Log(out.String())
	if err != nil {
		t.Error(err)
	}
}

// TestRules: what counts as a wrong source. Mutants: an address of before is
// allowed for good; a namespace without egress IPs may have any node's address.
func TestRules(t *testing.T) {
	node := netip.MustParseAddr("192.168.7.11")
	other := netip.MustParseAddr("192.168.7.12")
	packet := func(namespace, node string, source netip.Addr, at time.Time) traffic.Seen {
		return traffic.Seen{
			Packet: testbed.Packet{Source: netip.AddrPortFrom(source, 1), At: at}, Namespace: namespace,
			Pod: traffic.Pod{Namespace: namespace, Node: node, Name: "p"},
		}
	}
	a, b := netip.MustParseAddr("192.168.7.200"), netip.MustParseAddr("192.168.7.201")
	now := time.Now()
	for _, c := range []struct {
		name  string
		seen  traffic.Seen
		wrong bool
	}{
		{"its egress IP", packet("shop", "node1", b, now), false},
		{"its egress IP of before, a moment later", packet("shop", "node1", a, now.Add(time.Second)), false},
		{"its egress IP of before, much later", packet("shop", "node1", a, now.Add(time.Minute)), true},
		{"its node's address", packet("shop", "node1", node, now), true},
		{"no egress IP, its node's address", packet("plain", "node1", node, now), false},
		{"no egress IP, another node's address", packet("plain", "node1", other, now), true},
		{"no egress IP, another namespace's", packet("plain", "node1", b, now), true},
		{"an unknown port", packet("", "", a, now), false},
	} {
		r := &rules{
			allowed: map[string]map[netip.Addr]time.Time{}, count: map[string]int{},
			nodes: map[netip.Addr]string{node: "node1", other: "node2"},
		}
		r.allow("shop", a.String())
		r.allow("shop", b.String())
		r.allow("plain")
		r.see(c.seen)
		if (r.err() != nil) != c.wrong {
			t.Errorf("%s: %v", c.name, r.err())
		}
	}
}

// TestOwners: one machine after another is no overlap, two that both answer are
// one, as long as both do. A machine that takes an address as part of a fault is none.
func TestOwners(t *testing.T) {
	o := &owners{last: map[string]map[string]time.Time{}, both: map[string][2]time.Time{}, ignored: map[string]bool{}}
	at := time.Unix(1e9, 0)
	o.ignore("c")
	for range 100 {
		at = at.Add(asked)
		o.answer("192.168.7.200", "a", at)
	}
	at = at.Add(10 * asked)
	for range 100 {
		at = at.Add(asked)
		o.answer("192.168.7.200", "b", at)
		o.answer("192.168.7.200", "c", at)
	}
	if most, what := o.most(); most > 0 {
		t.Errorf("one after another: %s, %s", most, what)
	}
	for range 20 {
		at = at.Add(asked)
		o.answer("192.168.7.200", "b", at)
		o.answer("192.168.7.200", "a", at)
	}
	if most, what := o.most(); most < 19*asked || most > 20*asked || !strings.Contains(what, "192.168.7.200") {
		t.Errorf("both: %s, %s", most, what)
	}
}
