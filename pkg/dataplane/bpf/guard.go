package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// The guard is a program at the egress of the uplink, behind everyone's rules: a
// packet with the index of an egress IP leaves with that IP as source, and one with
// REMOTE does not leave there at all. It holds when other software puts its source
// rewriting before ours, or flushes our rules.
//
// Its filter is recognised by handle, priority and name.
const (
	// GuardName is the name of the guard's program and filter.
	GuardName     = "egress_guard"
	guardHandle   = 0x77
	guardPriority = 77
)

const (
	tcActUnspec    = -1 // the next filter decides
	headerStartNet = 1  // BPF_HDR_START_NET of bpf.h
)

// guardProgram makes the program. The egress IPs are part of it: it changes
// when they do, and replacing it is one step for the kernel.
func guardProgram(m mark.Marks, idx map[netip.Addr]int) *ebpf.ProgramSpec {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, skbMark, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.And.Imm(asm.R1, int32(m.Remote()|m.Index(m.FirstIndex()))),
		asm.JEq.Imm(asm.R1, 0, "pass"), // not marked by us
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.And.Imm(asm.R1, int32(m.Remote())),
		asm.JNE.Imm(asm.R1, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, int32(nlutil.BigEndian16(unix.ETH_P_IP)), "pass"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ipSource-ethHeader),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 4),
		asm.Mov.Imm(asm.R5, headerStartNet),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R8, asm.RFP, -8, asm.Word),
		asm.And.Imm(asm.R7, int32(m.IndexMask())),
	}
	for _, ip := range slices.SortedFunc(maps.Keys(idx), netip.Addr.Compare) {
		b := ip.As4()
		next := fmt.Sprintf("after %v", ip)
		insns = append(insns,
			asm.JNE.Imm32(asm.R7, int32(m.Index(idx[ip])), next),
			asm.JEq.Imm32(asm.R8, int32(binary.NativeEndian.Uint32(b[:])), "pass"),
			asm.Ja.Label("drop"),
			asm.Mov.Reg(asm.R7, asm.R7).WithSymbol(next),
		)
	}
	insns = append(insns,
		asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcActUnspec).WithSymbol("pass"),
		asm.Return(),
	)
	return &ebpf.ProgramSpec{Name: GuardName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: insns}
}

// Guard is the program as it was last loaded. The zero Guard is ready for use.
type Guard struct {
	program *ebpf.Program
	indices map[netip.Addr]int
}

// Close gives up the handle; an attached guard stays.
func (g *Guard) Close() error {
	if g.program == nil {
		return nil
	}
	return g.program.Close()
}

// Ensure attaches the guard for the given egress IPs, each with its index, to the
// uplink, and counts the changes.
func (g *Guard) Ensure(nl *netlink.Handle, uplink netlink.Link, m mark.Marks, idx map[netip.Addr]int) (changes int, err error) {
	if g.program == nil || !maps.Equal(g.indices, idx) {
		program, err := ebpf.NewProgram(guardProgram(m, idx))
		if err != nil {
			return 0, fmt.Errorf("load tc program %s: %w", GuardName, err)
		}
		err = g.Close()
		g.program, g.indices = program, maps.Clone(idx)
		if err != nil {
			return 0, fmt.Errorf("close tc program %s: %w", GuardName, err)
		}
	}
	n, err := ensureClsact(nl, uplink)
	changes += n
	if err != nil {
		return changes, err
	}
	filters, err := nl.FilterList(uplink, netlink.HANDLE_MIN_EGRESS)
	if err != nil {
		return changes, fmt.Errorf("list tc filters of %s: %w", uplink.Attrs().Name, err)
	}
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		switch {
		case f.Attrs().Priority != guardPriority || f.Attrs().Handle != guardHandle:
		case !ok || !isGuard(b):
			return changes, fmt.Errorf("attach tc program %s to %s: others use its handle and priority", GuardName, uplink.Attrs().Name)
		case sameProgram(b.Id, g.program):
			return changes, nil
		}
	}
	return changes, nlutil.Count(&changes, "attach tc program "+GuardName+" to "+uplink.Attrs().Name, nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: uplink.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS,
			Handle: guardHandle, Priority: guardPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: g.program.FD(), Name: GuardName, DirectAction: true,
	}))
}

func isGuard(f *netlink.BpfFilter) bool {
	return f.Priority == guardPriority && f.Handle == guardHandle && f.Name == GuardName
}

// placedGuard is a guard at an interface.
type placedGuard struct {
	link   netlink.Link
	filter *netlink.BpfFilter
}

// ListGuards lists the names of the interfaces with a guard.
func ListGuards(nl *netlink.Handle) ([]string, error) {
	found, err := guards(nl)
	return slices.Sorted(maps.Keys(found)), err
}

// guards finds the guards, by the name of the interface: at the uplink, and at a
// former one.
func guards(nl *netlink.Handle) (map[string]placedGuard, error) {
	links, err := nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	found := map[string]placedGuard{}
	var errs []error
	for _, link := range links {
		filters, err := nl.FilterList(link, netlink.HANDLE_MIN_EGRESS)
		if err != nil && !nlutil.IsLinkNotFound(err) {
			errs = append(errs, fmt.Errorf("list tc filters of %s: %w", link.Attrs().Name, err))
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && isGuard(b) {
				found[link.Attrs().Name] = placedGuard{link, b}
			}
		}
	}
	return found, errors.Join(errs...)
}

// RemoveGuards detaches all guards, and deletes the qdisc of each where that holds
// nothing else.
func RemoveGuards(nl *netlink.Handle) error {
	found, err := guards(nl)
	errs := []error{err}
	for name, g := range found {
		if err := nl.FilterDel(g.filter); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("detach tc program %s from %s: %w", GuardName, name, err))
			continue
		}
		errs = append(errs, removeEmptyClsact(nl, g.link))
	}
	return errors.Join(errs...)
}

func removeEmptyClsact(nl *netlink.Handle, link netlink.Link) error {
	for _, hook := range []uint32{netlink.HANDLE_MIN_EGRESS, netlink.HANDLE_MIN_INGRESS} {
		filters, err := nl.FilterList(link, hook)
		if err != nil {
			return fmt.Errorf("list tc filters of %s: %w", link.Attrs().Name, err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	qdiscs, err := nl.QdiscList(link)
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
