package testbed

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// findCNI builds the program of the CNI, if it has one and that is missing.
func (c *Cluster) findCNI(ctx context.Context) error {
	program := c.options.CNI.Program()
	if program == "" {
		return nil
	}
	dir, err := binaries.Build(ctx, binaries.Options{Names: []string{program}, Progress: c.options.Progress})
	if err != nil {
		return err
	}
	c.cniTool = filepath.Join(dir, program)
	return nil
}

// staticRoutes reports whether nothing but the test bed makes the nodes' routes to pods of
// other nodes, and masquerades what leaves the cluster.
func (c *Cluster) staticRoutes() bool { return c.options.CNI.Program() == "" }

// routed returns nil if a node has a route to the pods of every other node that is on, and
// these have one to its pods. Daemons of a CNI make them, each in its own time.
func (c *Cluster) routed(ctx context.Context, name string) error {
	for _, other := range c.Nodes() {
		if _, err := c.nodeProcess(other); err != nil || other == name {
			continue
		}
		for _, way := range [][2]string{{name, other}, {other, name}} {
			if err := c.hasRoute(ctx, way[0], way[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasRoute returns nil if a node has a route to the pods of another one.
func (c *Cluster) hasRoute(ctx context.Context, from, to string) error {
	i, _ := c.nodeIndex(to)
	pods := c.options.first(podCIDR(i), podCIDRv6(i))
	out, err := c.NodeExec(ctx, from, "ip", c.options.first("-4", "-6"), "route", "show", pods)
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) == "" {
		return fmt.Errorf("%s has no route to the pods of %s, %s: see the log of its CNI (%s)", from, to, pods, c.options.CNI)
	}
	return nil
}
