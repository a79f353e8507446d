package bpf

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// atFragment is the place of the fragment header of an IPv6 packet on the outward program's
// stack; 0 if it has none.
const atFragment = -192

// chooseHost puts one of a route's several hosts into regHost, and goes to "send". A
// connection keeps the one that it began with, as long as that is among them.
func (f family) chooseHost(o outer, maps familyMaps) asm.Instructions {
	noted, at := o.noted()
	choose, chosen := f.label("choose"), f.label("chosen")
	insns := slices.Concat(
		asm.Instructions{
			asm.StoreImm(asm.RFP, int16(f.atPorts()), 0, asm.Word), //nolint:gosec // a place on the stack
			asm.StoreImm(asm.RFP, int16(f.atProto()), 0, asm.Word), //nolint:gosec // a place on the stack
		},
		f.readFlow(),

		labelled(f.label("flow"), lookup(maps.flows, f.atFlow)),
		asm.Instructions{asm.JEq.Imm(asm.R0, 0, choose)},
		o.take(asm.R0, 0),
	)
	for i := range MaxVia {
		insns = append(insns, asm.JLE.Imm(regCount, int32(i), choose))
		insns = append(insns, o.isVia(i, chosen)...)
	}
	return slices.Concat(insns,
		asm.Instructions{
			asm.Mov.Reg(asm.R1, regPacket).WithSymbol(choose),
			asm.FnGetHashRecalc.Call(),
			asm.LSh.Imm(asm.R0, 32),
			asm.RSh.Imm(asm.R0, 32),
			asm.Mod.Reg(asm.R0, regCount),
			asm.And.Imm(asm.R0, MaxVia-1), // for the verifier, which does not follow a modulo
			asm.LSh.Imm(asm.R0, o.shift()),
			asm.Mov.Reg(asm.R2, regRoute),
			asm.Add.Reg(asm.R2, asm.R0),
		},
		o.take(asm.R2, o.atVia(0)),
		noted,
		update(maps.flows, f.atFlow, at),

		// Of a first fragment, note the host for those that follow.
		labelled(chosen, f.ifFirstFragment("send")),
		noted,
		update(maps.flows, f.atFlow, at),
		asm.Instructions{asm.Ja.Label("send")},
	)
}

// readFlow completes the flow key of a packet, and goes to "flow". A later fragment has that
// of its packet, as the first has no other way to say where it went.
func (f family) readFlow() asm.Instructions {
	if f.length == 16 {
		return f.readFlow6()
	}
	ports, proto := f.atPorts(), f.atProto()
	return slices.Concat(
		load(ipProto, proto, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, int16(proto), asm.Byte), //nolint:gosec // a place on the stack
			asm.JEq.Imm(asm.R1, unix.IPPROTO_TCP, "ports"),
			asm.JNE.Imm(asm.R1, unix.IPPROTO_UDP, "flow"),
		},
		labelled("ports", load(ipFragment, atScratch, 2)),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atScratch, asm.Half),
			asm.And.Imm(asm.R1, int32(nlutil.BigEndian16(0x1fff))), // offset
			asm.JEq.Imm(asm.R1, 0, "first"),
		},
		// A later fragment goes where the first of its packet went.
		load(ipID, ports, 2),
		asm.Instructions{
			asm.StoreImm(asm.RFP, int16(f.atFragKey()), 1, asm.Byte), //nolint:gosec // a place on the stack
			asm.Ja.Label("flow"),
		},
		labelled("first", load(ethHeader, atScratch, 1)),
		asm.Instructions{
			asm.LoadMem(asm.R2, asm.RFP, atScratch, asm.Byte),
			asm.And.Imm(asm.R2, 0x0f),
			asm.LSh.Imm(asm.R2, 2),
			asm.Add.Imm(asm.R2, ethHeader),
		},
		loadFromR2(ports, 4),
	)
}

// maxExtensions is how many extension headers of IPv6 are walked through. The ports behind
// more of them are not looked at: all such packets of a pod to one destination take the
// same way.
const maxExtensions = 6

