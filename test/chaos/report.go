package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// verdict is on the run as a whole.
func (c *chaos) verdict(ctx context.Context) error {
	if ctx.Err() != nil {
		return c.oneOwner()
	}
	return c.harmless()
}

// harmless reports whether every packet had a source that is allowed, and every
// egress IP one owner.
func (c *chaos) harmless() error { return errors.Join(c.rules.err(), c.oneOwner()) }

func (c *chaos) oneOwner() error {
	if most, what := c.owners.most(); most > c.o.twoOwners {
		return fmt.Errorf("two owners for %s: %s", most, what)
	}
	return nil
}

// report prints the table, and writes it to a file.
func (c *chaos) report() error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nseed %d, %s of faults; packets by namespace: %s\n", c.o.seed, time.Since(c.began).Round(time.Second), c.rules.packets())
	fmt.Fprintf(&b, "packets with a wrong source: %d\n", c.rules.wrongs())
	fmt.Fprintf(&b, "longest time that two machines answered for one egress IP: %s\n\n", first(c.owners.most()))
	fmt.Fprintf(&b, "%-34s %6s %10s %10s %10s\n", "FAULT", "COUNT", "MEDIAN ms", "P99 ms", "MAX ms")
	for _, k := range c.kinds {
		o := slices.Clone(c.lengths[k])
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

// keepEvidence writes what the API and the operator's pods say after a fault that was
// judged badly, beside the table, or to the run's output without one.
func (c *chaos) keepEvidence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "netnamespaces,hostsubnets,leases", "--all-namespaces", "--show-managed-fields", "-o", "yaml"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"-n", testbed.OperatorNamespace, "logs", "deployment/egressip-controller", "--all-pods", "--prefix", "--timestamps", "--tail=2000"},
		{"-n", testbed.OperatorNamespace, "logs", "daemonset/egressip-agent", "--all-pods", "--prefix", "--timestamps", "--tail=500"},
	} {
		out, err := c.Kubectl(ctx, args...)
		fmt.Fprintf(&b, "kubectl %s: %v\n%s\n", strings.Join(args, " "), err, out)
	}
	if c.o.report == "" {
		_, err := io.WriteString(c.o.out, b.String())
		return err
	}
	path := strings.TrimSuffix(c.o.report, filepath.Ext(c.o.report)) + "-failed.txt"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the evidence: %w", err)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the evidence: %w", err)
	}
	c.say("what the operator says is in %s", path)
	return nil
}

func first(d time.Duration, _ string) time.Duration { return d.Round(time.Millisecond) }
