package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Offsets in struct __sk_buff and in an Ethernet frame with an IPv4 packet.
const (
	skbMark     = 8
	skbProtocol = 16
	skbHash     = 44
	ethHeader   = 14
	ipSource    = ethHeader + 12
	ipDest      = ethHeader + 16
)

// Verdicts of a direct-action classifier.
const (
	tcActOK   = 0
	tcActShot = 2
)

// packetHost is PACKET_HOST of if_packet.h.
const packetHost = 0

// tunnelKeySize is the size of the part of struct bpf_tunnel_key that is used,
// tunnel_id and remote_ipv4: one of the sizes that every kernel takes.
const tunnelKeySize = 8

// wholeTunnelKeySize is the size of struct bpf_tunnel_key since Linux 6.0, and
// tunnelLocal the offset of local_ipv4 in it.
const (
	wholeTunnelKeySize = 44
	tunnelLocal        = 28
)

// zeroChecksum leaves the outer UDP checksum out, as VXLAN does by default.
const zeroChecksum = 2

// Registers with a meaning throughout a program; those of a call's arguments,
// R1 to R5, and of its result, R0, do not outlive a call.
const (
	regPacket = asm.R6 // the program's context, struct __sk_buff
	regRoute  = asm.R7 // a value of map pods or returns
	regCount  = asm.R8 // how many egress hosts the route names
	regHost   = asm.R9 // the host that the packet goes to
)

// Places on the outward program's stack, from its frame pointer.
const (
	atSource  = -8 // inner source, and next to it inner destination
	atDest    = -4
	atFlow    = -24 // a flowKey
	atPorts   = atFlow + 8
	atProto   = atFlow + 12
	atFragKey = atFlow + 13 // set in keys of fragments, whose ports are an IP ID
	atScratch = -32
	atKey     = -40 // struct bpf_tunnel_key, as far as it is used
	// atWholeKey is the place of all of it, where it names the outer source.
	atWholeKey = -136
)

// load reads bytes of the packet onto the stack. Where they are not there, the
// packet is dropped.
func load(offset, to, size int32) asm.Instructions {
	return append(asm.Instructions{asm.Mov.Imm(asm.R2, offset)}, loadFromR2(to, size)...)
}

// loadFromR2 is load with the offset in register R2.
func loadFromR2(to, size int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, to),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// lookup puts the value of a key on the stack into R0, or 0.
func lookup(m *ebpf.Map, key int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
	}
}

// update sets the value of a key, both on the stack.
func update(m *ebpf.Map, key, value int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, value),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
	}
}

// labelled has other instructions jump to the first of these.
func labelled(label string, insns asm.Instructions) asm.Instructions {
	insns[0] = insns[0].WithSymbol(label)
	return insns
}

// outward is the program at the egress of the overlay. A packet with REMOTE goes to the host that map pods names for its inner source; one with RETURN
// to the host that map returns names for its inner destination; everything else is dropped. The two never mix: a dropped namespace's packet,
// whose source has no entry, must not take the way of another's replies. The outer source is as given, or the kernel's choice.
func outward(m mark.Marks, maps *Maps, probePort uint16, source netip.Addr) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "egress_out", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(regPacket, asm.R1),
			asm.LoadMem(asm.R2, regPacket, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, int32(nlutil.BigEndian16(unix.ETH_P_IP)), "drop"),
		},
		load(ipSource, atSource, 8),
		asm.Instructions{
			asm.LoadMem(asm.R1, regPacket, skbMark, asm.Word),
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.And.Imm(asm.R2, int32(m.Remote())),
			asm.JNE.Imm(asm.R2, 0, "remote"),
			asm.And.Imm(asm.R1, int32(m.Return())),
			asm.JNE.Imm(asm.R1, 0, "return"),
		},
		sendProbe(probePort),

		// A reply: netid and host of the pod that it goes to.
		labelled("return", lookup(maps.returns, atDest)),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.Mov.Reg(regRoute, asm.R0),
			asm.LoadMem(regHost, regRoute, 4, asm.Word),
			asm.Ja.Label("send"),
		},

		labelled("remote", lookup(maps.pods, atSource)),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.Mov.Reg(regRoute, asm.R0),
			asm.LoadMem(regCount, regRoute, 4, asm.Word),
			asm.JEq.Imm(regCount, 0, "drop"),
			asm.JGT.Imm(regCount, MaxVia, "drop"),
			// Noted for routes with one host too: it may get others in addition.
		},
		chooseHost(maps),

		labelled("send", setTunnelKey(source)),
		asm.Instructions{
			asm.JNE.Imm(asm.R0, 0, "drop"),
			// The route lookup of the outer packet inherits the mark, and would loop.
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(regPacket, skbMark, asm.R1, asm.Word),
			asm.Mov.Imm(asm.R0, tcActOK),
			asm.Return(),

			asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
			asm.Return(),
		},
	)}
}

// setTunnelKey has the kernel send the packet in VXLAN: network from regRoute, to regHost.
// R0 is 0 if it can.
func setTunnelKey(source netip.Addr) asm.Instructions {
	at, size, insns := int16(atKey), int32(tunnelKeySize), asm.Instructions{}
	if source.IsValid() {
		at, size = atWholeKey, wholeTunnelKeySize
		ip := source.As4()
		for offset := tunnelKeySize; offset < wholeTunnelKeySize; offset += 4 {
			insns = append(insns, asm.StoreImm(asm.RFP, at+int16(offset), 0, asm.Word)) //nolint:gosec // 44 at most
		}
		insns = append(insns,
			asm.Mov.Imm32(asm.R1, int32(binary.BigEndian.Uint32(ip[:]))), //nolint:gosec // the same bits
			asm.StoreMem(asm.RFP, at+tunnelLocal, asm.R1, asm.Word),
		)
	}
	return append(insns,
		asm.LoadMem(asm.R1, regRoute, 0, asm.Word),
		asm.StoreMem(asm.RFP, at, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, at+4, regHost, asm.Word),
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(at)),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, zeroChecksum),
		asm.FnSkbSetTunnelKey.Call(),
	)
}

