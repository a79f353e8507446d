package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	tcx "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// errNoTCX is the error of a kernel before 6.6.
var errNoTCX = errors.New("the kernel has no TCX")

// HasTCX reports whether the kernel is known to have TCX.
func HasTCX() bool {
	_, err := programsAt(loopback)
	return err == nil
}

// loopback is the index of an interface that is there.
const loopback = 1

// attachFirst makes the guard the first program of TCX at the egress of an
// interface. Without a link it stays there when the agent ends, as a filter does.
func (g *Guard) attachFirst(link netlink.Link, loaded *guardLoaded) (changes int, err error) {
	index := link.Attrs().Index
	all, err := programsAt(index)
	if err != nil {
		return 0, err
	}
	switch {
	case len(all) > 0 && loaded.is(all[0].ID):
		if changes, err = detachGuards(link, all[1:]); err == nil {
			g.first[index] = all[0].ID
		}
		return changes, err
	case len(all) > 0 && isGuardProgram(all[0].ID):
		err = loaded.replace(index, all[0].ID)
		all = all[1:]
	default:
		err = loaded.attachHead(index, all)
	}
	if err := nlutil.Count(&changes, "attach with TCX", err); err != nil {
		return changes, err
	}
	n, err := detachGuards(link, all)
	return changes + n, err
}

// replace puts the guard in the place of a former one, in one step.
func (g *guardLoaded) replace(index int, former ebpf.ProgramID) error {
	old, err := ebpf.NewProgramFromID(former)
	if err != nil {
		return err
	}
	return errors.Join(tcx.RawAttachProgram(tcx.RawAttachProgramOptions{
		Target: index, Program: g.program, Attach: ebpf.AttachTCXEgress, Anchor: tcx.ReplaceProgram(old),
	}), old.Close())
}

// attachHead puts the guard before all other programs. One that others have come
// before stays there until then; as the kernel does not take a program twice, the
// guard is loaded again.
func (g *guardLoaded) attachHead(index int, all []tcx.AttachedProgram) error {
	info, err := g.program.Info()
	if err != nil {
		return err
	}
	own, ok := info.ID()
	for _, p := range all {
		if ok && p.ID == own {
			err := errors.Join(g.close(), g.load(g.bits, g.marks))
			if err != nil {
				return err
			}
		}
	}
	return tcx.RawAttachProgram(tcx.RawAttachProgramOptions{
		Target: index, Program: g.program, Attach: ebpf.AttachTCXEgress, Anchor: tcx.Head(),
	})
}

// programsAt lists the programs of TCX at the egress of an interface.
func programsAt(index int) ([]tcx.AttachedProgram, error) {
	all, err := tcx.QueryPrograms(tcx.QueryOptions{Target: index, Attach: ebpf.AttachTCXEgress})
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, nil // the interface has gone
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return nil, errNoTCX
	case err != nil:
		return nil, err
	}
	return all.Programs, nil
}

// isGuardProgram reports whether a program is a guard, by its name and its map's.
func isGuardProgram(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name != GuardName {
		return false
	}
	maps, err := mapsOf(id)
	if err != nil {
		return false
	}
	_, guards := maps[guardMap]
	return closeMaps(maps) == nil && guards
}

// guardPrograms lists the guards among the programs of TCX at an interface.
func guardPrograms(link netlink.Link) (guards []tcx.AttachedProgram, err error) {
	all, err := programsAt(link.Attrs().Index)
	if err != nil {
		return nil, fmt.Errorf("list programs at %s: %w", link.Attrs().Name, err)
	}
	for _, p := range all {
		if isGuardProgram(p.ID) {
			guards = append(guards, p)
		}
	}
	return guards, nil
}

// detachGuards detaches the guards among programs of TCX at an interface.
func detachGuards(link netlink.Link, all []tcx.AttachedProgram) (changes int, err error) {
	var errs []error
	for _, p := range all {
		if !isGuardProgram(p.ID) {
			continue
		}
		guard, err := ebpf.NewProgramFromID(p.ID)
		if err != nil {
			continue // gone meanwhile
		}
		err = errors.Join(tcx.RawDetachProgram(tcx.RawDetachProgramOptions{
			Target: link.Attrs().Index, Program: guard, Attach: ebpf.AttachTCXEgress,
		}), guard.Close())
		errs = append(errs, nlutil.Count(&changes, fmt.Sprintf("detach tc program %s from %s", GuardName, link.Attrs().Name), err))
	}
	return changes, errors.Join(errs...)
}
