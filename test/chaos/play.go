package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
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
// others by the controller. All but the first have the label for EgressIPs.
func manualHosts() []string { return []string{"node1", "node2"} }

func automaticHosts() []string { return []string{"node3", "node4"} }

func labelledHosts() []string { return append(manualHosts()[1:], automaticHosts()...) }

// team is a namespace of the run.
type team struct {
	traffic.Namespace
	// ips are its egress IPs, and ips6 those of IPv6.
	ips, ips6 []string
	mode      string
	// selected: an EgressIP has them, and not the namespace's NetNamespace.
	selected bool
}

// all are its egress IPs of the families that the run has.
func (t team) all(f families) []string { return f.of(t.ips, t.ips6) }

func teams() []team {
	return []team{
		{Namespace: traffic.Namespace{Name: "ordered", Port: 9000}, ips: []string{"192.168.7.200", "192.168.7.201"}, ips6: []string{"fd00:7::200", "fd00:7::201"}},
		{
			Namespace: traffic.Namespace{Name: "balanced", Port: 9010},
			ips:       []string{"192.168.7.202", "192.168.7.203"}, ips6: []string{"fd00:7::202", "fd00:7::203"}, mode: "balanced",
		},
		{Namespace: traffic.Namespace{Name: "automatic", Port: 9020}, ips: []string{"192.168.7.210"}, ips6: []string{"fd00:7::210"}},
		{
			Namespace: traffic.Namespace{Name: "selected", Port: 9050},
			ips:       []string{"192.168.7.220", "192.168.7.221"}, ips6: []string{"fd00:7::220", "fd00:7::221"}, selected: true,
		},
		{Namespace: traffic.Namespace{Name: "plain", Port: 9030}},
		{Namespace: traffic.Namespace{Name: "host", Port: 9040, HostNetwork: true}},
	}
}

// automaticRanges are what the automatic hosts may have.
func automaticRanges(f families) []string {
	return f.of([]string{"192.168.7.208/29"}, []string{"fd00:7::210/124"})
}

// spareIP and spareIP6 are other egress IPs for namespace automatic, otherIP and otherIP6 for
// namespace selected.
const (
	spareIP  = "192.168.7.212"
	spareIP6 = "fd00:7::212"
	otherIP  = "192.168.7.222"
	otherIP6 = "fd00:7::222"
)

// chaos is one run.
type chaos struct {
	*testbed.Cluster
	o       options
	random  *rand.Rand
	began   time.Time
	rules   *rules
	owners  *owners
	watch   *traffic.Watch
	current map[string][]string        // egress IPs by namespace
	claims  map[string][]string        // by manual host
	lengths map[string][]time.Duration // of outages, by kind
	kinds   []string                   // in order of appearance
}

// play runs until the time is over, or something is wrong.
func play(ctx context.Context, o options) (err error) {
	c := &chaos{
		o: o, random: rand.New(rand.NewPCG(o.seed, 0)), //nolint:gosec // it must be the same each time
		current: map[string][]string{}, claims: map[string][]string{}, lengths: map[string][]time.Duration{},
	}
	if o.prefix == "" {
		o.prefix = "chaos"
	}
	c.Cluster, err = testbed.Up(ctx, testbed.Options{
		Prefix: o.prefix, Nodes: 4, PodAddresses: 12, Images: []string{o.image}, Progress: os.Stderr,
		DualStack: o.families.ipv4 && o.families.ipv6, IPv6Only: !o.families.ipv4,
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
	fmt.Fprintf(o.out, "seed %d, begun at %s\n", o.seed, c.began.Format("15:04:05.000"))
	stop, err := c.setUp(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if err = c.faults(ctx); err != nil {
		err = errors.Join(err, c.keepEvidence(ctx))
	}
	return errors.Join(err, c.verdict(ctx), c.report())
}

func (c *chaos) say(format string, args ...any) {
	fmt.Fprintf(c.o.out, "%7.1fs  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// setUp installs the operator, and starts the traffic and its observers.
func (c *chaos) setUp(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range slices.Backward(stops) {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	o := c.o.families
	// The first packet of a new pod counts like any other, also on a booting node.
	err = c.InstallChart(ctx, c.o.chart, "metrics.secure=false", "metrics.bindAddress=127.0.0.1",
		"agent.bootLock.enabled=true", "clusterCIDRs={"+o.joined(testbed.ClusterCIDR, testbed.ClusterCIDRv6)+"}", "serviceCIDRs={"+o.joined(testbed.ServiceCIDR, testbed.ServiceCIDRv6)+"}")
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
	c.owners, end, err = watchOwners(ctx, c.Cluster, c.o.families.of(append(all, spareIP, otherIP), nil))
	if err != nil {
		return stop, err
	}
	stops = append(stops, end)
	return stop, c.recovered(ctx)
}

// request creates the namespaces and requests their egress IPs before they have
// pods, so that no pod is ever without one.
func (c *chaos) request(ctx context.Context) error {
	for _, t := range teams() {
		if _, err := c.Kubectl(ctx, "create", "namespace", t.Name); err != nil {
			return err
		}
		ips := t.all(c.o.families)
		c.rules.allow(t.Name, ips...)
		c.current[t.Name] = ips
		err := testbed.Poll(ctx, time.Minute, func() error {
			_, err := c.Kubectl(ctx, "get", "netnamespace", t.Name)
			return err
		})
		if err != nil {
			return err
		}
		if t.selected {
			if err := c.selectFor(ctx, "selected", ips); err != nil {
				return err
			}
			continue
		}
		patch := fmt.Sprintf(`{"metadata": {"annotations": {"egressip.network.openshift.io/mode": %q}}, "egressIPs": %s}`, t.mode, list(ips))
		if t.mode == "" {
			patch = fmt.Sprintf(`{"egressIPs": %s}`, list(ips))
		}
		if err := c.patch(ctx, "netnamespace/"+t.Name, patch); err != nil {
			return err
		}
	}
	for i, host := range manualHosts() {
		a, b := teams()[0], teams()[1]
		c.claims[host] = c.o.families.of([]string{a.ips[i], b.ips[i]}, []string{a.ips6[i], b.ips6[i]})
		if err := c.patch(ctx, "hostsubnet/"+host, fmt.Sprintf(`{"egressIPs": %s}`, list(c.claims[host]))); err != nil {
			return err
		}
	}
	for _, host := range labelledHosts() {
		if err := c.patch(ctx, "node/"+host, `{"metadata": {"labels": {"`+assignable+`": ""}}}`); err != nil {
			return err
		}
	}
	for _, host := range automaticHosts() {
		if err := c.patch(ctx, "hostsubnet/"+host, fmt.Sprintf(`{"egressCIDRs": %s}`, list(automaticRanges(c.o.families)))); err != nil {
			return err
		}
	}
	return nil
}

// selectFor makes an EgressIP for the pods of namespace selected.
func (c *chaos) selectFor(ctx context.Context, name string, ips []string) error {
	_, err := c.Apply(ctx, fmt.Sprintf(`
apiVersion: k8s.ovn.org/v1
kind: EgressIP
metadata: {name: %s}
spec:
  egressIPs: %s
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: selected}}
  podSelector: {matchLabels: {app: %s}}
`, name, list(ips), traffic.App))
	return err
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
