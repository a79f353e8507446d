package bpf

import (
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Offsets in struct __sk_buff and in an Ethernet frame with an IPv4 or IPv6 packet.
const (
	skbMark     = 8
	skbProtocol = 16
	ethHeader   = 14
	ipID        = ethHeader + 4
	ipFragment  = ethHeader + 6 // flags and offset
	ipProto     = ethHeader + 9
	ipSource    = ethHeader + 12
	ip6Header   = 40
	ip6Next     = ethHeader + 6
)

// Names of the programs of the overlay, and of their filters.
const (
	outwardName = "egress_out"
	inwardName  = "egress_in"
)

// Verdicts of a direct-action classifier.
const (
	tcActOK   = 0
	tcActShot = 2
)

// packetHost is PACKET_HOST of if_packet.h.
const packetHost = 0

// Registers with a meaning throughout a program; those of a call's arguments,
// R1 to R5, and of its result, R0, do not outlive a call.
const (
	regPacket = asm.R6 // the program's context, struct __sk_buff
	regRoute  = asm.R7 // a value of map pods or returns
	regCount  = asm.R8 // how many egress hosts the route names
	regHost   = asm.R9 // the host that the packet goes to; see outer
)

// Places on the outward program's stack, from its frame pointer; see also family.
const (
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

// onlyIPv6 begins the part of a program for IPv6: what is of neither family is dropped. R2 is
// the packet's protocol.
func onlyIPv6(label string) asm.Instructions {
	return labelled(label, asm.Instructions{asm.JNE.Imm(asm.R2, ipv6().protocol(), "drop")})
}

// outward is the program at the egress of the overlay. A packet with REMOTE goes to the host that map pods names for its inner source; one with RETURN
// to the host that map returns names for its inner destination; everything else is dropped. The two never mix: a dropped namespace's packet,
// whose source has no entry, must not take the way of another's replies. The outer source is as given, or the kernel's choice.
func outward(m mark.Marks, maps *Maps, probePort uint16, source netip.Addr) *ebpf.ProgramSpec {
	o, four, other, six := maps.outer, ipv4(), "drop", asm.Instructions{}
	// Probes are of the same family as what they travel in.
	unmarked := map[family]asm.Instructions{ipv4(): {asm.Ja.Label("drop")}, ipv6(): {asm.Ja.Label("drop")}}
	unmarked[o.family] = o.sendProbe(probePort)
	if maps.HasIPv6() {
		other = "IPv6"
		six = slices.Concat(
			onlyIPv6(other),
			ipv6().outward(o, m, maps.ip6, unmarked[ipv6()]),
		)
	}
	return &ebpf.ProgramSpec{Name: outwardName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(regPacket, asm.R1),
			asm.LoadMem(asm.R2, regPacket, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, four.protocol(), other),
		},
		four.outward(o, m, maps.ip4, unmarked[four]),

		labelled("send", o.setTunnelKey(source)),
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
		six,
	)}
}

// outward is the part of the outward program for packets of one family: it goes to "send"
// with the route and the host in registers, or to "drop". unmarked is for packets without
// REMOTE or RETURN.
func (f family) outward(o outer, m mark.Marks, maps familyMaps, unmarked asm.Instructions) asm.Instructions {
	return slices.Concat(
		load(f.source, f.atFlow, 2*f.length),
		asm.Instructions{
			asm.LoadMem(asm.R1, regPacket, skbMark, asm.Word),
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.And.Imm(asm.R2, int32(m.Remote())),
			asm.JNE.Imm(asm.R2, 0, f.label("remote")),
			asm.And.Imm(asm.R1, int32(m.Return())),
			asm.JNE.Imm(asm.R1, 0, f.label("return")),
		},
		unmarked,

		// A reply: netid and host of the pod that it goes to.
		labelled(f.label("return"), lookup(maps.returns, f.atDest())),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.Mov.Reg(regRoute, asm.R0),
		},
		o.take(regRoute, 4),
		asm.Instructions{asm.Ja.Label("send")},

		labelled(f.label("remote"), lookup(maps.pods, f.atFlow)),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.Mov.Reg(regRoute, asm.R0),
			asm.LoadMem(regCount, regRoute, 4, asm.Word),
			asm.JEq.Imm(regCount, 0, "drop"),
			asm.JGT.Imm(regCount, MaxVia, "drop"),
			// Noted for routes with one host too: it may get others in addition.
		},
		f.chooseHost(o, maps),
	)
}

// inward is the program at the ingress of the overlay: a packet whose VNI this
// host serves gets the index of the egress IP as mark, and the host that it came
// from is kept for the replies. Packets of all other VNIs are replies to pods of
// this host, or unknown: the rules drop those. What a host sends in its own name is a
// probe.
func inward(maps *Maps, probePort uint16, clock bool) *ebpf.ProgramSpec {
	o, four, other, six := maps.outer, ipv4(), "drop", asm.Instructions{}
	if maps.HasIPv6() {
		other = "IPv6"
		six = slices.Concat(
			onlyIPv6(other),
			o.getTunnelKey(),
			load(ipv6().source, ipv6().atInner, 2*ipv6().length),
			o.isHosts(ipv6(), probePort),
			ipv6().inward(o, maps.ip6),
		)
	}
	return &ebpf.ProgramSpec{Name: inwardName, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(regPacket, asm.R1),
			// Whatever the inner MAC: the packet is for this host to route.
			asm.Mov.Imm(asm.R2, packetHost),
			asm.FnSkbChangeType.Call(),
			asm.LoadMem(asm.R2, regPacket, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, four.protocol(), other),
		},
		o.getTunnelKey(),
		load(four.source, four.atInner, 2*four.length),
		o.isHosts(four, probePort),
		four.inward(o, maps.ip4),
		o.answerProbe(maps, probePort, clock),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, tcActOK).WithSymbol("pass"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
			asm.Return(),
		},
		six,
	)}
}

// inward is the part of the inward program for packets of one family, whose inner
// addresses are on the stack.
func (f family) inward(o outer, maps familyMaps) asm.Instructions {
	return slices.Concat(
		lookup(maps.hosted, o.atTunnel()),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.LoadMem(regRoute, asm.R0, 0, asm.Word),
		},
		// A packet to a pod of this host is a reply to it: its source is no pod.
		lookup(maps.pods, f.atInner+f.length),
		asm.Instructions{
			asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.StoreMem(regPacket, skbMark, regRoute, asm.Word),
		},
		update(maps.returns, f.atInner, o.atTunnel()),
		asm.Instructions{
			asm.Ja.Label("pass"),
		},
	)
}
