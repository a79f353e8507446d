package egressip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/test/conformance/egressip"
)

func (d *driver) node(ctx context.Context, name string, was, is *egressip.Node) error {
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if is == nil {
		return d.Delete(ctx, object)
	}
	if _, ok := d.numbers[name]; !ok {
		d.numbers[name] = len(d.numbers) + 1
	}
	before := object.DeepCopy()
	object.Labels, object.Annotations = make(map[string]string), make(map[string]string)
	if is.Assignable {
		object.Labels[ovnv1.LabelEgressAssignable] = ""
	}
	if config := is.CloudConfig(); config != "" {
		object.Annotations[egress.AnnotationCloudConfig] = config
	}
	object.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if is.NotReady {
		object.Status.Conditions[0].Status = corev1.ConditionFalse
	}
	for _, written := range is.Addresses {
		p := netip.MustParsePrefix(written)
		object.Status.Addresses = append(object.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: p.Addr().String()})
		if p.Addr().Is4() {
			object.Spec.PodCIDRs = append(object.Spec.PodCIDRs, egressip.Pods4(d.numbers[name]))
		} else {
			object.Spec.PodCIDRs = append(object.Spec.PodCIDRs, egressip.Pods6(d.numbers[name]))
		}
	}
	object.Spec.PodCIDR = object.Spec.PodCIDRs[0]
	if was == nil {
		status := object.Status
		if err := d.Create(ctx, object); err != nil {
			return err
		}
		object.Status = status
		return d.Status().Update(ctx, object)
	}
	status := object.Status
	if was.Assignable && !is.Assignable {
		before.Labels = map[string]string{ovnv1.LabelEgressAssignable: ""}
	}
	before.Spec, object.Status = object.Spec, before.Status
	if err := d.Patch(ctx, object, client.MergeFrom(before)); err != nil {
		return err
	}
	before = object.DeepCopy()
	object.Status = status
	return d.Status().Patch(ctx, object, client.MergeFrom(before))
}

// Until is part of egressip.Player. It looks at the state only when the controller has done
// everything about the objects as they are.
func (d *driver) Until(ctx context.Context, done func(egressip.State) []string) (state egressip.State, wrong []string, failed error) {
	wrong = []string{"the state was never seen"}
	testenv.Await(ctx, testenv.Patience, func(ctx context.Context) string {
		var seen seen
		if seen, failed = d.look(ctx); failed != nil {
			return ""
		}
		if busy := seen.busy(d); busy != "" {
			wrong = []string{"the controller is not done: " + busy}
			return busy
		}
		objects := egress.Objects{NetNamespaces: seen.namespaces, EgressIPs: seen.egressIPs, HostSubnets: seen.hosts}
		state = egressip.Look(d.now, objects, d.numbers)
		state.Items = seen.items()
		wrong = done(state)
		// It is quiet: what is wrong now stays wrong, unless the lists were read while something
		// changed between them.
		again, err := d.look(ctx)
		switch failed = err; {
		case err != nil:
			wrong = []string{"whether the objects still change is not known"}
		case again.versions() != seen.versions():
			wrong = []string{"the objects still change"} // what was read may never have been at one time
			return wrong[0]
		}
		return ""
	})
	if errors.Is(failed, context.DeadlineExceeded) {
		failed = nil // that is no failure of its own
	}
	return state, wrong, failed
}

// seen is what the API holds.
type seen struct {
	namespaces []v1.NetNamespace
	egressIPs  []ovnv1.EgressIP
	hosts      []v1.HostSubnet
}

// look reads what the API holds, after it has reported in place of the agents.
func (d *driver) look(ctx context.Context) (seen, error) {
	var namespaces v1.NetNamespaceList
	var egressIPs ovnv1.EgressIPList
	var hosts v1.HostSubnetList
	if err := d.List(ctx, &hosts); err != nil {
		return seen{}, err
	}
	for i := range hosts.Items {
		h := &hosts.Items[i]
		node, ok := d.now.Nodes[h.Name]
		before := h.DeepCopy()
		if !ok || h.HostIP == "" {
			continue
		}
		node.Report(h)
		if equality.Semantic.DeepEqual(before.Status, h.Status) {
			continue
		}
		// If the controller writes at the same time, the next look reports.
		err := d.Status().Patch(ctx, h, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return seen{}, err
		}
	}
	err := errors.Join(d.List(ctx, &namespaces), d.List(ctx, &egressIPs), d.List(ctx, &hosts))
	return seen{namespaces.Items, egressIPs.Items, hosts.Items}, err
}

