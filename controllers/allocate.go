package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// awaitReleaseFor is how long a claim waits for the address's former host, if that is
// online, to remove the address. Its agent needs milliseconds. If it takes longer the
// claim is written anyway, because the namespace has no egress IP in the meantime.
const awaitReleaseFor = 3 * time.Second

// maxClaims is the greatest number of items that the schema of HostSubnet.egressIPs
// allows. No host has capacity for more.
const maxClaims = 512

// atMost limits a capacity, where 0 means no limit, to maxClaims.
func atMost(capacity int) int {
	if capacity == 0 {
		return maxClaims
	}
	return min(capacity, maxClaims)
}

// lists are those of a HostSubnet with claims: egressIPs, and assignedEgressIPs.
type lists struct{ claims, assigned []string }

func listsOf(h *v1.HostSubnet) lists {
	return lists{claims: h.EgressIPs, assigned: h.AssignedEgressIPs}
}

func (l lists) equal(other lists) bool {
	return slices.Equal(l.claims, other.claims) && slices.Equal(l.assigned, other.assigned)
}

// all are the claims of both lists.
func (l lists) all() []string { return slices.Concat(l.claims, l.assigned) }

// claimWrite are lists of claims that differ from what is stored.
type claimWrite struct {
	before, patched *v1.HostSubnet
	// wanted are the lists; patched becomes what the API server answers.
	wanted lists
}

// writeClaims writes the claims of automatic hosts that differ from the allocation.
// wrote reports whether anything was written, left whether some lists are left to the next
// round, and waits whether a claim waits for the address's former host.
//
// No address is ever written to one list while another list in the API has it. The
// allocation claims only what no list had in the view, and the view is at least as
// new as everything that this controller, and all before it, have written; what a write
// without an answer may have added to a list is not claimed for another host. Each write
// is conditional on the version in the view, so it fails if someone else wrote in
// between. The order of the writes does not matter, so they are concurrent.
//
// A host whose last write is still under way gets its claims later. So do those that are
// more than one round may write, unless all before them fail.
//
// Hosts in judged have another version than in the view, so that a write of their claims
// would fail: it is left to the next round, which follows at once.
func (r *egressReconciler) writeClaims(ctx context.Context, v view, a egress.Allocation, judged map[string]bool) (wrote, left, waits bool, err error) {
	waiting := make(claimWaits)
	a = r.paceEvacuation(v, a, waiting)
	// Both are needed in few passes, and then perhaps for thousands of claims.
	configured, published := sync.OnceValue(v.configured), sync.OnceValue(v.published)
	released := releasesByHost(a)
	doubts := r.unanswered.doubts()
	wanted := make([]lists, len(a.Hosts))
	for i, claims := range a.Hosts {
		h := v.host(claims.Host)
		wanted[i] = lists{claims: h.EgressIPs, assigned: r.withhold(h, claims.Assigned, configured, doubts, waiting)}
		if claims.Automatic {
			wanted[i].claims = r.withhold(h, claims.Claims, configured, doubts, waiting)
		}
	}
	r.displaced.Keep(a)
	var changed []*claimWrite
	for i, claims := range a.Hosts {
		h := v.host(claims.Host)
		list := wanted[i]
		if list.equal(listsOf(h)) {
			list = doubts.again(h)
		}
		if list.equal(listsOf(h)) || judged[h.Name] || !r.fence.mayWrite(h) || r.writes.underWay(writesClaims, h.Name) {
			continue
		}
		changed = append(changed, &claimWrite{before: h, wanted: list})
	}
	maps.DeleteFunc(r.waitingSince, func(ip netip.Addr, _ time.Time) bool { return waiting[ip] == 0 })
	moves, others := batches(changed, r.displaced, released)
	if len(judged) > 0 {
		left = len(others) > 0 // what follows from the verdicts comes first
	} else {
		moves = append(moves, others...)
	}
	var errs []error
	for _, some := range moves {
		if wrote {
			left = true
			break
		}
		writes := make([]passWrite, 0, len(some))
		for _, w := range some {
			writes = append(writes, r.claimsWrite(ctx, w, func() {
				wrote = true
				r.wroteClaims(ctx, w, released[w.before.Name], published)
			}))
		}
		errs = append(errs, r.writes.do(claimWriters, writes)...)
	}
	return wrote, left, waiting.any(), errors.Join(errs...)
}

// claimsWrite is the request that stores a list of claims. wrote is called when it is stored.
func (r *egressReconciler) claimsWrite(ctx context.Context, w *claimWrite, wrote func()) passWrite {
	w.patched = w.before.DeepCopy()
	w.patched.EgressIPs, w.patched.AssignedEgressIPs = slices.Clone(w.wanted.claims), slices.Clone(w.wanted.assigned)
	r.unanswered.add(w)
	return passWrite{
		key: writeKey{writesClaims, w.before.Name},
		send: func() error {
			return r.writer.Patch(ctx, w.patched, client.MergeFromWithOptions(w.before, client.MergeFromWithOptimisticLock{}))
		},
		answered: func(err error) error {
			r.unanswered.answered(w, err)
			if err != nil {
				// The others do not wait for this one: what they claim was on no list.
				return unlessGone(fmt.Errorf("write egressIPs of HostSubnet %s: %w", w.before.Name, err))
			}
			wrote()
			return nil
		},
	}
}

