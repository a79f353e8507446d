package online_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestVerdicts draws the table of all verdicts on hosts whose Node is Ready, not Ready or
// unreachable, for a person to read, and compares it with testdata/verdicts.txt. For
// all other Nodes, probes mean nothing. On purpose there is no way to update the file
// but by hand: each line of it is a decision.
//
// Mutant killed: answering-ends-doubt.
func TestVerdicts(t *testing.T) {
	want, err := os.ReadFile("testdata/verdicts.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := verdictTable(); got != string(want) {
		t.Errorf("the verdicts are:\n%s\nwant those of testdata/verdicts.txt:\n%s", got, want)
	}
	for _, node := range []online.NodeState{online.NodeGone, online.NodeNotReported} {
		for probe := online.NotProbed; probe <= online.ProbeAlone; probe++ {
			if v := online.Judge(online.Evidence{Node: node, Probe: probe}); v.Online {
				t.Errorf("Node state %d, probe state %d: online", node, probe)
			}
		}
	}
}

// verdictTable has a line for each result of probes, with earlier verdicts that make
// no difference on one line.
func verdictTable() string {
	probes := []string{
		"NotProbed", "Undecided", "NeverAnswered", "CutOff", "Returning", "HeldDown", "Answers", "Silent", "NotServing", "NoAgent", "Alone",
	}
	type before struct {
		name string
		online.Evidence
	}
	befores := []before{{name: "none"}}
	for _, reason := range []online.Reason{
		online.ReasonNodeReady, online.ReasonAnswers, online.ReasonNoAgent, online.ReasonLastResort, online.ReasonControllerAlone,
	} {
		befores = append(befores, before{"+" + string(reason), online.Evidence{Judged: true, WasOnline: true, WasReason: reason}})
	}
	for _, reason := range []online.Reason{
		online.ReasonNodeGone, online.ReasonNodeNotReady, online.ReasonNodeUnreachable, online.ReasonSilent, online.ReasonNotServing, online.ReasonHeldDown,
	} {
		befores = append(befores, before{"-" + string(reason), online.Evidence{Judged: true, WasReason: reason}})
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROBES\tNODE READY\tAND SILENT TO MOST\tNODE NOT READY\tAND SILENT TO MOST\tNODE UNREACHABLE\tAND SILENT TO MOST\tEARLIER VERDICT (+ ONLINE, - OFFLINE, ? DOUBTFUL, ~ UNSEEN)")
	for probe, name := range probes {
		var lines []string
		which := make(map[string][]string)
		for _, b := range befores {
			var line []string
			for _, node := range []online.NodeState{online.NodeReady, online.NodeNotReady, online.NodeUnreachable} {
				for _, silent := range []int{1, 2} {
					e := b.Evidence
					e.Node, e.Probe, e.Vote = node, online.ProbeState(probe), online.Vote{Watchers: 3, Silent: silent}
					line = append(line, sign(online.Judge(e)))
				}
			}
			key := strings.Join(line, "\t")
			if which[key] == nil {
				lines = append(lines, key)
			}
			which[key] = append(which[key], b.name)
		}
		for _, line := range lines {
			earlier := strings.Join(which[line], " ")
			if len(lines) == 1 {
				earlier = "any"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", name, line, earlier)
		}
	}
	w.Flush()
	return out.String()
}

// sign is a verdict in short: + is online, - is offline, ? is doubtful, ~ is unseen.
func sign(v online.Verdict) string {
	s := "-"
	if v.Online {
		s = "+"
	}
	if v.Doubtful {
		s = "?"
	}
	if v.Unseen {
		s = "~"
	}
	s += string(v.Reason)
	if v.Closed {
		s += ",closed"
	}
	if v.HeldDown {
		s += ",held"
	}
	return s
}
