package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

func load(t *testing.T) (*conformance.Corpus, map[string]string) {
	t.Helper()
	path := conformance.Path()
	if path == conformance.OwnCorpus {
		path = filepath.Join("..", path)
	}
	corpus, err := conformance.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	return corpus, conformance.Deviations(string(document))
}

func TestAgentOnTheKernel(t *testing.T) {
	corpus, deviations := load(t)
	same, otherwise, failed := 0, 0, 0
	for _, scenario := range corpus.AgentScenarios {
		if !slices.ContainsFunc(scenario.Steps, func(s conformance.Step) bool { return s.Op == "agent-start" }) {
			continue // about plans alone
		}
		t.Run(scenario.Name, func(t *testing.T) {
			out := play(t, scenario)
			logNotHere(t, out)
			wrong := strings.Join(out.Wrong, "; ")
			reason, deviates := deviations["kernel/"+scenario.Name]
			switch {
			case wrong == "" && !deviates:
				same++
			case deviates && strings.HasSuffix(wrong, "want refused, got dropped"):
				// Anything else that is wrong there is no deviation.
				otherwise++
				t.Logf("deviates on purpose: %s\n%s", reason, wrong)
			default:
				failed++
				t.Errorf("listed as a deviation: %t; wrong: %s", deviates, wrong)
			}
		})
	}
	t.Logf("CONFORMANCE agentScenarios on the kernel: %d in all, %d as the corpus says, %d otherwise on purpose, %d failed",
		same+otherwise+failed, same, otherwise, failed)
}

// logNotHere reports what the kernel passes over.
func logNotHere(t *testing.T, out conformance.Outcome) {
	t.Helper()
	for _, sentence := range out.NotHere {
		t.Log(sentence)
	}
}

// TestEveryWord plays a scenario that has every operation of one node and every
// expectation.
func TestEveryWord(t *testing.T) {
	corpus, err := conformance.Load(filepath.Join("..", conformance.EveryWord))
	if err != nil {
		t.Fatal(err)
	}
	for _, scenario := range corpus.AgentScenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			out := play(t, scenario)
			logNotHere(t, out)
			if len(out.Wrong) > 0 {
				t.Error(out.Wrong)
			}
		})
	}
}

// The label says whose an address is, even where OpenShift SDN's has no room.
func TestAddressLabels(t *testing.T) {
	corpus, deviations := load(t)
	same, otherwise := 0, 0
	for _, v := range corpus.Vectors.AddressLabel {
		t.Run(v.Interface, func(t *testing.T) {
			n := newNode(t, "w0", v.Interface)
			ip, netID, egressIPs := hostIP, uint32(1001), []string{"192.168.7.200"}
			for _, step := range []conformance.Step{
				{Op: "create-hostsubnet", Name: "w0", HostIP: &ip, EgressIPs: &egressIPs},
				{Op: "create-netnamespace", Name: "red", NetID: &netID, EgressIPs: &egressIPs},
			} {
				if err := n.brain.Do(t.Context(), step); err != nil {
					t.Fatal(err)
				}
			}
			n.start()
			if wrong := n.waitFor(egressIPs[0]); wrong != "" {
				t.Fatal(wrong)
			}
			list, _ := n.addresses()
			got := list[len(list)-1].Label
			_, deviates := deviations["kernel/label="+v.Interface]
			switch {
			case v.Label != nil && got == *v.Label && !deviates:
				same++
			case v.Label == nil && deviates && got != "" && got != v.Interface:
				otherwise++
				t.Logf("deviates on purpose: %s: %s", got, v.Note)
			default:
				t.Errorf("label %q, listed as a deviation: %t", got, deviates)
			}
		})
	}
	t.Logf("CONFORMANCE labels on the kernel: %d in all, %d as the corpus says, %d otherwise on purpose", len(corpus.Vectors.AddressLabel), same, otherwise)
}

// patience is longer than any limit of the corpus.
const patience = 10 * time.Second

// play plays a scenario up to the first step at which something is wrong.
func play(t *testing.T, scenario conformance.Scenario) conformance.Outcome {
	t.Helper()
	out := conformance.Outcome{Wrong: scenario.Problems, NotHere: conformance.OnKernel.NotHere(scenario)}
	if len(out.Wrong) > 0 {
		return out
	}
	n := newNode(t, scenario.Viewer, deviceOf(scenario))
	for i, step := range scenario.Steps {
		expect, err := conformance.Expected[conformance.AgentExpect](step)
		if err != nil {
			return out.At(scenario, i, err.Error())
		}
		announced := n.listen(expect.Announcements)
		if wrong := n.do(t, step); wrong != "" {
			return out.At(scenario, i, wrong)
		}
		limit := patience
		if expect.WithinSeconds != nil {
			limit = time.Duration(*expect.WithinSeconds) * time.Second
		}
		if wrong := n.eventually(limit, func() string { return n.wrong(expect, announced) }); wrong != "" {
			return out.At(scenario, i, wrong)
		}
	}
	return out
}

