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

// outage is a time without an answered connection of a pod with egress IPs.
type outage struct {
	traffic.Gap
	pod traffic.Pod
	// stalled is for how long of it no pod of the node got through, not even those without
	// egress IPs, which go no way of ours: the node had no processor time.
	stalled time.Duration
}

// ours is how long others got through meanwhile.
func (o outage) ours() time.Duration { return o.Length() - o.stalled }

// String says whose it was, when, and what was with others.
func (o outage) String() string {
	return fmt.Sprintf("%d ms (%s, %s; for %d ms of it no pod there got through)", o.Length().Milliseconds(), o.pod, o.Gap, o.stalled.Milliseconds())
}

// outages returns the longest outage, and the one in which others got through for the
// longest time, of all pods with egress IPs on nodes that were not broken. Pods that were
// deleted meanwhile do not count, and a new pod counts from its start: the time that the
// cluster takes to replace a pod is no outage of ours.
func (c *chaos) outages(broken []string, started map[string]time.Time, from, until time.Time) (longest, worst outage) {
	others := make(map[string][][]traffic.Gap) // by node
	served := func(p traffic.Pod) bool { return len(c.current[p.Namespace]) > 0 }
	pods := c.watch.Pods(until.Add(-quiet))
	for _, p := range pods {
		if !served(p) {
			others[p.Node] = append(others[p.Node], c.watch.Gaps(p, from, until))
		}
	}
	for _, p := range pods {
		if slices.Contains(broken, p.Node) || !served(p) {
			continue
		}
		began := from
		if start := started[p.Namespace+"/"+p.Name]; start.After(began) {
			began = start
		}
		for _, gap := range c.watch.Gaps(p, began, until) {
			o := outage{Gap: gap, pod: p, stalled: stalled(gap, others[p.Node])}
			if o.Length() > longest.Length() {
				longest = o
			}
			if o.ours() > worst.ours() {
				worst = o
			}
		}
	}
	return longest, worst
}

// stalled returns for how long of a gap each of other pods of the node had one, too.
func stalled(gap traffic.Gap, others [][]traffic.Gap) time.Duration {
	if len(others) == 0 {
		return 0
	}
	least := gap.Length()
	for _, gaps := range others {
		var longest time.Duration
		for _, other := range gaps {
			longest = max(longest, other.Within(gap).Length())
		}
		least = min(least, longest)
	}
	return least
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
// each has pods on all nodes that get through, with a source that is right, and nothing of
// the fault is left that would move traffic later: a host that is still held down comes back
// some time after it answers, and what it moves then is part of this fault, not of the next.
func (c *chaos) recovered(ctx context.Context) error {
	if err := c.AwaitReady(ctx); err != nil {
		return err
	}
	var looks []string
	err := testbed.Poll(ctx, recoverIn, func() error {
		err := c.lookWhetherRecovered(ctx)
		if err != nil {
			looks = append(looks, time.Now().UTC().Format("15:04:05.000 ")+err.Error())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w; the last looks found:\n%s", err, strings.Join(looks[max(0, len(looks)-maxLooks):], "\n"))
	}
	return nil
}

// maxLooks bounds what is printed of a cluster that does not recover.
const maxLooks = 40

// lookWhetherRecovered returns what keeps the cluster from having recovered. What costs
// least comes first: the processors are the traffic's.
func (c *chaos) lookWhetherRecovered(ctx context.Context) error {
	if err := c.through(quiet); err != nil {
		return err
	}
	now := time.Now()
	for _, p := range c.watch.Pods(now.Add(-quiet)) {
		if gap := traffic.Longest(c.watch.Gaps(p, now.Add(-quiet), now)); len(c.current[p.Namespace]) > 0 && gap.Length() > quiet/2 {
			return fmt.Errorf("pod %s had no answer %s", p, gap)
		}
	}
	for _, node := range c.Nodes() {
		silent, err := c.metric(ctx, node, "egressip_agent_silent_hosts")
		if err != nil || silent != "0" {
			return errors.Join(fmt.Errorf("the agent of %s does not trust %s hosts yet", node, silent), err)
		}
	}
	if err := c.wellInStatus(ctx); err != nil {
		return err
	}
	agents, err := c.Kubectl(ctx, "-n", testbed.OperatorNamespace, "get", "daemonset", "egressip-agent", "-o", "jsonpath={.status.numberReady}")
	if err != nil || agents != fmt.Sprint(len(c.Nodes())) {
		return errors.Join(fmt.Errorf("%s agents are ready", agents), err)
	}
	return nil
}

// wellInStatus reports whether every namespace has its egress IPs and the controller trusts
// every host.
func (c *chaos) wellInStatus(ctx context.Context) error {
	out, err := c.Kubectl(ctx, "get", "netnamespaces,egressips,hostsubnets", "-o", `jsonpath={range .items[*]}{.kind} {.metadata.name} `+
		`{.status.conditions[?(@.type=="Online")].status}/{.status.conditions[?(@.type=="Online")].reason} `+
		`{.status.conditions[?(@.type=="EgressReady")].status} {.status.egressIPs[*].state}{"\n"}{end}`)
	if err != nil {
		return err
	}
	hosts, missing := 0, make(map[string]bool) // by kind and name
	for _, t := range teams() {
		kind := "NetNamespace"
		if t.selected {
			kind = "EgressIP"
		}
		missing[kind+" "+t.Name] = len(t.ips) > 0
	}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch fields := strings.Fields(line); {
		case len(fields) < 3:
		case fields[0] == "HostSubnet":
			hosts++
			if online, reason, _ := strings.Cut(fields[2], "/"); online != "True" || reason == "HeldDown" || reason == "LastResort" {
				return fmt.Errorf("a host is not trusted yet: %s", line)
			}
		case missing[fields[0]+" "+fields[1]]:
			delete(missing, fields[0]+" "+fields[1])
			if len(fields) < 4 || fields[3] != "True" || strings.Contains(line, "HostOffline") || strings.Contains(line, "Unassigned") {
				return fmt.Errorf("a namespace is not served yet: %s", line)
			}
		}
	}
	for name, is := range missing {
		if is {
			return fmt.Errorf("there is no %s", name)
		}
	}
	if hosts != len(c.Nodes()) {
		return fmt.Errorf("there are %d hosts", hosts)
	}
	return nil
}

// through reports whether pods of each namespace have recently got through, from
// every node but the excepted ones.
func (c *chaos) through(late time.Duration, except ...string) error {
	pods := c.watch.Pods(time.Now().Add(-late))
	for _, want := range c.senders() {
		if !slices.Contains(except, want.Node) && !slices.ContainsFunc(pods, func(p traffic.Pod) bool {
			p.Name = ""
			return p == want
		}) {
			return fmt.Errorf("no pod of namespace %s gets through", want)
		}
	}
	return nil
}

// senders are the pods that there should be, without their names: one of each namespace on
// each node, by each family.
func (c *chaos) senders() []traffic.Pod {
	var all []traffic.Pod
	for _, t := range teams() {
		for _, node := range c.Nodes() {
			if c.o.families.ipv4 {
				all = append(all, traffic.Pod{Namespace: t.Name, Node: node})
			}
			if c.o.families.ipv6 {
				all = append(all, traffic.Pod{Namespace: t.Name, Node: node, IPv6: true})
			}
		}
	}
	return all
}
