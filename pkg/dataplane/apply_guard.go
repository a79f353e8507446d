package dataplane

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
)

// The guard is a program at the egress of the uplink, behind all rules of
// anybody: a packet that bears the index of an egress IP leaves with that IP as
// source, and one that bears REMOTE does not leave there at all. It holds when
// other software puts its source rewriting before ours, or flushes our rules.
//
// Its filter is told from those of others by handle, priority and name.
const (
	guardName     = "egress_guard"
	guardHandle   = 0x77
	guardPriority = 77
)

const (
	tcActUnspec    = -1 // the next filter decides
	headerStartNet = 1  // BPF_HDR_START_NET of bpf.h
)

// guardProgram makes the program. The egress IPs are part of it: it changes
// when they do, and replacing it is one step for the kernel.
func guardProgram(m Marks, idx indices) *ebpf.ProgramSpec {
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
		asm.JNE.Imm(asm.R1, int32(bigEndian16(unix.ETH_P_IP)), "pass"),
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
	for _, ip := range sortedAddrs(idx) {
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
	return &ebpf.ProgramSpec{Name: guardName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: insns}
}

// guard is the program as it was last loaded.
type guard struct {
	program *ebpf.Program
	indices indices
}

func (g *guard) close() error {
	if g.program == nil {
		return nil
	}
	return g.program.Close()
}

// ensure has the guard of the given indices stand at the uplink.
func (g *guard) ensure(nl *netlink.Handle, u uplink, m Marks, idx indices) (changes int, err error) {
	if g.program == nil || !maps.Equal(g.indices, idx) {
		program, err := ebpf.NewProgram(guardProgram(m, idx))
		if err != nil {
			return 0, fmt.Errorf("load tc program %s: %w", guardName, err)
		}
		err = g.close()
		g.program, g.indices = program, maps.Clone(idx)
		if err != nil {
			return 0, fmt.Errorf("close tc program %s: %w", guardName, err)
		}
	}
	n, err := ensureClsact(nl, u.link)
	changes += n
	if err != nil {
		return changes, err
	}
	filters, err := nl.FilterList(u.link, netlink.HANDLE_MIN_EGRESS)
	if err != nil {
		return changes, fmt.Errorf("list tc filters of %s: %w", u.name, err)
	}
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		switch {
		case f.Attrs().Priority != guardPriority || f.Attrs().Handle != guardHandle:
		case !ok || !isGuard(b):
			return changes, fmt.Errorf("attach tc program %s to %s: handle and priority are somebody else's", guardName, u.name)
		case sameProgram(b.Id, g.program):
			return changes, nil
		}
	}
	return changes, count(&changes, "attach tc program "+guardName+" to "+u.name, nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: u.link.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS,
			Handle: guardHandle, Priority: guardPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: g.program.FD(), Name: guardName, DirectAction: true,
	}))
}

func isGuard(f *netlink.BpfFilter) bool {
	return f.Priority == guardPriority && f.Handle == guardHandle && f.Name == guardName
}

// placedGuard is a guard at an interface.
type placedGuard struct {
	link   netlink.Link
	filter *netlink.BpfFilter
}

// guards lists, by the name of the interface, where guards stand: on the uplink, and on what was one before.
func guards(nl *netlink.Handle) (map[string]placedGuard, error) {
	links, err := nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	found := map[string]placedGuard{}
	var errs []error
	for _, link := range links {
		filters, err := nl.FilterList(link, netlink.HANDLE_MIN_EGRESS)
		if err != nil && !isLinkNotFound(err) {
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

// removeGuards takes all guards away, and the qdisc that holds a guard where
// it holds nothing else.
func removeGuards(nl *netlink.Handle) error {
	found, err := guards(nl)
	errs := []error{err}
	for name, g := range found {
		if err := nl.FilterDel(g.filter); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("detach tc program %s from %s: %w", guardName, name, err))
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

// union holds the indices of both; where they differ, those of b.
func union(a, b indices) indices {
	all := make(map[netip.Addr]int, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}
