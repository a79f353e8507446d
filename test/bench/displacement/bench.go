package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// kind is where a foreign jump is inserted, and what it leads to.
type kind struct {
	name         string
	table, chain string
	hook         int // the chain's number in the kernel
	// ours and foreign are the chains that jumps in chain lead to; rule is what
	// the foreign one does.
	ours, foreign, rule string
}

// kinds are those of single insertions.
func kinds() []kind { return allKinds()[:2] }

// allKinds are also those of a fight. In table filter, ours begin with a chain that lets all
// pass here; the lock comes next.
func allKinds() []kind {
	return []kind{
		{"nat", "nat", "POSTROUTING", 4, "EGRESSIP-POSTROUTING", "OTHER-POSTROUTING", "-j MASQUERADE"},
		{"mangle", "mangle", "PREROUTING", 0, "EGRESSIP-PREROUTING", "OTHER-PREROUTING", "-j ACCEPT"},
		{"filter", "filter", "FORWARD", 2, "EGRESSIP-RESET", "OTHER-FORWARD", "-j ACCEPT"},
	}
}

// patience bounds the wait for what takes no time, or a second at most, when all is well.
const patience = 15 * time.Second

// lookEvery is the pause between two looks at the rules.
const lookEvery = 2 * time.Millisecond

// pinDir is in the file system of this process alone.
const pinDir = "/run/bpf/egressip"

// bench is a host under measurement.
type bench struct {
	*world
	out    io.Writer
	eye    *eye
	sender *sender
	sink   *sink
	pause  *rand.Rand
	// passes counts those of the agent.
	passes atomic.Int64
}

// beHost makes the world, measures, takes all of ours away again, and expects that
// nothing is left.
func beHost(ctx context.Context, backend dataplane.Backend, o options, out io.Writer) (err error) {
	if err := makeRoom(); err != nil {
		return err
	}
	w, err := newWorld(ctx, backend, o.rules)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	before, err := saved(ctx)
	if err != nil {
		return err
	}
	cfg := dataplane.Config{PinDir: pinDir, Backends: []dataplane.Backend{backend}}
	errMeasure := measure(ctx, w, cfg, o, out)

	// Also where it was told to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	errs := []error{errMeasure, dataplane.Cleanup(ctx, cfg)}
	left, err := dataplane.Leftovers(ctx, cfg)
	errs = append(errs, err)
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, "; ")))
	}
	after, err := saved(ctx)
	errs = append(errs, err)
	// A measurement that was cut short may have left the other program's jump.
	if errMeasure == nil && err == nil && after != before {
		errs = append(errs, fmt.Errorf("rules and chains of others: gone are %q, new are %q", without(before, after), without(after, before)))
	}
	return errors.Join(errs...)
}

// without gives the lines of a that are not in b.
func without(a, b string) []string {
	in := slices.Collect(strings.Lines(b))
	return slices.DeleteFunc(slices.Collect(strings.Lines(a)), func(line string) bool { return slices.Contains(in, line) })
}

