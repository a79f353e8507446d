package egress

import (
	"cmp"
	"slices"
)

// duplicateHostIPs marks and reports hosts that share an address; Resolve lets only the
// claims of an established one count.
func (r *reader) duplicateHostIPs(hosts []Host) {
	byIP := hostsByIP(hosts)
	for i, h := range hosts {
		same := byIP[h.IP]
		if !h.IP.IsValid() || len(same) < 2 {
			continue
		}
		all := names(same, func(i int) string { return hosts[i].Name })
		switch holder := established(hosts, same); holder {
		case i:
			continue
		case none:
			r.problem(kindHostSubnet, h.Name, fieldHostIP, h.IP.String(), ReasonBadHost,
				"%s is the hostIP of several hosts (%s), so none of them takes egress traffic. Correct or delete all but one.", h.IP, all)
		default:
			r.problem(kindHostSubnet, h.Name, fieldHostIP, h.IP.String(), ReasonBadHost,
				"%s is the hostIP of several hosts (%s) and belongs to %s, whose agent has it on its uplink and which is online or older: "+
					"this host takes no egress traffic. Correct or delete it.", h.IP, all, hosts[holder].Name)
		}
		hosts[i].Shadowed = true
	}
}

// none stands for no host.
const none = -1

// established returns which of several hosts with one address has it: the one whose
// agent sees the address on its uplink and that is online, or else the oldest of the
// best. It is none if that does not distinguish them. So a Node that is stale, or that
// makes a false statement about its addresses, takes no traffic away from the host
// that has the address.
func established(hosts []Host, same []int) int {
	order := func(a, b int) int {
		return cmp.Or(
			cmp.Compare(evidence(hosts[b]), evidence(hosts[a])),
			hosts[a].Created.Compare(hosts[b].Created),
		)
	}
	sorted := slices.SortedStableFunc(slices.Values(same), order)
	if len(sorted) > 1 && order(sorted[0], sorted[1]) == 0 {
		return none
	}
	return sorted[0]
}

// evidence ranks how much speaks for a host having its address.
func evidence(h Host) int {
	rank := 0
	if h.Confirmed {
		rank += 2
	}
	if h.Online || h.Doubtful {
		rank++
	}
	return rank
}
