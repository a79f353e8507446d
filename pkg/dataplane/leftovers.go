package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
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
	rules, _, err := leadingRules(d.nl)
	errs = append(errs, err)
	for _, r := range rules {
		found("ip rule, priority %d: to table %d", r.Priority, r.Table)
	}
	routes, _, err := tableRoutes(d.nl)
	errs = append(errs, err)
	for _, r := range slices.SortedFunc(maps.Keys(routes), compareRoutes) {
		found("%v", r)
	}
	if _, err := d.nl.LinkByName(overlayName); err == nil {
		found("device %s", overlayName)
	} else if !isLinkNotFound(err) {
		errs = append(errs, fmt.Errorf("look up overlay device %s: %w", overlayName, err))
	}
	guarded, err := guards(d.nl)
	errs = append(errs, err)
	for _, name := range slices.Sorted(maps.Keys(guarded)) {
		found("tc program %s at %s", guardName, name)
	}
	own, err := ownAddresses(d.nl)
	errs = append(errs, err)
	for _, ip := range sortedAddrs(own) {
		for _, a := range own[ip] {
			found("address %v, label %s", netip.PrefixFrom(addrOf(a)), a.Label)
		}
	}
	sets, err := ownSets()
	errs = append(errs, err)
	for _, name := range sets {
		found("ipset %s", name)
	}
	for _, spec := range mapSpecs() {
		path := filepath.Join(d.cfg.PinDir, spec.Name)
		switch _, err := os.Lstat(path); {
		case err == nil:
			found("BPF map %s", path)
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("look for BPF map: %w", err))
		}
	}
	return list, errors.Join(errs...)
}

func compareRoutes(a, b route) int {
	if a.table != b.table {
		return a.table - b.table
	}
	if c := a.dst.Compare(b.dst); c != 0 {
		return c
	}
	return a.metric - b.metric
}
