package conformance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// Brain plays scenarios on pkg/egress as pure functions: it holds the objects, and
// derives everything else from them after each step.
type Brain struct {
	// Mode is the annotation that namespaces get.
	Mode string

	namespaces map[string]*v1.NetNamespace
	hosts      map[string]*v1.HostSubnet
	offline    map[string]bool
	capacity   map[string]int
	capacity6  map[string]int
	networks   map[string][]netip.Prefix
	broken     []string
}

// NewBrain returns an empty cluster whose namespaces are of the profile.
func NewBrain(profile string) *Brain {
	mode := v1.ModeBalanced
	if profile == FirstAvailable {
		mode = v1.ModeOrdered
	}
	return &Brain{
		Mode:       mode,
		namespaces: make(map[string]*v1.NetNamespace),
		hosts:      make(map[string]*v1.HostSubnet),
		offline:    make(map[string]bool),
		capacity:   make(map[string]int),
		capacity6:  make(map[string]int),
		networks:   make(map[string][]netip.Prefix),
	}
}

// Player is part of Driver.
func (b *Brain) Player() Player { return OnBrain }

// Until is part of Driver.
func (b *Brain) Until(_ context.Context, done func(State) []string) (State, []string, error) {
	state := b.State()
	return state, done(state), nil
}

// Do is part of Driver.
func (b *Brain) Do(_ context.Context, step Step) error {
	before := b.Objects()
	state := b.State()
	if err := b.do(step); err != nil {
		return err
	}
	if !reflect.DeepEqual(before, b.Objects()) {
		return nil
	}
	if after := b.State(); !reflect.DeepEqual(state, after) {
		b.broken = append(b.broken, fmt.Sprintf("invariant: %s %s changed no object, but the state", step.Op, step.Name))
	}
	return nil
}

func (b *Brain) do(step Step) error {
	switch step.Op {
	case "create-hostsubnet":
		b.hosts[step.Name] = &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: step.Name}, Host: step.Name}
		return b.patchHost(step)
	case "patch-hostsubnet":
		return b.patchHost(step)
	case "delete-hostsubnet":
		delete(b.hosts, step.Name)
	case "create-netnamespace":
		b.namespaces[step.Name] = &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: step.Name, Annotations: map[string]string{v1.AnnotationMode: b.Mode}},
			NetName:    step.Name,
		}
		return b.patchNamespace(step)
	case "patch-netnamespace":
		return b.patchNamespace(step)
	case "delete-netnamespace":
		delete(b.namespaces, step.Name)
	case "create-node":
		return b.createNode(step)
	case "node-offline":
		b.offline[step.Name] = true
	case "node-online":
		delete(b.offline, step.Name)
	case "restart":
		b.restart(step.Order)
	case "reallocate":
		b.round()
	case "settle":
		return b.settle()
	default:
		return fmt.Errorf("unknown operation %q", step.Op)
	}
	return nil
}

// restart forgets everything but the objects, which it reads in the given order.
func (b *Brain) restart(order string) {
	clear(b.offline)
	objects := b.Objects()
	readNamespaces := func() {
		clear(b.namespaces)
		for i := range objects.NetNamespaces {
			b.namespaces[objects.NetNamespaces[i].Name] = &objects.NetNamespaces[i]
		}
	}
	readHosts := func() {
		clear(b.hosts)
		for i := range objects.HostSubnets {
			b.hosts[objects.HostSubnets[i].Name] = &objects.HostSubnets[i]
		}
	}
	if order == HostSubnetsFirst {
		readHosts()
		readNamespaces()
		return
	}
	readNamespaces()
	readHosts()
}

func (b *Brain) patchHost(step Step) error {
	host := b.hosts[step.Name]
	if host == nil {
		return fmt.Errorf("no HostSubnet %s", step.Name)
	}
	if step.HostIP != nil {
		host.HostIP = *step.HostIP
		AgentReports(host)
	}
	if step.EgressIPs != nil {
		host.EgressIPs = *step.EgressIPs
	}
	if step.EgressCIDRs != nil {
		host.EgressCIDRs = *step.EgressCIDRs
	}
	return nil
}

// AgentReports sets what the node's agent reports when it begins. Scenarios have no
// agents, and a host that has not reported takes no egress traffic.
func AgentReports(h *v1.HostSubnet) {
	if h.Status.Agent == nil {
		h.Status.Agent = &v1.AgentStatus{}
	}
	h.Status.Agent.UplinkCIDR = h.HostIP + "/32"
	h.Status.Agent.Families, h.Status.Agent.UplinkNetworks = []string{v1.FamilyIPv4, v1.FamilyIPv6}, []string{network6().String()}
	meta.SetStatusCondition(&h.Status.Conditions, metav1.Condition{
		Type: v1.ConditionAgentReady, Status: metav1.ConditionTrue, Reason: "Ready",
	})
}

