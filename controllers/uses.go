package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/record"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// baseWithin is how long a leader waits for the list of what is in use before it takes its
	// caches' word. baseRetry is the pause between two attempts.
	baseWithin = 10 * time.Second
	baseRetry  = 250 * time.Millisecond
)

// uses follows what is in use, by the statuses of NetNamespaces and EgressIPs that this
// controller has stored, and has each change of it reported: once, also if the answer to a write
// is lost and only the cache shows it. What changed before this controller led was reported by
// the leader then, or by nobody, which the record shows as a gap; it is not reported as a change
// of this term. So the term begins with a list of the API server: a cache may not show the last
// writes of the former leader.
type uses struct {
	log    logr.Logger
	clock  clock.Clock
	live   client.Reader
	cache  client.Reader
	source *egressIPs
	record *record.Recorder
	// report has a change of a status reported, and reportDeleted the end of one.
	report, reportDeleted func(ctx context.Context, before, after client.Object)
	begun                 chan struct{} // is closed when the term has begun

	mu sync.Mutex
	// known are the last versions whose changes were reported. early came before the term began.
	known map[types.UID]client.Object
	early []client.Object
}

func newUses(log logr.Logger, d deps, source *egressIPs, r *record.Recorder) *uses {
	return &uses{
		log: log.WithName("use"), clock: d.clock, live: d.live, cache: d.cache, source: source, record: r,
		begun: make(chan struct{}), known: make(map[types.UID]client.Object),
	}
}

// NeedLeaderElection is true: only the leader records.
func (*uses) NeedLeaderElection() bool { return true }

// Start records until ctx ends.
func (u *uses) Start(ctx context.Context) error {
	if err := u.begin(ctx); err != nil {
		return nil //nolint:nilerr // the term is over before it began
	}
	return u.record.Run(ctx)
}

// await waits until the term has begun: what is written before could not be told from what the
// former leader wrote. A nil u has no record.
func (u *uses) await(ctx context.Context) error {
	if u == nil {
		return nil
	}
	select {
	case <-u.begun:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin finds out what is in use. It fails only if ctx ends.
func (u *uses) begin(ctx context.Context) error {
	began := u.clock.Now()
	from := u.live
	var said string
	for {
		base, err := u.list(ctx, from)
		if err == nil {
			u.start(ctx, base)
			return nil
		}
		if text := err.Error(); text != said && ctx.Err() == nil && !errors.Is(err, errEgressIPsUnknown) {
			said = text
			u.log.Error(err, "cannot list what is in use; trying again, and taking the caches' word after a while", "after", baseWithin.String())
		}
		if u.clock.Since(began) >= baseWithin {
			from = u.cache
		}
		again := u.clock.NewTimer(baseRetry)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C():
		}
	}
}

// list lists what has a use.
func (u *uses) list(ctx context.Context, from client.Reader) ([]client.Object, error) {
	var all []client.Object
	var namespaces v1.NetNamespaceList
	if err := from.List(ctx, &namespaces); err != nil {
		return nil, fmt.Errorf("list NetNamespaces: %w", err)
	}
	for i := range namespaces.Items {
		all = append(all, &namespaces.Items[i])
	}
	if u.source != nil && !u.source.Known() {
		return nil, errEgressIPsUnknown
	}
	if u.source.served() {
		var egressIPs ovnv1.EgressIPList
		if err := from.List(ctx, &egressIPs); err != nil {
			return nil, fmt.Errorf("list EgressIPs: %w", err)
		}
		for i := range egressIPs.Items {
			all = append(all, &egressIPs.Items[i])
		}
	}
	return all, nil
}

// start begins the term with what is in use.
func (u *uses) start(ctx context.Context, base []client.Object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var inUse []record.Use
	for _, object := range base {
		u.known[object.GetUID()] = object
		inUse = append(inUse, usesOf(object)...)
	}
	u.record.Begin(inUse)
	u.log.Info("the record of use begins", "inUse", len(inUse))
	for _, object := range u.early {
		u.take(ctx, object)
	}
	u.early = nil
	close(u.begun)
}

// saw takes a version of an object whose status this controller wants to be as it is. It may come
// twice, and in any order.
func (u *uses) saw(ctx context.Context, object client.Object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-u.begun:
		u.take(ctx, object)
	default:
		u.early = append(u.early, object)
	}
}

