package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/test/chaos/traffic"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// kind is a kind of fault.
type kind struct {
	name string
	// weight is how often it is drawn, against the others.
	weight int
	// prepare draws what is broken.
	prepare func(*chaos) fault
	// within bounds the outage, where a longer one is a defect whatever the machine;
	// 0 for no bound.
	within time.Duration
}

// fault is one that is about to be made.
type fault struct {
	what string
	// broken are nodes whose own pods are not expected to get through.
	broken []string
	// before makes what the fault needs, and is no part of it; may be nil.
	before func(context.Context) error
	begin  func(context.Context) error
	// end undoes it; nil where it ends by itself.
	end func(context.Context) error
}

func kinds() []kind {
	return []kind{
		{name: "power lost", weight: 4, prepare: (*chaos).powerLost},
		{name: "reboot with old addresses", weight: 2, prepare: (*chaos).rebootWithAddresses},
		{name: "cable pulled", weight: 3, prepare: (*chaos).cablePulled},
		{name: "one direction cut", weight: 3, prepare: (*chaos).oneDirection},
		{name: "two nodes partitioned", weight: 3, prepare: (*chaos).partitioned},
		{name: "agents killed", weight: 3, prepare: (*chaos).agentsKilled},
		{name: "API server and etcd stopped", weight: 2, prepare: (*chaos).apiStopped},
		{name: "leader killed", weight: 2, prepare: (*chaos).leaderKilled},
		{name: "egress IP re-assigned", weight: 3, prepare: (*chaos).reassigned},
		{name: "claims swapped", weight: 2, prepare: (*chaos).claimsSwapped},
		{name: "rules flushed", weight: 3, prepare: (*chaos).rulesFlushed},
		{name: "pods churned", weight: 3, prepare: (*chaos).podsChurned},
		{name: "node evacuated", weight: 1, prepare: (*chaos).evacuated},
	}
}

// scripted are the kinds that are drawn only where they are asked for by name.
func scripted() []kind {
	return []kind{
		{name: apiStoppedAfterCuts, weight: 1, prepare: (*chaos).apiStoppedAfterCuts, within: 1500 * time.Millisecond},
	}
}

const apiStoppedAfterCuts = "API server stopped after cuts"

func (c *chaos) node() string { return c.Nodes()[c.random.IntN(len(c.Nodes()))] }

func (c *chaos) powerLost() fault {
	node := c.node()
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error { return c.PowerOff(ctx, node) },
		end:   func(ctx context.Context) error { return c.boot(ctx, node) },
	}
}

// boot boots a node, and waits until its agent works.
func (c *chaos) boot(ctx context.Context, node string, addresses ...string) error {
	if err := c.PowerOnWith(ctx, node, addresses...); err != nil {
		return err
	}
	return testbed.Poll(ctx, recoverIn, func() error { return c.ready(ctx, node) })
}

// rebootWithAddresses: the node comes back as a machine does that was restored as
// it was, with the egress IPs that it had.
func (c *chaos) rebootWithAddresses() fault {
	node := c.node()
	var had []string
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error {
			out, err := c.NodeExec(ctx, node, "ip", "-o", "-4", "addr", "show", "label", "eth0:eip")
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if fields := strings.Fields(line); len(fields) > 3 {
					had = append(had, fields[3]+" label eth0:eip")
				}
			}
			return c.PowerOff(ctx, node)
		},
		end: func(ctx context.Context) error { return c.boot(ctx, node, had...) },
	}
}

func (c *chaos) cablePulled() fault {
	node := c.node()
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error { return c.LinkDown(ctx, node) },
		end:   func(ctx context.Context) error { return c.LinkUp(ctx, node) },
	}
}

// oneDirection: a node hears the others, and they do not hear it; or the other
// way round.
func (c *chaos) oneDirection() fault {
	node, out := c.node(), c.random.IntN(2) == 0
	what := "nobody hears " + node
	if !out {
		what = node + " hears nobody"
	}
	return fault{
		what: what, broken: []string{node},
		begin: func(ctx context.Context) error {
			var errs []error
			for _, other := range append(c.Nodes(), testbed.ControlPlane) {
				switch {
				case other == node:
				case out:
					errs = append(errs, c.Cut(ctx, node, other))
				default:
					errs = append(errs, c.Cut(ctx, other, node))
				}
			}
			return errors.Join(errs...)
		},
		end: c.Mend,
	}
}

