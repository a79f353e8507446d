package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// giveUpTimeout bounds the time in which an agent that is uninstalled gives the
// egress IPs up, or takes everything off the node. It is shorter than the kubelet's grace period before it kills.
const giveUpTimeout = 5 * time.Second

// owner watches the DaemonSet that the agent belongs to. An agent that ends is
// either replaced, and then what it did must keep working; or uninstalled, and then no
// host may keep an address that is no longer managed. The deletion of the DaemonSet
// distinguishes the two. It must be seen when it happens: the permission to read the
// DaemonSet is deleted with it.
type owner struct {
	log logr.Logger
	key client.ObjectKey

	mu    sync.Mutex
	found bool // it was there at least once
	gone  bool
}

// watch records what happens to the DaemonSet, until ctx ends.
func (o *owner) watch(ctx context.Context, c cache.Cache) error {
	informer, err := c.GetInformer(ctx, &appsv1.DaemonSet{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch DaemonSet %s: %w", o.key, err)
	}
	events, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { o.seen(object, false) },
		UpdateFunc: func(_, object any) { o.seen(object, false) },
		DeleteFunc: func(object any) { o.seen(object, true) },
	})
	if err != nil {
		return fmt.Errorf("watch DaemonSet %s: %w", o.key, err)
	}
	if toolscache.WaitForCacheSync(ctx.Done(), events.HasSynced) {
		o.listed()
	}
	return nil
}

// listed is called after the first list. The DaemonSet created this agent's pod: if
// it is not in the list, it was deleted before this agent could see it, and no event
// will follow.
func (o *owner) listed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.found {
		o.gone = true
		o.log.Info("the DaemonSet of this agent does not exist: the egress IPs of this node are given up when the agent ends; "+
			"if the DaemonSet has another name, set --daemonset", "daemonSet", o.key.String(), "deleted", true)
	}
}

// seen takes one event. A new DaemonSet of the same name counts as the same: its
// agents carry on.
func (o *owner) seen(object any, deleted bool) {
	if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	d, ok := object.(*appsv1.DaemonSet)
	if !ok || client.ObjectKeyFromObject(d) != o.key {
		return
	}
	gone := deleted || !d.DeletionTimestamp.IsZero()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.found = true
	if gone != o.gone {
		o.gone = gone
		o.log.Info("the DaemonSet of this agent", "daemonSet", o.key.String(), "deleted", gone)
	}
}

// uninstalled reports whether the agent ends for good.
func (o *owner) uninstalled() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gone
}

// giveUp takes everything off this node, if no namespace requests egress IPs any more.
// Otherwise it removes all egress IPs. Egress traffic of pods that used them is dropped from
// then on, until cleanup removes everything: it must not leave with the node's address.
func (l *loop) giveUp(ctx context.Context) error {
	if l.desired == nil {
		return nil // nothing was ever done
	}
	ctx, cancel := context.WithTimeout(ctx, giveUpTimeout)
	defer cancel()
	if cluster, _ := egress.Snapshot(egress.Objects{NetNamespaces: l.given.netNamespaces, EgressIPs: l.given.egressIPs}); egress.NothingRequested(cluster) {
		if err := l.applier.Cleanup(ctx); err != nil {
			return fmt.Errorf("take everything off the node: %w", err)
		}
		l.log.Info("uninstalled: nothing requests egress IPs, and everything was taken off this node")
		return nil
	}
	in := l.given
	in.reach.Withdrawn = true
	last, ok := decide(in)
	if !ok {
		return fmt.Errorf("give up the egress IPs: %w", errNoHost(in.node))
	}
	report, err := l.applier.Apply(ctx, last.state)
	if err != nil {
		return fmt.Errorf("give up the egress IPs: %w", err)
	}
	l.log.Info("uninstalled while namespaces request egress IPs: the egress IPs are given up; egress traffic of pods that used them is dropped "+
		"until \"cleanup\" is run on this node",
		"changes", report.Changes)
	return nil
}
