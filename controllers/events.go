package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// Reasons of events.
const (
	eventAssigned           = "EgressIPAssigned"
	eventMoved              = "EgressIPMoved"
	eventUnassigned         = "EgressIPUnassigned"
	eventInUse              = "EgressIPInUse"
	eventOutOfUse           = "EgressIPOutOfUse"
	eventConflict           = "EgressIPConflict"
	eventInvalid            = "EgressIPInvalid"
	eventNoEligibleHost     = "NoEligibleHost"
	eventDropped            = "NamespaceDropped"
	eventRestored           = "NamespaceRestored"
	eventRenumberingRefused = "RenumberingRefused"
	eventHostOffline        = "HostOffline"
	eventHostOnline         = "HostOnline"
	eventEvacuating         = "Evacuating"
	eventAddressInUse       = "AddressInUse"
	eventKept               = "SettingsKept"
	eventDeleted            = "SettingsDeleted"
	eventAddressRefused     = "NodeAddressRefused"
	eventOtherInstall       = "OtherInstall"
	eventNotMarked          = "ClaimsNotFenced"
	eventNotGiven           = "NotGiven"
	eventBadPool            = "BadPool"
	eventBadAnnotation      = "BadAnnotation"
)

// recorder writes events, as record.EventRecorder does.
type recorder interface {
	Event(object runtime.Object, eventType, reason, message string)
	Eventf(object runtime.Object, eventType, reason, format string, args ...any)
}

// newRecorder returns a recorder that works until stop is called.
//
// It uses core/v1 events: those of events.k8s.io are merged by object and reason
// whatever their message, so the second address of a namespace would not be reported.
//
// Warnings have a queue of their own, so that they do not wait for all assignments that are
// reported after a start.
func newRecorder(ctx context.Context, log logr.Logger, cfg *rest.Config, scheme *runtime.Scheme, m *metrics) (_ recorder, stop func(), err error) {
	// An event that gets no answer must not hold up all that come after it.
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = requestTimeout
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("set up the client of events: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	queue := func() *eventQueue {
		q := newEventQueue(log, clock.RealClock{}, scheme, clientset.CoreV1().Events(""), m)
		working.Go(func() { q.run(ctx) })
		return q
	}
	return byType{warnings: queue(), others: queue()}, func() { cancel(); working.Wait() }, nil
}

// byType writes warnings and other events independently.
type byType struct{ warnings, others recorder }

func (b byType) of(eventType string) recorder {
	if eventType == corev1.EventTypeWarning {
		return b.warnings
	}
	return b.others
}

func (b byType) Event(object runtime.Object, eventType, reason, message string) {
	b.of(eventType).Event(object, eventType, reason, message)
}

func (b byType) Eventf(object runtime.Object, eventType, reason, format string, args ...any) {
	b.of(eventType).Eventf(object, eventType, reason, format, args...)
}

// notice is one event to write.
type notice struct {
	// host is the HostSubnet that it is written on; "" for the NetNamespace.
	host    string
	warning bool
	reason  string
	message string
}