// readFlow6 is readFlow for IPv6: the transport header is behind extension headers, which
// regHost counts.
func (f family) readFlow6() asm.Instructions {
	ports, proto, fragKey := int16(f.atPorts()), int16(f.atProto()), int16(f.atFragKey()) //nolint:gosec // places on the stack
	insns := slices.Concat(
		asm.Instructions{
			asm.StoreImm(asm.RFP, atFragment, 0, asm.Word),
			asm.StoreImm(asm.RFP, atFragment+4, 0, asm.Word),
			asm.Mov.Imm(regHost, ethHeader+ip6Header),
		},
		load(ip6Next, f.atProto(), 1),
	)
	for i := range maxExtensions {
		extension, fragment, next := fmt.Sprintf("extension%d", i), fmt.Sprintf("fragment%d", i), fmt.Sprintf("next%d", i)
		insns = slices.Concat(insns,
			asm.Instructions{
				asm.LoadMem(asm.R1, asm.RFP, proto, asm.Byte),
				asm.JEq.Imm(asm.R1, unix.IPPROTO_TCP, "ports6"),
				asm.JEq.Imm(asm.R1, unix.IPPROTO_UDP, "ports6"),
				asm.JEq.Imm(asm.R1, unix.IPPROTO_FRAGMENT, fragment),
				asm.JEq.Imm(asm.R1, unix.IPPROTO_HOPOPTS, extension),
				asm.JEq.Imm(asm.R1, unix.IPPROTO_ROUTING, extension),
				asm.JNE.Imm(asm.R1, unix.IPPROTO_DSTOPTS, "flow6"),
				asm.Mov.Reg(asm.R2, regHost).WithSymbol(extension),
			},
			loadFromR2(atScratch, 2),
			asm.Instructions{
				asm.LoadMem(asm.R1, asm.RFP, atScratch, asm.Byte),
				asm.StoreMem(asm.RFP, proto, asm.R1, asm.Byte),
				asm.LoadMem(asm.R1, asm.RFP, atScratch+1, asm.Byte),
				asm.LSh.Imm(asm.R1, 3),
				asm.Add.Imm(asm.R1, 8),
				asm.Add.Reg(regHost, asm.R1),
				asm.Ja.Label(next),
				asm.Mov.Reg(asm.R2, regHost).WithSymbol(fragment),
			},
			loadFromR2(atFragment, 8),
			asm.Instructions{
				asm.LoadMem(asm.R1, asm.RFP, atFragment, asm.Byte),
				asm.StoreMem(asm.RFP, proto, asm.R1, asm.Byte),
				asm.LoadMem(asm.R1, asm.RFP, atFragment+2, asm.Half),
				asm.And.Imm(asm.R1, int32(nlutil.BigEndian16(0xfff8))), // offset
				asm.JNE.Imm(asm.R1, 0, "later6"),
				asm.Add.Imm(regHost, 8),
				asm.Mov.Imm(asm.R1, 0).WithSymbol(next), // a place for the label
			},
		)
	}
	return slices.Concat(insns,
		asm.Instructions{
			asm.Ja.Label("flow6"),
			asm.LoadMem(asm.R1, asm.RFP, atFragment+4, asm.Word).WithSymbol("later6"),
			asm.StoreMem(asm.RFP, ports, asm.R1, asm.Word),
			asm.StoreImm(asm.RFP, proto, unix.IPPROTO_FRAGMENT, asm.Byte),
			asm.StoreImm(asm.RFP, fragKey, 1, asm.Byte),
			asm.Ja.Label("flow6"),
			asm.Mov.Reg(asm.R2, regHost).WithSymbol("ports6"),
		},
		loadFromR2(f.atPorts(), 4),
	)
}

// ifFirstFragment has the flow key of later fragments, if the packet is a first one that
// others follow; else it goes to another place.
func (f family) ifFirstFragment(otherwise string) asm.Instructions {
	ports, proto, fragKey := int16(f.atPorts()), int16(f.atProto()), int16(f.atFragKey()) //nolint:gosec // places on the stack
	if f.length == 16 {
		return asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atFragment+2, asm.Half),
			asm.And.Imm(asm.R1, int32(nlutil.BigEndian16(0x1))), // more fragments
			asm.JEq.Imm(asm.R1, 0, otherwise),
			asm.LoadMem(asm.R1, asm.RFP, atFragment+4, asm.Word),
			asm.StoreMem(asm.RFP, ports, asm.R1, asm.Word),
			asm.StoreImm(asm.RFP, proto, unix.IPPROTO_FRAGMENT, asm.Byte),
			asm.StoreImm(asm.RFP, fragKey, 1, asm.Byte),
		}
	}
	return slices.Concat(
		load(ipFragment, atScratch, 2),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atScratch, asm.Half),
			asm.And.Imm(asm.R1, int32(nlutil.BigEndian16(0x2000))), // more fragments
			asm.JEq.Imm(asm.R1, 0, otherwise),
			asm.StoreImm(asm.RFP, ports, 0, asm.Word),
			asm.StoreImm(asm.RFP, fragKey, 1, asm.Byte),
		},
		load(ipID, f.atPorts(), 2),
	)
}
