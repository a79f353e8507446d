package controllers

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// What one status may hold. The schema takes 32 KiB in a condition's message, and the
// API server refuses objects of more than about a megabyte: a namespace has up to 256
// requests, each with a message.
const (
	maxConditionMessage = 4096
	maxRequestMessage   = 1024
	maxRequests         = 256
)

// reasonNotEvacuating is the reason of the condition Evacuating while it is False.
const reasonNotEvacuating = "NotEvacuating"

// reasonNodeExists is the reason of the condition NodeGone once the Node has come back.
const reasonNodeExists = "NodeExists"

// Priorities of status writes, the most urgent last. A write that failed before comes
// after all others, so that one that keeps failing delays no other.
const (
	priorityRetry = iota
	priorityRest
	// priorityTraffic: a namespace's traffic leaves another way, or leaves again.
	priorityTraffic
	// priorityDropped: a namespace's traffic is dropped, or lost on its host, from now on.
	priorityDropped
	// priorityVerdict: agents route by it.
	priorityVerdict
)

const (
	kindNetNamespace = "NetNamespace"
	kindEgressIP     = "EgressIP"
	kindHostSubnet   = "HostSubnet"
)

// statusKey names an object that has a status.
type statusKey struct{ kind, name string }

// wantedStatus is what the controller's part of one object's status should be, without
// the times of transition, which depend on what is stored when it is written. Nothing
// in it may be changed.
type wantedStatus struct {
	key statusKey
	// uid is that of the object that was decided on.
	uid types.UID
	// One of them is set, by the kind.
	host      *v1.HostSubnetStatus
	namespace *v1.NetNamespaceStatus
	egressIP  *ovnv1.EgressIPStatus
}

// equal reports whether the same is wanted.
func (w wantedStatus) equal(other wantedStatus) bool {
	return equality.Semantic.DeepEqual(w.host, other.host) && equality.Semantic.DeepEqual(w.namespace, other.namespace) &&
		equality.Semantic.DeepEqual(w.egressIP, other.egressIP)
}

// statusChange is how a stored status must be changed.
type statusChange struct {
	// status is the controller's whole part.
	status   any
	priority int
}

// change compares the wanted status with the stored object; differs is false if it is
// stored already. Fields and conditions of others do not count.
func (w wantedStatus) change(stored client.Object, now metav1.Time) (c statusChange, differs bool) {
	switch object := stored.(type) {
	case *v1.HostSubnet:
		status := *w.host
		status.Conditions = timed(object.Status.Conditions, status.Conditions, now)
		c = statusChange{status: &status, priority: priorityRest}
		if verdictChanged(object.Status.Conditions, status.Conditions) {
			c.priority = priorityVerdict
		}
		return c, !sameHostStatus(object.Status, status)
	case *v1.NetNamespace:
		status := *w.namespace
		status.Conditions = timed(object.Status.Conditions, status.Conditions, now)
		return statusChange{status: &status, priority: namespacePriority(object.Status, status)},
			!sameNamespaceStatus(object.Status, status)
	case *ovnv1.EgressIP:
		status := *w.egressIP
		status.Conditions = timed(object.Status.Conditions, status.Conditions, now)
		return statusChange{status: &status, priority: namespacePriority(asNamespace(object.Status), asNamespace(status))},
			!sameEgressIPStatus(object.Status, status)
	default:
		return statusChange{}, false
	}
}

// namespacePriority is the priority of a change of a NetNamespace's status.
func namespacePriority(before, after v1.NetNamespaceStatus) int {
	switch {
	case isDropped(after) && !isDropped(before), isLost(after) && !isLost(before):
		return priorityDropped
	case isDropped(after) != isDropped(before) || !equality.Semantic.DeepEqual(before.Active, after.Active),
		!equality.Semantic.DeepEqual(before.ActiveIPs, after.ActiveIPs):
		return priorityTraffic
	default:
		return priorityRest
	}
}

// isLost reports whether traffic does not leave: it is dropped, or sent to a host that
// does not have the egress IP.
func isLost(s v1.NetNamespaceStatus) bool {
	return conditionStatus(s.Conditions, v1.ConditionEgressReady, metav1.ConditionUnknown) == metav1.ConditionFalse
}

// verdictChanged reports whether a condition that agents route by has another status:
// Online, which counts as True where it is missing, or Evacuating.
func verdictChanged(before, after []metav1.Condition) bool {
	return conditionStatus(before, v1.ConditionOnline, metav1.ConditionTrue) != conditionStatus(after, v1.ConditionOnline, metav1.ConditionTrue) ||
		publishedOnline(meta.FindStatusCondition(before, v1.ConditionOnline)) != publishedOnline(meta.FindStatusCondition(after, v1.ConditionOnline)) ||
		conditionStatus(before, v1.ConditionEvacuating, metav1.ConditionFalse) != conditionStatus(after, v1.ConditionEvacuating, metav1.ConditionFalse)
}

