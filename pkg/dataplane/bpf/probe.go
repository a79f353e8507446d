package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Probes travel the overlay: UDP from host to host, inside it. The program at the
// ingress of the host that is asked sends the answer back, so that it depends on
// nothing but what carries the pods' packets: neither on a firewall that guards the
// host, nor on an agent that gets no processor time.

// probeNetID is the VNI of probes. What makes a packet a probe is not the VNI, which a
// namespace may have as well, but that its inner source is its outer one: no pod has
// its host's address.
const probeNetID = 0xffffff

// Offsets in a probe, from its UDP header on: that, and the message of package probe.
const (
	udpDest     = 2
	udpChecksum = 6
	probeStart  = 8
	probeMagic  = probeStart
	probeKind   = probeStart + 5
	probeFlags  = probeStart + 6
	probeSender = probeStart + 24 // instance and host
	probeSize   = probeStart + 48
)

// inProbe is the offset of something in the frame of a probe: Ethernet, IPv4 without options
// or IPv6 without extension headers, UDP.
func (o outer) inProbe(offset int32) int32 {
	if o.six() {
		return ethHeader + ip6Header + offset
	}
	return ethHeader + ip4Header + offset
}

// ip4Header is the size of an IPv4 header without options.
const ip4Header = 20

// What a probe says, as in package probe.
const (
	probeWord     = 0x65677072 // "egpr"
	probeQuestion = 1
	probeAnswer   = 2
	probeReady    = 0x01
	probeAway     = 0x02
)

// skbIfindex is an offset in struct __sk_buff.
const skbIfindex = 40

// Answer is what the kernel answers to probes.
type Answer struct {
	// HostIP is this host's address, of the outer packets' family.
	HostIP netip.Addr
	// Instance and Host are repeated in each answer; see probe.Message.
	Instance, Host uint64
	// Ready: the data plane of this host works.
	Ready bool
	// Valid is for how long. After that, the kernel answers that the agent is away.
	Valid time.Duration
}

// answer is Answer as the programs read it: the bytes of a packet, and the time since boot in
// nanoseconds at which it ceases to be valid. The host's address comes first.
func (o outer) answer(a Answer, until uint64) []byte {
	var value []byte
	if a.HostIP.Is4() != o.six() {
		value = a.HostIP.AsSlice()
	}
	value = append(value, make([]byte, int(o.length)-len(value))...)
	flags := byte(0)
	if a.Ready {
		flags = probeReady
	}
	value = append(append(value, flags), make([]byte, o.answerUntil()-o.answerFlags()-1)...)
	value = binary.NativeEndian.AppendUint64(value, until)
	value = binary.BigEndian.AppendUint64(value, a.Instance)
	return binary.BigEndian.AppendUint64(value, a.Host)
}

// Offsets in that.
func (o outer) answerFlags() int16  { return int16(o.length) } //nolint:gosec // 16 at most
func (o outer) answerUntil() int16  { return (o.answerFlags() + 8) &^ 7 }
func (o outer) answerSender() int16 { return o.answerUntil() + 8 }

func answerSpec(o outer) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "egress_answer", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(o.answerSender()) + 16, MaxEntries: 1, //nolint:gosec // 48 at most
	}
}

// PutAnswer sets what the kernel answers to probes.
func (m *Maps) PutAnswer(a Answer) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the time since boot: %w", err)
	}
	value := m.outer.answer(a, uint64(now.Nano()+a.Valid.Nanoseconds())) //nolint:gosec // not negative
	if err := m.answer.Put(uint32(0), value); err != nil {
		return fmt.Errorf("set the answer to probes in BPF map: %w", err)
	}
	return nil
}

// store writes bytes from the stack into the packet.
func store(offset, from, size int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, from),
		asm.Mov.Imm(asm.R4, size),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// Places on the stacks of the parts about probes.
const (
	atUDPPorts = -52 // source and destination port
	atByte     = -56
	atMACs     = -72 // 12 bytes
	atSwapped  = -88
)

