package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Cleanup takes everything of ours off the host, in the reverse of the order
// in which it was put there, and keeps all else. It takes what it finds, be it
// whole or in parts; where there is nothing it does nothing. No agent may run
// at the same time. Pods' traffic leaves as the host's own rules have it from
// then on.
func Cleanup(ctx context.Context, cfg Config) error {
	d, err := New(cfg)
	if err != nil {
		return err
	}
	c := cleanup{d: d}
	return errors.Join(c.run(ctx), d.Close())
}

type cleanup struct{ d *Dataplane }

func (c cleanup) run(ctx context.Context) error {
	observed, err := c.observe(ctx)
	errs := []error{err}
	fail := func(err error) { errs = append(errs, err) }

	// Marks first, then what they mean: the reverse of the order of tables.
	for _, name := range slices.Backward(rules.Stages()) {
		for _, b := range iptables.Backends() {
			if t := iptables.Plan(name, observed.rules[b][name], iptables.RenderedTable{}); t.Changes > 0 {
				fail(c.d.iptables[b].Commit(ctx, t))
			}
		}
	}
	_, err = routing.RemoveRules(c.d.nl)
	fail(err)
	_, err = routing.RemoveRoutes(c.d.nl)
	fail(err)
	_, err = overlay.Remove(c.d.nl)
	fail(err)
	fail(bpf.RemoveGuards(c.d.nl))

	// Connections that had a way of ours end: they cannot go on without it.
	known, _ := knownIndices(c.d.cfg.Marks, observed.rules)
	gone := newStaleness(c.d.cfg.Marks, observed, kernel{}, known, nil)
	if len(gone.freed)+len(gone.ended)+len(gone.withdrawn) > 0 {
		_, err = conntrack.Delete(c.d.nl, gone.stale)
		fail(err)
	}
	own, err := address.Own(c.d.nl)
	fail(err)
	for _, ip := range sortedAddrs(own) {
		fail(address.Delete(c.d.nl, own[ip]))
	}
	sets, err := presentSets()
	fail(err)
	for _, name := range sets {
		fail(ipset.Destroy(c.d.nl, name))
	}
	_, err = bpf.RemoveMaps(c.d.cfg.PinDir)
	fail(err)
	return errors.Join(errs...)
}

// observe reads what tells which connections are ours, and the rules.
func (c cleanup) observe(ctx context.Context) (kernel, error) {
	k := kernel{
		pods: map[netip.Addr]uint32{}, locked: map[netip.Addr]struct{}{},
		addresses: map[netip.Addr]struct{}{}, rules: map[Backend]iptables.Tables{},
	}
	var errs []error
	for b, driver := range c.d.iptables {
		tables, err := driver.Observe(ctx)
		k.rules[b] = tables
		errs = append(errs, err)
	}
	pods, err := ipset.List(setPods)
	errs = append(errs, err)
	for entry, v := range pods {
		k.pods[entry.Addr()] = v.Mark
	}
	locked, err := ipset.List(setLocked)
	errs = append(errs, err)
	for entry := range locked {
		k.locked[entry.Addr()] = struct{}{}
	}
	own, err := address.Own(c.d.nl)
	errs = append(errs, err)
	for ip := range own {
		k.addresses[ip] = struct{}{}
	}
	if err := errors.Join(errs...); err != nil {
		return k, fmt.Errorf("look for what is to be removed: %w", err)
	}
	return k, nil
}
