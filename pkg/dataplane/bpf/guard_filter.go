package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// The filter of the guard, with GuardName.
const (
	guardHandle   = 0x77
	guardPriority = 77
)

// GuardPreference is that of the guard's filter, as tc shows it.
const GuardPreference = guardPriority

// Before is a filter of others at the egress of an interface that comes before the guard, which
// does not see the packets that it accepts.
type Before struct {
	Filter, Device string
	Preference     int
}

// ErrForeignFilter is the error of a filter of others at the guard's place.
var ErrForeignFilter = errors.New("others use its handle and priority")

// attachFilter attaches the guard as a filter of the clsact qdisc, and returns the filters that
// come before it.
func (g *guardLoaded) attachFilter(nl *netlink.Handle, link netlink.Link) (changes int, before []Before, err error) {
	n, err := ensureClsact(nl, link)
	changes += n
	if err != nil {
		return changes, nil, err
	}
	filters, err := nlutil.Whole(func() ([]netlink.Filter, error) { return nl.FilterList(link, netlink.HANDLE_MIN_EGRESS) })
	if err != nil {
		return changes, nil, fmt.Errorf("list tc filters: %w", err)
	}
	placed := false
	for _, f := range filters {
		a := f.Attrs()
		b, ok := f.(*netlink.BpfFilter)
		switch {
		case a.Priority < guardPriority:
			before = append(before, Before{Filter: filterName(f), Device: link.Attrs().Name, Preference: int(a.Priority)})
		case a.Priority != guardPriority || a.Handle != guardHandle:
		case !ok || !isGuard(b):
			return changes, nil, ErrForeignFilter
		case g.is(ebpf.ProgramID(b.Id)):
			placed = true
		}
	}
	if placed {
		return changes, before, nil
	}
	return changes, before, nlutil.Count(&changes, "replace tc filter", nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS,
			Handle: guardHandle, Priority: guardPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: g.program.FD(), Name: GuardName, DirectAction: true,
	}))
}

// filterName describes a filter of others.
func filterName(f netlink.Filter) string {
	if b, ok := f.(*netlink.BpfFilter); ok && b.Name != "" {
		return b.Name
	}
	return "of kind " + f.Type()
}

func isGuard(f *netlink.BpfFilter) bool {
	return f.Priority == guardPriority && f.Handle == guardHandle && f.Name == GuardName
}

// guardFilter returns the guard's filter at an interface; nil where there is none.
func guardFilter(nl *netlink.Handle, link netlink.Link) (*netlink.BpfFilter, error) {
	filters, err := nlutil.Whole(func() ([]netlink.Filter, error) { return nl.FilterList(link, netlink.HANDLE_MIN_EGRESS) })
	if err != nil && !nlutil.IsLinkNotFound(err) {
		return nil, fmt.Errorf("list tc filters of %s: %w", link.Attrs().Name, err)
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && isGuard(b) {
			return b, nil
		}
	}
	return nil, nil
}

// removeFilter detaches the guard's filter, and deletes the qdisc where that holds
// nothing else.
func removeFilter(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	f, err := guardFilter(nl, link)
	if err != nil || f == nil {
		return 0, err
	}
	if err := nl.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("detach tc program %s from %s: %w", GuardName, link.Attrs().Name, err)
	}
	return 1, removeEmptyClsact(nl, link)
}

func removeEmptyClsact(nl *netlink.Handle, link netlink.Link) error {
	for _, hook := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		filters, err := nlutil.Whole(func() ([]netlink.Filter, error) { return nl.FilterList(link, hook) })
		if err != nil {
			return fmt.Errorf("list tc filters of %s: %w", link.Attrs().Name, err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	qdiscs, err := nlutil.Whole(func() ([]netlink.Qdisc, error) { return nl.QdiscList(link) })
	if err != nil {
		return fmt.Errorf("list qdiscs of %s: %w", link.Attrs().Name, err)
	}
	at := slices.IndexFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" })
	if at < 0 {
		return nil
	}
	if err := nl.QdiscDel(qdiscs[at]); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete clsact qdisc of %s: %w", link.Attrs().Name, err)
	}
	return nil
}
