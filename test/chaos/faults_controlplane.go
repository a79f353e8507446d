package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Bounds of outages, on a busy machine.
const (
	// harmlessWithin is for a fault in which no host breaks that is used: it leaves room for
	// a move that was not needed.
	harmlessWithin = 1500 * time.Millisecond
	// repairedWithin is for one in which nothing has to move, and something of ours is
	// started or put back, or pods are new.
	repairedWithin = 2500 * time.Millisecond
	// evacuatedWithin is for one in which claims move between hosts that work.
	evacuatedWithin = 3 * time.Second
	// movedWithin is for one in which a single host breaks, and claims move to another.
	movedWithin = 4 * time.Second
)

func controlPlaneKinds() []kind {
	return []kind{
		{name: "probe port blocked", weight: 2, prepare: (*chaos).probesBlocked, within: harmlessWithin},
		{name: "leader paused", weight: 2, prepare: (*chaos).leaderPaused, within: evacuatedWithin},
		{name: "Node registered again", weight: 2, prepare: (*chaos).nodeAgain},
		{name: "an agent lies", weight: 2, prepare: (*chaos).agentLies, within: harmlessWithin},
		{name: "automatic host without an agent", weight: 2, prepare: (*chaos).withoutAgent, within: harmlessWithin},
	}
}

// probesBlocked: firewalls of all nodes drop probes from others, and nothing else.
func (c *chaos) probesBlocked() fault {
	const port = 9788
	each := func(do func(node string) error) error {
		var errs []error
		for _, node := range c.Nodes() {
			errs = append(errs, do(node))
		}
		return errors.Join(errs...)
	}
	return fault{
		what: "on all nodes",
		begin: func(ctx context.Context) error {
			return each(func(node string) error { return c.BlockUDP(ctx, node, port) })
		},
		end: func(ctx context.Context) error {
			return each(func(node string) error { return c.UnblockUDP(ctx, node, port) })
		},
	}
}

// leaderPaused: the leader is paused until another leads and has moved claims, and then
// continues with what it knew.
func (c *chaos) leaderPaused() fault {
	host := automaticHosts()[c.random.IntN(2)]
	evacuated := c.evacuate(host)
	var node string
	return fault{
		what: "while " + host + " is evacuated",
		begin: func(ctx context.Context) error {
			former, err := c.leader(ctx)
			if err != nil {
				return err
			}
			node, _, _ = strings.Cut(former, "_")
			if n, err := c.Freeze(node, isController); err != nil || n != 1 {
				return errors.Join(fmt.Errorf("paused %d controllers on %s, want 1", n, node), err)
			}
			return errors.Join(evacuated.begin(ctx), testbed.Poll(ctx, recoverIn, func() error {
				now, err := c.leader(ctx)
				if err == nil && now == former {
					err = fmt.Errorf("%s still leads", now)
				}
				return err
			}))
		},
		end: func(ctx context.Context) error {
			_, err := c.Thaw(node, isController)
			return errors.Join(err, evacuated.end(ctx))
		},
	}
}

// leader is who holds the Lease.
func (c *chaos) leader(ctx context.Context) (string, error) {
	return c.Kubectl(ctx, "-n", testbed.OperatorNamespace, "get", "lease", "egressip-controller", "-o", "jsonpath={.spec.holderIdentity}")
}

// nodeAgain: a Node is deleted, and its kubelet registers it again.
func (c *chaos) nodeAgain() fault {
	node := c.node()
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error {
			_, err := c.Kubectl(ctx, "delete", "node", node)
			return err
		},
		end: func(ctx context.Context) error {
			_, err := c.Kill(ctx, node, func(args []string) bool { return filepath.Base(args[0]) == "kubelet" })
			return err
		},
	}
}

// agentLies: one agent reports all other hosts as silent, as often as it can. Whoever has
// taken a node over can do that with the agent's token.
func (c *chaos) agentLies() fault {
	node := c.node()
	var stop func() error
	return fault{
		what: "that of " + node + ", about all others",
		begin: func(ctx context.Context) (err error) {
			stop, err = c.lie(ctx, node)
			return err
		},
		end: func(context.Context) error { return stop() },
	}
}

// lie writes the status of a node's HostSubnet as its agent, until stop is called.
func (c *chaos) lie(ctx context.Context, node string) (stop func() error, err error) {
	config, err := c.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + testbed.OperatorNamespace + ":egressip-agent",
		Groups:   []string{"system:serviceaccounts", "system:authenticated"},
		Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {node}},
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(c.Nodes()), func(name string) bool { return name == node })
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"agent": map[string]any{"silent": others}}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for {
			_, err := client.Resource(v1.GroupVersion().WithResource("hostsubnets")).Patch(ctx, node, types.MergePatchType, patch,
				metav1.PatchOptions{FieldManager: "egressip-agent"}, "status")
			if ctx.Err() == nil && err == nil {
				err = pause(ctx, 100*time.Millisecond)
			}
			switch {
			case ctx.Err() != nil:
				done <- nil
				return
			case err != nil:
				done <- fmt.Errorf("lie as the agent of %s: %w", node, err)
				return
			}
		}
	}()
	return func() error {
		cancel()
		return <-done
	}, nil
}

// withoutAgent: a host becomes automatic again after its agent has ended for good, and
// its HostSubnet was created again: no agent has reported there.
func (c *chaos) withoutAgent() fault {
	const image = "egressip-operator:dev"
	node := automaticHosts()[c.random.IntN(2)]
	ranges := func(ctx context.Context, value string) error {
		return c.patch(ctx, "hostsubnet/"+node, fmt.Sprintf(`{"egressIPs": [], "egressCIDRs": %s}`, value))
	}
	return fault{
		what: node, broken: []string{node},
		// What it has must move first: that is no part of the fault.
		before: func(ctx context.Context) error {
			if err := ranges(ctx, "[]"); err != nil {
				return err
			}
			return c.recovered(ctx)
		},
		begin: func(ctx context.Context) error {
			if err := c.HideImage(ctx, node, image); err != nil {
				return err
			}
			if _, err := c.Kill(ctx, node, isAgent); err != nil {
				return err
			}
			if _, err := c.Kubectl(ctx, "delete", "hostsubnet", node); err != nil {
				return err
			}
			return ranges(ctx, list(automaticRanges(c.o.families)))
		},
		end: func(ctx context.Context) error {
			claims, err := c.Kubectl(ctx, "get", "hostsubnet", node, "-o", "jsonpath={.egressIPs[*]}")
			if err == nil && claims != "" {
				err = fmt.Errorf("%s claims %s, and no agent has started there", node, claims)
			}
			return errors.Join(err, c.ShowImage(ctx, node, image))
		},
	}
}
