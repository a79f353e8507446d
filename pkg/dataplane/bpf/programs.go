package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
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

// Places on the outward program's stack, from its frame pointer; see also family.
const (
	atScratch = -32
	atKey     = -40 // struct bpf_tunnel_key, as far as it is used
	// atWholeKey is the place of all of it, where it names the outer source.
	atWholeKey = -136
	// atFragment has the fragment header of an IPv6 packet; 0 if it has none.
	atFragment = -192
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
	other := "drop"
	if maps.HasIPv6() {
		other = "IPv6"
	}
	four, six := ipv4(), asm.Instructions{}
	if maps.HasIPv6() {
		six = slices.Concat(
			labelled("IPv6", asm.Instructions{asm.JNE.Imm(asm.R2, ipv6().protocol(), "drop")}),
			ipv6().outward(m, maps.ip6, asm.Instructions{asm.Ja.Label("drop")}),
		)
	}
	return &ebpf.ProgramSpec{Name: "egress_out", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(regPacket, asm.R1),
			asm.LoadMem(asm.R2, regPacket, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, four.protocol(), other),
		},
		four.outward(m, maps.ip4, sendProbe(probePort)),

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
		six,
	)}
}

// outward is the part of the outward program for packets of one family: it goes to "send"
// with the route and the host in registers, or to "drop". unmarked is for packets without
// REMOTE or RETURN.
func (f family) outward(m mark.Marks, maps familyMaps, unmarked asm.Instructions) asm.Instructions {
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
			asm.LoadMem(regHost, regRoute, 4, asm.Word),
			asm.Ja.Label("send"),
		},

		labelled(f.label("remote"), lookup(maps.pods, f.atFlow)),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.Mov.Reg(regRoute, asm.R0),
			asm.LoadMem(regCount, regRoute, 4, asm.Word),
			asm.JEq.Imm(regCount, 0, "drop"),
			asm.JGT.Imm(regCount, MaxVia, "drop"),
			// Noted for routes with one host too: it may get others in addition.
		},
		f.chooseHost(maps),
	)
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

// chooseHost puts one of a route's several hosts into regHost, and goes to "send". A
// connection keeps the one that it began with, as long as that is among them.
func (f family) chooseHost(maps familyMaps) asm.Instructions {
	choose, chosen := f.label("choose"), f.label("chosen")
	insns := slices.Concat(
		asm.Instructions{
			asm.StoreImm(asm.RFP, int16(f.atPorts()), 0, asm.Word), //nolint:gosec // a place on the stack
			asm.StoreImm(asm.RFP, int16(f.atProto()), 0, asm.Word), //nolint:gosec // a place on the stack
		},
		f.readFlow(),

		labelled(f.label("flow"), lookup(maps.flows, f.atFlow)),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, choose),
			asm.LoadMem(regHost, asm.R0, 0, asm.Word),
		},
	)
	for i := range MaxVia {
		insns = append(insns,
			asm.JLE.Imm(regCount, int32(i), choose),
			asm.LoadMem(asm.R1, regRoute, int16(8+4*i), asm.Word),
			asm.JEq.Reg(asm.R1, regHost, chosen),
		)
	}
	return slices.Concat(insns,
		asm.Instructions{
			asm.Mov.Reg(asm.R1, regPacket).WithSymbol(choose),
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
		update(maps.flows, f.atFlow, atScratch),

		// Of a first fragment, note the host for those that follow.
		labelled(chosen, f.ifFirstFragment("send")),
		asm.Instructions{asm.StoreMem(asm.RFP, atScratch, regHost, asm.Word)},
		update(maps.flows, f.atFlow, atScratch),
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

// inward is the program at the ingress of the overlay: a packet whose VNI this
// host serves gets the index of the egress IP as mark, and the host that it came
// from is kept for the replies. Packets of all other VNIs are replies to pods of
// this host, or unknown: the rules drop those. What a host sends in its own name is a
// probe.
func inward(maps *Maps, probePort uint16, clock bool) *ebpf.ProgramSpec {
	other := "drop"
	if maps.HasIPv6() {
		other = "IPv6"
	}
	four, six := ipv4(), asm.Instructions{}
	if maps.HasIPv6() {
		six = slices.Concat(
			labelled("IPv6", asm.Instructions{asm.JNE.Imm(asm.R2, ipv6().protocol(), "drop")}),
			getTunnelKey(),
			load(ipv6().source, ipv6().atInner, 2*ipv6().length),
			ipv6().inward(maps.ip6),
		)
	}
	return &ebpf.ProgramSpec{Name: "egress_in", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(regPacket, asm.R1),
			// Whatever the inner MAC: the packet is for this host to route.
			asm.Mov.Imm(asm.R2, packetHost),
			asm.FnSkbChangeType.Call(),
			asm.LoadMem(asm.R2, regPacket, skbProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, four.protocol(), other),
		},
		getTunnelKey(),
		isHosts(probePort),
		four.inward(maps.ip4),
		answerProbe(maps, probePort, clock),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, tcActOK).WithSymbol("pass"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcActShot).WithSymbol("drop"),
			asm.Return(),
		},
		six,
	)}
}

// getTunnelKey puts the VNI at fp-8, and the outer source at fp-4. That of a packet of
// IPv6 has no place there: it is dropped.
func getTunnelKey() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, tunnelKeySize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkbGetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// inward is the part of the inward program for packets of one family, whose inner
// addresses are on the stack.
func (f family) inward(maps familyMaps) asm.Instructions {
	return slices.Concat(
		lookup(maps.hosted, -8),
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
		update(maps.returns, f.atInner, -8),
		asm.Instructions{
			asm.Ja.Label("pass"),
		},
	)
}
