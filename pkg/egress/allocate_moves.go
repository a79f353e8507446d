package egress

import (
	"net/netip"
	"slices"
)

// evacuate returns the placement without the first claim on a host that is being
// evacuated that another host can take. One at a time: the next is released when this
// one is claimed again.
func (a *allocator) evacuate(now *placement) *placement {
	if !slices.ContainsFunc(a.Hosts, func(h Host) bool { return h.Managed && h.Evacuating }) {
		return now
	}
	// A host that is being evacuated takes nothing, so what it has affects no candidate.
	candidates := newPool(now, now.canTake)
	for _, r := range now.addresses() {
		h := now.at[r.id]
		if !a.Hosts[h].Evacuating || r.yielded {
			continue
		}
		if _, found := candidates.best(r); found {
			a.reasons[claim{ip: r.ip, host: h}] = ReasonEvacuated
			now.remove(r)
			return now
		}
	}
	return now
}

// place returns the placement with as many requests placed as possible, and those that
// found no host. Claims that should move, and can, are not in it: they are released
// now, and placed by the next allocation, as here.
func (a *allocator) place(now *placement, requests []request) (*placement, []request) {
	moving := a.unwell(now)
	fresh := make(map[netip.Addr]bool)
	for _, r := range requests {
		fresh[r.ip] = true
	}
	for len(moving) > 0 {
		next := now.clone()
		for _, r := range now.addresses() {
			if moving[r.ip] != "" {
				next.remove(r)
			}
		}
		var round []request
		for _, r := range a.order {
			if moving[r.ip] != "" || fresh[r.ip] {
				round = append(round, r)
			}
		}
		unplaced := next.place(round)
		stays := false
		unplaced = slices.DeleteFunc(unplaced, func(r request) bool {
			moves := moving[r.ip] != ""
			stays = stays || moves
			delete(moving, r.ip)
			return moves
		})
		if stays {
			continue // what stays takes up room
		}
		for _, r := range round {
			if reason := moving[r.ip]; reason != "" {
				a.reasons[claim{ip: r.ip, host: now.at[r.id]}] = reason
				next.remove(r)
			}
		}
		return next, unplaced
	}
	return now, now.place(requests)
}

// unwell are the addresses that are better off elsewhere, and why. If no other host can
// take one it stays: the host may serve it after all.
func (a *allocator) unwell(now *placement) map[netip.Addr]Reason {
	reasons := make(map[netip.Addr]Reason)
	for _, r := range a.order {
		h, placed := now.host(r)
		switch {
		case !placed, r.yielded:
		case a.Hosts[h].Doubtful:
			reasons[r.ip] = ReasonHostSilent
		case a.Hosts[h].Failing[r.ip]:
			reasons[r.ip] = ReasonNotConfigured
		}
	}
	return reasons
}