// publishedOnline reports whether a host takes egress traffic by its condition Online,
// nil for none.
func publishedOnline(c *metav1.Condition) bool {
	return c == nil || online.Reason(c.Reason).Online(c.Status == metav1.ConditionTrue)
}

// conditionStatus is the status of a condition, or missing if it is not there.
func conditionStatus(conditions []metav1.Condition, kind string, missing metav1.ConditionStatus) metav1.ConditionStatus {
	if c := meta.FindStatusCondition(conditions, kind); c != nil {
		return c.Status
	}
	return missing
}

// sameHostStatus reports whether the controller's part of a HostSubnet's status is
// stored like that. Everything that is not an agent's is the controller's.
func sameHostStatus(stored, wanted v1.HostSubnetStatus) bool {
	part := stored
	part.ObservedGeneration, part.Agent, part.EgressIPs = 0, nil, nil
	if !sameConditions(part.Conditions, wanted.Conditions) {
		return false
	}
	part.Conditions, wanted.Conditions = nil, nil
	return equality.Semantic.DeepEqual(part, wanted)
}

// sameNamespaceStatus reports whether a NetNamespace's status is stored like that, but
// for conditions of others. One that never requested anything has no status, so that
// clusters with thousands of namespaces are spared the writes.
func sameNamespaceStatus(stored, wanted v1.NetNamespaceStatus) bool {
	if len(wanted.EgressIPs) == 0 && equality.Semantic.DeepEqual(stored, v1.NetNamespaceStatus{}) {
		return true
	}
	if !sameConditions(stored.Conditions, wanted.Conditions, v1.ConditionEgressReady) {
		return false
	}
	stored.Conditions, wanted.Conditions = nil, nil
	return equality.Semantic.DeepEqual(stored, wanted)
}

// sameConditions reports whether all wanted conditions are stored like that, and those
// named in mayGo only if they are wanted.
func sameConditions(stored, wanted []metav1.Condition, mayGo ...string) bool {
	for _, c := range wanted {
		if was := meta.FindStatusCondition(stored, c.Type); was == nil || !equality.Semantic.DeepEqual(*was, c) {
			return false
		}
	}
	return !slices.ContainsFunc(mayGo, func(kind string) bool {
		return meta.FindStatusCondition(stored, kind) != nil && meta.FindStatusCondition(wanted, kind) == nil
	})
}

// timed sets the time since when each condition has its status.
func timed(before, conditions []metav1.Condition, now metav1.Time) []metav1.Condition {
	var all []metav1.Condition
	for _, c := range conditions {
		c.LastTransitionTime = now
		if was := meta.FindStatusCondition(before, c.Type); was != nil && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
			c.LastTransitionTime = was.LastTransitionTime
		}
		all = append(all, c)
	}
	return all
}

// wantedStatuses are the wanted statuses of all objects, with the witnesses of each
// host, but for the groups in moving: these keep the status that they have.
func wantedStatuses(v view, d decision, witnesses map[string][]string, moving map[string]bool) []wantedStatus {
	problems := problemsByObject(d)
	wanted := wantedHosts(v, d, witnesses)
	for _, n := range v.namespaces {
		result, decided := d.resolution.Group(n.Name)
		if moving[n.Name] || !decided {
			continue
		}
		status := namespaceStatus(n, result, problems[statusKey{kindNetNamespace, n.Name}])
		wanted = append(wanted, wantedStatus{key: statusKey{kindNetNamespace, n.Name}, uid: n.UID, namespace: &status})
	}
	for _, e := range v.egressIPs {
		group := egress.GroupOfEgressIP(e.Name)
		result, decided := d.resolution.Group(group)
		// A new one has its netid in a moment: until then there is nothing to report.
		if moving[group] || !decided || result.Unnumbered && len(e.Status.Conditions) == 0 {
			continue
		}
		status := egressIPStatus(e, result, problems[statusKey{kindEgressIP, e.Name}])
		wanted = append(wanted, wantedStatus{key: statusKey{kindEgressIP, e.Name}, uid: e.UID, egressIP: &status})
	}
	return wanted
}

