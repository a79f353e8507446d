package egressip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// Brain plays cases on pkg/egress and pkg/online as pure functions.
type Brain struct {
	cluster Cluster
	// former are Nodes that are gone, and whose HostSubnets are kept.
	former map[string]Node
	// assigned are the lists of HostSubnets.
	assigned map[string][]string
	// numbers are those of nodes, netIDs those of groups.
	numbers map[string]int
	netIDs  map[string]uint32
	// backward is the order in which objects are read.
	backward bool
}

// NewBrain returns an empty cluster.
func NewBrain() *Brain {
	return &Brain{
		former: make(map[string]Node), assigned: make(map[string][]string),
		numbers: make(map[string]int), netIDs: make(map[string]uint32),
	}
}

// Do is part of Player.
func (b *Brain) Do(_ context.Context, step Step, now Cluster) error {
	for name, node := range b.cluster.Nodes {
		if _, there := now.Nodes[name]; !there {
			b.former[name] = node
		}
	}
	for name := range now.Nodes {
		delete(b.former, name)
	}
	b.cluster = now
	if step.Restart {
		b.backward = !b.backward
	}
	return b.settle()
}

// Until is part of Player.
func (b *Brain) Until(_ context.Context, done func(State) []string) (State, []string, error) {
	state := Look(b.cluster, b.Objects(), b.numbers)
	return state, done(state), nil
}

// settle lets the controller assign until nothing changes.
func (b *Brain) settle() error {
	for range 100 {
		cluster, _ := egress.Snapshot(b.Objects())
		changed := false
		for _, host := range egress.Allocate(cluster).Hosts {
			var list []string
			for _, ip := range host.Assigned {
				list = append(list, ip.String())
			}
			if !slices.Equal(list, b.assigned[host.Host]) {
				b.assigned[host.Host], changed = list, true
			}
		}
		if !changed {
			return nil
		}
	}
	return errors.New("the allocation changes in each round")
}

// number returns that of a node, and gives it one.
func number[N int | uint32](numbers map[string]N, name string, from N) N {
	if _, ok := numbers[name]; !ok {
		numbers[name] = from + N(len(numbers))
	}
	return numbers[name]
}

// Objects is the cluster as the API would hold it.
func (b *Brain) Objects() egress.Objects {
	objects := egress.Objects{
		Verdicts: make(map[string]online.Verdict), Gone: make(map[string]bool), Assignable: make(map[string]bool),
		Capacity: make(map[string]int), IPv6Capacity: make(map[string]int), Networks: make(map[string][]netip.Prefix),
	}
	for _, name := range slices.Sorted(maps.Keys(b.cluster.Namespaces)) {
		objects.NetNamespaces = append(objects.NetNamespaces, v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: name}, NetName: name, NetID: new(number(b.netIDs, name, 1001)),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(b.cluster.EgressIPs)) {
		objects.EgressIPs = append(objects.EgressIPs, b.cluster.EgressIPs[name].object(name, number(b.netIDs, egress.GroupOfEgressIP(name), 1001)))
	}
	nodes := maps.Clone(b.cluster.Nodes)
	if nodes == nil {
		nodes = make(map[string]Node)
	}
	maps.Copy(nodes, b.former)
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		node := nodes[name]
		_, objects.Gone[name] = b.former[name]
		objects.Verdicts[name] = node.verdict(objects.Gone[name])
		objects.Assignable[name] = node.Assignable && !objects.Gone[name]
		if config, err := egress.ParseCloudConfig(node.CloudConfig()); err == nil && len(node.Capacity) > 0 {
			objects.Capacity[name], objects.Networks[name] = config.Capacity, config.Networks
			if config.IPv6Capacity != 0 {
				objects.IPv6Capacity[name] = config.IPv6Capacity
			}
		}
		objects.HostSubnets = append(objects.HostSubnets, b.hostSubnet(name, node))
	}
	if b.backward {
		slices.Reverse(objects.NetNamespaces)
		slices.Reverse(objects.EgressIPs)
		slices.Reverse(objects.HostSubnets)
	}
	return objects
}

// object is the EgressIP as the API has it.
func (e EgressIP) object(name string, netID uint32) ovnv1.EgressIP {
	return ovnv1.EgressIP{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       ovnv1.EgressIPSpec{EgressIPs: e.EgressIPs, NamespaceSelector: e.NamespaceSelector, PodSelector: e.PodSelector},
		Status:     ovnv1.EgressIPStatus{NetID: &netID},
	}
}

func (b *Brain) hostSubnet(name string, node Node) v1.HostSubnet {
	n := number(b.numbers, name, 1)
	h := v1.HostSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Host: name, HostIP: node.hostIP().String(),
		AssignedEgressIPs: slices.Clone(b.assigned[name]),
	}
	if node.address(egress.IPv4).IsValid() {
		h.Subnet = Pods4(n)
	}
	if p := node.address(egress.IPv6); p.IsValid() {
		h.Status.IPv6Networks = []string{Pods6(n), netip.PrefixFrom(p.Addr(), 128).String()}
	}
	node.Report(&h)
	return h
}

// Report sets in the status of a node's HostSubnet what its agent reports if all is well.
func (n Node) Report(h *v1.HostSubnet) {
	if h.Status.Agent == nil {
		h.Status.Agent = &v1.AgentStatus{Version: "test"}
	}
	h.Status.Agent.Families, h.Status.Agent.UplinkNetworks = nil, nil
	h.Status.Agent.UplinkCIDR = netip.PrefixFrom(n.hostIP(), n.hostIP().BitLen()).String()
	if p := n.address(egress.IPv4); p.IsValid() {
		h.Status.Agent.UplinkCIDR = p.String()
		h.Status.Agent.Families = append(h.Status.Agent.Families, v1.FamilyIPv4)
	}
	if p := n.address(egress.IPv6); p.IsValid() {
		h.Status.Agent.UplinkNetworks = []string{p.Masked().String()}
		h.Status.Agent.Families = append(h.Status.Agent.Families, v1.FamilyIPv6)
	}
	h.Status.Agent.Addresses = slices.Clone(n.Further)
	meta.SetStatusCondition(&h.Status.Conditions, metav1.Condition{
		Type: v1.ConditionAgentReady, Status: metav1.ConditionTrue, Reason: "Ready",
	})
	h.Status.EgressIPs = nil
	for _, ip := range h.AllEgressIPs() {
		h.Status.EgressIPs = append(h.Status.EgressIPs, v1.ClaimStatus{IP: ip, State: v1.StateActive, Configured: true})
	}
}

// verdict is what follows from the Node and from probes.
func (n Node) verdict(gone bool) online.Verdict {
	e := online.Evidence{Node: online.NodeReady, Probe: online.ProbeAnswers}
	switch {
	case gone:
		e.Node = online.NodeGone
	case n.NotReady:
		e.Node = online.NodeNotReady
	}
	if n.Silent {
		e.Probe, e.Vote = online.ProbeSilent, online.Vote{Panel: 2, Watchers: 2, Silent: 2}
	}
	return online.Judge(e)
}

// CloudConfig is the annotation that a cloud would write for the node; "" if it has no capacity.
func (n Node) CloudConfig() string {
	if len(n.Capacity) == 0 {
		return ""
	}
	networks := make(map[string]string)
	for f, key := range map[egress.Family]string{egress.IPv4: "ipv4", egress.IPv6: "ipv6"} {
		if p := n.address(f); p.IsValid() {
			networks[key] = p.Masked().String()
		}
	}
	data, err := json.Marshal([]map[string]any{{"interface": "eth0", "ifaddr": networks, "capacity": n.Capacity}})
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(data)
}
