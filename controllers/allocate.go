package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// releaseWithin is how long an online host is given to take an address off that
// another shall claim. An agent needs milliseconds; one that does not answer for
// so long is not waited for, because its namespace is without an egress IP
// meanwhile.
const releaseWithin = 3 * time.Second

// maxClaims is the greatest number of items that the schema of
// HostSubnet.egressIPs takes; no host has capacity for more.
const maxClaims = 512

// atMost bounds a capacity, of which 0 means no limit, by maxClaims.
func atMost(capacity int) int {
	if capacity == 0 {
		return maxClaims
	}
	return min(capacity, maxClaims)
}

// allocate writes the claims of automatic hosts that differ from the
// allocation. wrote tells whether anything was written, held whether a claim
// waits for the address's former host.
//
// No address is ever written to one list while another in the API holds it. The
// allocation claims only what no list held when it was asked, and what it was
// asked on is at least as new as all that this controller has written. Each
// write is pinned to the version that was looked at, so that it fails where
// someone else wrote in between.
func (r *clusterJob) allocate(ctx context.Context, w world, a egress.Allocation) (wrote, held bool, err error) {
	waiting := make(map[netip.Addr]bool)
	var errs []error
	a = r.pace(w, a, waiting)
	for _, claims := range a.Hosts {
		h := w.host(claims.Host)
		wanted := r.withhold(w, h, claims.Claims, waiting)
		if slices.Equal(wanted, h.EgressIPs) {
			continue
		}
		patched := h.DeepCopy()
		patched.EgressIPs = wanted
		if err := r.writer.Patch(ctx, patched, client.MergeFromWithOptions(h, client.MergeFromWithOptimisticLock{})); err != nil {
			// The others need not wait for this one: what they claim was on no list.
			errs = append(errs, unlessGone(fmt.Errorf("write egressIPs of HostSubnet %s: %w", h.Name, err)))
			continue
		}
		r.hosts.wrote(patched)
		wrote = true
		log.FromContext(ctx).Info("wrote the claims of an automatic host", "hostSubnet", h.Name, "before", h.EgressIPs, "now", wanted)
		r.tellReleases(w, h, wanted, a.Released)
	}
	maps.DeleteFunc(r.heldSince, func(ip netip.Addr, _ time.Time) bool { return !waiting[ip] })
	return wrote, len(waiting) > 0, errors.Join(errs...)
}

// pace holds the next step of an evacuation until the last one is done: until all
// hosts that are online bear what they claim, or have had the time for it.
func (r *clusterJob) pace(w world, a egress.Allocation, waiting map[netip.Addr]bool) egress.Allocation {
	i := slices.IndexFunc(a.Released, func(release egress.Release) bool { return release.Reason == egress.ReasonEvacuated })
	if i < 0 {
		return a
	}
	next := a.Released[i]
	now := r.clock.Now()
	if since, ok := r.heldSince[next.IP]; !ok {
		r.heldSince[next.IP] = now
	} else if now.Sub(since) >= releaseWithin {
		return a
	}
	if w.allBorne() {
		return a
	}
	waiting[next.IP] = true
	a.Hosts = slices.Clone(a.Hosts)
	for j, claims := range a.Hosts {
		if claims.Host == next.Host {
			a.Hosts[j].Claims = append(slices.Clone(claims.Claims), next.IP)
			slices.SortFunc(a.Hosts[j].Claims, netip.Addr.Compare)
		}
	}
	a.Released = slices.Delete(slices.Clone(a.Released), i, i+1)
	return a
}

// allBorne tells whether all automatic hosts that are online bear what they
// claim, by the word of their agents.
func (w *world) allBorne() bool {
	for _, h := range w.hosts {
		if len(h.EgressCIDRs) == 0 || !w.verdicts[h.Name].Online {
			continue
		}
		has := borne(h)
		for _, ip := range h.EgressIPs {
			if !slices.Contains(has, ip) {
				return false
			}
		}
	}
	return true
}

// withhold returns the claims as they are written: without those that another
// host, which is online, still bears according to its agent. They are noted in
// waiting.
func (r *clusterJob) withhold(w world, h *v1.HostSubnet, claims []netip.Addr, waiting map[netip.Addr]bool) []string {
	now := r.clock.Now()
	wanted := make([]string, 0, len(claims))
	for _, ip := range claims {
		if !slices.Contains(h.EgressIPs, ip.String()) && w.borneElsewhere(ip, h.Name) {
			since, ok := r.heldSince[ip]
			if !ok {
				since = now
				r.heldSince[ip] = now
			}
			if now.Sub(since) < releaseWithin {
				waiting[ip] = true
				continue
			}
		}
		wanted = append(wanted, ip.String())
	}
	return wanted
}

// borneElsewhere tells whether the agent of another host that is online reports
// the address as configured.
func (w *world) borneElsewhere(ip netip.Addr, except string) bool {
	written := ip.String()
	for _, h := range w.hosts {
		if h.Name == except || !w.verdicts[h.Name].Online {
			continue
		}
		for _, claim := range h.Status.EgressIPs {
			if claim.IP == written && claim.Configured {
				return true
			}
		}
	}
	return false
}

// tellReleases tells of claims taken off a list that no namespace's status
// tells of: those that were in use nowhere, such as what a user wrote into the
// list of an automatic host.
func (r *clusterJob) tellReleases(w world, h *v1.HostSubnet, wanted []string, released []egress.Release) {
	told := make(map[string]bool)
	for _, release := range released {
		if ip := release.IP.String(); release.Host == h.Name && !slices.Contains(wanted, ip) {
			told[ip] = true
			if !w.reported(ip, h.Name) {
				r.recorder.Event(h, corev1.EventTypeNormal, eventUnassigned, release.Message)
			}
		}
	}
	canonical, _ := egress.CanonicalClaims(h.EgressIPs)
	for _, written := range canonical {
		if !told[written] && !slices.Contains(wanted, written) {
			r.recorder.Event(h, corev1.EventTypeNormal, eventUnassigned, fmt.Sprintf(
				"%q is taken from egressIPs: the list belongs to the controller as long as egressCIDRs is not empty.", written))
		}
	}
}

// reported tells whether a NetNamespace's status has the address assigned to
// the host.
func (w *world) reported(ip, host string) bool {
	for _, n := range w.namespaces {
		for _, request := range n.Status.EgressIPs {
			if request.IP == ip && request.Host == host && assigned(request.State) {
				return true
			}
		}
	}
	return false
}
