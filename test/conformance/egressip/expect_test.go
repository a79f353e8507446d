package egressip_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/conformance/egressip"
)

// TestEachAnswerCounts: any other answer than the one that is written down fails.
func TestEachAnswerCounts(t *testing.T) {
	fails := func(c egressip.Case, step int, what string, wrong egressip.Expect) {
		t.Helper()
		c.Steps = slices.Clone(c.Steps)
		c.Steps[step].Then, c.Steps[step].Ours = wrong, nil
		if out := egressip.Play(t.Context(), egressip.NewBrain(), c); len(out.Wrong) == 0 {
			t.Errorf("case %s, step %d: another answer for %s is as good", c.Name, step+1, what)
		}
	}
	for _, c := range load(t) {
		for i, step := range c.Steps {
			right := step.Expect()
			for name, items := range right.Items {
				wrong := right
				wrong.Items = maps.Clone(right.Items)
				wrong.Items[name] = append([]string{"* *"}, items...)
				fails(c, i, "the number of items of "+name, wrong)
				if len(items) > 0 {
					wrong.Items[name] = append([]string{"* w0"}, items[1:]...)
					fails(c, i, "an item of "+name, wrong)
				}
			}
			for pod, source := range right.Sources {
				for _, other := range []string{egressip.FromNode, egressip.Dropped, egressip.Refused, "192.168.7.250"} {
					if other == source {
						continue
					}
					wrong := right
					wrong.Sources = maps.Clone(right.Sources)
					wrong.Sources[pod] = other
					fails(c, i, "the source of pod "+pod, wrong)
				}
			}
			for pod := range right.Inside {
				wrong := right
				wrong.Inside = map[string][]string{pod: {egressip.Outside}}
				fails(c, i, "what is inside for pod "+pod, wrong)
			}
		}
	}
}

// TestOurAnswersDiffer: where a case says that we differ, we do; without that it fails.
func TestOurAnswersDiffer(t *testing.T) {
	for _, c := range load(t) {
		for i := range c.Steps {
			without := c
			without.Steps = slices.Clone(c.Steps)
			without.Steps[i].Ours = nil
			out := egressip.Play(t.Context(), egressip.NewBrain(), without)
			if failed := len(out.Wrong) > 0; failed != (c.Steps[i].Ours != nil) {
				t.Errorf("case %s, step %d, without what is ours: %q", c.Name, i+1, out.Wrong)
			}
			as := c
			as.Steps = slices.Clone(c.Steps)
			as.Steps[i].Then = c.Steps[i].Expect()
			if c.Steps[i].Ours == nil {
				as.Steps[i].Ours = &egressip.Ours{Why: "it does not differ at all"}
			}
			if out := egressip.Play(t.Context(), egressip.NewBrain(), as); len(out.Wrong) == 0 {
				t.Errorf("case %s, step %d: what is ours does not differ from the peer's answer, and nothing says so", c.Name, i+1)
			}
		}
	}
}

// TestItems: each item that is wanted is there, and no other.
func TestItems(t *testing.T) {
	items := []egressip.Item{{Address: "a", Node: "w1"}, {Address: "b", Node: "w2"}}
	for _, c := range []struct {
		wanted []string
		fits   bool
	}{
		{[]string{"a w1", "b w2"}, true},
		{[]string{"b w2", "a w1"}, true},
		{[]string{"* w2", "* w1"}, true},
		{[]string{"* *", "a w1"}, true},
		{[]string{"a|b w1|w2", "a|b w1|w2"}, true},
		{[]string{"a *", "a *"}, false},
		{[]string{"a w2", "b w1"}, false},
		{[]string{"a w1"}, false},
		{[]string{"* *", "* *", "* *"}, false},
		{nil, false},
	} {
		state := egressip.State{Items: map[string][]egressip.Item{"eip": items}}
		wrong := egressip.Expect{Items: map[string][]string{"eip": c.wanted}}.Check(state, egressip.State{})
		if (len(wrong) == 0) != c.fits {
			t.Errorf("%q: %v", c.wanted, wrong)
		}
	}
}

// TestSources: what the words of a source mean.
func TestSources(t *testing.T) {
	items := []egressip.Item{{Address: "a", Node: "w1"}, {Address: "b", Node: "w2"}, {Address: "c::", Node: "w1"}}
	for _, c := range []struct {
		wanted string
		source egressip.Source
		fits   bool
	}{
		{"node", egressip.Source{Word: egressip.FromNode}, true},
		{"dropped", egressip.Source{Word: egressip.FromNode}, false},
		{"node or dropped", egressip.Source{Word: egressip.Dropped}, true},
		{"all of eip", egressip.Source{Addresses: []string{"a", "b"}}, true},
		{"all of eip", egressip.Source{Addresses: []string{"a"}}, false},
		{"all of eip", egressip.Source{Addresses: []string{"c::"}, IPv6: true}, true},
		{"all of other", egressip.Source{}, false},
		{"one of eip", egressip.Source{Addresses: []string{"b"}}, true},
		{"one of eip", egressip.Source{Addresses: []string{"a", "b"}}, false},
		{"the node's of eip", egressip.Source{Addresses: []string{"a"}, Node: "w1"}, true},
		{"the node's of eip", egressip.Source{Addresses: []string{"a"}, Node: "w2"}, false},
		{"a b", egressip.Source{Addresses: []string{"a", "b"}}, true},
		{"a", egressip.Source{Addresses: []string{"a", "b"}}, false},
	} {
		state := egressip.State{Items: map[string][]egressip.Item{"eip": items}, Sources: map[string]egressip.Source{"p": c.source}}
		wrong := egressip.Expect{Sources: map[string]string{"p": c.wanted}}.Check(state, egressip.State{})
		if (len(wrong) == 0) != c.fits {
			t.Errorf("%q, and %+v: %v", c.wanted, c.source, wrong)
		}
	}
}

// TestUnknownWords: what is not understood is an error, as nothing would check it.
func TestUnknownWords(t *testing.T) {
	const head = "format: EgressIP conformance cases, version 1\ncases:\n- name: x/one\n  from: [somewhere]\n  steps:\n"
	for step, want := range map[string]string{
		"  - {then: {item: {}}}":                                  "item",
		"  - {do: {node: {}}, then: {}}":                          "node",
		"  - {do: {nodes: {w1: {label: true}}}, then: {}}":        "label",
		"  - {then: {}}":                                          "nothing is expected",
		"  - {then: {items: {eip: []}}}":                          "there is no EgressIP eip",
		"  - {then: {sources: {red/web: node}}}":                  "there is no pod red/web",
		"  - {then: {}, ours: {why: so, sources: {a/b: node}}}":   "ours gives no reason",
		"  - {do: {egressIPs: {eip: {}}}, then: {unmoved: [ei]}}": "there is no EgressIP ei",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.yaml"), []byte(head+step+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := egressip.Load(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", step, err)
		}
	}
}
