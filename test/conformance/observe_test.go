package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// Until is part of conformance.Driver. It compares the state only when the
// controller has done everything about the objects as they are.
func (d *driver) Until(ctx context.Context, done func(conformance.State) []string) (conformance.State, []string, error) {
	var state conformance.State
	if d.controller == nil {
		return state, nil, nil
	}
	wrong := []string{"the state was never seen"}
	var failed error
	testenv.Await(ctx, settleWithin, func(ctx context.Context) string {
		seen, err := d.look(ctx)
		if err != nil {
			failed = err
			return ""
		}
		if busy := seen.busy(d); busy != "" {
			wrong = []string{"the controller is not done: " + busy}
			return busy
		}
		state = seen.state(d)
		wrong = done(state)
		// It is quiet: what is wrong now stays wrong, unless the lists were read
		// while something changed between them.
		again, err := d.look(ctx)
		if err != nil {
			failed, wrong = err, []string{"whether the objects still change is not known"}
			return ""
		}
		if again.versions() != seen.versions() {
			wrong = []string{"the objects still change"} // what was read may never have been at one time
			return wrong[0]
		}
		return ""
	})
	// The limit may end a look: that is no failure of its own.
	if errors.Is(failed, context.DeadlineExceeded) {
		failed = nil
	}
	return state, wrong, failed
}

// seen is what the API holds.
type seen struct {
	namespaces []v1.NetNamespace
	hosts      []v1.HostSubnet
	nodes      []corev1.Node
}

// look reads what the API holds, after it has reported in place of the agents, which
// scenarios do not have.
func (d *driver) look(ctx context.Context) (seen, error) {
	if err := d.reportAsAgents(ctx); err != nil {
		return seen{}, err
	}
	var namespaces v1.NetNamespaceList
	var hosts v1.HostSubnetList
	var nodes corev1.NodeList
	if err := errors.Join(d.List(ctx, &namespaces), d.List(ctx, &hosts), d.List(ctx, &nodes)); err != nil {
		return seen{}, err
	}
	// Namespaces that the API server makes for itself are not of the scenario.
	system := func(n v1.NetNamespace) bool { return n.Annotations[v1.AnnotationMode] == "" }
	return seen{namespaces: slices.DeleteFunc(namespaces.Items, system), hosts: hosts.Items, nodes: nodes.Items}, nil
}

