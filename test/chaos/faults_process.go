package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

func isAgent(args []string) bool {
	return slices.Contains(args, "agent") && slices.Contains(args, "--strict=true")
}

func isController(args []string) bool {
	return slices.Contains(args, "controller") && slices.Contains(args, "--leader-elect=true")
}

// agentsKilled kills every agent, and those that follow, for a while.
func (c *chaos) agentsKilled() fault {
	rounds := 2 + c.random.IntN(3)
	return fault{
		what: fmt.Sprintf("all, %d times", rounds),
		begin: func(ctx context.Context) error {
			for range rounds {
				for _, node := range c.Nodes() {
					if _, err := c.Kill(ctx, node, isAgent); err != nil {
						return err
					}
				}
				if err := pause(ctx, time.Second); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// agentCrashLoops kills the agent of one node whenever it runs, while pods come and go
// there. That ends before the agent counts as away, two minutes after it was last seen: new
// pods have the node's address then, so that those of namespaces without egress IPs work.
func (c *chaos) agentCrashLoops() fault {
	const lasts, look, churnEvery = 100 * time.Second, 250 * time.Millisecond, 40
	const churns = 7 // the last pods start in time, also on a busy machine
	node := c.node()
	return fault{
		what: "that of " + node, broken: []string{node},
		begin: func(ctx context.Context) error {
			for n := range int(lasts / look) {
				if n%churnEvery == 0 && n/churnEvery < churns {
					if err := c.churn(ctx, node); err != nil {
						return err
					}
				}
				if _, err := c.Kill(ctx, node, isAgent); err != nil {
					return err
				}
				if err := pause(ctx, look); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// processorsBusy: other processes take nearly all processor time of all nodes. No claim
// moves because of that.
func (c *chaos) processorsBusy() fault {
	loops := 4 * runtime.NumCPU()
	var stops []func(bool) (string, error)
	var before string
	claims := func(ctx context.Context) (string, error) {
		// The generation changes with the claims, and not with the status.
		return c.Kubectl(ctx, "get", "hostsubnets", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.generation} {.egressIPs}{"\n"}{end}`)
	}
	return fault{
		what: fmt.Sprintf("by %d loops", loops), broken: c.Nodes(),
		begin: func(ctx context.Context) (err error) {
			if before, err = claims(ctx); err != nil {
				return err
			}
			for range loops {
				stop, err := c.Background(ctx, testbed.LANHost, "sh", "-c", "while :; do :; done")
				if err != nil {
					return err
				}
				stops = append(stops, stop)
			}
			return nil
		},
		end: func(ctx context.Context) error {
			now, err := claims(ctx)
			if err == nil && now != before {
				err = fmt.Errorf("claims have moved, from\n%sto\n%s", before, now)
			}
			for _, stop := range stops {
				_, _ = stop(true) // ended by a signal
			}
			return err
		},
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (c *chaos) apiStopped() fault {
	return fault{
		what: "both",
		begin: func(ctx context.Context) error {
			return errors.Join(c.StopAPIServer(ctx), c.StopDaemon(ctx, testbed.Etcd))
		},
		end: func(ctx context.Context) error {
			if err := c.StartDaemon(ctx, testbed.Etcd); err != nil {
				return err
			}
			return c.StartAPIServer(ctx)
		},
	}
}

// apiStoppedAfterCuts: half of the hosts have been cut off a few times. They answer
// again, but are in their hold-down when the API server goes away. No host may
// consider itself cut off.
//
// Mutant killed: only hosts that are online count as reached.
func (c *chaos) apiStoppedAfterCuts() fault {
	cut, witness := []string{manualHosts()[0], automaticHosts()[0]}, manualHosts()[1]
	each := func(do func(node string) error) error {
		var errs []error
		for _, node := range cut {
			errs = append(errs, do(node))
		}
		return errors.Join(errs...)
	}
	silent := func(ctx context.Context, want int) error {
		got, err := c.metric(ctx, witness, "egressip_agent_silent_hosts")
		if err == nil && got != fmt.Sprint(want) {
			err = fmt.Errorf("%s finds %s hosts silent, want %d", witness, got, want)
		}
		return err
	}
	f := c.apiStopped()
	start := f.end
	f.what, f.broken = fmt.Sprintf("both, just after %s were cut off", strings.Join(cut, " and ")), cut
	f.before = func(ctx context.Context) error {
		const cuts = 4 // each makes the hold-down twice as long: 2, 4, 8, 16 s
		for n := range cuts {
			for _, step := range []func() error{
				func() error { return testbed.Poll(ctx, recoverIn, func() error { return silent(ctx, 0) }) },
				func() error { return each(func(node string) error { return c.LinkDown(ctx, node) }) },
				func() error { return testbed.Poll(ctx, recoverIn, func() error { return silent(ctx, len(cut)) }) },
				func() error { return each(func(node string) error { return c.LinkUp(ctx, node) }) },
			} {
				if err := step(); err != nil {
					return fmt.Errorf("cut %d: %w", n+1, err)
				}
			}
		}
		return testbed.Poll(ctx, recoverIn, func() error {
			return errors.Join(c.through(3*c.o.every, cut...), each(func(node string) error {
				withdrawn, err := c.metric(ctx, node, "egressip_agent_withdrawn")
				if err == nil && withdrawn != "0" {
					err = fmt.Errorf("%s has given its egress IPs up", node)
				}
				return errors.Join(err, c.ready(ctx, node))
			}))
		})
	}
	f.end = func(ctx context.Context) error {
		// Else nothing was shown.
		err := silent(ctx, len(cut))
		if err != nil {
			err = fmt.Errorf("the hold-down did not last: %w", err)
		}
		return errors.Join(err, start(ctx))
	}
	return f
}

// metric is the value of one of an agent's metrics that have no labels.
func (c *chaos) metric(ctx context.Context, node, name string) (string, error) {
	all, err := c.NodeExec(ctx, node, "traffic", "get", "-timeout", "1s", "http://127.0.0.1:9792/metrics")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(all) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("the agent of %s has no metric %s", node, name)
}

// ready reports whether a node's agent works.
func (c *chaos) ready(ctx context.Context, node string) error {
	_, err := c.NodeExec(ctx, node, "traffic", "get", "-timeout", "1s", "http://127.0.0.1:9793/readyz")
	return err
}

// leaderKilled kills the controller that leads, and not the other: a kubelet lets one
// that was killed often wait for minutes before it starts again.
func (c *chaos) leaderKilled() fault {
	return fault{
		what: "the leader",
		begin: func(ctx context.Context) error {
			holder, err := c.leader(ctx)
			if err != nil {
				return err
			}
			for _, node := range c.Nodes() {
				if !strings.HasPrefix(holder, node+"_") {
					continue
				}
				if _, err := c.Kill(ctx, node, isController); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
