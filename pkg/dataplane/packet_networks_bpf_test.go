package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// delivers has a program on a device of a node hand packets to an address over to a link of a
// pod, past the host's netfilter, as a CNI does that has no route to the link.
func (n *node) delivers(t *testing.T, device, link string, ip netip.Addr) {
	t.Helper()
	h := n.Handle(t)
	from, err := h.LinkByName(device)
	must(t, err)
	to, err := h.LinkByName(link)
	must(t, err)
	a := ip.As4()
	address := int32(binary.NativeEndian.Uint32(a[:]))
	const (
		destination = 14 + 16 // in the frame
		found       = -4
		// The parameters of bpf_redirect_neigh: a family, and an address with room for IPv6.
		neighbour, parameters = -24, 20
		next                  = -1 // TC_ACT_UNSPEC: the next program decides
	)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, destination),
			asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, found),
			asm.Mov.Imm(asm.R4, 4),
			asm.FnSkbLoadBytes.Call(),
			asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.LoadMem(asm.R1, asm.RFP, found, asm.Word),
			asm.JNE.Imm32(asm.R1, address, "pass"),
			asm.StoreImm(asm.RFP, neighbour, unix.AF_INET, asm.Word),
			asm.StoreMem(asm.RFP, neighbour+4, asm.R1, asm.Word),
			asm.StoreImm(asm.RFP, neighbour+8, 0, asm.Word),
			asm.StoreImm(asm.RFP, neighbour+12, 0, asm.Word),
			asm.StoreImm(asm.RFP, neighbour+16, 0, asm.Word),
			asm.Mov.Imm(asm.R1, int32(to.Attrs().Index)),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, neighbour),
			asm.Mov.Imm(asm.R3, parameters),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnRedirectNeigh.Call(),
			asm.Return(),
			asm.Mov.Imm(asm.R0, next).WithSymbol("pass"),
			asm.Return(),
		},
	})
	must(t, err)
	defer func() { must(t, program.Close()) }()
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: from.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	must(t, h.QdiscReplace(qdisc))
	must(t, h.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: from.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS, Protocol: unix.ETH_P_ALL, Priority: uint16(to.Attrs().Index)},
		Fd:          program.FD(), Name: link, DirectAction: true,
	}))
}
