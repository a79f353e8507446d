package egress

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// Indexes returns how often an index of all objects was made, instead of changing the one
// of before, for egress IPs of IPv4.
func (m *Memo) Indexes() int { return m.families[IPv4].indexes }

// InOrder reports whether the addresses of the index are in order.
func (m *Memo) InOrder() bool {
	return slices.IsSortedFunc(m.families[IPv4].index.inOrder(), func(a, b *address) int { return a.ip.Compare(b.ip) })
}

// Grouped finds the groups of pods.
func Grouped(c Cluster, pods []Pod, namespaces map[string]labels.Set) ([]Pod, []Overlap) {
	return grouped(c, pods, namespaces)
}

// Exposed are the groups that the loss of one host would drop.
func Exposed(c Cluster, r Resolution) (map[string]string, bool) { return exposed(c, r) }
