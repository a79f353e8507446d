package nftables

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// register is the register of sixteen bytes that expressions work in.
const register = unix.NFT_REG_1

// word is one of the four registers of four bytes that share it, 0 to 3.
func word(i uint32) uint32 { return unix.NFT_REG32_00 + i }

// Numbers of the kernel that the library does not name.
const (
	statusConfirmed = 1 << 3 // IPS_CONFIRMED
	tcpOptionMSS    = 2
	icmp6Prohibited = 1  // ICMPV6_ADM_PROHIBITED
	metaKindOfInput = 26 // NFT_META_IIFKIND
)

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func meta(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: register}}
}

func ct(key expr.CtKey) []expr.Any { return []expr.Any{&expr.Ct{Key: key, Register: register}} }

// network loads an address from the IPv4 header, network6 from that of IPv6.
func network(a rules.Address) []expr.Any  { return address(a, 12, 4) }
func network6(a rules.Address) []expr.Any { return address(a, 8, 16) }

// hopLimit loads that of the IPv6 header.
func hopLimit() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1}}
}

// address loads the source, which is at an offset, or the destination, which follows it.
func address(a rules.Address, offset, length uint32) []expr.Any {
	if a == rules.Destination {
		offset += length
	}
	return []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

// sender loads the source address, of a number of words, and the source MAC. It does not
// match packets that came in by a device without MACs.
func sender(source []expr.Any, words uint32) []expr.Any {
	return slices.Concat(
		meta(expr.MetaKeyIIFTYPE), equal(binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)),
		source,
		[]expr.Any{&expr.Payload{DestRegister: word(words), Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}},
	)
}

// transport loads a field of the transport header.
func transport(offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}}
}

// protocol matches the transport protocol.
func protocol(number byte) []expr.Any {
	return append(meta(expr.MetaKeyL4PROTO), equal([]byte{number})...)
}

// port matches the destination port of a transport protocol.
func port(number byte, port uint16) []expr.Any {
	exprs := append(protocol(number), transport(2, 2)...)
	return append(exprs, equal(binary.BigEndian.AppendUint16(nil, port))...)
}

// masked keeps some bits of what was loaded.
func masked(mask []byte) []expr.Any {
	return []expr.Any{&expr.Bitwise{
		SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask)),
	}}
}

// replaced gives some bits of a mark that was loaded another value.
func replaced(mask, value uint32) []expr.Any {
	return []expr.Any{&expr.Bitwise{
		SourceRegister: register, DestRegister: register, Len: 4, Mask: native(^mask), Xor: native(value & mask),
	}}
}

func equal(data []byte) []expr.Any { return compare(false, data) }

// compare matches what was loaded against data, or anything but data.
func compare(not bool, data []byte) []expr.Any {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return []expr.Any{&expr.Cmp{Op: op, Register: register, Data: data}}
}

// mapped looks up what was loaded, for a verdict (register 0) or for a value.
func mapped(set string, dest uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, DestRegister: dest, IsDestRegSet: true, SetName: set}}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

// interfaceName is a name as the kernel compares it: whole, in sixteen bytes.
func interfaceName(name string) []byte {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return data
}

// stateBits are the bits of states of connection tracking.
func stateBits(states rules.ConnState) uint32 {
	var bits uint32
	for _, s := range states {
		switch s {
		case rules.New:
			bits |= expr.CtStateBitNEW
		case rules.Invalid:
			bits |= expr.CtStateBitINVALID
		case rules.Untracked:
			bits |= expr.CtStateBitUNTRACKED
		}
	}
	return bits
}
