package controllers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// namespaceFile is where a pod reads the name of its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// checkLeaderEvery is the pause between two checks of the leader's host.
const checkLeaderEvery = 200 * time.Millisecond

// leaderMonitor is the part of a standby that releases the Lease of a leader whose
// host died. An egress host that dies may take the leader with it, and waiting for its
// Lease to expire would be most of the outage.
//
// The leader's host is considered dead on the evidence that takes any host offline:
// this controller's own probes, and more than half of its witnesses. If the
// leader is alive nevertheless, it notices within a retry period that it has lost its
// Lease, and stops. A Lease that expires is no safer: it depends on clocks.
type leaderMonitor struct {
	log   logr.Logger
	clock clock.WithTicker
	// leading is closed once this controller leads.
	leading  <-chan struct{}
	synced   func(context.Context) bool
	observer *observer
	live     client.Reader
	writer   client.Client
	lease    client.ObjectKey

	// silent are the hosts that were silent at the last check, since is when they
	// became silent.
	silent []string
	since  time.Time
}

// NeedLeaderElection is false: the monitor works until this controller leads.
func (*leaderMonitor) NeedLeaderElection() bool { return false }

// Start works until ctx ends or this controller leads.
func (m *leaderMonitor) Start(ctx context.Context) error {
	if !m.synced(ctx) {
		return nil
	}
	ticker := m.clock.NewTicker(checkLeaderEvery)
	defer ticker.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.leading:
			return nil
		case <-ticker.C():
		}
		err := m.check(ctx)
		if err != nil && ctx.Err() == nil && failures == 0 {
			m.log.Error(err, "cannot check the leader's host; if it died, its Lease expires later")
		}
		if failures++; err == nil {
			failures = 0
		}
	}
}

// check releases the Lease if the leader's host is dead.
func (m *leaderMonitor) check(ctx context.Context) error {
	probed := m.observer.probes()
	if !m.due(probed) {
		return nil
	}
	v, err := m.observer.observeWith(ctx, probed)
	if err != nil {
		return err
	}
	dead := v.silentHosts()
	if len(dead) == 0 {
		return nil
	}
	var lease coordinationv1.Lease
	if err := m.live.Get(ctx, m.lease, &lease); err != nil {
		return fmt.Errorf("read Lease %s: %w", m.lease, err)
	}
	leader := ""
	if lease.Spec.HolderIdentity != nil {
		leader = *lease.Spec.HolderIdentity
	}
	host, found := hostOfLeader(leader, dead)
	if !found {
		return nil
	}
	// As a leader does that stops in good order. Otherwise the others would wait for
	// the Lease to expire.
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = nil, new(int32(1))
	switch err := m.writer.Update(ctx, &lease); {
	case apierrors.IsConflict(err):
		return nil // the leader is alive, or another standby was faster
	case err != nil:
		return fmt.Errorf("release Lease %[2]s of leader %[1]s: %[3]w", leader, m.lease, err)
	}
	m.log.Info("the leader's host is silent: its Lease is released", "leader", leader, "host", host)
	return nil
}

// due reports whether there is anything to check: hosts have fallen silent, not much
// longer ago than a Lease lasts. Any leader after that runs elsewhere, and a host may
// stay dead for days.
func (m *leaderMonitor) due(probed probeStates) bool {
	var silent []string
	for name, state := range probed {
		if state == online.ProbeSilent || state == online.ProbeCutOff {
			silent = append(silent, name)
		}
	}
	slices.Sort(silent)
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

// ownNamespace is the namespace of the Lease if the options name none.
func ownNamespace(o Options) (string, error) {
	if o.LeaderElectionNamespace != "" {
		return o.LeaderElectionNamespace, nil
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", fmt.Errorf("find the namespace of the Lease: %w", err)
	}
	namespace := strings.TrimSpace(string(text))
	if namespace == "" {
		return "", errors.New("find the namespace of the Lease: " + namespaceFile + " is empty")
	}
	return namespace, nil
}
