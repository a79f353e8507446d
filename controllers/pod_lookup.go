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

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// lookAgainAfter is the pause before the Pods of a Node are listed again, if its agent
// sees pods where no Pod was: an agent may know a pod before the API server has its
// address. As long as no agent publishes other networks, the pause doubles up to
// lookAgainAtMost: there may never be a Pod.
const (
	lookAgainAfter  = 2 * time.Second
	lookAgainAtMost = time.Minute
)

// podLookup finds out whether the API server has Pods in the networks that agents
// publish. It lists the Pods of a Node when its agent publishes a network, and not
// otherwise: in most clusters never, so that no controller has to watch all Pods.
//
// It asks in a goroutine of its own, so that no decision waits for an answer.
type podLookup struct {
	log   logr.Logger
	clock clock.Clock
	// live asks the API server.
	live client.Reader
	// changed receives an event when a Pod was found.
	changed chan event.GenericEvent
	wake    chan struct{}

	mu sync.Mutex
	// asked are the hosts with networks in which no Pod was found, and all networks that
	// their agents publish; found are the addresses of the Pods of hosts.
	asked map[string][]string
	found map[string][]netip.Addr
}

func newPodLookup(log logr.Logger, clock clock.Clock, live client.Reader) *podLookup {
	return &podLookup{
		log: log.WithName("pod-networks"), clock: clock, live: live,
		changed: make(chan event.GenericEvent, 1), wake: make(chan struct{}, 1),
		asked: make(map[string][]string), found: make(map[string][]netip.Addr),
	}
}

// listed returns the networks of a host's agent in which the API server has, or had, a
// Pod of its Node, if that is known by now, and looks up the others. A nil podLookup looks
// up nothing. Networks that objects of the CNI name need no look-up.
func (p *podLookup) listed(h *v1.HostSubnet, found []v1.FoundNetwork) []string {
	var published, before []string
	if h.Status.Agent != nil {
		published = egress.NotFound(h.Status.Agent.PodNetworks, found)
	}
	if h.Status.Placement != nil {
		before = h.Status.Placement.PodNetworks
	}
	if p == nil {
		listed, _ := egress.ListedPodNetworks(published, before, nil)
		return listed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	listed, all := egress.ListedPodNetworks(published, before, p.found[h.Name])
	switch {
	case len(published) == 0:
		delete(p.asked, h.Name)
		delete(p.found, h.Name)
	case all:
		delete(p.asked, h.Name)
	case !slices.Equal(p.asked[h.Name], published):
		p.asked[h.Name] = published
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return listed
}

// prune forgets the hosts that are not kept.
func (p *podLookup) prune(keep func(host string) bool) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := func(host string) bool { return !keep(host) }
	maps.DeleteFunc(p.asked, func(host string, _ []string) bool { return gone(host) })
	maps.DeleteFunc(p.found, func(host string, _ []netip.Addr) bool { return gone(host) })
}

// Start works until ctx ends, on the leader only.
func (p *podLookup) Start(ctx context.Context) error {
	failed, pause := false, lookAgainAfter
	for ctx.Err() == nil {
		err := p.look(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			p.log.Error(err, "cannot find out which networks are those of pods; trying again, and meanwhile those that agents found new are outside",
				"retryInterval", pause.String())
		}
		failed = err != nil
		if p.await(ctx, pause) {
			pause = lookAgainAfter
		} else {
			pause = min(2*pause, lookAgainAtMost)
		}
	}
	return nil
}

// await returns when hosts are asked for that were not before, or ask for other networks,
// and reports that; or after a pause, if hosts are asked for still.
func (p *podLookup) await(ctx context.Context, pause time.Duration) (asked bool) {
	p.mu.Lock()
	pending := len(p.asked) > 0
	p.mu.Unlock()
	var again <-chan time.Time
	if pending {
		timer := p.clock.NewTimer(pause)
		defer timer.Stop()
		again = timer.C()
	}
	select {
	case <-ctx.Done():
		return false
	case <-p.wake:
		return true
	case <-again:
		return false
	}
}

// look lists the Pods of all hosts that are asked for.
func (p *podLookup) look(ctx context.Context) error {
	p.mu.Lock()
	hosts := slices.Sorted(maps.Keys(p.asked))
	p.mu.Unlock()
	var errs []error
	news := false
	for _, host := range hosts {
		addresses, err := p.list(ctx, host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.mu.Lock()
		if _, asked := p.asked[host]; asked && !slices.Equal(p.found[host], addresses) {
			p.found[host], news = addresses, true
		}
		p.mu.Unlock()
	}
	if news {
		select {
		case p.changed <- event.GenericEvent{Object: &v1.HostSubnet{}}:
		default:
		}
	}
	return errors.Join(errs...)
}

// list returns the addresses of a Node's Pods, in order.
func (p *podLookup) list(ctx context.Context, host string) ([]netip.Addr, error) {
	var pods corev1.PodList
	// Whatever the API server has in memory is good enough, and spares etcd.
	fresh := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}
	if err := p.live.List(ctx, &pods, fresh, client.MatchingFields{"spec.nodeName": host}); err != nil {
		return nil, fmt.Errorf("list the Pods of Node %s: %w", host, err)
	}
	var addresses []netip.Addr
	for i := range pods.Items {
		if pods.Items[i].Spec.HostNetwork {
			continue
		}
		for _, written := range pods.Items[i].Status.PodIPs {
			if ip, err := netip.ParseAddr(written.IP); err == nil {
				addresses = append(addresses, ip)
			}
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), nil
}
