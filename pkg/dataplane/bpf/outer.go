package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// outer is the family of the overlay's outer packets. By addresses of it hosts know each
// other, in maps, in tunnel keys and in probes. A host has one such address, so that all of
// its programs and maps are for one such family, whatever the inner packets are.
//
// The programs have a host's address of IPv4 in register regHost, in host order, as tunnel
// keys of IPv4 have it. One of IPv6 is on the stack at atHost, in the bytes of a packet, as
// tunnel keys of IPv6 have it.
type outer struct{ family }

// six reports whether it is IPv6.
func (o outer) six() bool { return o.length == 16 }

// size is that of an address in maps.
func (o outer) size() uint32 { return uint32(o.length) } //nolint:gosec // 16 at most

// atHost is the place of a host's address of IPv6 on the outward program's stack.
const atHost = -208

// Places on the inward program's stack.
const (
	// atTunnel and atTunnel6 are those of struct bpf_tunnel_key, as far as it is read: the
	// VNI and the outer source, which is a value of map returns.
	atTunnel, atTunnel6 = -8, -112
)

// atTunnel is where getTunnelKey puts the VNI.
func (o outer) atTunnel() int32 {
	if o.six() {
		return atTunnel6
	}
	return atTunnel
}

// words copies a number of words of four bytes, from an offset of a register to the stack.
func words(n int, from asm.Register, offset, to int16) (insns asm.Instructions) {
	for i := range int16(n) { //nolint:gosec // a few
		insns = append(insns,
			asm.LoadMem(asm.R1, from, offset+4*i, asm.Word),
			asm.StoreMem(asm.RFP, to+4*i, asm.R1, asm.Word),
		)
	}
	return insns
}

// differ leaves 0 in R1 if as many bytes as an address has are the same in two places, each an
// offset from a register that is neither R1, R2 nor R3.
func (o outer) differ(a asm.Register, atA int16, b asm.Register, atB int16) (insns asm.Instructions) {
	into := asm.R1
	for i := range int16(o.length / 4) {
		insns = append(insns,
			asm.LoadMem(into, a, atA+4*i, asm.Word),
			asm.LoadMem(asm.R3, b, atB+4*i, asm.Word),
			asm.Xor.Reg(into, asm.R3),
		)
		if into == asm.R2 {
			insns = append(insns, asm.Or.Reg(asm.R1, asm.R2))
		}
		into = asm.R2
	}
	return insns
}

// take makes the address at an offset from a register the packet's host. The register is not
// R1.
func (o outer) take(from asm.Register, offset int16) asm.Instructions {
	if o.six() {
		return words(4, from, offset, atHost)
	}
	return asm.Instructions{asm.LoadMem(regHost, from, offset, asm.Word)}
}

// atVia is the offset of an egress host in podValue.
func (o outer) atVia(i int) int16 { return int16(8 + i*int(o.length)) } //nolint:gosec // some hundred

// isVia goes to a label if the packet's host is an egress host of the route.
func (o outer) isVia(i int, label string) asm.Instructions {
	if o.six() {
		return append(o.differ(regRoute, o.atVia(i), asm.RFP, atHost), asm.JEq.Imm(asm.R1, 0, label))
	}
	return asm.Instructions{
		asm.LoadMem(asm.R1, regRoute, o.atVia(i), asm.Word),
		asm.JEq.Reg(asm.R1, regHost, label),
	}
}

// shift is the binary logarithm of an address's length.
func (o outer) shift() int32 {
	if o.six() {
		return 4
	}
	return 2
}

// noted puts the packet's host on the stack, as a value of map flows, and returns where.
func (o outer) noted() (insns asm.Instructions, at int32) {
	if o.six() {
		return nil, atHost
	}
	return asm.Instructions{asm.StoreMem(asm.RFP, atScratch, regHost, asm.Word)}, atScratch
}

// takeInnerDest makes the inner destination, which is on the stack, the packet's host.
func (o outer) takeInnerDest() asm.Instructions {
	at := int16(o.atDest()) //nolint:gosec // a place on the stack
	if o.six() {
		return o.take(asm.RFP, at)
	}
	return asm.Instructions{
		asm.LoadMem(regHost, asm.RFP, at, asm.Word),
		asm.HostTo(asm.BE, regHost, asm.Word),
	}
}

// Of struct bpf_tunnel_key.
const (
	// tunnelKeySize is the size of the part that is used with IPv4, tunnel_id and
	// remote_ipv4; tunnelKeySize6 that with IPv6, up to remote_ipv6; oldTunnelKeySize is the
	// size of all of it before Linux 6.0, and wholeTunnelKeySize that since. Every kernel
	// takes the first three, but for the second to set a key.
	tunnelKeySize      = 8
	tunnelKeySize6     = 24
	oldTunnelKeySize   = 28
	wholeTunnelKeySize = 44
	// tunnelLocal is the offset of local_ipv4 and local_ipv6.
	tunnelLocal = 28
)

// Flags of a tunnel key.
const (
	// overIPv6: its addresses are of IPv6.
	overIPv6 = 1
	// zeroChecksum leaves the outer UDP checksum out, as VXLAN does by default. With IPv6,
	// receivers drop packets without one.
	zeroChecksum = 2
)

// setTunnelKey has the kernel send the packet in VXLAN: network from regRoute, to the packet's
// host. R0 is 0 if it can.
func (o outer) setTunnelKey(source netip.Addr) asm.Instructions {
	at, size, flags := int16(atKey), int32(tunnelKeySize), int32(zeroChecksum)
	switch {
	case source.IsValid():
		at, size = atWholeKey, wholeTunnelKeySize
	case o.six():
		at, size = atWholeKey, oldTunnelKeySize
	}
	var insns asm.Instructions
	for offset := int32(tunnelKeySize); offset < size; offset += 4 {
		insns = append(insns, asm.StoreImm(asm.RFP, at+int16(offset), 0, asm.Word)) //nolint:gosec // 44 at most
	}
	if source.IsValid() {
		for i, word := range slices.Collect(slices.Chunk(source.AsSlice(), 4)) {
			insns = append(insns,
				asm.Mov.Imm32(asm.R1, o.word(word)),
				asm.StoreMem(asm.RFP, at+tunnelLocal+4*int16(i), asm.R1, asm.Word), //nolint:gosec // one of four
			)
		}
	}
	insns = append(insns,
		asm.LoadMem(asm.R1, regRoute, 0, asm.Word),
		asm.StoreMem(asm.RFP, at, asm.R1, asm.Word),
	)
	if o.six() {
		flags = overIPv6
		insns = append(insns, words(4, asm.RFP, atHost, at+4)...)
	} else {
		insns = append(insns, asm.StoreMem(asm.RFP, at+4, regHost, asm.Word))
	}
	return append(insns,
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(at)),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, flags),
		asm.FnSkbSetTunnelKey.Call(),
	)
}

// word is four bytes of an address as a tunnel key has them: a number if it is one of IPv4,
// else bytes.
func (o outer) word(b []byte) int32 {
	if o.six() {
		return int32(binary.NativeEndian.Uint32(b)) //nolint:gosec // the same bits
	}
	return int32(binary.BigEndian.Uint32(b)) //nolint:gosec // the same bits
}

// getTunnelKey puts the VNI and the outer source on the stack. A packet whose outer source is
// of the other family is dropped.
func (o outer) getTunnelKey() asm.Instructions {
	size, flags := int32(tunnelKeySize), int32(0)
	if o.six() {
		size, flags = tunnelKeySize6, overIPv6
	}
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, o.atTunnel()),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, flags),
		asm.FnSkbGetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}
