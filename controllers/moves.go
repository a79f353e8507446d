package controllers

import (
	"maps"
	"slices"
	"sync"
	"time"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Reasons of moves that are not those of a release.
const (
	// reasonReassigned: the controller did not have the address released. Someone has
	// edited lists, or another controller led when it was released.
	reasonReassigned = "Reassigned"
	// reasonOther is any reason of a release that is not listed.
	reasonOther = "Other"
)

// moveReasons are the reasons of moves, for metrics.
func moveReasons() []string {
	return []string{
		string(egress.ReasonHostOffline), string(egress.ReasonHostSilent), string(egress.ReasonNotConfigured), string(egress.ReasonEvacuated),
		string(egress.ReasonRebalanced), string(egress.ReasonCapacity), string(egress.ReasonOutsideRange), string(egress.ReasonSameHost),
		string(egress.ReasonAgentUnknown), reasonReassigned, reasonOther,
	}
}

// forgetReleaseAfter is how long a release counts as the reason of a move.
const forgetReleaseAfter = time.Hour

// releases remembers why and when addresses were released, until they have a host again. It is
// safe for concurrent use.
type releases struct {
	mu   sync.Mutex
	byIP map[string]releasedAt
	// swept is when what is too old was forgotten last.
	swept time.Time
}

type releasedAt struct {
	reason egress.Reason
	at     time.Time
}

func newReleases() *releases { return &releases{byIP: make(map[string]releasedAt)} }

// add notes that an address was released.
func (r *releases) add(ip string, reason egress.Reason, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) > forgetReleaseAfter {
		maps.DeleteFunc(r.byIP, func(_ string, was releasedAt) bool { return now.Sub(was.at) > forgetReleaseAfter })
		r.swept = now
	}
	r.byIP[ip] = releasedAt{reason: reason, at: now}
}

// take returns why an address that has another host now was released, and how long ago; known is
// false if it was not.
func (r *releases) take(ip string, now time.Time) (reason string, took time.Duration, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, ok := r.byIP[ip]
	delete(r.byIP, ip)
	if !ok || now.Sub(was.at) > forgetReleaseAfter {
		return reasonReassigned, 0, false
	}
	reason = string(was.reason)
	if !slices.Contains(moveReasons(), reason) {
		reason = reasonOther
	}
	return reason, now.Sub(was.at), true
}

// moved returns the addresses that have another host after the change.
func moved(before, after v1.NetNamespaceStatus) []string {
	var ips []string
	was := byIP(before.EgressIPs)
	for _, now := range after.EgressIPs {
		old := was[now.IP]
		if assigned(old.State) && assigned(now.State) && old.Host != now.Host {
			ips = append(ips, now.IP)
		}
	}
	return ips
}

// countMoves counts the moves of a change, and how long they took.
func (p *publisher) countMoves(before, after v1.NetNamespaceStatus) {
	for _, ip := range moved(before, after) {
		reason, took, known := p.releases.take(ip, p.clock.Now())
		p.metrics.moves.WithLabelValues(reason).Inc()
		if known {
			p.metrics.moveSeconds.Observe(took.Seconds())
		}
	}
}
