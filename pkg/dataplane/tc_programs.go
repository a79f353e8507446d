package dataplane

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Offsets in struct __sk_buff and in an Ethernet frame with an IPv4 packet.
const (
	skbMark     = 8
	skbProtocol = 16
	skbHash     = 44
	ethHeader   = 14
	ipSource    = ethHeader + 12
	ipDest      = ethHeader + 16
	ethPIPLE    = 0x0008 // ETH_P_IP in network order, as a little-endian host reads it
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

// zeroChecksum leaves the outer UDP checksum out, as VXLAN does by default.
const zeroChecksum = 2

// outward is the program at the egress of the overlay. A packet that bears
// REMOTE goes to the host that map pods names for its inner source; one that
// bears RETURN to the host that map returns names for its inner destination;
// everything else is dropped. The two never mix: a dropped namespace's packet,
// whose source has no entry, must not take the way of somebody's replies.
func outward(m Marks, maps *mapSet) *ebpf.ProgramSpec {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, ethPIPLE, "drop"),
		// Inner source at fp-8, destination at fp-4.
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ipSource),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R6, skbMark, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, int32(m.Remote())),
		asm.JNE.Imm(asm.R2, 0, "remote"),
		asm.And.Imm(asm.R1, int32(m.Return())),
		asm.JEq.Imm(asm.R1, 0, "drop"),

		// A reply: netid and host of the pod that it goes to.
		asm.LoadMapPtr(asm.R1, maps.returns.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R9, asm.R7, 4, asm.Word),
		asm.Ja.Label("send"),

		asm.LoadMapPtr(asm.R1, maps.pods.FD()).WithSymbol("remote"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R8, asm.R7, 4, asm.Word),
		asm.JEq.Imm(asm.R8, 0, "drop"),
		asm.JGT.Imm(asm.R8, MaxVia, "drop"),
		asm.LoadMem(asm.R9, asm.R7, 8, asm.Word),
		asm.JEq.Imm(asm.R8, 1, "send"),

		// Several hosts: a connection keeps the one that it began with, as long
		// as that is among them. Its key, at fp-24: addresses, ports, protocol.
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word),
		asm.StoreMem(asm.RFP, -24, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, -4, asm.Word),
		asm.StoreMem(asm.RFP, -20, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, -16, 0, asm.Word),
		asm.StoreImm(asm.RFP, -12, 0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ethHeader+9),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -12),
		asm.Mov.Imm(asm.R4, 1),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		// Ports, where there are any: of TCP and UDP, and not in a fragment.
		asm.LoadMem(asm.R1, asm.RFP, -12, asm.Word),
		asm.JEq.Imm(asm.R1, 6, "ports"),
		asm.JNE.Imm(asm.R1, 17, "flow"),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("ports"),
		asm.Mov.Imm(asm.R2, ethHeader+6), // flags and fragment offset
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -32),
		asm.Mov.Imm(asm.R4, 2),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.RFP, -32, asm.Half),
		asm.And.Imm(asm.R1, 0xff3f), // all but DF, in network order
		asm.JNE.Imm(asm.R1, 0, "flow"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ethHeader),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -32),
		asm.Mov.Imm(asm.R4, 1),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R2, asm.RFP, -32, asm.Byte),
		asm.And.Imm(asm.R2, 0x0f),
		asm.LSh.Imm(asm.R2, 2),
		asm.Add.Imm(asm.R2, ethHeader),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),

		asm.LoadMapPtr(asm.R1, maps.flows.FD()).WithSymbol("flow"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -24),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "choose"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word),
	}
	for i := range MaxVia {
		insns = append(insns,
			asm.JLE.Imm(asm.R8, int32(i), "choose"),
			asm.LoadMem(asm.R1, asm.R7, int16(8+4*i), asm.Word),
			asm.JEq.Reg(asm.R1, asm.R9, "send"),
		)
	}
	insns = append(insns,
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("choose"),
		asm.FnGetHashRecalc.Call(),
		asm.LSh.Imm(asm.R0, 32),
		asm.RSh.Imm(asm.R0, 32),
		asm.Mod.Reg(asm.R0, asm.R8),
		asm.And.Imm(asm.R0, MaxVia-1), // for the verifier, which does not follow a modulo
		asm.LSh.Imm(asm.R0, 2),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R9, asm.R1, 8, asm.Word),
		asm.StoreMem(asm.RFP, -32, asm.R9, asm.Word),
		asm.LoadMapPtr(asm.R1, maps.flows.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -24),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -32),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),

		// Tunnel key at fp-40: VNI, and the host's address in host order.
		asm.LoadMem(asm.R1, asm.R7, 0, asm.Word).WithSymbol("send"),
		asm.StoreMem(asm.RFP, -40, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, -36, asm.R9, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -40),
		asm.Mov.Imm(asm.R3, tunnelKeySize),
		asm.Mov.Imm(asm.R4, zeroChecksum),
		asm.FnSkbSetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		// The route lookup of the outer packet inherits the mark, and would loop.
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, tcActOK),
		asm.Return(),

		asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
		asm.Return(),
	)
	return &ebpf.ProgramSpec{Name: "egress_out", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: insns}
}

// inward is the program at the ingress of the overlay: a packet whose VNI this
// host serves gets the index of the egress IP as mark, and the host that it came
// from is kept for the replies. Packets of all other VNIs are replies to pods of
// this host, or nobody's: the rules drop those.
func inward(maps *mapSet) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "egress_in", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		// Whatever the inner MAC: the packet is for this host to route.
		asm.Mov.Imm(asm.R2, packetHost),
		asm.FnSkbChangeType.Call(),
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, ethPIPLE, "drop"),
		// VNI at fp-8, outer source at fp-4.
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, tunnelKeySize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkbGetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMapPtr(asm.R1, maps.hosted.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.Word),
		// Inner source and destination at fp-16 and fp-12.
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ipSource),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		// A packet to a pod of this host is a reply to it: its source is no pod.
		asm.LoadMapPtr(asm.R1, maps.pods.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -12),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.StoreMem(asm.R6, skbMark, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, maps.returns.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, tcActOK).WithSymbol("pass"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
		asm.Return(),
	}}
}
