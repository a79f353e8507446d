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

// Offsets in a probe: Ethernet, IPv4 without options, UDP, and the message of package
// probe.
const (
	ipProtocol  = ethHeader + 9
	udpSource   = ethHeader + 20
	udpDest     = udpSource + 2
	udpChecksum = udpSource + 6
	probeStart  = udpSource + 8
	probeMagic  = probeStart
	probeKind   = probeStart + 5
	probeFlags  = probeStart + 6
	probeSender = probeStart + 24 // instance and host
	probeSize   = probeStart + 48
)

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
	// HostIP is this host's address.
	HostIP netip.Addr
	// Instance and Host are repeated in each answer; see probe.Message.
	Instance, Host uint64
	// Ready: the data plane of this host works.
	Ready bool
	// Valid is for how long. After that, the kernel answers that the agent is away.
	Valid time.Duration
}

// answerValue is Answer as the programs read it: the bytes of a packet, and the
// time since boot in nanoseconds at which it ceases to be valid.
type answerValue struct {
	HostIP [4]byte
	Flags  uint8
	_      [3]byte
	Until  uint64
	Sender [16]byte
}

// Offsets in answerValue.
const (
	answerHostIP = 0
	answerFlags  = 4
	answerUntil  = 8
	answerSender = 16
)

func answerSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "egress_answer", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(binary.Size(answerValue{})), MaxEntries: 1,
	}
}

// PutAnswer sets what the kernel answers to probes.
func (m *Maps) PutAnswer(a Answer) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the time since boot: %w", err)
	}
	value := answerValue{Until: uint64(now.Nano() + a.Valid.Nanoseconds())} //nolint:gosec // not negative
	if a.HostIP.Is4() {
		value.HostIP = a.HostIP.As4()
	}
	if a.Ready {
		value.Flags = probeReady
	}
	binary.BigEndian.PutUint64(value.Sender[:], a.Instance)
	binary.BigEndian.PutUint64(value.Sender[8:], a.Host)
	if err := m.answer.Put(uint32(0), &value); err != nil {
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
	atAnswerKey = -48
	atUDPPorts  = -52 // source and destination port
	atByte      = -56
	atMACs      = -72 // 12 bytes
	atSwapped   = -88
)

// findAnswer puts the value of map answer into regRoute.
func findAnswer(maps *Maps) asm.Instructions {
	return slices.Concat(
		asm.Instructions{asm.StoreImm(asm.RFP, atAnswerKey, 0, asm.Word)},
		lookup(maps.answer, atAnswerKey),
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
func isProbe() asm.Instructions {
	return slices.Concat(
		load(ipProtocol, atByte, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Byte),
			asm.JNE.Imm(asm.R1, unix.IPPROTO_UDP, "drop"),
		},
		// Options in the IP header would move the ports.
		load(ethHeader, atByte, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Byte),
			asm.JNE.Imm(asm.R1, 0x45, "drop"),
		},
		load(udpSource, atUDPPorts, 4),
	)
}

// sendProbe is the part of the outward program for packets without a mark of ours:
// what this host itself sends from or to the port of probes goes to the host that is its
// inner destination. Pods' packets all have a mark; see the rules.
func sendProbe(port uint16) asm.Instructions {
	if port == 0 {
		return asm.Instructions{asm.Ja.Label("drop")}
	}
	return slices.Concat(
		isProbe(),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts, asm.Half),
			asm.JEq.Imm(asm.R1, onWire(port), "probe"),
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts+2, asm.Half),
			asm.JNE.Imm(asm.R1, onWire(port), "drop"),
			asm.LoadMem(regHost, asm.RFP, int16(ipv4().atDest()), asm.Word).WithSymbol("probe"), //nolint:gosec // a place on the stack
			asm.HostTo(asm.BE, regHost, asm.Word),
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
// outer one. The answer to a question leaves at once; an answer goes to the host's own
// prober; everything else is dropped. Inner source and destination are on the stack.
// Without a clock, the answer never expires.
func answerProbe(maps *Maps, port uint16, clock bool) asm.Instructions {
	if port == 0 {
		return nil
	}
	return slices.Concat(
		labelled("host", isProbe()),
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
		labelled("question", findAnswer(maps)),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atInnerDest, asm.Word),
			asm.LoadMem(asm.R2, regRoute, answerHostIP, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R2, "drop"),
		},
		load(probeMagic, atByte, 4),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Word),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.JNE.Imm(asm.R1, probeWord, "drop"),
		},
		load(probeKind, atByte, 1),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atByte, asm.Byte),
			asm.JNE.Imm(asm.R1, probeQuestion, "drop"),
		},
		// Its last byte is there.
		load(probeSize-1, atByte, 1),
		awayIfOver(clock),
		asm.Instructions{
			asm.LoadMem(asm.R2, regRoute, answerFlags, asm.Byte),
			asm.StoreMem(asm.RFP, atByte+1, asm.R2, asm.Byte).WithSymbol("away"),
			asm.StoreImm(asm.RFP, atByte, probeAnswer, asm.Byte),
		},
		store(probeKind, atByte, 2),
		asm.Instructions{
			asm.LoadMem(asm.R1, regRoute, answerSender, asm.DWord),
			asm.StoreMem(asm.RFP, atSwapped, asm.R1, asm.DWord),
			asm.LoadMem(asm.R1, regRoute, answerSender+8, asm.DWord),
			asm.StoreMem(asm.RFP, atSwapped+8, asm.R1, asm.DWord),
		},
		store(probeSender, atSwapped, 16),
		// The checksum of UDP is left out, as the prober does: others are rewritten.
		asm.Instructions{asm.StoreImm(asm.RFP, atByte, 0, asm.Word)},
		store(udpChecksum, atByte, 2),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atUDPPorts, asm.Half),
			asm.LoadMem(asm.R2, asm.RFP, atUDPPorts+2, asm.Half),
			asm.StoreMem(asm.RFP, atUDPPorts, asm.R2, asm.Half),
			asm.StoreMem(asm.RFP, atUDPPorts+2, asm.R1, asm.Half),
		},
		store(udpSource, atUDPPorts, 4),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atInnerSource, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, atInnerDest, asm.Word),
			asm.StoreMem(asm.RFP, atInnerSource, asm.R2, asm.Word),
			asm.StoreMem(asm.RFP, atInnerDest, asm.R1, asm.Word),
		},
		store(ipSource, atInnerSource, 8),
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
func awayIfOver(clock bool) asm.Instructions {
	if !clock {
		return nil
	}
	return asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Imm(asm.R2, probeAway),
		asm.LoadMem(asm.R1, regRoute, answerUntil, asm.DWord),
		asm.JGT.Reg(asm.R0, asm.R1, "away"),
	}
}

// Places of the inner addresses on the inward program's stack.
const (
	atInnerSource = -16
	atInnerDest   = -12
)

// isHosts is the condition of answerProbe: it jumps to "host" if the inner source is
// the outer one, which stands at fp-4 in host order.
func isHosts(port uint16) asm.Instructions {
	to := "host"
	if port == 0 {
		to = "drop"
	}
	return slices.Concat(
		load(ipSource, atInnerSource, 8),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.RFP, atInnerSource, asm.Word),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, -4, asm.Word),
			asm.JEq.Reg(asm.R1, asm.R2, to),
		},
	)
}
