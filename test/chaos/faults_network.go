package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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

// carrierFlaps: a bad cable.
func (c *chaos) carrierFlaps() fault {
	node := c.node()
	pauses := make([][2]time.Duration, 3+c.random.IntN(6)) // without carrier, and with it
	for i := range pauses {
		pauses[i] = [2]time.Duration{time.Duration(50+c.random.IntN(400)) * time.Millisecond, time.Duration(50+c.random.IntN(1000)) * time.Millisecond}
	}
	return fault{
		what: fmt.Sprintf("%s, %d times", node, len(pauses)), broken: []string{node},
		begin: func(ctx context.Context) error {
			for _, p := range pauses {
				if err := c.LinkDown(ctx, node); err != nil {
					return err
				}
				errPause := pause(ctx, p[0])
				if err := errors.Join(errPause, c.LinkUp(context.WithoutCancel(ctx), node)); err != nil {
					return err
				}
				if err := pause(ctx, p[1]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// addressRemoved: a host's own address is taken off and put back, as by a DHCP client or a
// restart of the network. The routes go with it.
func (c *chaos) addressRemoved() fault {
	node, promote, f := c.node(), c.random.IntN(2), c.o.families.first()
	address := c.NodeIP(node).String() + f.node
	ip := func(ctx context.Context, args ...string) error {
		_, err := c.NodeExec(ctx, node, slices.Concat(f.ip, args)...)
		return err
	}
	var routes string
	set := func(ctx context.Context, value int) error {
		_, err := c.NodeShell(ctx, node, "sh", "-c", fmt.Sprintf("echo %d > /proc/sys/net/ipv4/conf/eth0/promote_secondaries", value))
		return err
	}
	return fault{
		what: fmt.Sprintf("%s, promote_secondaries=%d", node, promote), broken: []string{node},
		begin: func(ctx context.Context) (err error) {
			if routes, err = c.NodeExec(ctx, node, slices.Concat(f.ip, strings.Fields("route show table main"))...); err != nil {
				return err
			}
			if err = set(ctx, promote); err != nil {
				return err
			}
			return ip(ctx, "addr", "del", address, "dev", "eth0")
		},
		end: func(ctx context.Context) error {
			errs := []error{ip(ctx, append([]string{"addr", "add", address, "dev", "eth0"}, f.added...)...), set(ctx, 0)}
			for route := range strings.Lines(routes) {
				if strings.Contains(route, "dev eth0") && !strings.Contains(route, "proto kernel") {
					errs = append(errs, ip(ctx, append([]string{"route", "replace"}, strings.Fields(route)...)...))
				}
			}
			return errors.Join(errs...)
		},
	}
}

// addressTaken: another machine of the LAN gets an egress IP that a host has.
func (c *chaos) addressTaken() fault {
	f := c.o.families.first()
	ip := teams()[c.random.IntN(2)].all(c.o.families)[c.random.IntN(2)]
	change := func(ctx context.Context, verb string, more ...string) error {
		_, err := c.Exec(ctx, testbed.ControlPlane, append([]string{"ip", "addr", verb, ip + f.host, "dev", "eth0"}, more...)...)
		return err
	}
	return fault{
		what: ip,
		begin: func(ctx context.Context) error {
			link, err := c.Exec(ctx, testbed.ControlPlane, "ip", "-br", "link", "show", "eth0")
			fields := strings.Fields(link)
			if err != nil || len(fields) < 3 {
				return errors.Join(fmt.Errorf("no MAC address in %q", link), err)
			}
			c.owners.ignore(fields[2])
			return change(ctx, "add", f.added...)
		},
		end: func(ctx context.Context) error { return change(ctx, "del") },
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
