package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// maxStatusWrites bounds the statuses written in one pass, so that the verdict on
	// a dead host never waits behind a thousand of them.
	maxStatusWrites = 64
	// writers is how many statuses are written concurrently.
	writers = 8
)

// statusWrite is one status that differs from what is stored.
type statusWrite struct {
	// urgent writes come first: traffic changed.
	urgent bool
	kind   string
	object client.Object
	// status is our part of it.
	status any
	// done is called with the object as it is stored then.
	done func(*unstructured.Unstructured) error
}

// publishVerdicts writes the conditions Online and Evacuating of hosts where they
// changed. The agents wait for them: they decide where traffic goes.
func (r *egressReconciler) publishVerdicts(ctx context.Context, v view) (wrote bool, err error) {
	var writes []statusWrite
	for _, h := range v.hosts {
		was := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionOnline)
		// A host without the condition counts as online.
		wasOnline := was == nil || was.Status != metav1.ConditionFalse
		wasEvacuating := meta.IsStatusConditionTrue(h.Status.Conditions, v1.ConditionEvacuating)
		if wasOnline == v.verdicts[h.Name].Online && wasEvacuating == v.evacuating[h.Name] {
			continue
		}
		if verdict := v.verdicts[h.Name]; wasOnline != verdict.Online {
			log.FromContext(ctx).Info("a host went offline or came back", "hostSubnet", h.Name, "online", verdict.Online,
				"reason", verdict.Reason, "watchers", v.votes[h.Name].Watchers, "silentFor", v.votes[h.Name].Silent)
		}
		var conditions []metav1.Condition
		if ready := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionEgressReady); ready != nil {
			conditions = append(conditions, *ready)
		}
		for _, c := range v.conditions(h) {
			conditions = append(conditions, r.timed(h, c))
		}
		writes = append(writes, r.hostWrite(h, conditions, h.Status.Witnesses))
	}
	return r.writeAll(ctx, writes)
}

// publishStatus writes statuses that differ, the most urgent first and not too many.
// more reports whether some are left.
func (r *egressReconciler) publishStatus(ctx context.Context, v view, d decision) (more bool, err error) {
	problems := make(map[string][]egress.Problem)
	for _, p := range d.problems {
		// The results report addresses that cannot be used.
		if p.Field != "egressIPs" {
			problems[p.Kind+" "+p.Name] = append(problems[p.Kind+" "+p.Name], p)
		}
	}
	var writes []statusWrite
	// The brain answers in order of name, as the view is.
	for i, result := range d.resolution.Namespaces {
		n := v.namespaces[i]
		status := r.namespaceStatus(n, result, problems["NetNamespace "+n.Name])
		if equality.Semantic.DeepEqual(status, n.Status) {
			continue
		}
		writes = append(writes, r.namespaceWrite(v, n, status))
	}
	panels := r.panels.pick(v, d.serving, r.clock.Now())
	for i, result := range d.resolution.Hosts {
		h := v.hosts[i]
		wanted := []metav1.Condition{
			r.timed(h, hostReady(result, problems["HostSubnet "+h.Name])),
		}
		for _, c := range v.conditions(h) {
			wanted = append(wanted, r.timed(h, c))
		}
		if sameConditions(h.Status.Conditions, wanted) && slices.Equal(h.Status.Witnesses, panels[h.Name]) {
			continue
		}
		writes = append(writes, r.hostWrite(h, wanted, panels[h.Name]))
	}
	slices.SortStableFunc(writes, func(a, b statusWrite) int {
		return cmp.Compare(rank(a), rank(b))
	})
	if len(writes) > maxStatusWrites {
		writes, more = writes[:maxStatusWrites], true
	}
	_, err = r.writeAll(ctx, writes)
	return more, err
}

func rank(w statusWrite) int {
	if w.urgent {
		return 0
	}
	return 1
}

// namespaceStatus is the status of a namespace: empty if it never requested anything,
// so that clusters with thousands of namespaces are spared the writes.
func (r *egressReconciler) namespaceStatus(n *v1.NetNamespace, result egress.NamespaceResult, problems []egress.Problem) v1.NetNamespaceStatus {
	if len(result.Requests) == 0 {
		if equality.Semantic.DeepEqual(n.Status, v1.NetNamespaceStatus{}) {
			return v1.NetNamespaceStatus{}
		}
		// One field stays: an apply that removes all fields leaves the API server
		// with a null, which the schema refuses.
		return v1.NetNamespaceStatus{ObservedGeneration: n.Generation}
	}
	status := v1.NetNamespaceStatus{ObservedGeneration: n.Generation}
	if len(result.Active) > 0 {
		status.Active = &v1.Assignment{IP: result.Active[0].IP.String(), Host: result.Active[0].Host}
	}
	for _, request := range result.Requests {
		status.EgressIPs = append(status.EgressIPs, v1.RequestStatus{
			IP: request.IP, Host: request.Host, State: v1.EgressIPState(request.State),
			Reason: string(request.Reason), Message: request.Message,
		})
	}
	ready := metav1.Condition{
		Type: v1.ConditionEgressReady, Status: metav1.ConditionTrue,
		Reason: string(result.Reason), Message: withProblems(result.Message, problems),
	}
	if result.Dropped {
		ready.Status = metav1.ConditionFalse
	}
	status.Conditions = []metav1.Condition{r.timedAfter(n.Status.Conditions, n.Generation, ready)}
	return status
}

