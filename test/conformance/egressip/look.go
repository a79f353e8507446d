package egressip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Outside is an address outside each cluster of a case.
const Outside = "203.0.113.9"

// The networks of each cluster of a case.
const (
	pods4    = "10.244.0.0/16"
	pods6    = "fd00:10:244::/48"
	services = "10.96.0.0/16"
)

// Pods4 and Pods6 are the networks of the pods of the nth node.
func Pods4(n int) string { return fmt.Sprintf("10.244.%d.0/24", n) }

// Pods6 is that of IPv6.
func Pods6(n int) string { return fmt.Sprintf("fd00:10:244:%x::/64", n) }

// address returns the address of a node with its prefix length, of a family; invalid if it has
// none.
func (n Node) address(f egress.Family) netip.Prefix {
	for _, written := range n.Addresses {
		if p, err := netip.ParsePrefix(written); err == nil && egress.FamilyOf(p.Addr()) == f {
			return p
		}
	}
	return netip.Prefix{}
}

// hostIP is the address by which other nodes reach the node.
func (n Node) hostIP() netip.Addr {
	if p := n.address(egress.IPv4); p.IsValid() {
		return p.Addr()
	}
	return n.address(egress.IPv6).Addr()
}

// Look decides for each node as its agent does, and follows what pods send. numbers are those of
// nodes, from which pods have their addresses.
func Look(c Cluster, objects egress.Objects, numbers map[string]int) State {
	s := State{Items: make(map[string][]Item), Sources: make(map[string]Source), Inside: make(map[string][]netip.Prefix)}
	decided, _ := egress.Snapshot(objects)
	l := look{cluster: c, decided: decided.ForRouting(), numbers: numbers, decisions: make(map[string]egress.HostDecision), state: &s}
	for _, name := range slices.Sorted(maps.Keys(c.Nodes)) {
		l.decide(name)
	}
	s.Items = itemsOf(egress.Resolve(decided))
	l.checkHosts()
	l.checkItems()
	for _, name := range slices.Sorted(maps.Keys(c.Pods)) {
		l.follow(name)
	}
	return s
}

// itemsOf are the items of statuses, as the controller writes them.
func itemsOf(r egress.Resolution) map[string][]Item {
	all := make(map[string][]Item)
	for _, group := range r.Groups {
		name, ok := egress.NameOfEgressIP(group.Name)
		if !ok {
			continue
		}
		all[name] = nil
		for _, request := range group.Requests {
			if request.State == egress.Active || request.State == egress.Standby {
				all[name] = append(all[name], Item{request.IP, request.Host})
			}
		}
	}
	return all
}

// look is one look at a cluster.
type look struct {
	cluster   Cluster
	decided   egress.Cluster
	numbers   map[string]int
	decisions map[string]egress.HostDecision
	state     *State
}

func (l *look) broken(format string, args ...any) {
	l.state.Broken = append(l.state.Broken, "invariant: "+fmt.Sprintf(format, args...))
}

// decide is what the agent of a node decides.
func (l *look) decide(name string) {
	node := l.cluster.Nodes[name]
	in := egress.HostInput{
		Host: name, Cluster: l.decided, HostIP: node.hostIP(), Uplink: node.address(egress.IPv4), Strict: true,
		Managed: make(map[string]bool), Namespaces: make(map[string]labels.Set),
		Inside:      []netip.Prefix{netip.MustParsePrefix(services)},
		PodNetworks: []netip.Prefix{netip.MustParsePrefix(pods4), netip.MustParsePrefix(pods6)},
		Reach:       egress.Reach{Host: name, Silent: make(map[string]bool)},
	}
	for _, written := range node.Further {
		in.Addresses = append(in.Addresses, netip.MustParseAddr(written))
	}
	for namespace, of := range l.cluster.Namespaces {
		in.Managed[namespace], in.Namespaces[namespace] = true, of.Labels
	}
	for other, n := range l.cluster.Nodes {
		if n.Silent && other != name {
			in.Reach.Silent[other] = true
		}
	}
	for i, pod := range slices.Sorted(maps.Keys(l.cluster.Pods)) {
		if l.cluster.Pods[pod].Node != name {
			continue
		}
		namespace, podName, _ := strings.Cut(pod, "/")
		for _, ip := range l.addresses(pod, i) {
			in.Pods = append(in.Pods, egress.Pod{Namespace: namespace, Name: podName, UID: pod, IP: ip, Labels: l.cluster.Pods[pod].Labels})
		}
	}
	decision, ok := egress.DecideHost(in)
	if !ok {
		l.broken("node %s cannot decide", name)
	}
	l.decisions[name] = decision
}

