package bpf

import (
	"net/netip"

	"github.com/cilium/ebpf/asm"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Offsets into struct __sk_buff of the VLAN tag of a packet, which is not in its data as long as
// it has not left the host.
const (
	skbVLANPresent = 20
	skbVLANTCI     = 24
)

// Pins have, for each egress IP that may not leave by all interfaces, the indices of those that
// it may leave by, with the tag that its packets have there. Below a VLAN, a macvlan or a bridge
// there are other interfaces, which packets pass on their way out.
type Pins map[netip.Addr]map[int]Tag

// Tag is the tag of a VLAN that a packet must have; the zero Tag asks for none.
type Tag uint32

// tagged says that a Tag is one: a VLAN may have the number 0.
const tagged = 1 << 16

// VLANTag returns the tag of the VLAN with a number.
func VLANTag(id int) Tag { return Tag(tagged | id&0xfff) } //nolint:gosec // 12 bits

// guarded is what the guard's maps have for an egress IP: the mark of its packets, and their tag.
type guarded struct {
	Mark uint32
	Tag  Tag
}

const guardedSize = 8

// guardedAt returns it for an interface.
func (p Pins) guardedAt(link int, ip netip.Addr, own uint32, m mark.Marks) guarded {
	links, pinned := p[ip]
	if !pinned {
		return guarded{Mark: own}
	}
	tag, may := links[link]
	if !may {
		return guarded{Mark: elsewhere(m)}
	}
	return guarded{Mark: own, Tag: tag}
}

// elsewhere is what the map has for an egress IP that belongs to another interface. No index is
// that.
func elsewhere(m mark.Marks) uint32 { return m.Remote() }

// guardPinned drops packets of egress IPs that belong to another interface, or leave by a VLAN
// and have not its tag. R0 is what the map has, R1 the mark there.
func guardPinned(m mark.Marks, label string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, int32(elsewhere(m))),
		asm.JNE.Imm(asm.R2, 0, "drop"),
		asm.LoadMem(asm.R3, asm.R0, 4, asm.Word),
		asm.JEq.Imm(asm.R3, 0, label+" here"),
		asm.LoadMem(asm.R2, asm.R6, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "drop"),
		asm.LoadMem(asm.R2, asm.R6, skbVLANTCI, asm.Word),
		asm.And.Imm(asm.R2, 0xfff),
		asm.Or.Imm(asm.R2, tagged),
		asm.JNE.Reg(asm.R2, asm.R3, "drop"),
	}
}
