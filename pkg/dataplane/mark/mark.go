package mark

import (
	"fmt"
	"math/bits"
)

// Marks are the bits of the packet mark that belong to us.
type Marks struct {
	// Mask holds all our bits: two flags, the highest two, and at least
	// one more; the rest encodes the local index of a hosted egress IP.
	Mask uint32
}

// Default returns 0x1f7f, clear of kube-proxy (0x4000, 0x8000), the portmap
// plugin (0x2000), Calico (0xffff0000) and the AWS VPC CNI (0x80).
func Default() Marks { return Marks{Mask: 0x1f7f} }

// Validate reports whether the mask has the bits that are needed.
func (m Marks) Validate() error {
	if bits.OnesCount32(m.Mask) < 3 {
		return fmt.Errorf("mark mask %#x: needs at least 3 bits: two flags and an index", m.Mask)
	}
	return nil
}

// Remote is the flag of a packet that must take the overlay, or be dropped.
func (m Marks) Remote() uint32 { return 1 << (bits.Len32(m.Mask) - 1) }

// Return is the flag of a reply that must take the overlay back to the pod's
// host.
func (m Marks) Return() uint32 { return 1 << (bits.Len32(m.Mask&^m.Remote()) - 1) }

// IndexMask holds the bits that encode the index.
func (m Marks) IndexMask() uint32 { return m.Mask &^ m.Remote() &^ m.Return() }

// Refused is the mark of packets that must not leave, and whose sender is told so: REMOTE with
// all bits of an index, which no other packet has.
func (m Marks) Refused() uint32 { return m.Remote() | m.IndexMask() }

// MaxIndex is the greatest index that fits; indices begin at 1.
func (m Marks) MaxIndex() int { return 1<<bits.OnesCount32(m.IndexMask()) - 1 }

// FirstIndex is the least index that is given out: the first with the highest
// bit of an index. All marks of egress IPs have that bit, so that small marks,
// which other software uses without asking, are never taken for ours.
func (m Marks) FirstIndex() int { return m.MaxIndex()/2 + 1 }

// Index encodes index i, 1 to MaxIndex, by spreading its bits over IndexMask.
func (m Marks) Index(i int) uint32 {
	var mark uint32
	for rest := m.IndexMask(); rest != 0 && i != 0; rest &= rest - 1 {
		if i&1 != 0 {
			mark |= rest & -rest
		}
		i >>= 1
	}
	return mark
}

// IndexOf decodes a mark's index; 0 where it has none.
func (m Marks) IndexOf(mark uint32) int {
	i, bit := 0, 1
	for rest := m.IndexMask(); rest != 0; rest &= rest - 1 {
		if mark&(rest&-rest) != 0 {
			i |= bit
		}
		bit <<= 1
	}
	return i
}
