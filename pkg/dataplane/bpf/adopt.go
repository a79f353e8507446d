package bpf

import (
	"errors"
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// attachedMaps opens the maps that the programs at a device use, by name. They
// outlive their pins, which go with the bpffs: one that an agent mounted in a
// container's own mount namespace ends with that container. The caller closes
// them.
func attachedMaps(nl *netlink.Handle, device string) (_ map[string]*ebpf.Map, err error) {
	attached := map[string]*ebpf.Map{}
	link, err := nl.LinkByName(device)
	if nlutil.IsLinkNotFound(err) {
		return attached, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", device, err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		filters, err := nl.FilterList(link, parent)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("list tc filters of %s: %w", device, err), closeMaps(attached))
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok {
				// A program that has gone since, or of others, has no map of ours.
				if found, err := mapsOf(ebpf.ProgramID(b.Id)); err == nil {
					err = addMaps(attached, found)
					if err != nil {
						return nil, errors.Join(err, closeMaps(attached))
					}
				}
			}
		}
	}
	return attached, nil
}

// addMaps adds the maps whose names are new, and closes the rest.
func addMaps(to, found map[string]*ebpf.Map) error {
	for name := range to {
		if twice, ok := found[name]; ok {
			delete(found, name)
			if err := twice.Close(); err != nil {
				return fmt.Errorf("close BPF map %s: %w", name, err)
			}
		}
	}
	maps.Copy(to, found)
	return nil
}

// mapsOf opens the maps of a program, by name.
func mapsOf(id ebpf.ProgramID) (_ map[string]*ebpf.Map, err error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open BPF program %d: %w", id, err)
	}
	defer func() { err = errors.Join(err, prog.Close()) }()
	info, err := prog.Info()
	if err != nil {
		return nil, fmt.Errorf("look at BPF program %d: %w", id, err)
	}
	ids, ok := info.MapIDs()
	if !ok {
		return nil, fmt.Errorf("look at BPF program %d: %w", id, ebpf.ErrNotSupported)
	}
	found := map[string]*ebpf.Map{}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open BPF map %d: %w", id, err), closeMaps(found))
		}
		info, err := m.Info()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("look at BPF map %d: %w", id, err), m.Close(), closeMaps(found))
		}
		found[info.Name] = m
	}
	return found, nil
}

func closeMaps(opened map[string]*ebpf.Map) error {
	var errs []error
	for _, m := range opened {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