// reportAsAgents writes that all is well where that is not reported yet.
func (d *driver) reportAsAgents(ctx context.Context) error {
	var hosts v1.HostSubnetList
	if err := d.List(ctx, &hosts); err != nil {
		return err
	}
	for i := range hosts.Items {
		h := &hosts.Items[i]
		before := h.DeepCopy()
		objects.AgentReports(h)
		conformance.AgentReports(h)
		if equality.Semantic.DeepEqual(before.Status, h.Status) {
			continue
		}
		// If the controller writes at the same time, the next look reports.
		err := d.Status().Patch(ctx, h, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

func (s seen) versions() string {
	var all []string
	for _, n := range s.namespaces {
		all = append(all, n.Name+n.ResourceVersion)
	}
	for _, h := range s.hosts {
		all = append(all, h.Name+h.ResourceVersion)
	}
	return fmt.Sprint(all)
}

// busy says what the controller still has to do: statuses that are not of the
// objects as they are, or claims that are not where the allocation wants them.
func (s seen) busy(d *driver) string {
	given := egress.Objects{NetNamespaces: s.namespaces, HostSubnets: s.hosts}
	ips := make(map[string]string)
	for _, node := range s.nodes {
		for _, address := range node.Status.Addresses {
			ips[node.Name] = address.Address
		}
	}
	for _, h := range s.hosts {
		if ips[h.Name] != h.HostIP {
			return fmt.Sprintf("HostSubnet %s has hostIP %s, its Node %s", h.Name, h.HostIP, ips[h.Name])
		}
		online := condition(h.Status.Conditions, v1.ConditionOnline)
		if online == nil || (online.Status == metav1.ConditionFalse) != d.offline[h.Name] {
			return fmt.Sprintf("HostSubnet %s does not report its Node's health", h.Name)
		}
		config, err := egress.ParseCloudConfig(d.clouds[h.Name])
		if err != nil {
			return err.Error()
		}
		addCloud(&given, h.Name, config)
	}
	resolved, _ := egress.Snapshot(given)
	for _, claims := range egress.Allocate(resolved).Hosts {
		i := slices.IndexFunc(s.hosts, func(h v1.HostSubnet) bool { return h.Name == claims.Host })
		if len(claims.Claims) != len(s.hosts[i].EgressIPs) {
			return fmt.Sprintf("HostSubnet %s lists %v instead of %v", claims.Host, s.hosts[i].EgressIPs, claims.Claims)
		}
		for _, ip := range claims.Claims {
			if !slices.Contains(s.hosts[i].EgressIPs, ip.String()) {
				return fmt.Sprintf("HostSubnet %s lists %v instead of %v", claims.Host, s.hosts[i].EgressIPs, claims.Claims)
			}
		}
	}
	return s.outdated(egress.Resolve(resolved))
}

// outdated says which status is not of the objects as they are.
func (s seen) outdated(resolution egress.Resolution) string {
	for _, n := range s.namespaces {
		i := slices.IndexFunc(resolution.Groups, func(r egress.GroupResult) bool { return r.Name == n.Name })
		result := resolution.Groups[i]
		if len(result.Requests) == 0 {
			if len(n.Status.EgressIPs) > 0 {
				return fmt.Sprintf("NetNamespace %s has the status of a request", n.Name)
			}
			continue
		}
		if n.Status.ObservedGeneration != n.Generation || len(n.Status.EgressIPs) != len(result.Requests) {
			return fmt.Sprintf("NetNamespace %s has the status of generation %d", n.Name, n.Status.ObservedGeneration)
		}
		ready := condition(n.Status.Conditions, v1.ConditionEgressReady)
		if ready == nil || string(ready.Status) != string(result.Ready) || ready.Reason != string(result.Reason) {
			return fmt.Sprintf("NetNamespace %s reports condition %+v instead of %s, %s", n.Name, ready, result.Ready, result.Reason)
		}
		for j, r := range result.Requests {
			reported := n.Status.EgressIPs[j]
			if reported.IP != r.IP || reported.Host != r.Host || string(reported.State) != string(r.State) || reported.Reason != string(r.Reason) {
				return fmt.Sprintf("NetNamespace %s reports %+v instead of %+v", n.Name, reported, r)
			}
		}
	}
	return ""
}

func addCloud(objects *egress.Objects, name string, config egress.CloudConfig) {
	if objects.Capacity == nil {
		objects.Capacity = make(map[string]int)
		objects.IPv6Capacity = make(map[string]int)
		objects.Networks = make(map[string][]netip.Prefix)
	}
	if config.IPv6Capacity != 0 {
		objects.IPv6Capacity[name] = config.IPv6Capacity
	}
	if config.Capacity != 0 {
		objects.Capacity[name] = config.Capacity
	}
	if len(config.Networks) > 0 {
		objects.Networks[name] = config.Networks
	}
}

// state is what the API says about who has which egress IP: statuses and lists
// alone, as an administrator sees them.
func (s seen) state(d *driver) conformance.State {
	state := conformance.NewState()
	for _, h := range s.hosts {
		state.HostSubnets[h.Name] = slices.Clone(h.EgressIPs)
		state.Online[h.Name] = !d.offline[h.Name]
	}
	for _, n := range s.namespaces {
		state.Requests[n.Name] = slices.Clone(n.EgressIPs)
		if id, ok := n.ID(); ok {
			state.NetIDs[n.Name] = id
		}
		var active []string
		for _, r := range n.Status.EgressIPs {
			if conflict := conformance.ConflictOf(egress.Reason(r.Reason)); conflict != "" {
				state.Conflicts[r.IP] = conflict
			}
			switch r.State {
			case v1.StateActive:
				active = append(active, r.IP+"@"+r.Host)
				state.Assignments[r.IP] = r.Host
			case v1.StateStandby, v1.StateHostOffline:
				state.Assignments[r.IP] = r.Host
			default:
				// It is on no host.
			}
		}
		ready := condition(n.Status.Conditions, v1.ConditionEgressReady)
		switch {
		case len(n.EgressIPs) == 0:
			state.Active[n.Name] = "none"
		case len(active) == 0:
			state.Active[n.Name] = "dropped"
		default:
			state.Active[n.Name] = active
		}
		if len(n.EgressIPs) > 0 && (ready == nil || (ready.Status == metav1.ConditionTrue) != (len(active) > 0)) {
			state.Broken = append(state.Broken, fmt.Sprintf("condition EgressReady of %s is %v, active are %v", n.Name, ready, active))
		}
	}
	return state
}

func condition(conditions []metav1.Condition, kind string) *metav1.Condition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}
