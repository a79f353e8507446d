package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// Values of rp_filter. The kernel takes the greater of a device's own and that for all.
const (
	strictFilter = 1
	looseFilter  = 2
)

// loosen makes the reverse path filter of a device loose where it is strict. What it was is
// noted first.
func loosen(nl *netlink.Handle, link netlink.Link, notes map[string]uint32) (changes int, err error) {
	name := link.Attrs().Name
	own, all, err := filters(name)
	if err != nil || max(own, all) != strictFilter {
		return 0, err
	}
	was, noted := notes[name]
	if !noted || was != own { // others have changed it since that note
		if err := nlutil.Count(&changes, "", routing.PutNote(nl, name, own)); err != nil {
			return 0, fmt.Errorf("make the reverse path filter loose%w", err)
		}
	}
	if noted && was != own {
		if err := nlutil.Count(&changes, "", routing.DeleteNote(nl, name, was)); err != nil {
			return changes, fmt.Errorf("make the reverse path filter loose%w", err)
		}
	}
	n, err := sysctl.Ensure(link, sysctl.ReversePathFilter(), looseFilter)
	return changes + n, err
}

// tighten gives the filter of a device back what it was, unless others have changed it.
func tighten(nl *netlink.Handle, name string, was uint32) (changes int, err error) {
	link, err := nl.LinkByName(name)
	switch {
	case nlutil.IsLinkNotFound(err):
	case err != nil:
		return 0, fmt.Errorf("look up %s: %w", name, err)
	default:
		own, _, err := filters(name)
		if err != nil {
			return 0, err
		}
		if own == looseFilter {
			if changes, err = sysctl.Ensure(link, sysctl.ReversePathFilter(), was); err != nil {
				return 0, err
			}
		}
	}
	return changes + 1, routing.DeleteNote(nl, name, was)
}

// filters are the filter of a device, and that for all.
func filters(name string) (own, all uint32, err error) {
	for device, to := range map[string]*uint32{name: &own, "all": &all} {
		text, err := sysctl.Get(sysctl.OfDevice(device, "rp_filter"))
		if err != nil {
			return 0, 0, err
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0, 0, fmt.Errorf("read rp_filter of %s: %w", device, err)
		}
		*to = uint32(n)
	}
	return own, all, nil
}

// listFilters describes the filters that were made loose.
func listFilters(nl *netlink.Handle) (list []string, err error) {
	notes, err := routing.Notes(nl)
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		list = append(list, fmt.Sprintf("reverse path filter of %s, which was %d", name, notes[name]))
	}
	return list, err
}

// removeFilters gives all filters back what they were.
func removeFilters(nl *netlink.Handle) error {
	notes, err := routing.Notes(nl)
	errs := []error{err}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		_, err := tighten(nl, name, notes[name])
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
