package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// maxLists bounds the lists of one attempt to close the fence.
const maxLists = 4

// fence keeps the claims of all controllers but one out of the API, whatever the Lease
// and clocks say. docs/adr/0011 has the argument.
//
// A controller may write claims to a HostSubnet only at a version that carries its mark,
// and only after one list from the API server has shown its mark on that one, and an earlier
// controller's on none. A mark is never written over a later one. So once a list shows the
// marks of this controller, no earlier controller can write claims any more, and what
// they have written is in the list.
//
// It belongs to the cluster reconciler, which has one worker.
type fence struct {
	live     client.Reader
	writer   client.Client
	observer *observer
	recorder recorder
	clock    clock.PassiveClock
	writes   *passWrites
	// deposed is called when a later writer was found, and over is set.
	deposed func(error)
	over    bool

	mine mark
	// passed are the HostSubnets with this controller's mark in the last list that showed
	// no earlier one, nil if there was none. Claims are written to these only.
	passed map[types.UID]bool
	// unseenHosts, unseenNamespaces and unseenEgressIPs were listed at listedAt, and a view may
	// not show them yet. patience is how long that may take.
	unseenHosts      []*v1.HostSubnet
	unseenNamespaces []*v1.NetNamespace
	unseenEgressIPs  []*ovnv1.EgressIP
	requestsListed   bool
	listedAt         time.Time
	patience         time.Duration
	// told are the events on HostSubnets that cannot be marked.
	told *told
}

// The patience with caches before everything is listed again grows between these
// limits.
const (
	firstPatience = 500 * time.Millisecond
	lastPatience  = 30 * time.Second
)

func newFence(d deps, o *observer, writes *passWrites) *fence {
	return &fence{
		live: d.live, writer: d.writer, observer: o, recorder: d.recorder, clock: d.clock, writes: writes, deposed: d.deposed,
		mine: mark{writer: d.claimsWriter}, patience: firstPatience, told: newTold(),
	}
}

// permission is what a view may be used for.
type permission int

const (
	// lookAgain: a newer view is needed, and can be had at once.
	lookAgain permission = iota
	// waitForCaches: the caches do not show yet what the API server has listed.
	waitForCaches
	// noClaims: no claims may be written.
	noClaims
	// claimsAllowed: claims may be written where mayWrite allows it.
	claimsAllowed
)

// mayWrite reports whether claims may be written to the HostSubnet at this version. The
// view that it is from must have permission.
func (f *fence) mayWrite(h *v1.HostSubnet) bool { return f.passed[h.UID] && markOf(h) == f.mine }

// review compares a view with the marks, and marks what has to be marked. If that
// fails, the hosts that were marked before can still get claims.
func (f *fence) review(ctx context.Context, v view) (permission, error) {
	if f.passed == nil {
		return f.close(ctx)
	}
	if f.unseen(v) {
		if f.clock.Since(f.listedAt) <= f.patience {
			return waitForCaches, nil
		}
		// Something may have been deleted since it was listed.
		f.patience, f.requestsListed = min(2*f.patience, lastPatience), false
		return f.close(ctx)
	}
	if _, err := compareMarks(f.mine, v.hosts); err != nil {
		return noClaims, f.depose(err)
	}
	due := false
	for _, h := range marked(v.hosts) {
		switch {
		case f.mayWrite(h):
		case !f.writes.underWay(writesMark, h.Name):
			// A mark that no list has shown may have come with the object.
			due = true
		case hasMark(h):
			return claimsAllowed, nil // no list would help
		}
	}
	if due {
		return f.close(ctx)
	}
	return claimsAllowed, nil
}

// close marks all HostSubnets where marks matter, until a list shows this controller's
// mark on all of them.
//
// A mark may get no answer, or be refused. If the host has an earlier controller's mark,
// that controller may still write claims there. Until the mark is replaced, hosts that were
// passed before get claims, and others do not. A host without a mark holds up no other: an
// earlier controller that marks it must list all hosts before it writes claims there, and
// then finds this controller's marks.
func (f *fence) close(ctx context.Context) (permission, error) {
	otherwise := noClaims
	if f.passed != nil && f.unseenHosts == nil {
		otherwise = claimsAllowed
	}
	for range maxLists {
		if f.passed == nil && f.writes.marksUnderWay() {
			return noClaims, nil
		}
		hosts, err := f.list(ctx)
		if err != nil {
			return otherwise, err
		}
		if f.mine.epoch == 0 {
			f.mine.epoch = nextEpoch(hosts)
		}
		lacking, err := compareMarks(f.mine, hosts)
		if err != nil {
			return noClaims, f.depose(err)
		}
		if len(lacking) == 0 || !slices.ContainsFunc(lacking, hasMark) && (f.unseenHosts != nil || f.passesMore(hosts)) {
			f.pass(hosts)
			return lookAgain, nil
		}
		lacking = slices.DeleteFunc(lacking, func(h *v1.HostSubnet) bool { return f.writes.underWay(writesMark, h.Name) })
		if len(lacking) == 0 {
			return otherwise, nil
		}
		// A conflict is resolved by the next list.
		if _, err := result(0, f.markAll(ctx, lacking)); err != nil {
			return otherwise, err
		}
	}
	return waitForCaches, nil // others write all the time
}