// hostReady is the condition EgressReady of a host: every field that users write is
// in order.
func hostReady(result egress.HostResult, problems []egress.Problem) metav1.Condition {
	ready := metav1.Condition{
		Type: v1.ConditionEgressReady, Status: metav1.ConditionTrue,
		Reason: string(result.Reason), Message: result.Message,
	}
	switch {
	case !result.Ready:
		ready.Status = metav1.ConditionFalse
		ready.Message = withProblems(result.Message, problems)
	case len(problems) > 0:
		ready.Status, ready.Reason = metav1.ConditionFalse, string(problems[0].Reason)
		ready.Message = withProblems("", problems)
	}
	return ready
}

func withProblems(message string, problems []egress.Problem) string {
	var all []string
	if message != "" {
		all = append(all, message)
	}
	for _, p := range problems {
		all = append(all, p.Message)
	}
	return strings.Join(all, " ")
}

// timed sets a condition's generation, and the time since when it has its status.
func (r *egressReconciler) timed(h *v1.HostSubnet, c metav1.Condition) metav1.Condition {
	return r.timedAfter(h.Status.Conditions, h.Generation, c)
}

func (r *egressReconciler) timedAfter(before []metav1.Condition, generation int64, c metav1.Condition) metav1.Condition {
	c.ObservedGeneration = generation
	c.LastTransitionTime = metav1.NewTime(r.clock.Now()).Rfc3339Copy()
	if was := meta.FindStatusCondition(before, c.Type); was != nil && was.Status == c.Status {
		c.LastTransitionTime = was.LastTransitionTime
	}
	return c
}

// sameConditions reports whether all wanted conditions are stored like that.
func sameConditions(stored, wanted []metav1.Condition) bool {
	for _, c := range wanted {
		if was := meta.FindStatusCondition(stored, c.Type); was == nil || !equality.Semantic.DeepEqual(*was, c) {
			return false
		}
	}
	return true
}

func (r *egressReconciler) namespaceWrite(v view, n *v1.NetNamespace, status v1.NetNamespaceStatus) statusWrite {
	return statusWrite{
		urgent: !equality.Semantic.DeepEqual(status.Active, n.Status.Active) || isDropped(status) != isDropped(n.Status),
		kind:   "NetNamespace", object: n, status: &status,
		done: func(stored *unstructured.Unstructured) error {
			var now v1.NetNamespace
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(stored.Object, &now); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			r.observer.wroteNamespace(&now)
			r.metrics.moves.Add(float64(moves(n.Status, status)))
			for _, notice := range namespaceNotices(n.Name, n.Status, status) {
				if notice.host == "" {
					r.recorder.Event(n, notice.eventType(), notice.reason, notice.message)
				} else if h := v.host(notice.host); h != nil {
					r.recorder.Event(h, notice.eventType(), notice.reason, notice.message)
				}
			}
			return nil
		},
	}
}

func (r *egressReconciler) hostWrite(h *v1.HostSubnet, conditions []metav1.Condition, witnesses []string) statusWrite {
	return statusWrite{
		kind: "HostSubnet", object: h,
		// An empty list is written as such: what is left out might stay.
		status: &v1.HostSubnetStatus{Conditions: conditions, Witnesses: append([]string{}, witnesses...)},
		done: func(stored *unstructured.Unstructured) error {
			var now v1.HostSubnet
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(stored.Object, &now); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			r.observer.wroteHost(&now)
			for _, notice := range hostNotices(h.Name, h.Status.Conditions, conditions) {
				r.recorder.Event(h, notice.eventType(), notice.reason, notice.message)
			}
			return nil
		},
	}
}

// send writes the status and returns the object as it is stored then. Only our part
// is sent: what it leaves out belongs to others. The UID makes the write fail if the
// object was replaced.
func (w statusWrite) send(ctx context.Context, c client.Client) (*unstructured.Unstructured, error) {
	encoded, err := runtime.DefaultUnstructuredConverter.ToUnstructured(w.status)
	if err == nil {
		u := &unstructured.Unstructured{Object: map[string]any{"status": encoded}}
		u.SetGroupVersionKind(v1.GroupVersion().WithKind(w.kind))
		u.SetName(w.object.GetName())
		u.SetUID(w.object.GetUID())
		err = c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldManager), client.ForceOwnership)
		if err == nil {
			return u, nil
		}
	}
	return nil, fmt.Errorf("write the status of %s %s: %w", w.kind, w.object.GetName(), err)
}

// writeAll writes statuses, several concurrently, and reports each that succeeded by
// events. wrote reports whether any did.
func (r *egressReconciler) writeAll(ctx context.Context, writes []statusWrite) (wrote bool, err error) {
	errs := make([]error, len(writes))
	stored := make([]*unstructured.Unstructured, len(writes))
	var g errgroup.Group
	g.SetLimit(writers)
	for i, write := range writes {
		g.Go(func() error {
			stored[i], errs[i] = write.send(ctx, r.writer)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	for i, write := range writes {
		if errs[i] != nil {
			errs[i] = unlessGone(errs[i])
			continue
		}
		r.metrics.statusWrites.WithLabelValues(write.kind).Inc()
		errs[i] = write.done(stored[i])
		wrote = true
	}
	return wrote, errors.Join(errs...)
}