// gone takes an object that was deleted.
func (u *uses) gone(ctx context.Context, object client.Object) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was, ok := u.known[object.GetUID()]
	if !ok {
		return
	}
	delete(u.known, object.GetUID())
	without := withoutUse(was)
	u.changed(was, without, useDeleted)
	u.reportDeleted(ctx, was, without)
}

// take reports what is new in an object. u.mu must be held.
func (u *uses) take(ctx context.Context, object client.Object) {
	was, ok := u.known[object.GetUID()]
	if ok && !older(was, object) {
		return
	}
	u.known[object.GetUID()] = object
	if !ok {
		was = withoutUse(object)
	}
	u.changed(was, object, "")
	u.report(ctx, was, object)
}

// Reasons of changes of use that no status has.
const (
	// useDeleted: the object that requested the egress IP is gone.
	useDeleted = "Deleted"
	// useRenumbered: the use goes on with another netid.
	useRenumbered = "NetIDChanged"
)

// changed records what changed. reason replaces that of the status, unless it is empty.
func (u *uses) changed(before, after client.Object, reason string) {
	group, netID, is := groupStatus(after)
	_, netIDBefore, was := groupStatus(before)
	all := activities(was, is)
	if netIDBefore != netID && netIDBefore != 0 {
		all = append(all, renumbered(was, is)...)
	}
	for _, a := range all {
		if reason != "" {
			a.reason = reason
		}
		logUse(u.log, group, after.GetUID(), netID, a)
		u.record.Record(record.Change{
			Use:  record.Use{IP: canonical(a.egressIP), Group: group, UID: string(after.GetUID()), NetID: netID, Host: a.to},
			From: a.from, Reason: a.reason,
		})
	}
}

// usesOf are the uses by an object's status.
func usesOf(object client.Object) (all []record.Use) {
	group, netID, status := groupStatus(object)
	for _, a := range activities(v1.NetNamespaceStatus{}, status) {
		all = append(all, record.Use{IP: canonical(a.egressIP), Group: group, UID: string(object.GetUID()), NetID: netID, Host: a.to})
	}
	return all
}

// canonical is an address as the record has it, however it is requested.
func canonical(ip string) string {
	if parsed, err := netip.ParseAddr(ip); err == nil {
		return parsed.Unmap().String()
	}
	return ip
}

// groupStatus are the group, its netid, 0 for none, and the status of an object that requests
// egress IPs.
func groupStatus(object client.Object) (group string, netID uint32, status v1.NetNamespaceStatus) {
	switch object := object.(type) {
	case *v1.NetNamespace:
		return object.Name, ptr.Deref(object.NetID, 0), object.Status
	case *ovnv1.EgressIP:
		return egress.GroupOfEgressIP(object.Name), ptr.Deref(object.Status.NetID, 0), asNamespace(object.Status)
	}
	return "", 0, v1.NetNamespaceStatus{}
}

// withoutUse is an object that uses nothing, and has the same netid.
func withoutUse(object client.Object) client.Object {
	switch object := object.(type) {
	case *v1.NetNamespace:
		none := *object
		none.Status = v1.NetNamespaceStatus{}
		return &none
	case *ovnv1.EgressIP:
		none := *object
		none.Status = ovnv1.EgressIPStatus{NetID: object.Status.NetID}
		return &none
	}
	return object
}

// renumbered are the uses that go on with another netid.
func renumbered(before, after v1.NetNamespaceStatus) (all []activity) {
	was := byIP(before.EgressIPs)
	for _, now := range after.EgressIPs {
		if host := usedOn(now); host != "" && usedOn(was[now.IP]) == host {
			all = append(all, activity{egressIP: now.IP, from: host, to: host, reason: useRenumbered})
		}
	}
	return slices.Clip(all)
}
