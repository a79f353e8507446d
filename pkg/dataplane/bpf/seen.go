package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Seen are the programs that are attached to the overlay, and their maps, opened to be read.
type Seen struct {
	*Maps
	// Outward and Inward report which of our programs are there.
	Outward, Inward bool
}

// See opens what is attached to a device, the overlay, and changes nothing. The maps are those
// that the programs use, wherever others are pinned. Without any, Maps is nil.
func See(nl *netlink.Handle, device netlink.Link) (s Seen, err error) {
	for _, hook := range []struct {
		parent uint32
		name   string
		there  *bool
	}{{netlink.HANDLE_MIN_EGRESS, outwardName, &s.Outward}, {netlink.HANDLE_MIN_INGRESS, inwardName, &s.Inward}} {
		filters, err := nlutil.Whole(func() ([]netlink.Filter, error) { return nl.FilterList(device, hook.parent) })
		if err != nil {
			return s, fmt.Errorf("list tc filters of %s: %w", device.Attrs().Name, err)
		}
		*hook.there = slices.ContainsFunc(filters, func(f netlink.Filter) bool {
			b, ok := f.(*netlink.BpfFilter)
			return ok && b.DirectAction && isProgram(ebpf.ProgramID(b.Id), hook.name)
		})
	}
	attached, err := attachedMaps(nl, device.Attrs().Name)
	if err != nil || len(attached) == 0 {
		return s, err
	}
	over6 := false
	if returns, ok := attached["egress_returns"]; ok {
		over6 = returns.ValueSize() == 4+outer{ipv6()}.size()
	}
	maps := newMaps("", Shape{OverIPv6: over6}.outer())
	for i, to := range maps.all() {
		spec := mapSpecs(maps.outer)[i]
		if m, ok := attached[spec.Name]; ok && spec.Compatible(m) == nil {
			*to = m
			delete(attached, spec.Name)
		}
	}
	if err := closeMaps(attached); err != nil {
		return s, errors.Join(err, maps.Close())
	}
	s.Maps = maps
	return s, nil
}

// Close gives up the handles.
func (s Seen) Close() error {
	if s.Maps == nil {
		return nil
	}
	return s.Maps.Close()
}

// isProgram reports whether a program has a name.
func isProgram(id ebpf.ProgramID, name string) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && info.Name == name
}

// ReturnTo is where answers to a pod go, as the inward program learned from its packets: the
// network, and the pod's host. It is false if there is no entry.
func (m *Maps) ReturnTo(pod netip.Addr) (netID uint32, host netip.Addr, ok bool, err error) {
	returns := m.ip4.returns
	if pod.Is6() {
		returns = m.ip6.returns
	}
	if returns == nil {
		return 0, netip.Addr{}, false, nil
	}
	if m.outer.six() {
		var value returnValue[[16]byte]
		err = returns.Lookup(pod.AsSlice(), &value)
		netID, host = value.NetID, netip.AddrFrom16(value.Host)
	} else {
		var value returnValue[uint32]
		err = returns.Lookup(pod.AsSlice(), &value)
		netID, host = value.NetID, addrFromHost(value.Host)
	}
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return 0, netip.Addr{}, false, nil
	case err != nil:
		return 0, netip.Addr{}, false, fmt.Errorf("look up %v in BPF map returns: %w", pod, err)
	}
	return netID, host, true, nil
}

// Guarding is what a guard does with one egress IP.
type Guarding struct {
	Device string
	// Known: its map has the egress IP, with Mark. Elsewhere: it may not leave here.
	Known     bool
	Mark      uint32
	Elsewhere bool
}

// GuardingOf reads, at each interface with a guard, what it does with an egress IP.
func GuardingOf(nl *netlink.Handle, ip netip.Addr, m mark.Marks) (list []Guarding, err error) {
	links, err := nlutil.Whole(nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		id, err := guardAt(nl, link)
		if err != nil {
			return nil, err
		}
		if id == 0 {
			continue
		}
		maps, err := mapsOf(id)
		if err != nil {
			return nil, err
		}
		g := Guarding{Device: link.Attrs().Name}
		name := guardMap
		if ip.Is6() {
			name += ipv6().suffix
		}
		var value guarded
		if of, ok := maps[name]; ok {
			switch err := of.Lookup(ip.AsSlice(), &value); {
			case err == nil:
				g.Known, g.Mark, g.Elsewhere = true, value.Mark, value.Mark == elsewhere(m)
			case !errors.Is(err, ebpf.ErrKeyNotExist):
				return nil, errors.Join(fmt.Errorf("look up %v in BPF map %s: %w", ip, name, err), closeMaps(maps))
			}
		}
		if err := closeMaps(maps); err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

// guardAt returns the guard at an interface; 0 for none.
func guardAt(nl *netlink.Handle, link netlink.Link) (ebpf.ProgramID, error) {
	first, err := guardPrograms(link)
	if err != nil && !errors.Is(err, errNoTCX) {
		return 0, err
	}
	if len(first) > 0 {
		return first[0].ID, nil
	}
	filter, err := guardFilter(nl, link)
	if err != nil || filter == nil {
		return 0, err
	}
	return ebpf.ProgramID(filter.Id), nil
}
