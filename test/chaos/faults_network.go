package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

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

// overlayClosed: a node's firewall drops the packets of the overlay, and nothing else.
func (c *chaos) overlayClosed() fault {
	const port = 9789
	node := c.node()
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error { return c.BlockUDP(ctx, node, port) },
		end:   func(ctx context.Context) error { return c.UnblockUDP(ctx, node, port) },
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