// wroteClaims remembers and reports a list that was written. released are those of the host
// in the allocation, published what is reported; see view.
func (r *egressReconciler) wroteClaims(ctx context.Context, w *claimWrite, released []egress.Release, published func() map[hostAddress]bool) {
	r.observer.wroteHost(w.patched)
	before, now := listsOf(w.before), listsOf(w.patched)
	r.history.wrote(w.patched.UID, now.claims)
	r.displaced.Wrote(before.all(), now.all(), released)
	values := []any{"hostSubnet", w.before.Name, "before", before.claims, "now", now.claims}
	if len(before.assigned)+len(now.assigned) > 0 {
		values = append(values, "assignedBefore", before.assigned, "assignedNow", now.assigned)
	}
	log.FromContext(ctx).Info("wrote the claims of a host", values...)
	r.reportReleases(w.before, now, released, published)
}

// claimWaits are the claims that wait for something that is done elsewhere.
type claimWaits map[netip.Addr]wait

type wait int

const (
	// pending: the claim is not written in this round.
	pending wait = iota + 1
	// overdue: it has waited long enough, and is written in this round. If that fails it
	// does not wait again.
	overdue
)

// any reports whether a claim is not written for that reason.
func (w claimWaits) any() bool {
	for _, state := range w {
		if state == pending {
			return true
		}
	}
	return false
}

// paceEvacuation defers the next step of an evacuation until the last one is done:
// until all hosts that are online have what they claim, or have had the time for it.
func (r *egressReconciler) paceEvacuation(v view, a egress.Allocation, waiting claimWaits) egress.Allocation {
	i := slices.IndexFunc(a.Released, func(release egress.Release) bool { return release.Reason == egress.ReasonEvacuated })
	if i < 0 {
		return a
	}
	next := a.Released[i]
	now := r.clock.Now()
	if since, ok := r.waitingSince[next.IP]; !ok {
		r.waitingSince[next.IP] = now
	} else if now.Sub(since) >= awaitReleaseFor {
		waiting[next.IP] = overdue
		return a
	}
	if v.allConfigured() {
		return a
	}
	waiting[next.IP] = pending
	a.Hosts = slices.Clone(a.Hosts)
	for j, claims := range a.Hosts {
		if claims.Host != next.Host {
			continue
		}
		list := &a.Hosts[j].Claims
		if slices.Contains(v.host(next.Host).AssignedEgressIPs, next.IP.String()) {
			list = &a.Hosts[j].Assigned
		}
		*list = append(slices.Clone(*list), next.IP)
		slices.SortFunc(*list, netip.Addr.Compare)
	}
	a.Released = slices.Delete(slices.Clone(a.Released), i, i+1)
	return a
}

// withhold returns the claims as they are written: without those that another host still
// has. These are added to waiting. configured returns who has what; see view. Those that may
// be on the list of another host are left out until that is known.
func (r *egressReconciler) withhold(
	h *v1.HostSubnet, claims []netip.Addr, configured func() map[string][]string, doubts *doubts, waiting claimWaits,
) []string {
	now := r.clock.Now()
	another := func(host string) bool { return host != h.Name }
	wanted := make([]string, 0, len(claims))
	for _, ip := range claims {
		listed := slices.Contains(h.EgressIPs, ip.String()) || slices.Contains(h.AssignedEgressIPs, ip.String())
		if !listed && doubts.elsewhere(ip.String(), h.Name) {
			continue
		}
		if !listed && slices.ContainsFunc(configured()[ip.String()], another) {
			since, ok := r.waitingSince[ip]
			if !ok {
				since = now
				r.waitingSince[ip] = now
			}
			if now.Sub(since) < awaitReleaseFor {
				waiting[ip] = pending
				continue
			}
			waiting[ip] = overdue
		}
		wanted = append(wanted, ip.String())
	}
	return wanted
}

// releasesByHost are the releases of an allocation, by host.
func releasesByHost(a egress.Allocation) map[string][]egress.Release {
	byHost := make(map[string][]egress.Release)
	for _, release := range a.Released {
		byHost[release.Host] = append(byHost[release.Host], release)
	}
	return byHost
}

// reportReleases reports claims removed from a list that no namespace's status
// reports: those that were not in use, such as what a user wrote into the list of an
// automatic host. released are those of the host; published are those that are reported;
// see view.
func (r *egressReconciler) reportReleases(h *v1.HostSubnet, now lists, released []egress.Release, published func() map[hostAddress]bool) {
	reported, wanted := make(map[string]bool), now.all()
	for _, release := range released {
		if ip := release.IP.String(); !slices.Contains(wanted, ip) {
			reported[ip] = true
			r.publisher.releases.add(ip, release.Reason, r.clock.Now())
			if !published()[hostAddress{h.Name, ip}] {
				r.recorder.Event(h, corev1.EventTypeNormal, eventUnassigned, release.Message)
			}
		}
	}
	canonical, _ := egress.CanonicalClaims(h.EgressIPs)
	for _, written := range canonical {
		if !reported[written] && !slices.Contains(wanted, written) {
			r.recorder.Event(h, corev1.EventTypeNormal, eventUnassigned, fmt.Sprintf(
				"%q is removed from egressIPs of the HostSubnet: the controller manages that list as long as egressCIDRs is not empty. Clear egressCIDRs to list egress IPs by hand.", written))
		}
	}
}
