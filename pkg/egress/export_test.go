package egress

import "slices"

// Indexes returns how often an index of all objects was made, instead of changing the one
// of before.
func (m *Memo) Indexes() int { return m.indexes }

// InOrder reports whether the addresses of the index are in order.
func (m *Memo) InOrder() bool {
	return slices.IsSortedFunc(m.index.inOrder(), func(a, b *address) int { return a.ip.Compare(b.ip) })
}
