package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// PlayAgent plays a scenario that looks at one node. What the node's kernel
// must do is compared in terms of the node's plan: which egress IPs it hosts, and
// where packets of each namespace go. What no plan contains, such as labels and
// announcements, is for the tests of pkg/dataplane.
func PlayAgent(ctx context.Context, scenario Scenario) Outcome {
	out := Outcome{Wrong: scenario.Problems}
	if len(out.Wrong) > 0 {
		return out
	}
	brain := NewBrain(scenario.Profile)
	for i, step := range scenario.Steps {
		out.NotHere = append(out.NotHere, OnPlans.notHere(i, step)...)
		if !OnPlans.PassesOver(step) {
			if err := brain.Do(ctx, step); err != nil {
				return out.At(scenario, i, err.Error())
			}
		}
		expect, err := Expected[AgentExpect](step)
		if err != nil {
			return out.At(scenario, i, err.Error())
		}
		if wrong := expect.check(brain.View(scenario.Viewer)); len(wrong) > 0 {
			return out.At(scenario, i, wrong...)
		}
	}
	return out
}

// check compares what a plan shows of the expectation.
func (e AgentExpect) check(view View) (wrong []string) {
	for what, want := range map[string]*[]string{"addresses": e.Addresses, "rulesFor": e.RulesFor} {
		if want != nil && !sameSet(*want, view.Addresses) {
			wrong = append(wrong, fmt.Sprintf("%s: %s", what, differ(*want, view.Addresses)))
		}
	}
	for _, name := range keys(e.Paths, e.Paths != nil, view.Paths) {
		if got := view.Paths[name]; pathWord(e.Paths[name]) != got {
			wrong = append(wrong, fmt.Sprintf("path of %s: %s", name, differ(e.Paths[name], got)))
		}
	}
	if e.Interface != nil {
		if ours := Labelled(*e.Interface); !sameSet(ours, view.Addresses) {
			wrong = append(wrong, fmt.Sprintf("interface: %s", differ(ours, view.Addresses)))
		}
	}
	for _, ip := range e.hosted() {
		if !slices.Contains(view.Addresses, ip) {
			wrong = append(wrong, fmt.Sprintf("%s is not on the interface: %v", ip, view.Addresses))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// hosted are the addresses that must be on the interface for other parts of the
// expectation to hold.
func (e AgentExpect) hosted() (ips []string) {
	if e.CIDRs != nil {
		for _, cidr := range *e.CIDRs {
			ip, _, _ := strings.Cut(cidr, "/")
			ips = append(ips, ip)
		}
	}
	if e.Announcements != nil {
		ips = append(ips, e.Announcements.IP)
	}
	for _, inbound := range []*Inbound{e.InboundNew, e.InboundReply} {
		if inbound != nil {
			ips = append(ips, inbound.To)
		}
	}
	return ips
}

// Labelled are the addresses whose label says that they are egress IPs.
func Labelled(addresses []InterfaceAddress) (ips []string) {
	for _, a := range addresses {
		if strings.HasSuffix(a.Label, ":eip") {
			ips = append(ips, a.IP)
		}
	}
	return ips
}

// pathWord writes a path of the corpus as View does.
func pathWord(path any) string {
	words, ok := path.(map[string]any)
	if !ok {
		return word(path)
	}
	var list []string
	for _, field := range []string{"nodes", "egressIPs"} {
		elements, _ := words[field].([]any)
		for _, element := range elements {
			list = append(list, word(element))
		}
	}
	slices.Sort(list)
	return fmt.Sprintf("%v %v", words["kind"], list)
}

// View is what one node does.
type View struct {
	// Addresses are the egress IPs that it hosts.
	Addresses []string
	// Paths are the ways of the packets of pods there, by namespace: "none",
	// "dropped", "local [address]" or "remote [nodes]".
	Paths map[string]string
}

// View is what a node does, with a pod of each namespace on it.
func (b *Brain) View(viewer string) View {
	cluster, _ := egress.Snapshot(b.Objects())
	var pods []egress.Pod
	ip := netip.MustParseAddr("10.128.0.10")
	for _, n := range cluster.Groups {
		pods = append(pods, egress.Pod{Namespace: n.Name, Name: "pod", UID: n.Name, IP: ip})
		ip = ip.Next()
	}
	view := View{Paths: make(map[string]string)}
	plan, known := egress.PlanFor(cluster, egress.Resolve(cluster), viewer, pods, nil)
	if !known {
		// A node without a HostSubnet of its own: its agent plans with an
		// empty one, as it would from its cache before the controller made it.
		cluster = withHost(cluster, viewer)
		plan, _ = egress.PlanFor(cluster, egress.Resolve(cluster), viewer, pods, nil)
	}
	for _, hosted := range plan.Hosted {
		view.Addresses = append(view.Addresses, hosted.IP.String())
	}
	node := make(map[netip.Addr]string)
	for _, host := range cluster.Hosts {
		node[host.IP] = host.Name
	}
	for _, path := range plan.Pods {
		switch path.Kind {
		case egress.PathNode:
			view.Paths[path.Namespace] = "none"
		case egress.PathDrop, egress.PathRefuse:
			view.Paths[path.Namespace] = "dropped"
		case egress.PathLocal:
			view.Paths[path.Namespace] = fmt.Sprintf("local %v", []netip.Addr{path.EgressIP})
		case egress.PathRemote:
			var nodes []string
			for _, via := range path.Via {
				nodes = append(nodes, node[via])
			}
			slices.Sort(nodes)
			view.Paths[path.Namespace] = fmt.Sprintf("remote %v", nodes)
		}
	}
	return view
}

func withHost(c egress.Cluster, name string) egress.Cluster {
	c.Hosts = append(slices.Clone(c.Hosts), egress.Host{Name: name})
	slices.SortFunc(c.Hosts, func(a, b egress.Host) int { return strings.Compare(a.Name, b.Name) })
	return c
}