// chooseHost puts one of a route's several hosts into regHost. A connection
// keeps the one that it began with, as long as that is among them.
func chooseHost(maps *Maps) asm.Instructions {
	const (
		ipID       = ethHeader + 4
		ipFragment = ethHeader + 6 // flags and offset
		ipProto    = ethHeader + 9
	)
	insns := slices.Concat(
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atSource, asm.Word),
			asm.StoreMem(asm.RFP, atFlow, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.RFP, atDest, asm.Word),
			asm.StoreMem(asm.RFP, atFlow+4, asm.R1, asm.Word),
			asm.StoreImm(asm.RFP, atPorts, 0, asm.Word),
			asm.StoreImm(asm.RFP, atProto, 0, asm.Word),
		},
		load(ipProto, atProto, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atProto, asm.Byte),
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
		load(ipID, atPorts, 2),
		asm.Instructions{
			asm.StoreImm(asm.RFP, atFragKey, 1, asm.Byte),
			asm.Ja.Label("flow"),
		},
		labelled("first", load(ethHeader, atScratch, 1)),
		asm.Instructions{
			asm.LoadMem(asm.R2, asm.RFP, atScratch, asm.Byte),
			asm.And.Imm(asm.R2, 0x0f),
			asm.LSh.Imm(asm.R2, 2),
			asm.Add.Imm(asm.R2, ethHeader),
		},
		loadFromR2(atPorts, 4),

		labelled("flow", lookup(maps.flows, atFlow)),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "choose"),
			asm.LoadMem(regHost, asm.R0, 0, asm.Word),
		},
	)
	for i := range MaxVia {
		insns = append(insns,
			asm.JLE.Imm(regCount, int32(i), "choose"),
			asm.LoadMem(asm.R1, regRoute, int16(8+4*i), asm.Word),
			asm.JEq.Reg(asm.R1, regHost, "chosen"),
		)
	}
	return slices.Concat(insns,
		asm.Instructions{
			asm.Mov.Reg(asm.R1, regPacket).WithSymbol("choose"),
			asm.FnGetHashRecalc.Call(),
			asm.LSh.Imm(asm.R0, 32),
			asm.RSh.Imm(asm.R0, 32),
			asm.Mod.Reg(asm.R0, regCount),
			asm.And.Imm(asm.R0, MaxVia-1), // for the verifier, which does not follow a modulo
			asm.LSh.Imm(asm.R0, 2),
			asm.Mov.Reg(asm.R1, regRoute),
			asm.Add.Reg(asm.R1, asm.R0),
			asm.LoadMem(regHost, asm.R1, 8, asm.Word),
			asm.StoreMem(asm.RFP, atScratch, regHost, asm.Word),
		},
		update(maps.flows, atFlow, atScratch),

		// Of a first fragment, note the host for those that follow.
		labelled("chosen", load(ipFragment, atScratch, 2)),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atScratch, asm.Half),
			asm.And.Imm(asm.R1, int32(nlutil.BigEndian16(0x2000))), // more fragments
			asm.JEq.Imm(asm.R1, 0, "send"),
			asm.StoreImm(asm.RFP, atPorts, 0, asm.Word),
			asm.StoreImm(asm.RFP, atFragKey, 1, asm.Byte),
		},
		load(ipID, atPorts, 2),
		asm.Instructions{asm.StoreMem(asm.RFP, atScratch, regHost, asm.Word)},
		update(maps.flows, atFlow, atScratch),
	)
}

// inward is the program at the ingress of the overlay: a packet whose VNI this
// host serves gets the index of the egress IP as mark, and the host that it came
// from is kept for the replies. Packets of all other VNIs are replies to pods of
// this host, or unknown: the rules drop those. What a host sends in its own name is a
// probe.
func inward(maps *Maps, probePort uint16, clock bool) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "egress_in", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(regPacket, asm.R1),
			// Whatever the inner MAC: the packet is for this host to route.
			asm.Mov.Imm(asm.R2, packetHost),
			asm.FnSkbChangeType.Call(),
			asm.LoadMem(asm.R2, regPacket, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, int32(nlutil.BigEndian16(unix.ETH_P_IP)), "drop"),
			// VNI at fp-8, outer source at fp-4.
			asm.Mov.Reg(asm.R1, regPacket),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -8),
			asm.Mov.Imm(asm.R3, tunnelKeySize),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnSkbGetTunnelKey.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		},
		isHosts(probePort),
		lookup(maps.hosted, -8),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.LoadMem(regRoute, asm.R0, 0, asm.Word),
		},
		// A packet to a pod of this host is a reply to it: its source is no pod.
		lookup(maps.pods, atInnerDest),
		asm.Instructions{
			asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.StoreMem(regPacket, skbMark, regRoute, asm.Word),
		},
		update(maps.returns, atInnerSource, -8),
		asm.Instructions{
			asm.Ja.Label("pass"),
		},
		answerProbe(maps, probePort, clock),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, tcActOK).WithSymbol("pass"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
			asm.Return(),
		},
	)}
}
