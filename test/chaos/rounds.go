package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// faults makes one after the other, until the time is over.
func (c *chaos) faults(ctx context.Context) error {
	all := kinds()
	if c.o.only != "" {
		k, err := kindOf(c.o.only)
		if err != nil {
			return err
		}
		all = []kind{k}
	}
	until := time.Now().Add(c.o.length)
	for n := 1; time.Now().Before(until) && (c.o.faults == 0 || n <= c.o.faults); n++ {
		if err := c.fault(ctx, all[c.draw(all)]); err != nil {
			return fmt.Errorf("fault %d: %w", n, err)
		}
	}
	if c.o.last == "" {
		return nil
	}
	k, err := kindOf(c.o.last)
	if err != nil {
		return err
	}
	if err := c.fault(ctx, k); err != nil {
		return fmt.Errorf("last fault: %w", err)
	}
	return nil
}

// kindOf is the kind of a name.
func kindOf(name string) (kind, error) {
	all := append(kinds(), scripted()...)
	at := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if at < 0 {
		return kind{}, fmt.Errorf("no fault is called %q", name)
	}
	return all[at], nil
}

// draw chooses by weight.
func (c *chaos) draw(all []kind) int {
	total := 0
	for _, k := range all {
		total += k.weight
	}
	at := c.random.IntN(total)
	for i, k := range all {
		if at -= k.weight; at < 0 {
			return i
		}
	}
	return 0
}

// fault makes one, ends it, waits until all is well again, and judges what it did.
func (c *chaos) fault(ctx context.Context, k kind) error {
	f := k.prepare(c)
	name := k.name + ": " + f.what
	lasts := time.Duration(2000+c.random.IntN(5000)) * time.Millisecond * time.Duration(max(1, c.o.stretch))
	c.say("%s, for %s", name, lasts.Round(100*time.Millisecond))
	if f.before != nil {
		if err := f.before(ctx); err != nil {
			return fmt.Errorf("before %s: %w", name, err)
		}
	}
	begin := time.Now()
	if err := f.last(ctx, lasts); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := c.recovered(ctx); err != nil {
		return fmt.Errorf("%s: the cluster does not recover: %w", name, err)
	}
	started, err := c.started(ctx)
	if err != nil {
		return err
	}
	longest, worst := c.outages(f.broken, started, begin, time.Now())
	c.say("  recovered; longest outage of a pod elsewhere %s", longest)
	if !slices.Contains(c.kinds, k.name) {
		c.kinds = append(c.kinds, k.name)
	}
	c.lengths[k.name] = append(c.lengths[k.name], longest.Length())
	c.watch.Forget(time.Now().Add(-quiet))
	if within := cmp.Or(k.within, c.o.within); within > 0 && !f.lasts && worst.ours() > within {
		return fmt.Errorf("%s: an outage of %s, want at most %s; the fault began at %s", name, worst, within, begin.Format("15:04:05.000"))
	}
	if err := c.harmless(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// last begins a fault, and ends it after a while.
func (f fault) last(ctx context.Context, lasts time.Duration) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	// A run that is interrupted undoes the fault all the same, and ends later.
	_ = pause(ctx, lasts)
	if f.end == nil {
		return nil
	}
	if err := f.end(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("undo it: %w", err)
	}
	return nil
}
