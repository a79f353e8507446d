package controllers

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// checkLeaderFor limits one check of the leader's host. It reads caches only.
const checkLeaderFor = time.Second

// leaderMonitor is the part of a standby that decides whether the leader's host is dead.
// An egress host that dies may take the leader with it, and waiting for its Lease to
// expire would be most of the outage.
//
// The evidence is that which takes any host offline: this controller's own probes, and
// the votes of its witnesses. It may be wrong. A leader that is alive nevertheless finds
// another holder in the Lease within a retry period and ends. Until then, and if it
// does not notice, the fence keeps its claims out.
type leaderMonitor struct {
	log      logr.Logger
	clock    clock.PassiveClock
	observer *observer

	mu sync.Mutex
	// silent are the hosts that were silent at the last check, since is when they
	// became silent.
	silent []string
	since  time.Time
	// reported is the leader that was reported last.
	reported string
}

// dead reports whether the host that the leader runs on is dead.
func (m *leaderMonitor) dead(ctx context.Context, leader string) bool {
	probed := m.observer.probes()
	if !m.due(probed) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, checkLeaderFor)
	defer cancel()
	v, err := m.observer.observeWith(ctx, probed)
	if err != nil {
		m.log.Error(err, "cannot check the leader's host; if it died, its Lease expires later")
		return false
	}
	host, found := hostOfLeader(leader, v.silentHosts())
	if found && m.first(leader) {
		m.log.Info("the leader's host is silent: its Lease counts as released", "leader", leader, "host", host)
	}
	return found
}

// first reports whether this leader was not reported yet.
func (m *leaderMonitor) first(leader string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.reported = leader }()
	return m.reported != leader
}

// due reports whether there is anything to check: hosts have fallen silent, not much
// longer ago than a Lease lasts. Any leader after that runs elsewhere, and a host may
// stay dead for days.
func (m *leaderMonitor) due(probed probeStates) bool {
	var silent []string
	for name, result := range probed {
		if state := result.State; state == online.ProbeSilent || state == online.ProbeCutOff {
			silent = append(silent, name)
		}
	}
	slices.Sort(silent)
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.clock.Now(); !slices.Equal(silent, m.silent) {
		m.silent, m.since = silent, now
	}
	return len(silent) > 0 && m.clock.Since(m.since) < 2*leaseDuration
}

// hostOfLeader returns which of the hosts a leader runs on. A leader's identity is the
// name of its machine, which in the host network is the Node's, and a random part.
func hostOfLeader(identity string, among []*v1.HostSubnet) (string, bool) {
	at := strings.LastIndexByte(identity, '_')
	if at < 0 {
		return "", false
	}
	for _, host := range among {
		if strings.EqualFold(host.Name, identity[:at]) {
			return host.Name, true
		}
	}
	return "", false
}
