package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// fightEvery is the pause between two insertions of a fight.
const fightEvery = 250 * time.Millisecond

// battle is what came of a fight.
type battle struct {
	// insertions counts those of the other side; first is how long it stood first in a table.
	insertions int
	first      time.Duration
}

// fight has somebody put jumps before ours in all tables at once, again and again for a time,
// and prints what came of it.
func (b *bench) fight(ctx context.Context, length time.Duration) error {
	if length <= 0 {
		return nil
	}
	// As before single insertions: the agent rests.
	if err := rest(ctx, resync); err != nil {
		return err
	}
	begin, wrong, passes := b.sender.next.Load(), b.sink.wrongs(), b.passes.Load()
	var r battle
	if err := onThread(func() error { return errors.Join(hasten(), b.struggle(ctx, length, &r)) }); err != nil {
		return fmt.Errorf("a fight for the first place: %w", err)
	}
	passes = b.passes.Load() - passes
	err := until(ctx, "ours is first again", func() bool { return b.first() == nil })
	if err := errors.Join(err, b.restore(ctx, fightScript("-D CHAIN -j OTHER"))); err != nil {
		return err
	}
	end := b.sender.next.Load()
	if err := b.drain(ctx, end); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%-6s fight: in %.1f s, others came first %d times, and stood first for %.1f s; %d passes; of %d new and %d lasting packets %d and %d dropped; %d with a wrong source\n",
		b.backend, length.Seconds(), r.insertions, r.first.Seconds(), passes, end-begin, end-begin,
		b.sink.missed(fresh, begin, end), b.sink.missed(lasting, begin, end), b.sink.wrongs()-wrong)
	return nil
}

// errNotFirst says that others stand before ours.
var errNotFirst = errors.New("others stand first")

// first returns an error unless ours is first in all tables.
func (b *bench) first() error {
	for _, k := range allKinds() {
		first, err := b.eye.oursFirst(k)
		if err != nil {
			return err
		}
		if !first {
			return errNotFirst
		}
	}
	return nil
}

// struggle inserts the jumps, and looks who is first, until the time is over.
func (b *bench) struggle(ctx context.Context, length time.Duration, r *battle) error {
	ctx, stop := context.WithTimeout(ctx, length)
	defer stop()
	other := make(chan error, 1)
	go func() {
		script := fightScript("-I CHAIN 1 -j OTHER")
		for ctx.Err() == nil {
			// An insertion that has begun is finished.
			if err := b.restore(context.WithoutCancel(ctx), script); err != nil {
				other <- err
				return
			}
			r.insertions++
			script = fightScript("-D CHAIN -j OTHER\n-I CHAIN 1 -j OTHER")
			if rest(ctx, fightEvery) != nil {
				break
			}
		}
		other <- nil
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last, ours := time.Now(), true
	for {
		err := b.first()
		if err != nil && !errors.Is(err, errNotFirst) {
			stop()
			return errors.Join(err, <-other)
		}
		now := time.Now()
		if !ours {
			r.first += now.Sub(last)
		}
		last, ours = now, err == nil
		select {
		case <-ctx.Done():
			return <-other
		case <-tick.C:
		}
	}
}

// fightScript is a script for all tables, from commands with a chain and what its jump leads to.
func fightScript(commands string) string {
	var script strings.Builder
	for _, k := range allKinds() {
		fmt.Fprintf(&script, "*%s\n%s\nCOMMIT\n", k.table, strings.NewReplacer("CHAIN", k.chain, "OTHER", k.foreign).Replace(commands))
	}
	return script.String()
}
