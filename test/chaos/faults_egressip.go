package main

import (
	"context"
	"errors"
	"fmt"
)

// assignable is the label of Nodes for EgressIPs.
const assignable = "k8s.ovn.org/egress-assignable"

// labelMoved takes the label for EgressIPs off a Node, and gives it to the one that had none.
func (c *chaos) labelMoved() fault {
	from, to := labelledHosts()[c.random.IntN(len(labelledHosts()))], manualHosts()[0]
	label := func(ctx context.Context, node, value string) error {
		return c.patch(ctx, "node/"+node, `{"metadata": {"labels": {"`+assignable+`": `+value+`}}}`)
	}
	return fault{
		what:  "from " + from + " to " + to,
		begin: func(ctx context.Context) error { return errors.Join(label(ctx, to, `""`), label(ctx, from, "null")) },
		end:   func(ctx context.Context) error { return errors.Join(label(ctx, from, `""`), label(ctx, to, "null")) },
	}
}

// selectedByAnother makes a second EgressIP for the same pods, whose name comes first.
func (c *chaos) selectedByAnother() fault {
	const first = "a-first"
	ips, before := c.o.families.of([]string{otherIP}, []string{otherIP6}), c.current["selected"]
	return fault{
		what: fmt.Sprintf("pods of namespace selected get %v instead of %v", ips, before),
		begin: func(ctx context.Context) error {
			c.current["selected"] = ips
			c.rules.allow("selected", ips...)
			return c.selectFor(ctx, first, ips)
		},
		end: func(ctx context.Context) error {
			c.current["selected"] = before
			c.rules.allow("selected", before...)
			_, err := c.Kubectl(ctx, "delete", "egressip", first, "--ignore-not-found", "--wait")
			return err
		},
	}
}