// measure runs the dataplane and all insertions.
func measure(ctx context.Context, w *world, cfg dataplane.Config, o options, out io.Writer) (err error) {
	b := &bench{world: w, out: out, sender: &sender{}, pause: rand.New(rand.NewPCG(o.seed, 0))}
	if b.eye, err = newEye(w.backend); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.eye.close()) }()
	if b.sink, err = newSink(w.server); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.sink.close()) }()
	dp, err := dataplane.New(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dp.Close()) }()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.sink.run(ctx) })
	g.Go(func() error { return b.sender.run(ctx, w.pod) })
	g.Go(func() error {
		defer stop()
		if err := b.begin(ctx, dp); err != nil {
			return err
		}
		g.Go(func() error { return serve(ctx, dp, state(dataplane.Local), &b.passes) })
		if err := b.all(ctx, o.n); err != nil {
			return err
		}
		return b.fight(ctx, o.fight)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if n := b.sink.wrongs(); n > 0 {
		return fmt.Errorf("%d packets left with a wrong source: %v", n, b.sink.wrong)
	}
	return nil
}

// begin gives the pod its egress IP. Before, it leaves with the host's address: a
// sink that did not see that would see no wrong source either.
func (b *bench) begin(ctx context.Context, dp *dataplane.Dataplane) error {
	if _, err := dp.Apply(ctx, state(dataplane.Node)); err != nil {
		return err
	}
	host, own := netip.MustParseAddr(hostIP), netip.MustParseAddr(egressIP)
	if err := until(ctx, "the sink sees the host's address", func() bool { return b.sink.seen(host) > 0 }); err != nil {
		return err
	}
	r, err := dp.Apply(ctx, state(dataplane.Local))
	if err != nil {
		return err
	}
	if !slices.Equal(r.Backends, []dataplane.Backend{b.backend}) {
		return fmt.Errorf("our rules are in %v, and not in %s alone", r.Backends, b.backend)
	}
	if err := b.drain(ctx, b.sender.next.Load()); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%s: the server saw %d packets with the host's address before the pod had an egress IP\n", b.backend, b.sink.seen(host))
	b.sink.judge(own)
	return until(ctx, "the sink sees the egress IP", func() bool { return b.sink.seen(own) > 100 })
}

// all makes the insertions and prints what came of them.
func (b *bench) all(ctx context.Context, n int) error {
	for _, k := range kinds() {
		var windows []time.Duration
		var sum outcome
		for i := range n {
			o, err := b.insert(ctx, k)
			if err != nil {
				return fmt.Errorf("insertion %d before %s: %w", i+1, k.ours, err)
			}
			fmt.Fprintf(b.out, "%-6s %-6s %3d: window %6.1f ms, gap %4.1f ms; of %d new and %d lasting packets %d and %d dropped; %d with a wrong source\n",
				b.backend, k.name, i+1, ms(o.window), ms(o.gap), o.sent, o.sent, o.dropped[fresh], o.dropped[lasting], o.wrong)
			windows = append(windows, o.window)
			sum.add(o)
		}
		slices.Sort(windows)
		if len(windows) == 0 {
			continue
		}
		at := func(percent int) float64 { return ms(windows[(len(windows)*percent+99)/100-1]) }
		fmt.Fprintf(b.out, "%-6s %-6s all: window median %.1f, p90 %.1f, max %.1f ms (of %d); gap %.1f ms; of %d new and %d lasting packets %d and %d dropped; %d with a wrong source\n",
			b.backend, k.name, at(50), at(90), at(100), len(windows), ms(sum.gap), sum.sent, sum.sent, sum.dropped[fresh], sum.dropped[lasting], sum.wrong)
	}
	return nil
}

// outcome is what an insertion did, up to the next.
type outcome struct {
	// window is how long ours was not first; gap the longest pause between two looks.
	window, gap time.Duration
	// sent counts the packets of each flow; dropped those that did not arrive.
	sent    uint64
	dropped [flows]int
	wrong   int
}

func (o *outcome) add(p outcome) {
	o.gap = max(o.gap, p.gap)
	o.sent += p.sent
	for f := range flows {
		o.dropped[f] += p.dropped[f]
	}
	o.wrong += p.wrong
}

// insert puts a foreign jump first, waits until it is no longer, and takes it away.
func (b *bench) insert(ctx context.Context, k kind) (o outcome, err error) {
	// At no fixed time after the last pass, which the removal of the last jump
	// may have brought about: the agent looks each second when nothing tells it to.
	if err := rest(ctx, resync+time.Duration(b.pause.Int64N(int64(resync)))); err != nil {
		return o, err
	}
	begin, wrong := b.sender.next.Load(), b.sink.wrongs()
	if err := onThread(func() error { return errors.Join(hasten(), b.window(ctx, k, &o)) }); err != nil {
		return o, err
	}
	rules, err := saved(ctx)
	if err != nil {
		return o, err
	}
	if err := b.oursIsFirst(k, rules); err != nil {
		return o, err
	}
	if err := b.restore(ctx, fmt.Sprintf("*%s\n-D %s -j %s\nCOMMIT\n", k.table, k.chain, k.foreign)); err != nil {
		return o, err
	}
	end := b.sender.next.Load()
	if err := b.drain(ctx, end); err != nil {
		return o, err
	}
	o.sent = end - begin
	for f := range flows {
		o.dropped[f] = b.sink.missed(f, begin, end)
	}
	o.wrong = b.sink.wrongs() - wrong
	return o, nil
}

// window inserts the jump, and looks from before that until ours is first again.
func (b *bench) window(ctx context.Context, k kind, o *outcome) error {
	if first, err := b.eye.oursFirst(k); err != nil || !first {
		return errors.Join(err, fmt.Errorf("first before the insertion: %t", first))
	}
	inserted := make(chan error, 1)
	go func() {
		inserted <- b.restore(ctx, fmt.Sprintf("*%s\n-I %s 1 -j %s\nCOMMIT\n", k.table, k.chain, k.foreign))
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	began := time.Now()
	last, lost := began, time.Time{}
	for {
		first, err := b.eye.oursFirst(k)
		now := time.Now()
		o.gap, last = max(o.gap, now.Sub(last)), now
		switch {
		case err != nil:
			return errors.Join(err, <-inserted)
		case !first && lost.IsZero():
			lost = now
		case first && !lost.IsZero():
			o.window = now.Sub(lost)
			return <-inserted
		case now.Sub(began) > patience:
			return errors.Join(fmt.Errorf("not first again within %v; it was first all the time: %t", patience, lost.IsZero()), <-inserted)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), <-inserted)
		case <-tick.C:
		}
	}
}

// oursIsFirst compares with what iptables-save says.
func (b *bench) oursIsFirst(k kind, rules string) error {
	var jumps []string
	prefix := fmt.Sprintf("%s %s -A %s ", b.backend, k.table, k.chain)
	for line := range strings.Lines(rules) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
			jumps = append(jumps, rule)
		}
	}
	if len(jumps) < 2 || jumps[0] != "-j "+k.ours || jumps[1] != "-j "+k.foreign {
		return fmt.Errorf("iptables-save has in %s %s: %q", k.table, k.chain, jumps)
	}
	return nil
}

// drain waits until all that was sent before a number has arrived, or is lost.
func (b *bench) drain(ctx context.Context, end uint64) error {
	const reordered = 50 // packets that may have overtaken others between two processors
	return until(ctx, "the server has seen all", func() bool { return b.sink.reached(end + reordered) })
}

// until waits for what comes soon.
func until(ctx context.Context, what string, ok func() bool) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("waited %v in vain: %s", patience, what)
		case <-tick.C:
		}
	}
	return nil
}

// rest is a pause of the measurement itself; nothing relies on it.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