func (b *Brain) patchNamespace(step Step) error {
	namespace := b.namespaces[step.Name]
	if namespace == nil {
		return fmt.Errorf("no NetNamespace %s", step.Name)
	}
	if step.NetID != nil {
		namespace.NetID = step.NetID
	}
	if step.EgressIPs != nil {
		namespace.EgressIPs = *step.EgressIPs
	}
	return nil
}

func (b *Brain) createNode(step Step) error {
	config, err := egress.ParseCloudConfig(CloudConfig(step))
	if err != nil {
		return err
	}
	b.capacity[step.Name] = config.Capacity
	if config.IPv6Capacity != 0 {
		b.capacity6[step.Name] = config.IPv6Capacity
	}
	if len(config.Networks) > 0 {
		b.networks[step.Name] = config.Networks
	}
	return nil
}

// CloudConfig is the annotation that a cloud would write for the node.
func CloudConfig(step Step) string {
	if step.Capacity == nil && step.Network == "" {
		return ""
	}
	kind := cmp.Or(step.CapacityKind, "ipv4")
	capacity := ""
	if step.Capacity != nil {
		capacity = fmt.Sprintf("%q:%d", kind, *step.Capacity)
	}
	family := "ipv4"
	if strings.Contains(step.Network, ":") {
		family = "ipv6"
	}
	return fmt.Sprintf(`[{"interface":"eth0","ifaddr":{%q:%q},"capacity":{%s}}]`, family, step.Network, capacity)
}

// Objects is the cluster as the API would hold it, in an order that is not
// sorted.
func (b *Brain) Objects() egress.Objects {
	objects := egress.Objects{
		Verdicts:     make(map[string]online.Verdict),
		Capacity:     maps.Clone(b.capacity),
		IPv6Capacity: maps.Clone(b.capacity6),
		Networks:     maps.Clone(b.networks),
	}
	for name := range b.offline {
		objects.Verdicts[name] = online.Verdict{}
	}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(b.namespaces))) {
		objects.NetNamespaces = append(objects.NetNamespaces, *b.namespaces[name].DeepCopy())
	}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(b.hosts))) {
		objects.HostSubnets = append(objects.HostSubnets, *b.hosts[name].DeepCopy())
	}
	return objects
}

// round writes what one allocation says, and reports whether that changed
// anything.
func (b *Brain) round() (changed bool) {
	cluster, _ := egress.Snapshot(b.Objects())
	for _, host := range egress.Allocate(cluster).Hosts {
		claims := make([]string, 0, len(host.Claims))
		for _, ip := range host.Claims {
			claims = append(claims, ip.String())
		}
		if !sameSet(claims, b.hosts[host.Host].EgressIPs) {
			b.hosts[host.Host].EgressIPs = claims
			changed = true
		}
	}
	return changed
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// maxRounds is far more than any scenario needs.
const maxRounds = 100

func (b *Brain) settle() error {
	for range maxRounds {
		if !b.round() {
			return nil
		}
	}
	return fmt.Errorf("the allocation changes in each of %d rounds", maxRounds)
}

// State is part of Driver. It is taken from the plans of the hosts, as their
// kernels would be, and the resolution has to agree with them.
func (b *Brain) State() State {
	objects := b.Objects()
	cluster, _ := egress.Snapshot(objects)
	resolution := egress.Resolve(cluster)
	state := NewState()
	state.Broken = slices.Clone(b.broken)
	for name, host := range b.hosts {
		state.HostSubnets[name] = slices.Clone(host.EgressIPs)
		state.Online[name] = !b.offline[name]
		plan, _ := egress.PlanFor(cluster, resolution, name, nil, nil)
		for _, hosted := range plan.Hosted {
			if other, taken := state.Assignments[hosted.IP.String()]; taken {
				state.Broken = append(state.Broken, fmt.Sprintf("invariant: %s is on %s and %s", hosted.IP, other, name))
			}
			state.Assignments[hosted.IP.String()] = name
		}
	}
	for _, namespace := range resolution.Groups {
		state.Active[namespace.Name] = activeOf(namespace)
		state.Requests[namespace.Name] = slices.Clone(b.namespaces[namespace.Name].EgressIPs)
		if id, ok := b.namespaces[namespace.Name].ID(); ok {
			state.NetIDs[namespace.Name] = id
		}
		for _, request := range namespace.Requests {
			if conflict := ConflictOf(request.Reason); conflict != "" {
				state.Conflicts[request.IP] = conflict
			}
		}
	}
	return state
}

func activeOf(namespace egress.GroupResult) any {
	switch {
	case namespace.Dropped:
		return "dropped"
	case len(namespace.Active) == 0:
		return "none"
	}
	var active []string
	for _, assignment := range namespace.Active {
		active = append(active, assignment.IP.String()+"@"+assignment.Host)
	}
	return active
}

// ConflictOf is the reference's word for our reason.
func ConflictOf(reason egress.Reason) string {
	switch reason {
	case egress.ReasonMultipleHosts:
		return "multiple-nodes"
	case egress.ReasonMultipleNamespaces:
		return "multiple-namespaces"
	case egress.ReasonSameHost:
		return "same-namespace-same-node"
	default:
		return ""
	}
}
