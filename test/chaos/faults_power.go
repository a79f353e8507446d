package main

import (
	"context"
	"strings"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

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
	node, f := c.node(), c.o.families.first()
	var had []string
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error {
			out, err := c.NodeExec(ctx, node, append(f.ip, "-o", "addr", "show", "dev", "eth0")...)
			if err != nil {
				return err
			}
			for line := range strings.Lines(out) {
				if fields := strings.Fields(line); len(fields) > 3 && strings.Contains(line, f.eip) {
					had = append(had, strings.Join(append([]string{fields[3], f.eip}, f.added...), " "))
				}
			}
			return c.PowerOff(ctx, node)
		},
		end: func(ctx context.Context) error { return c.boot(ctx, node, had...) },
	}
}