// atAnswerKey is the place of the key of map answer.
func (o outer) atAnswerKey() int32 {
	if o.six() {
		return atTunnel6 - 4
	}
	return -48
}

// findAnswer puts the value of map answer into regRoute.
func (o outer) findAnswer(maps *Maps) asm.Instructions {
	return slices.Concat(
		asm.Instructions{asm.StoreImm(asm.RFP, int16(o.atAnswerKey()), 0, asm.Word)}, //nolint:gosec // a place on the stack
		lookup(maps.answer, o.atAnswerKey()),
		asm.Instructions{
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.Mov.Reg(regRoute, asm.R0),
		},
	)
}

// onWire is a port as a program reads it from a packet.
func onWire(port uint16) int32 { return int32(nlutil.BigEndian16(port)) }

// isProbe puts the ports of the packet on the stack, if it is UDP. Anything else is
// dropped.
func (o outer) isProbe() asm.Instructions {
	is := func(offset, value int32) asm.Instructions {
		return append(load(offset, atByte, 1),
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Byte),
			asm.JNE.Imm(asm.R1, value, "drop"),
		)
	}
	if o.six() {
		return append(is(ip6Next, unix.IPPROTO_UDP), load(o.inProbe(0), atUDPPorts, 4)...)
	}
	// Options in the IP header would move the ports.
	return slices.Concat(is(ipProto, unix.IPPROTO_UDP), is(ethHeader, 0x45), load(o.inProbe(0), atUDPPorts, 4))
}

// sendProbe is the part of the outward program for packets without a mark of ours:
// what this host itself sends from or to the port of probes goes to the host that is its
// inner destination. Pods' packets all have a mark; see the rules.
func (o outer) sendProbe(port uint16) asm.Instructions {
	if port == 0 {
		return asm.Instructions{asm.Ja.Label("drop")}
	}
	return slices.Concat(
		o.isProbe(),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts, asm.Half),
			asm.JEq.Imm(asm.R1, onWire(port), "probe"),
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts+2, asm.Half),
			asm.JNE.Imm(asm.R1, onWire(port), "drop"),
		},
		labelled("probe", o.takeInnerDest()),
		asm.Instructions{
			asm.StoreImm(asm.RFP, atProbeNet, probeNetID, asm.Word),
			asm.Mov.Reg(regRoute, asm.RFP),
			asm.Add.Imm(regRoute, atProbeNet),
			asm.Ja.Label("send"),
		},
	)
}

// atProbeNet is where the outward program has the VNI of probes, in place of a value
// of map pods or returns.
const atProbeNet = -44

