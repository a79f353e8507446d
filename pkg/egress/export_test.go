package egress

// Indexes returns how often an index of all objects was made, instead of changing the one
// of before.
func (m *Memo) Indexes() int { return m.indexes }
