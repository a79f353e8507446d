package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// The guard is a program at the egress of the uplink, behind everyone's rules. It
// keeps egress IPs and their namespaces' packets together, both ways:
//
//	mark of the packet    source             verdict
//	index of an egress IP that egress IP     pass
//	index of an egress IP another            drop
//	REMOTE                any                drop
//	none of ours          an egress IP       drop; but ICMP errors about a packet
//	                                         to the egress IP pass, and neighbour discovery
//	                                         of the host itself
//	none of ours          another            pass
//
// A packet that the host itself sends has none of ours, whatever bits other software set.
//
// An egress IP that belongs to one interface is dropped at all others, with its index and
// without, but for those below: see Pins.
//
// It holds when other software puts its source rewriting before ours, or flushes our
// rules, and when the kernel takes an egress IP for the host's own address.
//
// Where the kernel has TCX (6.6), the guard is the first program there: before all tc
// filters, which may accept a packet so that no other filter sees it, and whatever
// qdisc the interface has. On older kernels it is a filter of the clsact qdisc.
const (
	// GuardName is the name of the guard's program, by which it is recognised; see
	// also guardHandle.
	GuardName = "egress_guard"
	guardMap  = "egress_guarded"
	guardMap6 = "egress_guarded6"
)

// Guard are the programs as they were last loaded. The zero Guard is ready for use.
type Guard struct {
	// shared is for all interfaces while no egress IP belongs to one of them; then each has
	// one of its own.
	shared guardLoaded
	own    map[int]*guardLoaded
	// at are the interfaces that have the guard, and no others; nil where that is
	// not known yet.
	at map[int]bool
	// first are the programs of TCX that the last Ensure found at the interfaces, in first
	// place.
	first map[int]ebpf.ProgramID
	// filterOnly: TCX is not used although the kernel may have it.
	filterOnly bool
}

// guardLoaded is the program as it was last loaded.
type guardLoaded struct {
	program *ebpf.Program
	// bits and marks are what it was loaded for: marks are what its maps hold.
	bits  mark.Marks
	marks map[netip.Addr]guarded
	// verified is the attached program that was found to do what this one does.
	verified ebpf.ProgramID
}

// OldGuard returns a guard that does not use TCX, as on kernels without it. In the place of one
// that does, it puts a filter, which version 0.1.0 takes over.
func OldGuard() Guard { return Guard{filterOnly: true} }

// Close gives up the handles; an attached guard stays.
func (g *Guard) Close() error {
	errs := []error{g.shared.close()}
	for _, own := range g.own {
		errs = append(errs, own.close())
	}
	g.own = nil
	return errors.Join(errs...)
}

// loadFor loads the program for an interface.
func (g *Guard) loadFor(link int, m mark.Marks, idx map[netip.Addr]int, pinned Pins) (*guardLoaded, error) {
	marks := make(map[netip.Addr]guarded, len(idx))
	for ip, i := range idx {
		marks[ip] = pinned.guardedAt(link, ip, m.Index(i), m)
	}
	loaded := &g.shared
	if len(pinned) > 0 {
		if g.own == nil {
			g.own = map[int]*guardLoaded{}
		}
		if g.own[link] == nil {
			g.own[link] = &guardLoaded{}
		}
		loaded = g.own[link]
	}
	return loaded, loaded.load(m, marks)
}

func (g *guardLoaded) close() error {
	if g.program == nil {
		return nil
	}
	err := g.program.Close()
	g.program = nil
	return err
}

// load makes the program for egress IPs with their marks, where it is another one. It looks at
// IPv6 where there are egress IPs of IPv6.
func (g *guardLoaded) load(m mark.Marks, marks map[netip.Addr]guarded) (err error) {
	if g.program != nil && maps.Equal(g.marks, marks) {
		return nil
	}
	guarded4, err := guardedMap(ipv4(), marks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guarded4.Close()) }()
	var guarded6 *ebpf.Map
	if slices.ContainsFunc(slices.Collect(maps.Keys(marks)), netip.Addr.Is6) {
		if guarded6, err = guardedMap(ipv6(), marks); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, guarded6.Close()) }()
	}
	pins := slices.ContainsFunc(slices.Collect(maps.Values(marks)), func(g guarded) bool { return g.Mark == elsewhere(m) || g.Tag != 0 })
	program, err := ebpf.NewProgram(guardProgram(m, guarded4, guarded6, pins))
	if err != nil {
		return fmt.Errorf("load tc program %s: %w", GuardName, err)
	}
	err = g.close()
	g.program, g.bits, g.marks, g.verified = program, m, marks, 0
	if err != nil {
		return fmt.Errorf("close tc program %s: %w", GuardName, err)
	}
	return nil
}

// guardedMap makes the map of a family's egress IPs.
func guardedMap(f family, marks map[netip.Addr]guarded) (_ *ebpf.Map, err error) {
	name, length := guardMap+f.suffix, uint32(f.length) //nolint:gosec // 16 at most
	made, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.Hash, KeySize: length, ValueSize: guardedSize, MaxEntries: uint32(max(len(marks), 1)),
	})
	if err != nil {
		return nil, fmt.Errorf("make BPF map %s: %w", name, err)
	}
	for ip, mark := range marks {
		if ip.BitLen() != 8*int(f.length) {
			continue
		}
		if err := made.Put(ip.AsSlice(), mark); err != nil {
			return nil, errors.Join(fmt.Errorf("fill BPF map %s: %w", name, err), made.Close())
		}
	}
	return made, nil
}

