package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/test/chaos/traffic"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// reassigned gives namespace automatic another egress IP.
func (c *chaos) reassigned() fault {
	next := c.o.families.of([]string{spareIP}, []string{spareIP6})
	if slices.Contains(c.current["automatic"], next[0]) {
		next = teams()[2].all(c.o.families)
	}
	return fault{
		what: fmt.Sprintf("namespace automatic gets %v instead of %v", next, c.current["automatic"]),
		begin: func(ctx context.Context) error {
			c.current["automatic"] = next
			c.rules.allow("automatic", next...)
			return c.patch(ctx, "netnamespace/automatic", fmt.Sprintf(`{"egressIPs": %s}`, list(next)))
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

// rulesFlushed: what an administrator may do in a hurry. Whole tables go, others' with
// ours where those are not in a table of their own; kube-proxy brings its own back.
func (c *chaos) rulesFlushed() fault {
	node := c.node()
	commands := []string{
		"for c in $(iptables-nft-save -t nat | grep -o '^:EGRESSIP-[A-Z-]*' | tr -d :); do iptables-nft -w -t nat -F $c; done",
		"for c in $(iptables-nft-save -t mangle | grep -o '^:EGRESSIP-[A-Z-]*' | tr -d :); do iptables-nft -w -t mangle -F $c; done",
		"iptables-nft -w -t mangle -F",
		"nft delete table inet egressip || true; nft flush table inet egressip || true",
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

// rulesetReloaded: a node's service "nftables" starts again, whose file begins with "flush
// ruleset" and has the source NAT of its pods. What kube-proxy and the CNI had goes, and what
// others cannot own; kube-proxy brings its own back within half a minute.
func (c *chaos) rulesetReloaded() fault {
	node := c.node()
	steps := []string{"flush ruleset"}
	for _, f := range []struct{ family, cluster string }{{"ip", testbed.ClusterCIDR}, {"ip6", testbed.ClusterCIDRv6}} {
		steps = append(steps, fmt.Sprintf("table %[1]s admin { chain post { type nat hook postrouting priority 100; %[1]s saddr %[2]s %[1]s daddr != %[2]s oifname eth0 masquerade; }; }", f.family, f.cluster))
	}
	file := strings.Join(steps, "; ")
	return fault{
		what: node, broken: []string{node},
		begin: func(ctx context.Context) error {
			_, err := c.NodeShell(ctx, node, "nft", file)
			return err
		},
		end: func(ctx context.Context) error {
			if err := c.Masquerade(ctx, node); err != nil {
				return err
			}
			_, err := c.NodeShell(ctx, node, "nft", "delete table ip admin; delete table ip6 admin")
			return err
		},
	}
}

// foreignNAT: other software translates the source of what leaves the cluster, in a table
// of its own, before or behind us.
func (c *chaos) foreignNAT() fault {
	node, priority, f := c.node(), []int{10, 110}[c.random.IntN(2)], c.o.families.first()
	table := fmt.Sprintf("table %[3]s chaos { chain post { type nat hook postrouting priority %[1]d; %[3]s saddr %[2]s %[3]s daddr != %[2]s oifname eth0 masquerade; }; }",
		priority, f.cluster, f.table)
	return fault{
		what: fmt.Sprintf("%s, priority %d", node, priority), broken: []string{node},
		lasts: priority < nftables.NATPriority, // the guard drops what it translates
		begin: func(ctx context.Context) error {
			_, err := c.NodeShell(ctx, node, "nft", table)
			return err
		},
		end: func(ctx context.Context) error {
			_, err := c.NodeShell(ctx, node, "nft", "delete table "+f.table+" chaos")
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
				if err := c.churn(ctx, node); err != nil {
					return err
				}
				if err := pause(ctx, 2*time.Second); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// churn deletes the pods of a node once.
func (c *chaos) churn(ctx context.Context, node string) error {
	for _, t := range teams() {
		if _, err := c.Kubectl(ctx, "-n", t.Name, "delete", "pods", "-l", "app="+traffic.App, "--field-selector=spec.nodeName="+node, "--wait=false"); err != nil {
			return err
		}
	}
	return nil
}

func (c *chaos) evacuated() fault { return c.evacuate(automaticHosts()[c.random.IntN(2)]) }

func (c *chaos) evacuate(node string) fault {
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