// wantedHosts are the wanted statuses of all HostSubnets, in the order of the view.
func wantedHosts(v view, d decision, witnesses map[string][]string) []wantedStatus {
	problems := problemsByObject(d)
	wanted := make([]wantedStatus, 0, len(v.hosts)+len(v.namespaces))
	for i, result := range d.resolution.Hosts {
		h := v.hosts[i]
		status := hostStatus(v, h, result, witnesses[h.Name], problems[statusKey{kindHostSubnet, h.Name}])
		wanted = append(wanted, wantedStatus{key: statusKey{kindHostSubnet, h.Name}, uid: h.UID, host: &status})
	}
	return wanted
}

// problemsByObject are the problems of each object, apart from those of its egressIPs:
// the results report these.
func problemsByObject(d decision) map[statusKey][]egress.Problem {
	problems := make(map[statusKey][]egress.Problem)
	for _, p := range d.problems {
		if p.Field != "egressIPs" {
			key := statusKey{p.Kind, p.Name}
			problems[key] = append(problems[key], p)
		}
	}
	return problems
}

// hostStatus is all that the controller writes into a HostSubnet's status. What it
// leaves out belongs to the host's agent. A condition that was written once is written
// always, and so is an empty list: under server-side apply, what is left out stays if
// anyone else has written it too.
func hostStatus(
	v view, h *v1.HostSubnet, result egress.HostResult, witnesses []string, problems []egress.Problem,
) v1.HostSubnetStatus {
	conditions := append([]metav1.Condition{hostReady(result, problems)}, v.conditions(h)...)
	return v1.HostSubnetStatus{
		Conditions:    publishable(conditions, h.Generation),
		Witnesses:     append([]string{}, witnesses...),
		IPv6Networks:  append([]string{}, v.ipv6[h.Name]...),
		HostIPs:       append([]string{}, v.hostIPs[h.Name]...),
		Placement:     v.placement(h.Name),
		FoundNetworks: append([]v1.FoundNetwork{}, v.found[h.Name]...),
	}
}

// namespaceStatus is all that the controller writes into a NetNamespace's status.
func namespaceStatus(n *v1.NetNamespace, result egress.GroupResult, problems []egress.Problem) v1.NetNamespaceStatus {
	// This field is never left out: an apply that removes all fields leaves the API
	// server with a null, which the schema refuses.
	status := v1.NetNamespaceStatus{ObservedGeneration: n.Generation}
	if len(result.Requests) == 0 {
		return status
	}
	if len(result.Active) > 0 {
		status.Active = &v1.Assignment{IP: result.Active[0].IP.String(), Host: result.Active[0].Host}
	}
	if slices.ContainsFunc(result.Requests, func(r egress.RequestResult) bool { return egress.RequestFamily(r.IP) == egress.IPv6 }) {
		for _, a := range result.Active {
			status.ActiveIPs = append(status.ActiveIPs, v1.Assignment{IP: a.IP.String(), Host: a.Host, Family: egress.FamilyOf(a.IP).String()})
		}
	}
	status.EgressIPs = requestStatuses(result)
	status.Conditions = publishable([]metav1.Condition{readyCondition(result, problems)}, n.Generation)
	return status
}

// requestStatuses are what becomes of each request.
func requestStatuses(result egress.GroupResult) []v1.RequestStatus {
	var statuses []v1.RequestStatus
	for _, request := range result.Requests[:min(len(result.Requests), maxRequests)] {
		statuses = append(statuses, v1.RequestStatus{
			IP: request.IP, Host: request.Host, State: v1.EgressIPState(request.State),
			Reason: string(request.Reason), Message: clip(request.Message, maxRequestMessage),
		})
	}
	return statuses
}

// readyCondition is the condition EgressReady of an object that requests egress IPs.
func readyCondition(result egress.GroupResult, problems []egress.Problem) metav1.Condition {
	return metav1.Condition{
		Type: v1.ConditionEgressReady, Status: metav1.ConditionStatus(result.Ready),
		Reason: string(result.Reason), Message: withProblems(result.Message, problems),
	}
}

// hostReady is the condition EgressReady of a host: every field that users write is
// in order, and so is what its agent finds about its pods.
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

// publishable sets the generation that conditions are about, and makes their messages
// fit the schema.
func publishable(conditions []metav1.Condition, generation int64) []metav1.Condition {
	for i := range conditions {
		conditions[i].ObservedGeneration = generation
		conditions[i].Message = clip(conditions[i].Message, maxConditionMessage)
	}
	return conditions
}

// clip cuts a text to the given number of bytes, and says how much is missing.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const room = len(" ... (1234567890 bytes more)")
	cut := strings.ToValidUTF8(s[:most-room], "")
	return fmt.Sprintf("%s ... (%d bytes more)", cut, len(s)-len(cut))
}
