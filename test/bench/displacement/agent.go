package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// The pace of the agent's loop, from pkg/agent/loop.go and the default of
// --resync-period. A change there belongs here, too.
const (
	minRest = 10 * time.Millisecond
	maxRest = 500 * time.Millisecond
	resync  = time.Second
)

// serve keeps the kernel equal to a state until ctx ends, as the agent does: a pass
// upon drift, and each second without; after each a pause as long as the pass. A
// pass that fails ends it: here nothing makes one fail.
func serve(ctx context.Context, dp *dataplane.Dataplane, s dataplane.State, passes *atomic.Int64) error {
	drift := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return dp.Run(ctx, func() {
			select {
			case drift <- struct{}{}:
			default:
			}
		})
	})
	g.Go(func() error {
		for {
			began := time.Now()
			_, err := dp.Apply(ctx, s)
			switch {
			case ctx.Err() != nil:
				return nil //nolint:nilerr // cut short: the error, if any, says nothing
			case err != nil:
				return fmt.Errorf("a pass failed: %w", err)
			}
			passes.Add(1)
			wait(ctx, time.Since(began), drift)
		}
	})
	return g.Wait()
}

// wait returns when a pass is due.
func wait(ctx context.Context, worked time.Duration, drift chan struct{}) {
	pause := min(max(worked, minRest), maxRest)
	if rest(ctx, pause) != nil {
		return
	}
	next := time.NewTimer(resync - pause)
	defer next.Stop()
	select {
	case <-ctx.Done():
	case <-drift:
	case <-next.C:
	}
}