// list lists HostSubnets from the API server, and NetNamespaces and EgressIPs if that is due.
func (f *fence) list(ctx context.Context) ([]*v1.HostSubnet, error) {
	var hosts v1.HostSubnetList
	var namespaces v1.NetNamespaceList
	var egressIPs ovnv1.EgressIPList
	var g errgroup.Group
	if !f.requestsListed {
		g.Go(func() error { return f.live.List(ctx, &namespaces) })
		if f.observer.source.served() {
			g.Go(func() error { return f.live.List(ctx, &egressIPs) })
		}
	}
	if err := errors.Join(f.live.List(ctx, &hosts), g.Wait()); err != nil {
		return nil, fmt.Errorf("list HostSubnets, NetNamespaces and EgressIPs: %w", err)
	}
	f.listedAt = f.clock.Now()
	if !f.requestsListed {
		f.requestsListed = true
		f.unseenEgressIPs = pointers(egressIPs.Items)
		for _, e := range f.unseenEgressIPs {
			f.observer.wrote(e)
		}
		f.unseenNamespaces = pointers(namespaces.Items)
		// What the API server lists is as good as a later look at the cache.
		for _, n := range f.unseenNamespaces {
			f.observer.wrote(n)
		}
	}
	return pointers(hosts.Items), nil
}

// passesMore reports whether a list shows this controller's mark on a host that was not
// passed before.
func (f *fence) passesMore(hosts []*v1.HostSubnet) bool {
	return slices.ContainsFunc(hosts, func(h *v1.HostSubnet) bool { return markOf(h) == f.mine && !f.passed[h.UID] })
}

// pass remembers the list by which claims may be written.
func (f *fence) pass(hosts []*v1.HostSubnet) {
	f.passed = make(map[types.UID]bool, len(hosts))
	for _, h := range hosts {
		if markOf(h) == f.mine {
			f.passed[h.UID] = true
		}
	}
	for _, h := range hosts {
		f.observer.wroteHost(h)
	}
	f.unseenHosts = hosts
}

// unseen reports whether the view does not show everything that was listed. Once a view
// does, all later ones do.
func (f *fence) unseen(v view) bool {
	if behind(f.unseenHosts, func(name string) (*v1.HostSubnet, bool) {
		h := v.host(name)
		return h, h != nil
	}) != "" {
		return true
	}
	f.unseenHosts = nil
	if behind(f.unseenNamespaces, func(name string) (*v1.NetNamespace, bool) {
		n := v.namespace(name)
		return n, n != nil
	}) != "" {
		return true
	}
	f.unseenNamespaces = nil
	if behind(f.unseenEgressIPs, func(name string) (*ovnv1.EgressIP, bool) {
		e := v.egressIP(name)
		return e, e != nil
	}) != "" {
		return true
	}
	f.unseenEgressIPs, f.patience = nil, firstPatience
	return false
}

// markAll writes this controller's mark to each host that has not changed since it was
// read.
func (f *fence) markAll(ctx context.Context, hosts []*v1.HostSubnet) error {
	writes := make([]passWrite, 0, len(hosts))
	for _, h := range hosts {
		patched := h.DeepCopy()
		metav1.SetMetaDataAnnotation(&patched.ObjectMeta, v1.AnnotationClaimsWriter, f.mine.String())
		writes = append(writes, passWrite{
			key: writeKey{writesMark, h.Name},
			send: func() error {
				return f.writer.Patch(ctx, patched, client.MergeFromWithOptions(h, client.MergeFromWithOptimisticLock{}))
			},
			answered: func(err error) error {
				if err != nil {
					f.reportRefused(h, err)
					return unlessGone(fmt.Errorf("mark HostSubnet %s: %w", h.Name, err))
				}
				f.told.forget(h.Name)
				return nil
			},
		})
	}
	return errors.Join(f.writes.do(claimWriters, writes)...)
}

// reportRefused reports that a HostSubnet cannot be marked.
func (f *fence) reportRefused(h *v1.HostSubnet, err error) {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return
	}
	held := "this host gets no egress IPs"
	if hasMark(h) {
		held = "hosts that it has not marked yet get no egress IPs"
	}
	f.told.warn(f.recorder, h, eventNotMarked, fmt.Sprintf(
		"The controller cannot write its annotation %s, and until it can, %s: %v", v1.AnnotationClaimsWriter, held, err))
}

func (f *fence) depose(err error) error {
	f.passed, f.over = nil, true
	f.deposed(err)
	return err
}