func (n notice) eventType() string {
	if n.warning {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// namespaceNotices are the events for an object that requests egress IPs, and whose status changes from before
// to after: one for each change, and none if only messages changed.
func namespaceNotices(group string, before, after v1.NetNamespaceStatus) []notice {
	var notices []notice
	was := byIP(before.EgressIPs)
	is := byIP(after.EgressIPs)
	for _, now := range after.EgressIPs {
		notices = append(notices, addressNotices(egress.Title(group), was[now.IP], now)...)
	}
	for _, old := range before.EgressIPs {
		if _, still := is[old.IP]; !still && assigned(old.State) {
			message := fmt.Sprintf("%s no longer requests %s: host %s releases it.", capital(egress.Title(group)), old.IP, old.Host)
			notices = append(notices,
				notice{reason: eventUnassigned, message: message},
				notice{host: old.Host, reason: eventUnassigned, message: message})
		}
	}
	notices = append(notices, useNotices(egress.Title(group), before, after)...)
	return append(notices, trafficNotices(egress.Title(group), before, after)...)
}

// useNotices are those of changes of use that no notice about an assignment reports: each change has
// one on the object itself.
func useNotices(title string, before, after v1.NetNamespaceStatus) (notices []notice) {
	was, is := byIP(before.EgressIPs), byIP(after.EgressIPs)
	for _, a := range activities(before, after) {
		old := was[a.egressIP]
		now, requested := is[a.egressIP]
		switch {
		case !requested, assigned(old.State) && now.State == v1.StateUnassigned: // it is unassigned
		case a.to == "":
			notices = append(notices, notice{reason: eventOutOfUse, warning: now.State != v1.StateStandby, message: fmt.Sprintf(
				"%s of %s is not in use any more on host %s (%s).", a.egressIP, title, a.from, cmp.Or(a.reason, string(now.State)))})
		case !assigned(old.State), old.Host != now.Host: // it is assigned, or has moved
		default:
			notices = append(notices, notice{reason: eventInUse, message: fmt.Sprintf("%s of %s is in use on host %s.", a.egressIP, title, a.to)})
		}
	}
	return notices
}

// addressNotices are those of one requested address.
func addressNotices(title string, was, now v1.RequestStatus) []notice {
	both := func(host string, n notice) []notice {
		onHost := n
		onHost.host = host
		return []notice{n, onHost}
	}
	switch {
	case assigned(now.State) && !assigned(was.State):
		return both(now.Host, notice{reason: eventAssigned, message: fmt.Sprintf(
			"%s of %s is assigned to host %s.", now.IP, title, now.Host)})
	case assigned(now.State) && was.Host != now.Host:
		moved := notice{reason: eventMoved, message: fmt.Sprintf(
			"%s of %s moved from host %s to host %s.", now.IP, title, was.Host, now.Host)}
		onOld := moved
		onOld.host = was.Host
		return append(both(now.Host, moved), onOld)
	case assigned(now.State):
		return nil
	}
	var notices []notice
	if assigned(was.State) && now.State == v1.StateUnassigned {
		notices = both(was.Host, notice{warning: true, reason: eventUnassigned, message: fmt.Sprintf(
			"%s of %s is no longer assigned to host %s. %s", now.IP, title, was.Host, now.Message)})
	}
	if was.State == now.State && was.Reason == now.Reason {
		return notices
	}
	switch {
	case now.State == v1.StateConflict:
		notices = append(notices, notice{warning: true, reason: eventConflict, message: now.Message})
	case now.State == v1.StateInvalid:
		notices = append(notices, notice{warning: true, reason: eventInvalid, message: now.Message})
	case now.Reason == string(egress.ReasonNoEligibleHost):
		notices = append(notices, notice{warning: true, reason: eventNoEligibleHost, message: now.Message})
	}
	return notices
}

// trafficNotices are those about the namespace's traffic as a whole.
func trafficNotices(title string, before, after v1.NetNamespaceStatus) []notice {
	wasDropped, isDropped := isDropped(before), isDropped(after)
	summary := "Egress IPs are no longer requested: traffic leaves with the node's address."
	if ready := meta.FindStatusCondition(after.Conditions, v1.ConditionEgressReady); ready != nil {
		summary = ready.Message
	}
	switch {
	case isDropped && !wasDropped:
		return []notice{{warning: true, reason: eventDropped, message: summary}}
	case wasDropped && !isDropped:
		return []notice{{reason: eventRestored, message: summary}}
	}
	// The next egress IP of the list has taken over, or an earlier one is back.
	var notices []notice
	for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
		was, is := firstActive(before, f), firstActive(after, f)
		if was != nil && is != nil && was.IP != is.IP {
			notices = append(notices, notice{reason: eventMoved, message: fmt.Sprintf(
				"Traffic of %s now leaves with %s from host %s instead of %s from host %s.",
				title, is.IP, is.Host, was.IP, was.Host)})
		}
	}
	return notices
}

// firstActive is the first assignment of a family that is in use; nil if none is.
func firstActive(status v1.NetNamespaceStatus, f egress.Family) *v1.Assignment {
	active := status.ActiveIPs
	if len(active) == 0 && status.Active != nil {
		active = []v1.Assignment{*status.Active}
	}
	if i := slices.IndexFunc(active, func(a v1.Assignment) bool { return egress.RequestFamily(a.IP) == f }); i >= 0 {
		return &active[i]
	}
	return nil
}

// isDropped reports whether egress IPs of a family are requested and none is active.
func isDropped(status v1.NetNamespaceStatus) bool {
	return slices.ContainsFunc(status.EgressIPs, func(r v1.RequestStatus) bool {
		return firstActive(status, egress.RequestFamily(r.IP)) == nil
	})
}

// hostNotices are the events for a HostSubnet whose conditions change: whether it
// takes egress traffic, and what is wrong with its fields. Addresses that come and go
// are reported by the namespace's notices.
func hostNotices(name string, before, after []metav1.Condition) []notice {
	notices := stateNotices(name, before, after)
	was := meta.FindStatusCondition(before, v1.ConditionEgressReady)
	now := meta.FindStatusCondition(after, v1.ConditionEgressReady)
	if now == nil || now.Status != metav1.ConditionFalse || now.Reason == string(egress.ReasonHostOffline) {
		return notices
	}
	if was != nil && was.Status == now.Status && was.Reason == now.Reason && was.Message == now.Message {
		return notices
	}
	reason := eventInvalid
	if now.Reason == string(egress.ReasonPodNetworksMissing) {
		reason = now.Reason
	}
	if slices.Contains([]egress.Reason{
		egress.ReasonMultipleHosts, egress.ReasonMultipleNamespaces, egress.ReasonSameHost, egress.ReasonDuplicateNetID,
	}, egress.Reason(now.Reason)) {
		reason = eventConflict
	}
	return append(notices, notice{host: name, warning: true, reason: reason, message: now.Message})
}

// stateNotices report when a host goes offline or comes back, and when its evacuation
// begins or ends. A host that is seen for the first time and is online is not
// reported.
func stateNotices(name string, before, after []metav1.Condition) []notice {
	var notices []notice
	was := meta.FindStatusCondition(before, v1.ConditionOnline)
	now := meta.FindStatusCondition(after, v1.ConditionOnline)
	wasOnline, isOnline := publishedOnline(was), publishedOnline(now)
	switch {
	case now == nil:
	case wasOnline && !isOnline:
		notices = append(notices, notice{host: name, warning: true, reason: eventHostOffline, message: now.Message})
	case !wasOnline && isOnline:
		notices = append(notices, notice{host: name, reason: eventHostOnline, message: "The host takes egress traffic again. " + now.Message})
	case (now.Reason == string(online.ReasonNoAgent) || now.Reason == string(online.ReasonControllerAlone)) && (was == nil || was.Reason != now.Reason):
		notices = append(notices, notice{host: name, warning: true, reason: now.Reason, message: now.Message})
	}
	wasEvacuating, isEvacuating := meta.IsStatusConditionTrue(before, v1.ConditionEvacuating), meta.IsStatusConditionTrue(after, v1.ConditionEvacuating)
	switch {
	case isEvacuating && !wasEvacuating:
		notices = append(notices, notice{host: name, reason: eventEvacuating, message: "The host is being evacuated: its egress IPs move to other hosts that can take them."})
	case wasEvacuating && !isEvacuating:
		notices = append(notices, notice{host: name, reason: eventEvacuating, message: "The evacuation has ended: the host takes egress IPs again."})
	}
	return notices
}

// reportInUse reports, once each time, egress IPs of a host that another machine on
// the segment has: on the host, and on the namespace of the address.
func (r *egressReconciler) reportInUse(v view) {
	now := make(map[[2]string]bool)
	for _, h := range v.hosts {
		for _, claim := range h.Status.EgressIPs {
			if claim.Reason != string(egress.ReasonAddressInUse) {
				continue
			}
			key := [2]string{h.Name, claim.IP}
			now[key] = true
			if r.inUse[key] {
				continue
			}
			r.recorder.Event(h, corev1.EventTypeWarning, eventAddressInUse, claim.Message)
			if n := v.namespace(claim.Namespace); n != nil {
				r.recorder.Event(n, corev1.EventTypeWarning, eventAddressInUse, claim.Message)
			}
			if e := v.egressIP(claim.EgressIP); e != nil {
				r.recorder.Event(e, corev1.EventTypeWarning, eventAddressInUse, claim.Message)
			}
		}
	}
	r.inUse = now
}

// maxEvent bounds the message of an event.
const maxEvent = 1000

// reportWarnings reports, once each time that the worst of them is of another kind, what
// agents warn of: the reason of the event is that of the condition.
func (r *egressReconciler) reportWarnings(v view) {
	now := make(map[string]string)
	for _, h := range v.hosts {
		c := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionWarnings)
		if c == nil || c.Status != metav1.ConditionTrue {
			continue
		}
		now[h.Name] = c.Reason
		if r.warned[h.Name] != c.Reason {
			worst, _, _ := strings.Cut(c.Message, "\n")
			r.recorder.Event(h, corev1.EventTypeWarning, c.Reason, strings.ToValidUTF8(worst[:min(len(worst), maxEvent)], ""))
		}
	}
	r.warned = now
}

// capital begins a sentence with a title.
func capital(title string) string { return strings.ToUpper(title[:1]) + title[1:] }

func byIP(requests []v1.RequestStatus) map[string]v1.RequestStatus {
	index := make(map[string]v1.RequestStatus, len(requests))
	for _, request := range requests {
		index[request.IP] = request
	}
	return index
}
