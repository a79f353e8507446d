package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// firstIndex is the least index that is given out: the first with the highest
// bit of an index. All marks of egress IPs have that bit, and small marks, which
// software likes to use without asking, are none of ours.
func firstIndex(m Marks) int { return m.MaxIndex()/2 + 1 }

// assignIndices gives each hosted egress IP its index. An IP keeps the one
// that the kernel knows it by, so that a restart changes nothing; another gets
// the lowest that is free. Not free are those that the kernel still knows for
// anything: their packets may be on the way, bearing the old mark.
//
// hosted must be without duplicates; its order decides who gets a low index.
// Those for whom no index is left get none and are returned.
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
	maximum, next := m.MaxIndex(), firstIndex(m)
	for _, ip := range slices.SortedStableFunc(slices.Values(hosted), netip.Addr.Compare) {
		if i, ok := known[ip]; ok && i >= firstIndex(m) && i <= maximum {
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

// standbyIndices gives egress IPs that the host may have to bear their indices
// beforehand, beside those that it bears. Where indices are scarce they get none.
func standbyIndices(standby []netip.Addr, hosted, known indices, used map[int]bool, m Marks) indices {
	if 2*(len(standby)+len(hosted)) > m.MaxIndex()-firstIndex(m) {
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

// knownIndices reads back, from our SNAT rules, which index stands for which
// egress IP, and which indices stand for anything at all. Where rules
// contradict each other, as after somebody's edit, neither is believed.
func knownIndices(m Marks, rules map[Backend]map[table]savedTable) (known indices, used map[int]bool) {
	known, used = indices{}, map[int]bool{}
	byIndex := map[int]netip.Addr{}
	doubtful := map[netip.Addr]bool{}
	for _, b := range []Backend{NFT, Legacy} {
		for _, chain := range rules[b][natTable].own {
			for _, spec := range chain {
				i, ip, ok := parseSNAT(m, spec)
				if !ok {
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
	}
	for ip := range doubtful {
		delete(known, ip)
	}
	return known, used
}

// parseSNAT reads a rule that snat wrote.
func parseSNAT(m Marks, spec string) (index int, ip netip.Addr, ok bool) {
	var mark, mask uint32
	var to string
	n, err := fmt.Sscanf(spec, "-m mark --mark 0x%x/0x%x -j SNAT --to-source %s", &mark, &mask, &to)
	if err != nil || n != 3 || mask != m.IndexMask() || mark&^mask != 0 {
		return 0, netip.Addr{}, false
	}
	ip, err = netip.ParseAddr(to)
	index = m.IndexOf(mark)
	return index, ip, err == nil && index != 0
}
