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

// outage returns the longest time without an answered connection, of all pods with
// egress IPs on nodes that were not broken. Pods that were deleted meanwhile do not
// count, and a new pod counts from its start: the time that the cluster takes to
// replace a pod is no outage of ours.
func (c *chaos) outage(broken []string, started map[string]time.Time, from, until time.Time) (worst time.Duration, whose string) {
	for _, p := range c.watch.Pods(until.Add(-quiet)) {
		if slices.Contains(broken, p.Node) || len(c.current[p.Namespace]) == 0 {
			continue
		}
		began := from
		if start := started[p.Namespace+"/"+p.Name]; start.After(began) {
			began = start
		}
		if o := c.watch.Outage(p, began, until); o > worst {
			worst, whose = o, p.String()
		}
	}
	return worst, whose
}

// started returns when the sending pods started, to the second, by namespace and name.
func (c *chaos) started(ctx context.Context) (map[string]time.Time, error) {
	out, err := c.Kubectl(ctx, "get", "pods", "--all-namespaces", "-l", "app="+traffic.App, "-o",
		`jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.containerStatuses[0].state.running.startedAt}{"\n"}{end}`)
	if err != nil {
		return nil, err
	}
	started := make(map[string]time.Time)
	for line := range strings.Lines(out) {
		name, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		if t, err := time.Parse(time.RFC3339, at); err == nil { // else it has ended
			started[name] = t
		}
	}
	return started, nil
}

// recovered waits until every node is Ready, every namespace has its egress IP,
// and each has pods on all nodes that get through, with a source that is right.
func (c *chaos) recovered(ctx context.Context) error {
	if err := c.AwaitReady(ctx); err != nil {
		return err
	}
	nodes := len(c.Nodes())
	return testbed.Poll(ctx, recoverIn, func() error {
		for _, t := range teams() {
			if len(t.ips) > 0 {
				ready, err := c.Kubectl(ctx, "get", "netnamespace", t.Name, "-o", `jsonpath={.status.conditions[?(@.type=="EgressReady")].status} {.status.egressIPs[*].state}`)
				if err != nil || !strings.HasPrefix(ready, "True") || strings.Contains(ready, "HostOffline") || strings.Contains(ready, "Unassigned") {
					return errors.Join(fmt.Errorf("EgressReady of %s is %s", t.Name, ready), err)
				}
			}
		}
		if err := c.through(quiet); err != nil {
			return err
		}
		agents, err := c.Kubectl(ctx, "-n", testbed.OperatorNamespace, "get", "daemonset", "egressip-agent", "-o", "jsonpath={.status.numberReady}")
		if err != nil || agents != fmt.Sprint(nodes) {
			return errors.Join(fmt.Errorf("%s agents are ready", agents), err)
		}
		return nil
	})
}

// through reports whether pods of each namespace have recently got through, from
// every node but the excepted ones.
func (c *chaos) through(late time.Duration, except ...string) error {
	pods := c.watch.Pods(time.Now().Add(-late))
	for _, t := range teams() {
		for _, node := range c.Nodes() {
			if !slices.Contains(except, node) && !slices.ContainsFunc(pods, func(p traffic.Pod) bool {
				return p.Namespace == t.Name && p.Node == node
			}) {
				return fmt.Errorf("no pod of namespace %s on %s gets through", t.Name, node)
			}
		}
	}
	return nil
}
