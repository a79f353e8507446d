package bpf

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

const (
	skbIngress     = 36 // ingress_ifindex of struct __sk_buff: 0 for the host's own packets
	tcActUnspec    = -1 // the next filter decides
	headerStartNet = 1  // BPF_HDR_START_NET of bpf.h
)

// Offsets into the IPv4 header, and what follows it in an ICMP error.
const (
	netProtocol  = 9
	netSource    = 12
	icmpHeader   = 8
	netDest      = 16
	icmpUnreach  = 3
	icmpTimeout  = 11
	icmpBadField = 12
)

// guardProgram makes the program, which finds the mark of each egress IP in a map
// that never changes: replacing both is one step for the kernel.
func guardProgram(m mark.Marks, marks *ebpf.Map) *ebpf.ProgramSpec {
	// load puts bytes of the packet, counted from the IPv4 header, on the stack.
	load := func(at asm.Instruction, to int16, bytes int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R6),
			at,
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, int32(to)),
			asm.Mov.Imm(asm.R4, bytes),
			asm.Mov.Imm(asm.R5, headerStartNet),
			asm.FnSkbLoadBytesRelative.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		}
	}
	fixed := func(offset int32) asm.Instruction { return asm.Mov.Imm(asm.R2, offset) }
	const source, scratch = -8, -16
	insns := slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			// No packet that the host itself sends has a mark of ours: such bits are of
			// other software.
			asm.Mov.Imm(asm.R7, 0),
			asm.LoadMem(asm.R1, asm.R6, skbIngress, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "own"),
			asm.LoadMem(asm.R7, asm.R6, skbMark, asm.Word),
			asm.Mov.Reg(asm.R1, asm.R7).WithSymbol("own"),
			asm.And.Imm(asm.R1, int32(m.Remote())),
			asm.JNE.Imm(asm.R1, 0, "drop"),
			asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R1, int32(nlutil.BigEndian16(unix.ETH_P_IP)), "pass"),
		},
		load(fixed(netSource), source, 4),
		asm.Instructions{
			asm.LoadMapPtr(asm.R1, marks.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, source),
			asm.FnMapLookupElem.Call(),
			asm.Mov.Reg(asm.R8, asm.R7),
			asm.And.Imm(asm.R8, int32(m.Index(m.FirstIndex()))), // whether it has an index
			asm.JNE.Imm(asm.R0, 0, "egress IP"),
			asm.JNE.Imm(asm.R8, 0, "drop"),
			asm.Ja.Label("pass"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.Word).WithSymbol("egress IP"),
			asm.And.Imm(asm.R7, int32(m.IndexMask())),
			asm.JEq.Reg(asm.R1, asm.R7, "pass"),
			asm.JNE.Imm(asm.R8, 0, "drop"),
		},
		// Path MTU discovery needs the errors that the host sends to those who send
		// to the egress IP.
		load(fixed(netProtocol), scratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, scratch, asm.Byte),
			asm.JNE.Imm(asm.R1, unix.IPPROTO_ICMP, "drop"),
		},
		load(fixed(0), scratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R9, asm.RFP, scratch, asm.Byte),
			asm.And.Imm(asm.R9, 0x0f),
			asm.LSh.Imm(asm.R9, 2), // the length of the header
		},
		load(asm.Mov.Reg(asm.R2, asm.R9), scratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, scratch, asm.Byte),
			asm.JEq.Imm(asm.R1, icmpUnreach, "error"),
			asm.JEq.Imm(asm.R1, icmpTimeout, "error"),
			asm.JNE.Imm(asm.R1, icmpBadField, "drop"),
			asm.Add.Imm(asm.R9, icmpHeader+netDest).WithSymbol("error"),
		},
		load(asm.Mov.Reg(asm.R2, asm.R9), scratch, 4),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, scratch, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, source, asm.Word),
			asm.JEq.Reg(asm.R1, asm.R2, "pass"),
			asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcActUnspec).WithSymbol("pass"),
			asm.Return(),
		},
	)
	return &ebpf.ProgramSpec{Name: GuardName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: insns}
}
