package egress

import (
	"hash/fnv"
	"slices"
)

// The netids. OpenShift SDN gave 0 to the namespace "default" and kept 1 to 9
// for itself; ours are chosen from the rest, so that clusters that were
// migrated and clusters that were not look alike.
const (
	// MaxNetID is the greatest netid: a VXLAN network identifier has 24 bits.
	MaxNetID = 1<<24 - 1

	firstNetID       = 10
	defaultNamespace = "default"
)

// NextNetID chooses a netid for a namespace that has none: 0 for "default",
// otherwise a number from 10 to MaxNetID for which inUse is false. The search starts
// at a hash of the name, so that the choice is the same in each run and two
// controllers that race for different namespaces seldom choose the same. It
// returns false where every netid is in use.
func NextNetID(namespace string, inUse func(uint32) bool) (uint32, bool) {
	if namespace == defaultNamespace {
		return 0, true
	}
	const count = MaxNetID - firstNetID + 1
	start := hash(namespace) % count
	for step := range uint32(count) {
		if id := firstNetID + (start+step)%count; !inUse(id) {
			return id, true
		}
	}
	return 0, false
}

// AllocateNetIDs chooses netids for all of the namespaces at once, none of
// them in use and none twice. The answer does not depend on their order. A
// namespace for which none is left is missing from it. inUse is not changed.
func AllocateNetIDs(namespaces []string, inUse map[uint32]bool) map[string]uint32 {
	chosen := make(map[string]uint32, len(namespaces))
	taken := make(map[uint32]bool, len(namespaces))
	for _, name := range slices.Sorted(slices.Values(namespaces)) {
		if _, done := chosen[name]; done {
			continue
		}
		id, ok := NextNetID(name, func(id uint32) bool { return inUse[id] || taken[id] })
		if !ok {
			continue
		}
		chosen[name] = id
		taken[id] = true
	}
	return chosen
}

func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}
