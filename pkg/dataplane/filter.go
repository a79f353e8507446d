package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
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

// loosen makes the reverse path filters of further interfaces with egress IPs loose where they
// are strict, as answers come by these whose senders the main table finds elsewhere. Those that
// have no egress IPs any more get back what they had.
func (r *round) loosen() (changes int, err error) {
	notes, err := routing.Notes(r.d.nl)
	if err != nil {
		return 0, err
	}
	wanted := map[int]bool{}
	for _, p := range r.byPlace(sortedAddrs(r.desired.ips)) {
		_, further := r.further.places[p.Name]
		wanted[p.Link.Attrs().Index] = further && slices.ContainsFunc(p.ips, netip.Addr.Is4)
	}
	var errs []error
	for _, place := range r.furtherPlaces() {
		if wanted[place.Link.Attrs().Index] {
			n, err := r.d.loosened.loosen(r.d.nl, place.Link, notes)
			changes, errs = changes+n, append(errs, err)
		}
	}
	n, err := r.d.loosened.tightenOthers(r.d.nl, notes, wanted)
	return changes + n, errors.Join(append(errs, err)...)
}

// looseFilters are the filters that this process has made loose, or has found so with a note: what
// they were, by the index of their device. The kernel's notes outlive a process; but others may
// delete them, and then it is these that count.
type looseFilters map[int]uint32

// loosen makes the reverse path filter of a device loose where it is strict. What it was is
// noted first. One that is loose already is noted where it is known what it was.
func (f looseFilters) loosen(nl *netlink.Handle, link netlink.Link, notes []routing.Note) (changes int, err error) {
	a := link.Attrs()
	own, all, err := filters(a.Name)
	if err != nil {
		return 0, err
	}
	noted := notesOf(notes, a)
	was, known := f[a.Index]
	if !known && len(noted) > 0 {
		was, known = noted[len(noted)-1].Was, true // behind any of an earlier version
	}
	strict := max(own, all) == strictFilter
	switch {
	case strict:
		was = own // whatever it was before, others have changed it
	case own != looseFilter || !known: // it is not ours
		delete(f, a.Index)
		return deleteNotes(nl, noted)
	}
	f[a.Index] = was
	note := routing.Note{Link: a.Index, Device: a.Name, Was: was}
	same := slices.IndexFunc(noted, func(n routing.Note) bool { return n.Link == a.Index && n.Was == was })
	if same < 0 {
		if err := nlutil.Count(&changes, "", routing.PutNote(nl, note)); err != nil {
			return 0, fmt.Errorf("make the reverse path filter loose%w", err)
		}
	} else {
		noted = slices.Delete(slices.Clone(noted), same, same+1)
	}
	n, err := deleteNotes(nl, noted)
	if changes += n; err != nil || !strict {
		return changes, err
	}
	n, err = sysctl.Ensure(link, sysctl.ReversePathFilter(), looseFilter)
	return changes + n, err
}

// tighten gives the filter of a device back what it was, unless others have changed it.
func (f looseFilters) tighten(nl *netlink.Handle, link netlink.Link, notes []routing.Note) (changes int, err error) {
	a := link.Attrs()
	noted := notesOf(notes, a)
	was, known := f[a.Index]
	if !known && len(noted) > 0 {
		was, known = noted[len(noted)-1].Was, true
	}
	own, _, err := filters(a.Name)
	if err != nil {
		return 0, err
	}
	if known && own == looseFilter {
		if changes, err = sysctl.Ensure(link, sysctl.ReversePathFilter(), was); err != nil {
			return 0, err
		}
	}
	delete(f, a.Index)
	n, err := deleteNotes(nl, noted)
	return changes + n, err
}

// tightenOthers is tighten for all devices but those that are wanted, by their index. Notes about
// devices that are not there any more are deleted.
func (f looseFilters) tightenOthers(nl *netlink.Handle, notes []routing.Note, wanted map[int]bool) (changes int, err error) {
	var errs []error
	indices := slices.Collect(maps.Keys(f))
	for _, n := range notes {
		link, err := noteLink(nl, n)
		switch {
		case nlutil.IsLinkNotFound(err):
			deleted, err := deleteNotes(nl, []routing.Note{n})
			changes, errs = changes+deleted, append(errs, err)
		case err != nil:
			errs = append(errs, fmt.Errorf("look up %s: %w", n.Device, err))
		default:
			indices = append(indices, link.Attrs().Index)
		}
	}
	slices.Sort(indices)
	for _, index := range slices.Compact(indices) {
		if wanted[index] {
			continue
		}
		link, err := nl.LinkByIndex(index)
		switch {
		case nlutil.IsLinkNotFound(err):
			delete(f, index)
		case err != nil:
			errs = append(errs, fmt.Errorf("look up interface %d: %w", index, err))
		default:
			n, err := f.tighten(nl, link, notes)
			changes, errs = changes+n, append(errs, err)
		}
	}
	return changes, errors.Join(errs...)
}

// notesOf are the notes about a device.
func notesOf(notes []routing.Note, a *netlink.LinkAttrs) (list []routing.Note) {
	for _, n := range notes {
		if n.Link == a.Index || n.Link == 0 && n.Device == a.Name {
			list = append(list, n)
		}
	}
	return list
}

// noteLink returns the device that a note is about.
func noteLink(nl *netlink.Handle, n routing.Note) (netlink.Link, error) {
	if n.Link == 0 {
		return nl.LinkByName(n.Device)
	}
	return nl.LinkByIndex(n.Link)
}

func deleteNotes(nl *netlink.Handle, notes []routing.Note) (changes int, err error) {
	var errs []error
	for _, n := range notes {
		err := routing.DeleteNote(nl, n)
		if err == nil {
			changes++
		}
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
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
	for _, n := range notes {
		name := n.Device
		if link, err := noteLink(nl, n); err == nil {
			name = link.Attrs().Name
		}
		list = append(list, fmt.Sprintf("reverse path filter of %s, which was %d", name, n.Was))
	}
	return list, err
}

// removeAll gives all filters back what they were.
func (f looseFilters) removeAll(nl *netlink.Handle) error {
	notes, err := routing.Notes(nl)
	_, errTighten := f.tightenOthers(nl, notes, nil)
	return errors.Join(err, errTighten)
}