// partitioned: two nodes reach each other and the world outside, and neither the
// others nor the API server.
func (c *chaos) partitioned() fault {
	nodes := slices.Clone(c.Nodes())
	c.random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	these, rest := nodes[:2], append(slices.Clone(nodes[2:]), testbed.ControlPlane)
	return fault{
		what: strings.Join(these, " and "), broken: these,
		begin: func(ctx context.Context) error { return c.Partition(ctx, these, rest) },
		end:   c.Mend,
	}
}

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

// apiStoppedAfterCuts: half of the hosts have been cut off a few times and are in their
// hold-down, though they answer, when the API server goes away. No host may take itself
// for cut off.
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

// ready tells whether a node's agent works.
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
			holder, err := c.Kubectl(ctx, "-n", testbed.OperatorNamespace, "get", "lease", "egressip-controller", "-o", "jsonpath={.spec.holderIdentity}")
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

// reassigned gives namespace automatic another egress IP.
func (c *chaos) reassigned() fault {
	next := spareIP
	if slices.Contains(c.current["automatic"], spareIP) {
		next = teams()[2].ips[0]
	}
	return fault{
		what: fmt.Sprintf("namespace automatic gets %s instead of %v", next, c.current["automatic"]),
		begin: func(ctx context.Context) error {
			c.current["automatic"] = []string{next}
			c.rules.allow("automatic", next)
			return c.patch(ctx, "netnamespace/automatic", fmt.Sprintf(`{"egressIPs": %s}`, list([]string{next})))
		},
	}
}

// claimsSwapped has the two manual hosts exchange what they claim.
func (c *chaos) claimsSwapped() fault {
	a, b := manualHosts()[0], manualHosts()[1]
	return fault{
		what: a + " and " + b,
		begin: func(ctx context.Context) error {
			c.claims[a], c.claims[b] = c.claims[b], c.claims[a]
			return errors.Join(
				c.patch(ctx, "hostsubnet/"+a, fmt.Sprintf(`{"egressIPs": %s}`, list(c.claims[a]))),
				c.patch(ctx, "hostsubnet/"+b, fmt.Sprintf(`{"egressIPs": %s}`, list(c.claims[b]))))
		},
	}
}

// rulesFlushed: what an administrator may do in a hurry. Whole tables of the nat
// and mangle rules go, others' with ours; kube-proxy brings its own back.
func (c *chaos) rulesFlushed() fault {
	node := c.node()
	commands := []string{
		"for c in $(iptables-nft-save -t nat | grep -o '^:EGRESSIP-[A-Z-]*' | tr -d :); do iptables-nft -w -t nat -F $c; done",
		"for c in $(iptables-nft-save -t mangle | grep -o '^:EGRESSIP-[A-Z-]*' | tr -d :); do iptables-nft -w -t mangle -F $c; done",
		"iptables-nft -w -t mangle -F",
		"iptables-nft -w -t nat -F EGRESSIP-POSTROUTING; ipset flush egress-pods",
		"ip rule del table 2000; ip route flush table 2001",
	}
	command := commands[c.random.IntN(len(commands))]
	return fault{
		what: node + ": " + command,
		begin: func(ctx context.Context) error {
			_, err := c.NodeShell(ctx, node, "sh", "-c", command)
			return err
		},
	}
}

// podsChurned deletes the pods of a node again and again: new ones get their
// addresses, in other namespaces.
func (c *chaos) podsChurned() fault {
	node, rounds := c.node(), 2+c.random.IntN(2)
	return fault{
		what: fmt.Sprintf("those of %s, %d times", node, rounds), broken: []string{node},
		begin: func(ctx context.Context) error {
			for range rounds {
				for _, t := range teams() {
					if _, err := c.Kubectl(ctx, "-n", t.Name, "delete", "pods", "-l", "app="+traffic.App, "--field-selector=spec.nodeName="+node, "--wait=false"); err != nil {
						return err
					}
				}
				if err := pause(ctx, 2*time.Second); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (c *chaos) evacuated() fault {
	node := automaticHosts()[c.random.IntN(2)]
	const annotation = "egressip.network.openshift.io/evacuate"
	return fault{
		what: node,
		begin: func(ctx context.Context) error {
			_, err := c.Kubectl(ctx, "annotate", "node", node, annotation+"=true")
			return err
		},
		end: func(ctx context.Context) error {
			_, err := c.Kubectl(ctx, "annotate", "node", node, annotation+"-")
			return err
		},
	}
}
