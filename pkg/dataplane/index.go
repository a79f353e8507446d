package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// indices gives each egress IP the index that the marks of its packets hold.
type indices map[netip.Addr]int

// assignIndices gives each hosted egress IP its index. An IP keeps the one that
// it has in the kernel, so that a restart changes nothing; another gets the lowest
// that is free. An index that the kernel still has for anything is not free:
// packets with the old mark may be on the way.
//
// hosted must be without duplicates; its order decides who gets a low index.
// Those for which no index is left are returned.
func assignIndices(hosted []netip.Addr, known indices, used map[int]bool, m Marks) (indices, []netip.Addr) {
	taken := make(map[int]bool, len(used))
	for i := range used {
		taken[i] = true
	}
	for _, i := range known {
		taken[i] = true
	}
	result := make(indices, len(hosted))
	var without []netip.Addr
	maximum, next := m.MaxIndex(), m.FirstIndex()
	for _, ip := range slices.SortedStableFunc(slices.Values(hosted), netip.Addr.Compare) {
		if i, ok := known[ip]; ok && i >= m.FirstIndex() && i <= maximum {
			result[ip] = i
			continue
		}
		for next <= maximum && taken[next] {
			next++
		}
		if next > maximum {
			without = append(without, ip)
			continue
		}
		result[ip] = next
		taken[next] = true
	}
	return result, without
}

// standbyIndices gives indices to egress IPs that the host may have to take over,
// in addition to those that it hosts. Where indices are scarce they get none.
func standbyIndices(standby []netip.Addr, hosted, known indices, used map[int]bool, m Marks) indices {
	if 2*(len(standby)+len(hosted)) > m.MaxIndex()-m.FirstIndex() {
		return indices{}
	}
	taken := maps.Clone(used)
	if taken == nil {
		taken = map[int]bool{}
	}
	for _, i := range hosted {
		taken[i] = true
	}
	prepared, _ := assignIndices(standby, known, taken, m)
	return prepared
}

// knownIndices reads back, from our source NAT rules, which index stands for
// which egress IP, and which indices stand for anything at all. Where rules
// contradict each other, as after a manual edit, neither is used.
func knownIndices(m Marks, observed kernel) (known indices, used map[int]bool) {
	known, used = indices{}, map[int]bool{}
	for mark, ip := range observed.table.SNAT() {
		if i := m.IndexOf(mark); i != 0 && m.Index(i) == mark {
			known[ip], used[i] = i, true
		}
	}
	byIndex := map[int]netip.Addr{}
	for ip, i := range known {
		byIndex[i] = ip
	}
	doubtful := map[netip.Addr]bool{}
	for _, b := range iptables.Backends() {
		for _, nat := range slices.Concat(observed.rules[b].MarkedNATs(), observed.rules6[b].MarkedNATs()) {
			i, ip := indexOf(m, nat.Mark), nat.To
			if i == 0 {
				continue
			}
			used[i] = true
			if other, taken := byIndex[i]; taken && other != ip {
				doubtful[ip], doubtful[other] = true, true
			}
			if other, taken := known[ip]; taken && other != i {
				doubtful[ip] = true
			}
			byIndex[i], known[ip] = ip, i
		}
	}
	for ip := range doubtful {
		delete(known, ip)
	}
	return known, used
}

// union holds the indices of both; where they differ, those of b.
func union(a, b indices) indices {
	all := make(map[netip.Addr]int, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// indexOf returns the index that a rule matches, 0 for a match that is not of an
// index alone.
func indexOf(m Marks, match rules.Mark) int {
	if match.Mask != m.IndexMask() || match.Value&^match.Mask != 0 {
		return 0
	}
	return m.IndexOf(match.Value)
}
