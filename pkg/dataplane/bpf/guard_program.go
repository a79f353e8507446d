package bpf

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

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

// Offsets in the IPv6 header, and in an ICMPv6 error behind it; types of ICMPv6.
const (
	net6Next     = 6
	net6Source   = 8
	net6Type     = ip6Header
	net6Inner    = ip6Header + icmpHeader + 24 // destination of the packet that an error is about
	icmp6First   = 1                           // destination unreachable, packet too big,
	icmp6Last    = 4                           // time exceeded, parameter problem
	icmp6NDFirst = 133                         // router and neighbour solicitations and
	icmp6NDLast  = 136                         // advertisements
)

// guardProgram makes the program, which finds the mark of each egress IP in maps
// that never change: replacing all is one step for the kernel. Without a map for IPv6 it
// does not look at IPv6. pins: some belong to other interfaces.
func guardProgram(m mark.Marks, marks, marks6 *ebpf.Map, pins bool) *ebpf.ProgramSpec {
	other, six := "pass", asm.Instructions{}
	if marks6 != nil {
		other, six = "IPv6", guardIPv6(m, marks6, pins)
	}
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
			asm.JNE.Imm(asm.R1, ipv4().protocol(), other),
		},
		guardSource(m, marks, pins, netSource, 4, "egress IP"),
		// Path MTU discovery needs the errors that the host sends to those who send
		// to the egress IP.
		loadNet(fixedNet(netProtocol), guardScratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, guardScratch, asm.Byte),
			asm.JNE.Imm(asm.R1, unix.IPPROTO_ICMP, "drop"),
		},
		loadNet(fixedNet(0), guardScratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R9, asm.RFP, guardScratch, asm.Byte),
			asm.And.Imm(asm.R9, 0x0f),
			asm.LSh.Imm(asm.R9, 2), // the length of the header
		},
		loadNet(asm.Mov.Reg(asm.R2, asm.R9), guardScratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, guardScratch, asm.Byte),
			asm.JEq.Imm(asm.R1, icmpUnreach, "error"),
			asm.JEq.Imm(asm.R1, icmpTimeout, "error"),
			asm.JNE.Imm(asm.R1, icmpBadField, "drop"),
			asm.Add.Imm(asm.R9, icmpHeader+netDest).WithSymbol("error"),
		},
		loadNet(asm.Mov.Reg(asm.R2, asm.R9), guardScratch, 4),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, guardScratch, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, guardAddress, asm.Word),
			asm.JEq.Reg(asm.R1, asm.R2, "pass"),
			asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcActUnspec).WithSymbol("pass"),
			asm.Return(),
		},
		six,
	)
	return &ebpf.ProgramSpec{Name: GuardName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: insns}
}

// Places on the guard's stack, of addresses of either family.
const (
	guardAddress = -16
	guardScratch = -32
)

// loadNet puts bytes of the packet, counted from the IP header, on the stack.
func loadNet(at asm.Instruction, to, bytes int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		at,
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, bytes),
		asm.Mov.Imm(asm.R5, headerStartNet),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

func fixedNet(offset int32) asm.Instruction { return asm.Mov.Imm(asm.R2, offset) }

// guardSource compares the source with the mark, which is in R7 without bits of others. It
// goes on with packets of an egress IP without an index.
func guardSource(m mark.Marks, marks *ebpf.Map, pins bool, offset, length int32, label string) asm.Instructions {
	var pinned asm.Instructions
	if pins {
		pinned = guardPinned(m, label)
	}
	return slices.Concat(
		loadNet(fixedNet(offset), guardAddress, length),
		asm.Instructions{
			asm.LoadMapPtr(asm.R1, marks.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, guardAddress),
			asm.FnMapLookupElem.Call(),
			asm.Mov.Reg(asm.R8, asm.R7),
			asm.And.Imm(asm.R8, int32(m.Index(m.FirstIndex()))), // whether it has an index
			asm.JNE.Imm(asm.R0, 0, label),
			asm.JNE.Imm(asm.R8, 0, "drop"),
			asm.Ja.Label("pass"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.Word).WithSymbol(label),
		},
		pinned,
		asm.Instructions{
			asm.And.Imm(asm.R7, int32(m.IndexMask())).WithSymbol(label + " here"),
			asm.JEq.Reg(asm.R1, asm.R7, "pass"),
			asm.JNE.Imm(asm.R8, 0, "drop"),
		},
	)
}

// guardIPv6 is the part of the guard for IPv6. The kernel asks for neighbours with an
// egress IP as source, when it forwards a packet that has it, and answers for it.
func guardIPv6(m mark.Marks, marks *ebpf.Map, pins bool) asm.Instructions {
	insns := slices.Concat(
		labelled("IPv6", asm.Instructions{asm.JNE.Imm(asm.R1, ipv6().protocol(), "pass")}),
		guardSource(m, marks, pins, net6Source, 16, "egress IP6"),
		loadNet(fixedNet(net6Next), guardScratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, guardScratch, asm.Byte),
			asm.JNE.Imm(asm.R1, unix.IPPROTO_ICMPV6, "drop"),
		},
		loadNet(fixedNet(net6Type), guardScratch, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, guardScratch, asm.Byte),
			asm.JLT.Imm(asm.R1, icmp6First, "drop"),
			asm.JLE.Imm(asm.R1, icmp6Last, "error6"),
			asm.JLT.Imm(asm.R1, icmp6NDFirst, "drop"),
			asm.JGT.Imm(asm.R1, icmp6NDLast, "drop"),
			// A router forwards none: it is the host's own, or a pod's at a bridge.
			asm.LoadMem(asm.R1, asm.R6, skbIngress, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "pass"),
			asm.Ja.Label("drop"),
		},
		labelled("error6", loadNet(fixedNet(net6Inner), guardScratch, 16)),
	)
	for word := int16(0); word < 16; word += 8 {
		insns = append(insns,
			asm.LoadMem(asm.R1, asm.RFP, guardScratch+word, asm.DWord),
			asm.LoadMem(asm.R2, asm.RFP, guardAddress+word, asm.DWord),
			asm.JNE.Reg(asm.R1, asm.R2, "drop"),
		)
	}
	return append(insns, asm.Ja.Label("pass"))
}