// answerProbe is the part of the inward program for packets whose inner source is their
// outer one, of its family. The answer to a question leaves at once; an answer goes to the host's own
// prober; everything else is dropped. Inner source and destination are on the stack.
// Without a clock, the answer never expires.
func (o outer) answerProbe(maps *Maps, port uint16, clock bool) asm.Instructions {
	if port == 0 {
		return nil
	}
	return slices.Concat(
		labelled("host", o.isProbe()),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts+2, asm.Half),
			asm.JEq.Imm(asm.R1, onWire(port), "question"),
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts, asm.Half),
			asm.JNE.Imm(asm.R1, onWire(port), "drop"),
			// An answer. No mark may send it elsewhere.
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(regPacket, skbMark, asm.R1, asm.Word),
			asm.Ja.Label("pass"),
		},
		labelled("question", o.findAnswer(maps)),
		o.differ(asm.RFP, int16(o.atInner+o.length), regRoute, 0), //nolint:gosec // a place on the stack
		asm.Instructions{asm.JNE.Imm(asm.R1, 0, "drop")},
		load(o.inProbe(probeMagic), atByte, 4),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Word),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.JNE.Imm(asm.R1, probeWord, "drop"),
		},
		load(o.inProbe(probeKind), atByte, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Byte),
			asm.JNE.Imm(asm.R1, probeQuestion, "drop"),
		},
		// Its last byte is there.
		load(o.inProbe(probeSize-1), atByte, 1),
		o.awayIfOver(clock),
		asm.Instructions{
			asm.LoadMem(asm.R2, regRoute, o.answerFlags(), asm.Byte),
			asm.StoreMem(asm.RFP, atByte+1, asm.R2, asm.Byte).WithSymbol("away"),
			asm.StoreImm(asm.RFP, atByte, probeAnswer, asm.Byte),
		},
		store(o.inProbe(probeKind), atByte, 2),
		asm.Instructions{
			asm.LoadMem(asm.R1, regRoute, o.answerSender(), asm.DWord),
			asm.StoreMem(asm.RFP, atSwapped, asm.R1, asm.DWord),
			asm.LoadMem(asm.R1, regRoute, o.answerSender()+8, asm.DWord),
			asm.StoreMem(asm.RFP, atSwapped+8, asm.R1, asm.DWord),
		},
		store(o.inProbe(probeSender), atSwapped, 16),
		// The checksum of UDP is left out, as the prober does, also with IPv6: others are
		// rewritten.
		asm.Instructions{asm.StoreImm(asm.RFP, atByte, 0, asm.Word)},
		store(o.inProbe(udpChecksum), atByte, 2),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts, asm.Half),
			asm.LoadMem(asm.R2, asm.RFP, atUDPPorts+2, asm.Half),
			asm.StoreMem(asm.RFP, atUDPPorts, asm.R2, asm.Half),
			asm.StoreMem(asm.RFP, atUDPPorts+2, asm.R1, asm.Half),
		},
		store(o.inProbe(0), atUDPPorts, 4),
		store(o.source, o.atInner+o.length, o.length),
		store(o.source+o.length, o.atInner, o.length),
		// VXLAN drops frames that come from its own MAC address, which is the source
		// of the question.
		load(0, atMACs, 12),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atMACs, asm.Word),
			asm.StoreMem(asm.RFP, atSwapped+8, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.RFP, atMACs+4, asm.Half),
			asm.StoreMem(asm.RFP, atSwapped+12, asm.R1, asm.Half),
			asm.LoadMem(asm.R1, asm.RFP, atMACs+6, asm.Half),
			asm.StoreMem(asm.RFP, atSwapped+2, asm.R1, asm.Half),
			asm.LoadMem(asm.R1, asm.RFP, atMACs+8, asm.Word),
			asm.StoreMem(asm.RFP, atSwapped+4, asm.R1, asm.Word),
		},
		store(0, atSwapped+2, 12),
		asm.Instructions{
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(regPacket, skbMark, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, regPacket, skbIfindex, asm.Word),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
		},
	)
}

// awayIfOver goes to "away", with the flag for that in R2, if the time of the answer is
// over.
func (o outer) awayIfOver(clock bool) asm.Instructions {
	if !clock {
		return nil
	}
	return asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Imm(asm.R2, probeAway),
		asm.LoadMem(asm.R1, regRoute, o.answerUntil(), asm.DWord),
		asm.JGT.Reg(asm.R0, asm.R1, "away"),
	}
}

// isHosts is the condition of answerProbe, for inner packets of a family whose addresses are on
// the stack: it jumps to "host" if the inner source is the outer one.
func (o outer) isHosts(f family, port uint16) asm.Instructions {
	if f != o.family {
		return nil
	}
	to := "host"
	if port == 0 {
		to = "drop"
	}
	at := int16(o.atInner) //nolint:gosec // a place on the stack
	if o.six() {
		return append(o.differ(asm.RFP, at, asm.RFP, atTunnel6+4), asm.JEq.Imm(asm.R1, 0, to))
	}
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, at, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Word), // as the tunnel key has it
		asm.LoadMem(asm.R2, asm.RFP, atTunnel+4, asm.Word),
		asm.JEq.Reg(asm.R1, asm.R2, to),
	}
}
