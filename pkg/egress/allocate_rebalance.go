package egress

import (
	"cmp"
	"net/netip"
	"slices"
)

// rebalance returns the placement without the claims that should move to hosts that
// have less than half, rounded down, of what a fresh allocation would give them. kept
// are the claims that exist now.
//
// It computes what the next allocation will make of it, and unless that is better
// nothing moves. Each move brings the loads closer together, so moving ends.
func (a *allocator) rebalance(now *placement, kept []request) *placement {
	fresh := newPlacement(a.index)
	fresh.place(a.order)
	moving := chooseMoves(now, fresh, kept)
	if len(moving) == 0 {
		return now
	}
	without := newPlacement(a.index)
	for _, request := range now.addresses() {
		if !moving[request.ip] {
			without.put(request, now.at[request.id])
		}
	}
	next := without.clone()
	var unplaced []request
	for _, request := range a.order {
		if _, placed := next.host(request); !placed {
			unplaced = append(unplaced, request)
		}
	}
	next.place(unplaced)
	if !next.betterThan(now) {
		return now
	}
	for ip := range moving {
		a.reasons[claim{ip: ip, host: now.at[a.addresses.get(ip).id]}] = ReasonRebalanced
	}
	return without
}

// chooseMoves picks, for each host that has much less than its share, claims of the
// hosts that have most, at most as many as complete the share. None comes from a host
// that would then have less than the host it moves to.
func chooseMoves(now, fresh *placement, kept []request) map[netip.Addr]bool {
	moving := make(map[netip.Addr]bool)
	after := now.clone()
	var from *donors
	for h := range now.Hosts {
		share := fresh.load[h]
		if !now.Hosts[h].Managed || now.load[h] >= share/2 {
			continue
		}
		if from == nil {
			from = newDonors(after, kept)
		}
		for after.load[h] < share {
			r, ok := from.give(h)
			if !ok {
				break
			}
			moving[r.ip] = true
			after.remove(r)
			after.put(r, h)
		}
	}
	return moving
}

// donors are the hosts that can release claims, those with most first.
type donors struct {
	after *placement
	// claims that may move, by host.
	claims map[int][]request
	// byLoad are hosts by load: byLoad[3] have three addresses.
	byLoad [][]int
}

func newDonors(after *placement, kept []request) *donors {
	d := &donors{after: after, claims: make(map[int][]request)}
	for _, r := range kept {
		if r.yielded {
			continue
		}
		h := after.at[r.id]
		d.claims[h] = append(d.claims[h], r)
	}
	d.byLoad = make([][]int, slices.Max(after.load)+1)
	for h := range after.Hosts {
		if len(d.claims[h]) > 0 {
			d.byLoad[after.load[h]] = append(d.byLoad[after.load[h]], h)
		}
	}
	return d
}

// give takes a claim that host h can have from a host with at least two more.
func (d *donors) give(h int) (request, bool) {
	for load := len(d.byLoad) - 1; load >= d.after.load[h]+2; load-- {
		for i, donor := range d.byLoad[load] {
			r, ok := d.take(donor, h)
			if !ok {
				continue
			}
			d.byLoad[load] = slices.Delete(d.byLoad[load], i, i+1)
			at, _ := slices.BinarySearchFunc(d.byLoad[load-1], donor, cmp.Compare[int])
			d.byLoad[load-1] = slices.Insert(d.byLoad[load-1], at, donor)
			return r, true
		}
	}
	return request{}, false
}

// take removes from the donor's claims the first that h can have.
func (d *donors) take(donor, h int) (request, bool) {
	for i, r := range d.claims[donor] {
		_, sibling := d.after.sibling(h, r)
		if sibling || d.after.full(h) || !d.after.takes(h, r.ip) || !d.after.mayHave(h, r) {
			continue
		}
		d.claims[donor] = slices.Delete(d.claims[donor], i, i+1)
		return r, true
	}
	return request{}, false
}