// Ensure attaches the guard for the given egress IPs, each with its index, to
// interfaces, then detaches it from all others, and counts the changes. Those that are
// not pinned may leave by any. Before are the filters
// of others that weaken it.
func (g *Guard) Ensure(nl *netlink.Handle, links []netlink.Link, m mark.Marks, idx map[netip.Addr]int, pinned Pins) (changes int, before []Before, err error) {
	at := map[int]bool{}
	g.first = map[int]ebpf.ProgramID{}
	for _, link := range links {
		loaded, err := g.loadFor(link.Attrs().Index, m, idx, pinned)
		if err != nil {
			return changes, nil, err
		}
		n, found, err := g.attach(nl, link, loaded)
		changes += n
		if err != nil {
			return changes, nil, fmt.Errorf("attach tc program %s to %s: %w", GuardName, link.Attrs().Name, err)
		}
		before = append(before, found...)
		at[link.Attrs().Index] = true
	}
	errs := []error{}
	for index, own := range g.own {
		if len(pinned) == 0 || !at[index] {
			errs = append(errs, own.close())
			delete(g.own, index)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return changes, before, fmt.Errorf("close tc program %s: %w", GuardName, err)
	}
	if g.at != nil && maps.Equal(g.at, at) {
		return changes, before, nil
	}
	// An interface that is now a port of a bridge, say, has a guard that does not know
	// of new egress IPs.
	n, err := removeGuards(nl, func(link netlink.Link) bool { return at[link.Attrs().Index] })
	changes += n
	if err == nil {
		g.at = at
	}
	return changes, before, err
}

// Stands reports whether the guard is still in first place where the last Ensure found it
// there. Of tc filters the kernel reports changes; of TCX it does not.
func (g *Guard) Stands() bool {
	for index, id := range g.first {
		all, err := programsAt(index)
		if err != nil || len(all) == 0 || all[0].ID != id {
			return false
		}
	}
	return true
}

func (g *Guard) attach(nl *netlink.Handle, link netlink.Link, loaded *guardLoaded) (changes int, before []Before, err error) {
	if !g.filterOnly {
		n, err := g.attachFirst(link, loaded)
		if !errors.Is(err, errNoTCX) {
			if err != nil {
				return n, nil, err
			}
			// That of a former version, or from before an update of the kernel.
			removed, err := removeFilter(nl, link)
			return n + removed, nil, err
		}
	}
	if changes, before, err = loaded.attachFilter(nl, link); err != nil || !g.filterOnly {
		return changes, before, err
	}
	// A version that knows filters alone would leave it there, and its egress IPs would never be
	// added to those of egress IPs that this one knows.
	former, err := guardPrograms(link)
	if err != nil {
		if errors.Is(err, errNoTCX) {
			err = nil
		}
		return changes, before, err
	}
	removed, err := detachGuards(link, former)
	return changes + removed, before, err
}

// is reports whether the attached program does what g does: it has the same
// instructions, and a map with the same content. A former agent's guard may.
func (g *guardLoaded) is(id ebpf.ProgramID) bool {
	if g.verified == id || g.same(id) {
		g.verified = id
		return true
	}
	return false
}

func (g *guardLoaded) same(id ebpf.ProgramID) bool {
	attached, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer attached.Close()
	is, err := attached.Info()
	if err != nil {
		return false
	}
	want, err := g.program.Info()
	if err != nil || is.Tag != want.Tag {
		return false
	}
	ids, ok := is.MapIDs()
	if !ok {
		return false
	}
	if own, ok := want.MapIDs(); ok && slices.Equal(own, ids) {
		return true
	}
	marks := map[netip.Addr]guarded{}
	for _, id := range ids {
		if !addMarks(marks, id) {
			return false
		}
	}
	return maps.Equal(marks, g.marks)
}

// addMarks adds what a guard's map holds, and reports whether it is one.
func addMarks(marks map[netip.Addr]guarded, id ebpf.MapID) bool {
	found, err := ebpf.NewMapFromID(id)
	if err != nil {
		return false
	}
	defer found.Close()
	if size := found.KeySize(); size != 4 && size != 16 || found.ValueSize() != guardedSize {
		return false
	}
	var mark guarded
	ip := make([]byte, found.KeySize())
	each := found.Iterate()
	for each.Next(&ip, &mark) {
		addr, _ := netip.AddrFromSlice(ip)
		marks[addr] = mark
	}
	return each.Err() == nil
}

// ListGuards lists the names of the interfaces with a guard.
func ListGuards(nl *netlink.Handle) ([]string, error) {
	links, err := nlutil.Whole(nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	var errs []error
	for _, link := range links {
		filter, err := guardFilter(nl, link)
		errs = append(errs, err)
		first, err := guardPrograms(link)
		if err != nil && !errors.Is(err, errNoTCX) {
			errs = append(errs, err)
		}
		if filter != nil || len(first) > 0 {
			names = append(names, link.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names, errors.Join(errs...)
}

// RemoveGuards detaches all guards, and deletes the qdisc of each where that holds
// nothing else.
func RemoveGuards(nl *netlink.Handle) error {
	_, err := removeGuards(nl, func(netlink.Link) bool { return false })
	return err
}

// removeGuards detaches the guards from all interfaces but those to keep.
func removeGuards(nl *netlink.Handle, keep func(netlink.Link) bool) (changes int, err error) {
	links, err := nlutil.Whole(nl.LinkList)
	if err != nil {
		return 0, fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, link := range links {
		if keep(link) {
			continue
		}
		first, err := guardPrograms(link)
		if err != nil && !errors.Is(err, errNoTCX) {
			errs = append(errs, err)
		}
		n, err := detachGuards(link, first)
		changes += n
		errs = append(errs, err)
		n, err = removeFilter(nl, link)
		changes += n
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}
