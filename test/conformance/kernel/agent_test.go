package kernel

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
			wrong := play(t, scenario)
			reason, deviates := deviations["kernel/"+scenario.Name]
			switch {
			case len(wrong) == 0 && !deviates:
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

// The label says whose an address is, also where OpenShift SDN's had no room.
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
			n.waitFor(t, egressIPs[0])
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

func play(t *testing.T, scenario conformance.Scenario) string {
	t.Helper()
	n := newNode(t, scenario.Viewer, "eth0")
	for i, step := range scenario.Steps {
		var expect conformance.AgentExpect
		if len(step.Expect) > 0 {
			if err := json.Unmarshal(step.Expect, &expect); err != nil {
				t.Fatal(err)
			}
		}
		announced := n.listen(expect)
		switch step.Op {
		case "interface":
			n.present(step.Present)
		case "agent-start":
			n.start()
		case "external-address-delete":
			n.waitFor(t, step.IP)
			run(t, "ip address del "+step.IP+"/24 dev "+n.device)
		case "external-rules-flush":
			n.eventually(patience, func() string { return differ("rules", n.translated(), *expect.RulesFor) })
			run(t, "for table in filter nat mangle raw; do iptables -t $table -F; done")
		default:
			if err := n.brain.Do(t.Context(), step); err != nil {
				t.Fatal(err)
			}
			if n.dp != nil {
				n.plan()
			}
		}
		limit := patience
		if expect.WithinSeconds != nil {
			limit = time.Duration(*expect.WithinSeconds) * time.Second
		}
		if wrong := n.eventually(limit, func() string { return n.wrong(expect, announced) }); wrong != "" {
			return fmt.Sprintf("after step %d, %s: %s", i+1, step.Op, wrong)
		}
	}
	return ""
}

// listen hears what is announced from now on.
func (n *node) listen(expect conformance.AgentExpect) (missing func() string) {
	if len(expect.Announcements) == 0 {
		return func() string { return "" }
	}
	var want struct {
		IP  netip.Addr `json:"ip"`
		Min int        `json:"min"`
	}
	if err := json.Unmarshal(expect.Announcements, &want); err != nil {
		n.t.Fatal(err)
	}
	count := n.announcements(want.IP)
	return func() string {
		if got := count(); got < want.Min {
			return fmt.Sprintf("%s was announced %d times", want.IP, got)
		}
		return ""
	}
}

func (n *node) waitFor(t *testing.T, ip string) {
	t.Helper()
	wrong := n.eventually(patience, func() string {
		list, _ := n.addresses()
		if !slices.ContainsFunc(list, func(a conformance.InterfaceAddress) bool { return a.IP == ip }) {
			return fmt.Sprintf("%s is not there: %v", ip, list)
		}
		return ""
	})
	if wrong != "" {
		t.Fatal(wrong)
	}
}

// eventually asks until nothing is wrong or the time is up, and returns what is
// wrong then.
func (n *node) eventually(limit time.Duration, wrong func() string) string {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		w := wrong()
		if w == "" {
			return ""
		}
		select {
		case <-deadline:
			return w
		case <-tick.C:
		}
	}
}

func (n *node) wrong(expect conformance.AgentExpect, announced func() string) string {
	list, cidrs := n.addresses()
	if expect.Interface != nil && !slices.Equal(list, *expect.Interface) {
		return fmt.Sprintf("the interface has %v instead of %v", list, *expect.Interface)
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

// connects compares what becomes of a connection to an address that the node
// has to bear first.
func connects(what string, expect json.RawMessage, cidrs []string, ask func(ip string) string) string {
	var want struct {
		To     string `json:"to"`
		Result string `json:"result"`
	}
	switch {
	case len(expect) == 0:
		return ""
	case json.Unmarshal(expect, &want) != nil:
		return fmt.Sprintf("%s is not understood: %s", what, expect)
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
