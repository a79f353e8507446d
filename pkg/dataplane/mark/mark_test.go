package mark

import (
	"testing"

	"pgregory.net/rapid"
)

// Mutant killed: Index that does not spread its bits (return uint32(i)), which
// would set bits outside the mask.
func TestPropertyMarksStayInTheirMask(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Marks{Mask: rapid.Uint32().Filter(func(v uint32) bool { return Marks{Mask: v}.Validate() == nil }).Draw(t, "mask")}
		if m.Remote()|m.Return()|m.IndexMask() != m.Mask || m.Remote()&m.Return() != 0 || (m.Remote()|m.Return())&m.IndexMask() != 0 {
			t.Fatalf("mask %#x: REMOTE %#x, RETURN %#x and index %#x do not part it", m.Mask, m.Remote(), m.Return(), m.IndexMask())
		}
		i := rapid.IntRange(1, min(m.MaxIndex(), 1<<20)).Draw(t, "index")
		mark := m.Index(i)
		if mark&^m.IndexMask() != 0 || mark == 0 || m.IndexOf(mark) != i {
			t.Fatalf("mask %#x: index %d becomes %#x and back %d", m.Mask, i, mark, m.IndexOf(mark))
		}
	})
}

func TestMarkMaskTooNarrowIsRefused(t *testing.T) {
	if err := (Marks{Mask: 0x3}).Validate(); err == nil {
		t.Fatal("a mask of two bits leaves none for an index")
	}
}
