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

// namespaceFile is where a pod finds the name of its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// lookForLeader is how often it is looked whether the leader's host is gone.
const lookForLeader = 200 * time.Millisecond

// heir is the part of a standby that has the lead of a dead leader end at once. An
// egress host that dies may take the leader with it; to wait for its Lease to expire
// would be most of the outage.
//
// The leader's host is known dead by what takes any host offline: this controller's
// own probes, and more than half of the agents that watch it. Should the leader live
// nevertheless, it finds within a retry period that it has lost its lead, and stops:
// no other is safer, as a Lease itself rests on clocks.
type heir struct {
	log   logr.Logger
	clock clock.WithTicker
	// leads is closed once this controller leads.
	leads  <-chan struct{}
	synced func(context.Context) bool
	// judge says what is known of hosts.
	judge  *clusterJob
	live   client.Reader
	writer client.Client
	lease  client.ObjectKey

	// silent are the hosts that were silent at the last look, since is when they
	// became so.
	silent []string
	since  time.Time
}

// NeedLeaderElection is false: it works until this controller leads.
func (*heir) NeedLeaderElection() bool { return false }

// Start works until ctx ends or this controller leads.
func (h *heir) Start(ctx context.Context) error {
	if !h.synced(ctx) {
		return nil
	}
	ticker := h.clock.NewTicker(lookForLeader)
	defer ticker.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.leads:
			return nil
		case <-ticker.C():
		}
		err := h.look(ctx)
		if err != nil && ctx.Err() == nil && failures == 0 {
			h.log.Error(err, "cannot tell whether the leader's host is gone; its Lease expires in any case")
		}
		if failures++; err == nil {
			failures = 0
		}
	}
}

// look has the lead end where the leader's host is dead.
func (h *heir) look(ctx context.Context) error {
	words := h.judge.probes.words()
	if !h.due(words) {
		return nil
	}
	w, err := h.judge.gather(ctx)
	if err != nil {
		return err
	}
	dead := w.silent(words)
	if len(dead) == 0 {
		return nil
	}
	var lease coordinationv1.Lease
	if err := h.live.Get(ctx, h.lease, &lease); err != nil {
		return fmt.Errorf("read Lease %s: %w", h.lease, err)
	}
	leader := ""
	if lease.Spec.HolderIdentity != nil {
		leader = *lease.Spec.HolderIdentity
	}
	host, found := hostOfLeader(leader, dead)
	if !found {
		return nil
	}
	// As a leader does that ends in good order. Without it the others would wait
	// for the term to pass.
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = nil, new(int32(1))
	switch err := h.writer.Update(ctx, &lease); {
	case apierrors.IsConflict(err):
		return nil // the leader lives, or another heir was faster
	case err != nil:
		return fmt.Errorf("end the lead of %s in Lease %s: %w", leader, h.lease, err)
	}
	h.log.Info("the leader's host is silent: its lead ends", "leader", leader, "host", host)
	return nil
}

// due tells whether there is anything to look for: hosts have fallen silent, not much
// longer ago than a Lease lasts. Whoever leads after that does so from elsewhere, and a
// host may stay dead for days.
func (h *heir) due(words map[string]online.ProbeState) bool {
	var silent []string
	for name, word := range words {
		if word == online.ProbeSilent || word == online.ProbeCutOff {
			silent = append(silent, name)
		}
	}
	slices.Sort(silent)
	if now := h.clock.Now(); !slices.Equal(silent, h.silent) {
		h.silent, h.since = silent, now
	}
	return len(silent) > 0 && h.clock.Since(h.since) < 2*leaseDuration
}

// silent are the hosts that probes alone, and now, find offline.
func (w *world) silent(words map[string]online.ProbeState) []*v1.HostSubnet {
	var dead []*v1.HostSubnet
	for _, host := range w.hosts {
		e := online.Evidence{Probe: words[host.Name], Vote: w.votes[host.Name]}
		if e.Silent() && !w.verdicts[host.Name].Online {
			dead = append(dead, host)
		}
	}
	return dead
}

// hostOfLeader gives the host among several that a leader runs on. The identity of a
// leader is its machine's name, which in the host's network is the Node's, and a
// random part.
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

// ownNamespace is the namespace of the Lease where the options name none.
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
