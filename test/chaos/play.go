package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/test/chaos/traffic"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	// recoverIn bounds the time in which all must be well after a fault: a node
	// boots, its pods with it, and hosts are trusted again.
	recoverIn = 3 * time.Minute
	// quiet is how recent an answer must be to count as "gets through".
	quiet = 2 * time.Second
)

// The nodes' parts: on the first two, egress IPs are claimed by hand, on the
// others by the controller.
func manualHosts() []string    { return []string{"node1", "node2"} }
func automaticHosts() []string { return []string{"node3", "node4"} }

// team is a namespace of the run.
type team struct {
	traffic.Namespace
	ips  []string
	mode string
}

func teams() []team {
	return []team{
		{Namespace: traffic.Namespace{Name: "ordered", Port: 9000}, ips: []string{"192.168.7.200", "192.168.7.201"}},
		{Namespace: traffic.Namespace{Name: "balanced", Port: 9010}, ips: []string{"192.168.7.202", "192.168.7.203"}, mode: "balanced"},
		{Namespace: traffic.Namespace{Name: "automatic", Port: 9020}, ips: []string{"192.168.7.210"}},
		{Namespace: traffic.Namespace{Name: "plain", Port: 9030}},
	}
}

// spareIP is another egress IP for namespace automatic.
const spareIP = "192.168.7.212"

// chaos is one run.
type chaos struct {
	*testbed.Cluster
	o       options
	random  *rand.Rand
	began   time.Time
	rules   *rules
	owners  *owners
	watch   *traffic.Watch
	current map[string][]string // egress IPs by namespace
	claims  map[string][]string // by manual host
	outages map[string][]time.Duration
	kinds   []string // in order of appearance
}