func (s seen) versions() string {
	var all []string
	for i := range s.namespaces {
		all = append(all, s.namespaces[i].Name+s.namespaces[i].ResourceVersion)
	}
	for i := range s.egressIPs {
		all = append(all, s.egressIPs[i].Name+s.egressIPs[i].ResourceVersion)
	}
	for i := range s.hosts {
		all = append(all, s.hosts[i].Name+s.hosts[i].ResourceVersion)
	}
	return fmt.Sprint(all)
}

// items are those of the statuses.
func (s seen) items() map[string][]egressip.Item {
	all := make(map[string][]egressip.Item)
	for _, e := range s.egressIPs {
		all[e.Name] = nil
		for _, item := range e.Status.Items {
			all[e.Name] = append(all[e.Name], egressip.Item{Address: item.EgressIP, Node: item.Node})
		}
	}
	return all
}

// busy says what the controller still has to do.
func (s seen) busy(d *driver) string {
	if len(s.hosts) != len(d.now.Nodes) {
		return fmt.Sprintf("%d HostSubnets, %d Nodes", len(s.hosts), len(d.now.Nodes))
	}
	if len(s.egressIPs) != len(d.now.EgressIPs) {
		return fmt.Sprintf("%d EgressIPs, not %d", len(s.egressIPs), len(d.now.EgressIPs))
	}
	for name := range d.now.Namespaces {
		if !slices.ContainsFunc(s.namespaces, func(n v1.NetNamespace) bool { return n.Name == name && n.NetID != nil }) {
			return "no NetNamespace " + name
		}
	}
	for i := range s.hosts {
		if busy := hostBusy(&s.hosts[i], d.now.Nodes[s.hosts[i].Name]); busy != "" {
			return busy
		}
	}
	decided, _ := egress.Snapshot(egress.Objects{NetNamespaces: s.namespaces, EgressIPs: s.egressIPs, HostSubnets: s.hosts})
	for _, claims := range egress.Allocate(decided).Hosts {
		i := slices.IndexFunc(s.hosts, func(h v1.HostSubnet) bool { return h.Name == claims.Host })
		if want := fmt.Sprint(claims.Assigned); want != fmt.Sprint(s.hosts[i].AssignedEgressIPs) {
			return fmt.Sprintf("HostSubnet %s has %v instead of %s", claims.Host, s.hosts[i].AssignedEgressIPs, want)
		}
	}
	return s.outdated(egress.Resolve(decided))
}

func hostBusy(h *v1.HostSubnet, node egressip.Node) string {
	online := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionOnline)
	placement := h.Status.Placement
	switch {
	case h.HostIP == "" || h.Status.Agent == nil:
		return fmt.Sprintf("HostSubnet %s has no hostIP or no agent", h.Name)
	case online == nil || (online.Status == metav1.ConditionFalse) != node.NotReady:
		return fmt.Sprintf("HostSubnet %s does not report its Node's health", h.Name)
	case placement == nil || placement.EgressAssignable != node.Assignable:
		return fmt.Sprintf("HostSubnet %s does not report its Node's label", h.Name)
	}
	return ""
}

// outdated says which status is not of the objects as they are.
func (s seen) outdated(r egress.Resolution) string {
	for i := range s.egressIPs {
		e := &s.egressIPs[i]
		if e.Status.NetID == nil || e.Status.ObservedGeneration != e.Generation {
			return fmt.Sprintf("EgressIP %s has the status of generation %d", e.Name, e.Status.ObservedGeneration)
		}
		group, _ := r.Group(egress.GroupOfEgressIP(e.Name))
		ready := meta.FindStatusCondition(e.Status.Conditions, v1.ConditionEgressReady)
		if ready == nil || string(ready.Status) != string(group.Ready) || ready.Reason != string(group.Reason) || len(e.Status.EgressIPs) != len(group.Requests) {
			return fmt.Sprintf("EgressIP %s reports %+v instead of %s, %s", e.Name, ready, group.Ready, group.Reason)
		}
		for j, request := range group.Requests {
			reported := e.Status.EgressIPs[j]
			if reported.IP != request.IP || reported.Host != request.Host || string(reported.State) != string(request.State) || reported.Reason != string(request.Reason) {
				return fmt.Sprintf("EgressIP %s reports %+v instead of %+v", e.Name, reported, request)
			}
		}
	}
	return ""
}