// addresses of the nth pod. One with the network of its node has the node's.
func (l *look) addresses(pod string, n int) (ips []netip.Addr) {
	name := l.cluster.Pods[pod].Node
	node := l.cluster.Nodes[name]
	for f, network := range map[egress.Family]string{egress.IPv4: Pods4(l.numbers[name]), egress.IPv6: Pods6(l.numbers[name])} {
		own := node.address(f)
		switch {
		case !own.IsValid():
		case l.cluster.Pods[pod].HostNetwork:
			ips = append(ips, own.Addr())
		default:
			ip := netip.MustParsePrefix(network).Addr()
			for range n + 5 {
				ip = ip.Next()
			}
			ips = append(ips, ip)
		}
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return ips
}

// checkHosts: no two nodes have an address.
func (l *look) checkHosts() {
	has := make(map[netip.Addr]string)
	for _, name := range slices.Sorted(maps.Keys(l.decisions)) {
		for _, hosted := range l.decisions[name].Plan.Hosted {
			if other, taken := has[hosted.IP]; taken {
				l.broken("%s is on %s and %s", hosted.IP, other, name)
			}
			has[hosted.IP] = name
		}
	}
}

// checkItems: those of one EgressIP are on different nodes, which have them.
func (l *look) checkItems() {
	for name, items := range l.state.Items {
		on := make(map[string]bool)
		for _, item := range items {
			ip := netip.MustParseAddr(item.Address)
			key := fmt.Sprint(item.Node, egress.FamilyOf(ip))
			if on[key] {
				l.broken("%s has two items on %s", name, item.Node)
			}
			on[key] = true
			hosted := l.decisions[item.Node].Plan.Hosted
			if !slices.ContainsFunc(hosted, func(h egress.HostedIP) bool { return h.IP == ip && h.Group == egress.GroupOfEgressIP(name) }) {
				l.broken("%s is an item of %s, and node %s does not have it", item.Address, name, item.Node)
			}
		}
	}
}

// follow finds with what source packets of a pod leave, by each of its families.
func (l *look) follow(name string) {
	pod := l.cluster.Pods[name]
	plan := l.decisions[pod.Node].Plan
	networks := slices.Clone(plan.Inside)
	for _, ip := range plan.Hosts {
		networks = append(networks, netip.PrefixFrom(ip, ip.BitLen()))
	}
	l.state.Inside[name] = networks
	if inside(networks, netip.MustParseAddr(Outside)) {
		l.broken("%s is inside for pod %s", Outside, name)
	}
	addresses := l.addresses(name, slices.Index(slices.Sorted(maps.Keys(l.cluster.Pods)), name))
	for i, ip := range addresses {
		key := name
		if i > 0 {
			key += ofIPv6
		}
		source := Source{Word: Dropped, Node: pod.Node, IPv6: ip.Is6()}
		at := slices.IndexFunc(plan.Pods, func(p egress.PodPath) bool { return p.IP == ip })
		switch {
		case at >= 0:
			l.source(&source, pod.Node, plan.Pods[at])
		case pod.HostNetwork || !inside(plan.Subnets, ip):
			source.Word = FromNode
		default:
			// Nothing is known of it: what it sends is dropped.
		}
		for _, address := range source.Addresses {
			if !l.mayUse(name, address) {
				l.broken("pod %s leaves with %s, which no EgressIP gives it", name, address)
			}
		}
		l.state.Sources[key] = source
	}
}

// source follows a path to the nodes where it ends.
func (l *look) source(s *Source, node string, path egress.PodPath) {
	switch path.Kind {
	case egress.PathNode:
		s.Word = FromNode
	case egress.PathDrop:
		s.Word = Dropped
	case egress.PathRefuse:
		s.Word = Refused
	case egress.PathLocal:
		s.Word = ""
		l.leaves(s, node, path, path.EgressIP)
	case egress.PathRemote:
		s.Word = ""
		for i, via := range path.Via {
			at := ""
			for name, n := range l.cluster.Nodes {
				if n.hostIP() == via {
					at = name
				}
			}
			l.leaves(s, at, path, path.Sources[i])
		}
		slices.Sort(s.Addresses)
	}
}

// leaves notes the address with which what is of the group leaves from a node, which knows the
// group by its netid alone. planned is what the pod's own node says about that.
func (l *look) leaves(s *Source, node string, path egress.PodPath, planned netip.Addr) {
	for _, hosted := range l.decisions[node].Plan.Hosted {
		if hosted.NetID == path.NetID && hosted.IP.Is4() == path.IP.Is4() {
			s.Addresses = append(s.Addresses, hosted.IP.String())
			if hosted.IP != planned {
				l.broken("what %s/%s sends leaves from %s with %s, not with %s", path.Namespace, path.Name, node, hosted.IP, planned)
			}
			return
		}
	}
	l.broken("what %s/%s sends is lost on node %q", path.Namespace, path.Name, node)
}

// mayUse reports whether an EgressIP that selects the pod requests the address.
func (l *look) mayUse(pod, address string) bool {
	namespace, _, _ := strings.Cut(pod, "/")
	selects := func(s metav1.LabelSelector, of map[string]string) bool {
		selector, err := metav1.LabelSelectorAsSelector(&s)
		return err == nil && selector.Matches(labels.Set(of))
	}
	for _, e := range l.cluster.EgressIPs {
		requested := slices.ContainsFunc(e.EgressIPs, func(written string) bool {
			ip, err := netip.ParseAddr(written)
			return err == nil && ip.String() == address
		})
		if requested && selects(e.NamespaceSelector, l.cluster.Namespaces[namespace].Labels) && selects(e.PodSelector, l.cluster.Pods[pod].Labels) {
			return true
		}
	}
	return false
}
