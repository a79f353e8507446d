package dataplane

import (
	"context"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// stream is a pod's UDP packets of one connection, one each millisecond.
type stream struct {
	port uint16
	sent atomic.Int64
	stop func()
}

// startStream sends until stop is called, or the test ends.
func startStream(t *testing.T, p *podMachine, bastion *machine, port uint16) *stream {
	t.Helper()
	bastion.serveEcho(t, port)
	s := &stream{port: port}
	c := p.dial(t, "udp4", net.JoinHostPort(bastionIP, strconv.Itoa(int(port))))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(testenv.Stretch(time.Millisecond))
		defer tick.Stop()
		for ctx.Err() == nil {
			if _, err := c.Write([]byte("x")); err == nil {
				s.sent.Add(1)
			}
			<-tick.C
		}
	})
	s.stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

// given: pods that send without a pause, with and without egress IPs; when the agents
// start again with another backend, one after the other, then no packet has another
// source, none is lost, connections live, and nothing is left where the rules were.
//
// Mutants killed: old-backend-goes-first, sets-of-old-backend-stay,
// former-pods-are-unknown.
func TestBackendIsReplacedUnderTraffic(t *testing.T) {
	iptables := func(b ...Backend) func(*Config) {
		return func(c *Config) { c.Backends, c.IPTables = b, len(b) == 0 }
	}
	table := func(c *Config) { c.Backends, c.IPTables = nil, false }
	w := newWorld(t, 3, onlyNFT())
	n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
	here, there, plain, dropped := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n1.addPod(t, "plain", 3), n2.addPod(t, "dropped", 3)
	spread := n3.addPod(t, "spread", 2)
	n1.host(eip1, 7)
	n2.host(eip2, 8)
	n1.host(eip3, 8)
	here.set(local(eip1, 7))
	there.set(remote(7, n1))
	plain.set(Pod{Kind: Node})
	dropped.set(Pod{Kind: Drop})
	spread.set(remote(8, n1, n2))
	for _, n := range w.nodes {
		n.state.Strict = true
	}
	w.applyAll(t)

	sources := map[*podMachine][]string{here: {eip1}, there: {eip1}, plain: {n1.ip.String()}, dropped: nil, spread: {eip2, eip3}}
	var streams []*stream
	for i, p := range []*podMachine{here, there, plain, spread, dropped} {
		w.seen.only(uint16(9001+i), sources[p]...)
		startSender(t, p, w.bastion, uint16(9001+i))
		if p != dropped {
			w.seen.only(uint16(9101+i), sources[p]...)
			streams = append(streams, startStream(t, p, w.bastion, uint16(9101+i)))
		}
	}
	w.bastion.serveEcho(t, 7000)
	var open []net.Conn
	for _, p := range []*podMachine{here, there, plain, spread} {
		open = append(open, p.dial(t, "tcp4", bastionIP+":7000"))
	}

	for _, step := range []struct {
		name   string
		choose func(*Config)
		want   []Backend
	}{
		{"to a table of our own", table, []Backend{NFTables}},
		{"to legacy iptables", iptables(Legacy), []Backend{Legacy}},
		{"from legacy iptables to a table of our own", table, []Backend{NFTables}},
		{"to iptables in use", iptables(), []Backend{NFT}},
		{"from both to a table of our own", iptables(NFT, Legacy), []Backend{NFT, Legacy}},
		{"at last to a table of our own", table, []Backend{NFTables}},
	} {
		w.seen.says(step.name)
		for _, n := range w.nodes {
			step.choose(&n.cfg)
			n.start(t)
			if r := n.apply(t); !slices.Equal(r.Backends, step.want) || r.BackendReason == "" {
				t.Fatalf("%s: backends %v (%s)", step.name, r.Backends, r.BackendReason)
			}
			n.settled(t)
			for _, c := range open {
				echoes(t, c, 1000)
			}
			leftIn(t, n, step.want)
		}
		w.linger(t)
	}
	for _, s := range streams {
		s.stop()
	}
	w.drain(t)
	for _, s := range streams {
		if got := w.seen.total(s.port); int64(got) != s.sent.Load() {
			t.Errorf("port %d: %d of %d packets came", s.port, got, s.sent.Load())
		}
	}
}

// leftIn expects that rules and sets of ours are in the given backends alone.
func leftIn(t *testing.T, n *node, want []Backend) {
	t.Helper()
	for backend, show := range map[Backend]string{
		NFT: "iptables-nft-save 2>/dev/null | grep EGRESSIP || true", Legacy: "iptables-legacy-save | grep EGRESSIP || true",
		NFTables: "nft list tables | grep -x 'table inet egressip' || true",
	} {
		if out := n.Run(t, show); slices.Contains(want, backend) != (strings.TrimSpace(out) != "") {
			t.Errorf("%s: with rules in %v, %s has:\n%s", n.Name, want, backend, out)
		}
	}
	if sets := n.Run(t, "ipset list -n | grep ^egress- || true"); usesTable(want) != (sets == "") {
		t.Errorf("%s: with rules in %v, these ipsets are there:\n%s", n.Name, want, sets)
	}
}

// given: pods that send without a pause; when somebody flushes all rules of the host,
// deletes our table or changes it, then our table stays as it was, and so does all
// that is sent.
//
// Mutant killed: table-without-owner.
func TestNobodyElseChangesOurTable(t *testing.T) {
	w := newWorld(t, 2, ownTableLegacy())
	n1, n2 := w.nodes[0], w.nodes[1]
	here, there, dropped := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "dropped", 3)
	n1.host(eip1, 7)
	here.set(local(eip1, 7))
	there.set(remote(7, n1))
	dropped.set(Pod{Kind: Drop})
	w.applyAll(t)
	if !n1.dp.nft.Owned() {
		t.Skip("the kernel has no tables that outlive their owners")
	}
	w.seen.only(9001, eip1)
	w.seen.only(9002, eip1)
	w.seen.only(9003)
	a, b := startStream(t, here, w.bastion, 9001), startStream(t, there, w.bastion, 9002)
	startSender(t, dropped, w.bastion, 9003)
	list := func() string {
		// Without what ends by itself, and what the kernel learns.
		return regexp.MustCompile(`(?s)\tset egress-(present|senders|bound) \{.*?\n\t\}\n`).ReplaceAllString(n1.Run(t, "nft list table inet egressip"), "")
	}
	before := list()
	for _, damage := range []string{
		"nft flush ruleset",
		"! nft delete table inet egressip",
		"! nft flush chain inet egressip forward",
		"! nft flush map inet egressip egress-marks",
		"! nft insert rule inet egressip forward accept",
	} {
		w.seen.says(damage)
		for _, n := range w.nodes {
			n.Run(t, damage)
			n.settled(t)
		}
		w.linger(t)
	}
	if after := list(); after != before {
		t.Errorf("the table was\n%s\nand is\n%s", before, after)
	}
	a.stop()
	b.stop()
	w.drain(t)
	for _, s := range []*stream{a, b} {
		if got := w.seen.total(s.port); int64(got) != s.sent.Load() {
			t.Errorf("port %d: %d of %d packets came", s.port, got, s.sent.Load())
		}
	}
}

// given: an agent that is killed and not closed; then its table stays, and the next
// one takes it over.
func TestTableOutlivesItsOwner(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	n.apply(t)
	// The kernel knows an owner by its socket.
	must(t, n.dp.nft.Close())
	here.leaves(t, eip1)
	n.dp = nil
	n.start(t)
	n.settled(t)
	if n.dp.nft.Owned() {
		n.Run(t, "! nft delete table inet egressip")
	}
	here.leaves(t, eip1)
}