// deviceOf is the interface that the scenario looks at.
func deviceOf(scenario conformance.Scenario) string {
	for _, step := range scenario.Steps {
		if step.IfName != "" {
			return step.IfName
		}
	}
	return "eth0"
}

// do carries out a step and returns what keeps it from that.
func (n *node) do(t *testing.T, step conformance.Step) (wrong string) {
	t.Helper()
	if conformance.OnKernel.PassesOver(step) {
		return ""
	}
	switch step.Op {
	case "interface":
		n.present(step.Present, step.Rules)
		return ""
	case "agent-start":
		n.start()
		return ""
	case "external-address-delete":
		if wrong := n.waitFor(step.IP); wrong != "" {
			return wrong
		}
		run(t, "ip address del "+step.IP+"/24 dev "+n.device)
		return ""
	case "external-rules-flush":
		// What is not there yet would not be missed.
		want := n.brain.View(n.viewer).Addresses
		if wrong := n.eventually(patience, func() string { return differ("rules", n.translated(), want) }); wrong != "" {
			return wrong
		}
		run(t, "for table in filter nat mangle raw; do iptables -t $table -F; done; nft flush ruleset")
		return ""
	}
	if err := n.brain.Do(t.Context(), step); err != nil {
		return err.Error()
	}
	switch {
	case n.dp == nil:
	case step.Op == "restart":
		n.stop()
		n.start()
	default:
		n.plan()
	}
	return ""
}

// listen hears what is announced from now on.
func (n *node) listen(want *conformance.Announcements) (missing func() string) {
	if want == nil {
		return func() string { return "" }
	}
	ip, err := netip.ParseAddr(want.IP)
	if err != nil {
		return func() string { return err.Error() }
	}
	began := time.Now()
	count := n.announcements(ip)
	return func() string {
		if got := count(); got < want.Min {
			return fmt.Sprintf("%s was announced %d times", want.IP, got)
		}
		if limit := want.WithinSeconds; limit != nil && time.Since(began) > testenv.Stretch(time.Duration(*limit)*time.Second) {
			return fmt.Sprintf("%s was announced %d times only after %v", want.IP, want.Min, time.Since(began))
		}
		return ""
	}
}

// waitFor waits for an address and returns what is there without it.
func (n *node) waitFor(ip string) (wrong string) {
	return n.eventually(patience, func() string {
		list, _ := n.addresses()
		if !slices.ContainsFunc(list, func(a conformance.InterfaceAddress) bool { return a.IP == ip }) {
			return fmt.Sprintf("%s is not there: %v", ip, list)
		}
		return ""
	})
}

// eventually waits until nothing is wrong or the time is up, and returns what is
// wrong then.
func (n *node) eventually(limit time.Duration, wrong func() string) string {
	return testenv.Await(n.t.Context(), testenv.Stretch(limit), func(context.Context) string { return wrong() })
}

func (n *node) wrong(expect conformance.AgentExpect, announced func() string) string {
	list, cidrs := n.addresses()
	if expect.Interface != nil && !slices.Equal(list, *expect.Interface) {
		return fmt.Sprintf("the interface has %v instead of %v", list, *expect.Interface)
	}
	if expect.Addresses != nil {
		if w := differ("addresses", slices.Sorted(slices.Values(conformance.Labelled(list))), *expect.Addresses); w != "" {
			return w
		}
	}
	if expect.CIDRs != nil {
		for _, cidr := range *expect.CIDRs {
			if !slices.Contains(cidrs, cidr) {
				return fmt.Sprintf("%s is not on the interface: %v", cidr, cidrs)
			}
		}
	}
	if expect.RulesFor != nil {
		if w := differ("rules", n.translated(), *expect.RulesFor); w != "" {
			return w
		}
	}
	if w := connects("an answer", expect.InboundReply, cidrs, n.reply); w != "" {
		return w
	}
	if w := connects("a new connection", expect.InboundNew, cidrs, n.inbound); w != "" {
		return w
	}
	return announced()
}

// connects compares what becomes of a connection to an address, which the node
// must host first.
func connects(what string, want *conformance.Inbound, cidrs []string, ask func(ip string) string) string {
	switch {
	case want == nil:
		return ""
	case !slices.ContainsFunc(cidrs, func(cidr string) bool { return strings.HasPrefix(cidr, want.To+"/") }):
		return fmt.Sprintf("%s is not on the interface: %v", want.To, cidrs)
	}
	if got := ask(want.To); got != want.Result {
		return fmt.Sprintf("%s to %s: want %s, got %s", what, want.To, want.Result, got)
	}
	return ""
}

func differ(what string, got, want []string) string {
	if slices.Equal(got, slices.Sorted(slices.Values(want))) {
		return ""
	}
	return fmt.Sprintf("%s: want %v, got %v", what, want, got)
}