// play runs until the time is over, or something is wrong.
func play(ctx context.Context, o options) (err error) {
	c := &chaos{
		o: o, random: rand.New(rand.NewPCG(o.seed, 0)), //nolint:gosec // it must be the same each time
		current: map[string][]string{}, claims: map[string][]string{}, outages: map[string][]time.Duration{},
	}
	if o.prefix == "" {
		o.prefix = "chaos"
	}
	fmt.Fprintf(o.out, "seed %d\n", o.seed)
	c.Cluster, err = testbed.Up(ctx, testbed.Options{
		Prefix: o.prefix, Nodes: 4, PodAddresses: 12, Images: []string{o.image}, Progress: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() {
		downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, c.Down(downCtx))
	}()
	c.began = time.Now()
	stop, err := c.setUp(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	err = c.faults(ctx)
	return errors.Join(err, c.verdict(ctx), c.report())
}

func (c *chaos) say(format string, args ...any) {
	fmt.Fprintf(c.o.out, "%7.1fs  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// setUp installs the operator, and begins to talk and to watch.
func (c *chaos) setUp(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range slices.Backward(stops) {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	// A new pod's first packet counts as any other, on a node that boots too.
	err = c.InstallChart(ctx, c.o.chart, "agent.bootLock.enabled=true", "clusterCIDRs={"+testbed.ClusterCIDR+"}", "serviceCIDRs={"+testbed.ServiceCIDR+"}")
	if err != nil {
		return stop, err
	}
	var namespaces []traffic.Namespace
	var all []string
	for _, t := range teams() {
		namespaces = append(namespaces, t.Namespace)
		all = append(all, t.ips...)
	}
	end, err := traffic.Serve(ctx, c.Cluster, namespaces)
	if err != nil {
		return stop, err
	}
	stops = append(stops, end)
	c.rules = newRules(c.Cluster)
	if err := c.request(ctx); err != nil {
		return stop, err
	}
	for _, n := range namespaces {
		if err := traffic.Deploy(ctx, c.Cluster, n, c.o.every); err != nil {
			return stop, err
		}
	}
	c.watch, err = traffic.Start(ctx, c.Cluster, namespaces, c.rules.see)
	if err != nil {
		return stop, err
	}
	stops = append(stops, c.watch.Stop)
	c.owners, end, err = watchOwners(ctx, c.Cluster, append(all, spareIP))
	if err != nil {
		return stop, err
	}
	stops = append(stops, end)
	return stop, c.recovered(ctx)
}

// request makes the namespaces and asks for their egress IPs before they have
// pods: no pod is ever without.
func (c *chaos) request(ctx context.Context) error {
	for _, t := range teams() {
		if _, err := c.Kubectl(ctx, "create", "namespace", t.Name); err != nil {
			return err
		}
		c.rules.allow(t.Name, t.ips...)
		c.current[t.Name] = t.ips
		err := testbed.Poll(ctx, time.Minute, func() error {
			_, err := c.Kubectl(ctx, "get", "netnamespace", t.Name)
			return err
		})
		if err != nil {
			return err
		}
		patch := fmt.Sprintf(`{"metadata": {"annotations": {"egressip.network.openshift.io/mode": %q}}, "egressIPs": %s}`, t.mode, list(t.ips))
		if t.mode == "" {
			patch = fmt.Sprintf(`{"egressIPs": %s}`, list(t.ips))
		}
		if err := c.patch(ctx, "netnamespace/"+t.Name, patch); err != nil {
			return err
		}
	}
	for i, host := range manualHosts() {
		c.claims[host] = []string{teams()[0].ips[i], teams()[1].ips[i]}
		if err := c.patch(ctx, "hostsubnet/"+host, fmt.Sprintf(`{"egressIPs": %s}`, list(c.claims[host]))); err != nil {
			return err
		}
	}
	for _, host := range automaticHosts() {
		if err := c.patch(ctx, "hostsubnet/"+host, `{"egressCIDRs": ["192.168.7.208/29"]}`); err != nil {
			return err
		}
	}
	return nil
}

func list(ips []string) string {
	if len(ips) == 0 {
		return "[]"
	}
	return `["` + strings.Join(ips, `", "`) + `"]`
}

func (c *chaos) patch(ctx context.Context, object, patch string) error {
	return testbed.Poll(ctx, time.Minute, func() error {
		_, err := c.Kubectl(ctx, "patch", object, "--type=merge", "-p", patch)
		return err
	})
}

// faults makes one after the other, until the time is over.
func (c *chaos) faults(ctx context.Context) error {
	all := kinds()
	if c.o.only != "" {
		k, err := kindOf(c.o.only)
		if err != nil {
			return err
		}
		all = []kind{k}
	}
	until := time.Now().Add(c.o.length)
	for n := 1; time.Now().Before(until) && (c.o.faults == 0 || n <= c.o.faults); n++ {
		if err := c.fault(ctx, all[c.draw(all)]); err != nil {
			return fmt.Errorf("fault %d: %w", n, err)
		}
	}
	if c.o.last == "" {
		return nil
	}
	k, err := kindOf(c.o.last)
	if err != nil {
		return err
	}
	if err := c.fault(ctx, k); err != nil {
		return fmt.Errorf("last fault: %w", err)
	}
	return nil
}

// kindOf is the kind of a name.
func kindOf(name string) (kind, error) {
	all := append(kinds(), scripted()...)
	at := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if at < 0 {
		return kind{}, fmt.Errorf("no fault is called %q", name)
	}
	return all[at], nil
}

// draw chooses by weight.
func (c *chaos) draw(all []kind) int {
	total := 0
	for _, k := range all {
		total += k.weight
	}
	at := c.random.IntN(total)
	for i, k := range all {
		if at -= k.weight; at < 0 {
			return i
		}
	}
	return 0
}

// fault makes one, ends it, and waits until all is well.
func (c *chaos) fault(ctx context.Context, k kind) error {
	f := k.prepare(c)
	lasts := time.Duration(2000+c.random.IntN(5000)) * time.Millisecond * time.Duration(max(1, c.o.stretch))
	c.say("%s: %s, for %s", k.name, f.what, lasts.Round(100*time.Millisecond))
	if f.before != nil {
		if err := f.before(ctx); err != nil {
			return fmt.Errorf("before %s: %s: %w", k.name, f.what, err)
		}
	}
	begin := time.Now()
	if err := f.begin(ctx); err != nil {
		return fmt.Errorf("%s: %s: %w", k.name, f.what, err)
	}
	t := time.NewTimer(lasts)
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	t.Stop()
	if f.end != nil {
		if err := f.end(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("end of %s: %s: %w", k.name, f.what, err)
		}
	}
	if err := c.recovered(ctx); err != nil {
		return fmt.Errorf("%s: %s: the cluster does not recover: %w", k.name, f.what, err)
	}
	started, err := c.started(ctx)
	if err != nil {
		return err
	}
	worst, whose := c.outage(f.broken, started, begin, time.Now())
	c.say("  recovered; longest outage of a pod elsewhere %d ms (%s)", worst.Milliseconds(), whose)
	if !slices.Contains(c.kinds, k.name) {
		c.kinds = append(c.kinds, k.name)
	}
	c.outages[k.name] = append(c.outages[k.name], worst)
	c.watch.Forget(time.Now().Add(-quiet))
	if k.within > 0 && worst > k.within {
		return fmt.Errorf("%s: %s: an outage of %s (%s), want %s at most", k.name, f.what, worst.Round(time.Millisecond), whose, k.within)
	}
	if err := c.rules.err(); err != nil {
		return fmt.Errorf("%s: %s: %w", k.name, f.what, err)
	}
	if most, what := c.owners.most(); most > c.o.twoOwners {
		return fmt.Errorf("%s: %s: two owners for %s: %s", k.name, f.what, most, what)
	}
	return nil
}

// outage is the longest time without an answered connection of a pod with egress
// IPs that is on none of the broken nodes. Pods that were deleted meanwhile do not
// count, and a new one counts from its start: how long the cluster takes to replace a
// pod is no outage of ours.
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

// started tells when the pods that talk started, to the second, by namespace and name.
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

// through tells whether pods of each namespace have got through of late, from every
// node but those.
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

// verdict is on the run as a whole.
func (c *chaos) verdict(ctx context.Context) error {
	var errs []error
	if ctx.Err() == nil {
		errs = append(errs, c.rules.err())
	}
	if most, what := c.owners.most(); most > c.o.twoOwners {
		errs = append(errs, fmt.Errorf("two owners for %s: %s", most, what))
	}
	return errors.Join(errs...)
}

// report prints the table, and writes it to a file.
func (c *chaos) report() error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nseed %d, %s of faults; packets by namespace: %s\n", c.o.seed, time.Since(c.began).Round(time.Second), c.rules.packets())
	fmt.Fprintf(&b, "packets with a wrong source: %d\n", c.rules.wrongs())
	fmt.Fprintf(&b, "longest time that two machines answered for one egress IP: %s\n\n", first(c.owners.most()))
	fmt.Fprintf(&b, "%-34s %6s %10s %10s %10s\n", "FAULT", "COUNT", "MEDIAN ms", "P99 ms", "MAX ms")
	for _, k := range c.kinds {
		o := slices.Clone(c.outages[k])
		slices.Sort(o)
		at := func(share float64) int64 { return o[int(share*float64(len(o)-1)+0.5)].Milliseconds() }
		fmt.Fprintf(&b, "%-34s %6d %10d %10d %10d\n", k, len(o), at(0.5), at(0.99), at(1))
	}
	if _, err := io.WriteString(c.o.out, b.String()); err != nil {
		return err
	}
	if c.o.report == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.o.report), 0o755); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if err := os.WriteFile(c.o.report, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func first(d time.Duration, _ string) time.Duration { return d.Round(time.Millisecond) }
