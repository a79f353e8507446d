package dataplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// Leftovers lists what Cleanup would take off the host, one object in each
// line, in the order in which it goes. It changes nothing.
func Leftovers(ctx context.Context, cfg Config) ([]string, error) {
	d, err := New(cfg)
	if err != nil {
		return nil, err
	}
	list, err := leftovers(ctx, d)
	return list, errors.Join(err, d.Close())
}

func leftovers(ctx context.Context, d *Dataplane) (list []string, err error) {
	var errs []error
	found := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }

	for _, b := range iptables.Backends() {
		driver, installed := d.iptables[b]
		if !installed {
			continue
		}
		tables, err := driver.Observe(ctx)
		errs = append(errs, err)
		list = append(list, iptables.ListOwn(b, tables)...)
	}
	rules, err := routing.ListRules(d.nl)
	errs = append(errs, err)
	routes, err := routing.ListRoutes(d.nl)
	errs = append(errs, err)
	list = append(append(list, rules...), routes...)
	if _, err := d.nl.LinkByName(overlayName); err == nil {
		found("device %s", overlayName)
	} else if !nlutil.IsLinkNotFound(err) {
		errs = append(errs, fmt.Errorf("look up overlay device %s: %w", overlayName, err))
	}
	guarded, err := bpf.ListGuards(d.nl)
	errs = append(errs, err)
	for _, name := range guarded {
		found("tc program %s at %s", bpf.GuardName, name)
	}
	own, err := address.Own(d.nl)
	errs = append(errs, err)
	for _, ip := range sortedAddrs(own) {
		for _, a := range own[ip] {
			found("address %v, label %s", address.Prefix(a), a.Label)
		}
	}
	sets, err := presentSets()
	errs = append(errs, err)
	for _, name := range sets {
		found("ipset %s", name)
	}
	pinned, err := bpf.PinnedMaps(d.cfg.PinDir)
	errs = append(errs, err)
	for _, path := range pinned {
		found("BPF map %s", path)
	}
	return list, errors.Join(errs...)
}
