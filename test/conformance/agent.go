package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// PlayAgent plays a scenario that looks at one node. What the node's kernel has
// to do is compared in terms of the node's plan: which addresses it bears, and
// where packets of each namespace go. What no plan tells, such as labels and
// announcements, is for the tests of pkg/dataplane; partly is true where the
// scenario expects such a thing too.
func PlayAgent(ctx context.Context, scenario Scenario) (wrong []string, partly bool, err error) {
	brain := NewBrain(scenario.Profile)
	for i, step := range scenario.Steps {
		switch step.Op {
		case "interface", "agent-start", "external-address-delete", "external-rules-flush":
			// These happen to the kernel; a plan does not depend on them.
			partly = true
		default:
			if err := brain.Do(ctx, step); err != nil {
				return nil, false, fmt.Errorf("step %d, %s %s: %w", i+1, step.Op, step.Name, err)
			}
		}
		if len(step.Expect) == 0 {
			continue
		}
		var expect AgentExpect
		if err := strict(step.Expect, &expect); err != nil {
			return nil, false, fmt.Errorf("step %d, %s %s: read expectation: %w", i+1, step.Op, step.Name, err)
		}
		found, err := expect.check(brain, scenario.Viewer)
		if err != nil {
			return nil, false, fmt.Errorf("step %d, %s %s: %w", i+1, step.Op, step.Name, err)
		}
		for _, w := range found {
			wrong = append(wrong, fmt.Sprintf("after step %d, %s %s, on %s: %s", i+1, step.Op, step.Name, scenario.Viewer, w))
		}
		if len(wrong) > 0 {
			return wrong, partly, nil
		}
	}
	return nil, partly, nil
}

func (e AgentExpect) check(brain *Brain, viewer string) (wrong []string, err error) {
	view := brain.View(viewer)
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
		var ours []string
		for _, address := range *e.Interface {
			if strings.HasSuffix(address.Label, ":eip") {
				ours = append(ours, address.IP)
			}
		}
		if !sameSet(ours, view.Addresses) {
			wrong = append(wrong, fmt.Sprintf("interface: %s", differ(ours, view.Addresses)))
		}
	}
	if e.CIDRs != nil {
		for _, cidr := range *e.CIDRs {
			if ip, _, _ := strings.Cut(cidr, "/"); !slices.Contains(view.Addresses, ip) {
				wrong = append(wrong, fmt.Sprintf("%s is not on the interface: %v", ip, view.Addresses))
			}
		}
	}
	for _, raw := range []json.RawMessage{e.Announcements, e.InboundNew, e.InboundReply} {
		if len(raw) == 0 {
			continue
		}
		var about struct {
			IP string `json:"ip"`
			To string `json:"to"`
		}
		if err := json.Unmarshal(raw, &about); err != nil {
			return nil, err
		}
		if ip := about.IP + about.To; !slices.Contains(view.Addresses, ip) {
			wrong = append(wrong, fmt.Sprintf("%s is not on the interface: %v", ip, view.Addresses))
		}
	}
	slices.Sort(wrong)
	return wrong, nil
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
	// Addresses are the egress IPs that it bears.
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
	for _, n := range cluster.Namespaces {
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
		case egress.PathDrop:
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
