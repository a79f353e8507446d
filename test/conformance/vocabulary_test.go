package conformance

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) *Corpus {
	t.Helper()
	corpus, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return corpus
}

// TestCorpusIsUnderstood: a part that belongs to no scenario is played by none, so
// nothing else would fail by it.
func TestCorpusIsUnderstood(t *testing.T) {
	for _, path := range []string{Path(), EveryWord} {
		for _, problem := range read(t, path).Problems {
			t.Errorf("%s: %s", path, problem)
		}
	}
}

// TestUnknownWords: a word that the format does not have fails its scenario, by a
// sentence that names the place; the others are read and played all the same.
func TestUnknownWords(t *testing.T) {
	corpus := read(t, "testdata/unknown-words.json")
	reports := func(name, want string, got ...string) {
		t.Helper()
		if want == "" {
			if len(got) > 0 {
				t.Errorf("%s: %q", name, got)
			}
			return
		}
		if len(got) == 0 || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	good := 0
	for _, s := range corpus.Scenarios {
		if s.Shows == "" {
			good++
		}
		reports(s.Name, s.Shows, Play(t.Context(), NewBrain(s.Profile), s).Wrong...)
	}
	for _, s := range corpus.AgentScenarios {
		if s.Shows == "" {
			good++
		}
		reports(s.Name, s.Shows, PlayAgent(t.Context(), s).Wrong...)
	}
	for _, s := range corpus.LifecycleScenarios {
		reports(s.Name, s.Shows, s.Problems...)
	}
	for _, s := range corpus.HealthScenarios {
		reports(s.Name, s.Shows, s.Problems...)
	}
	for _, c := range corpus.TrafficCases {
		reports(c.Name, c.Expect, c.Problems...)
	}
	reports("a section", `unknown section "weather"`, corpus.Problems...)
	if good != 2 {
		t.Errorf("%d good scenarios, want 2", good)
	}
}

// TestNoWordIsPassedOverInSilence plays a scenario of each word on both players
// that need no machine. The API server and the kernel play the same corpus.
func TestNoWordIsPassedOverInSilence(t *testing.T) {
	corpus := read(t, EveryWord)
	for _, s := range corpus.Scenarios {
		if out := Play(t.Context(), NewBrain(s.Profile), s); len(out.Wrong) > 0 {
			t.Errorf("%q", out.Wrong)
		}
	}
	for _, s := range corpus.AgentScenarios {
		out := PlayAgent(t.Context(), s)
		if len(out.Wrong) > 0 {
			t.Errorf("%q", out.Wrong)
		}
		for _, op := range []string{"interface", "agent-start", "external-address-delete", "external-rules-flush", "announcements", "inboundNew"} {
			if !slices.ContainsFunc(out.NotHere, func(sentence string) bool { return strings.Contains(sentence, op) }) {
				t.Errorf("nothing says that %s does not apply to a plan: %q", op, out.NotHere)
			}
		}
	}
	for player, word := range map[Player]string{OnAPIServer: "reallocate", OnKernel: "paths"} {
		all := append(player.NotHere(corpus.Scenarios[0]), player.NotHere(corpus.AgentScenarios[0])...)
		if !slices.ContainsFunc(all, func(sentence string) bool { return strings.Contains(sentence, word) }) {
			t.Errorf("nothing says that %s does not apply to %s: %q", word, player, all)
		}
	}
}

// used are the words of a corpus.
type used struct{ ops, predicates, constraints, fields map[string]bool }

func wordsOf(corpus *Corpus) map[Section]used {
	sections := make(map[Section]used)
	for section, list := range map[Section][]Scenario{
		States: corpus.Scenarios, Agents: corpus.AgentScenarios, Lifecycle: corpus.LifecycleScenarios,
	} {
		u := used{make(map[string]bool), make(map[string]bool), make(map[string]bool), make(map[string]bool)}
		for _, s := range list {
			for _, step := range s.Steps {
				u.ops[step.Op] = true
				var expect any
				if json.Unmarshal(step.Expect, &expect) == nil {
					u.collect(expect)
				}
			}
		}
		sections[section] = u
	}
	return sections
}

// collect notes each key of an expectation, and each kind of constraint.
func (u used) collect(value any) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			u.collect(element)
		}
	case map[string]any:
		for key, inner := range value {
			u.fields[key] = true
			if _, known := predicates()[key]; known {
				u.predicates[key] = true
			}
			u.collect(inner)
		}
		if kind, ok := value["kind"].(string); ok {
			u.constraints[kind] = true
		}
	}
}

// TestEveryWordIsPlayed: the corpus that every player plays leaves out no word that
// this package knows.
func TestEveryWordIsPlayed(t *testing.T) {
	sections := wordsOf(read(t, EveryWord))
	all := used{predicates: make(map[string]bool), constraints: make(map[string]bool), fields: make(map[string]bool)}
	for section, u := range sections {
		for op := range operations(section) {
			if !u.ops[op] {
				t.Errorf("%s has no %s in %s", EveryWord, op, section)
			}
		}
		maps.Copy(all.predicates, u.predicates)
		maps.Copy(all.constraints, u.constraints)
		maps.Copy(all.fields, u.fields)
	}
	for name := range predicates() {
		if !all.predicates[name] {
			t.Errorf("%s has no predicate %s", EveryWord, name)
		}
	}
	for kind := range constraints() {
		if !all.constraints[kind] {
			t.Errorf("%s has no constraint %s", EveryWord, kind)
		}
	}
	for _, field := range []string{"addresses", "paths", "interface", "rulesFor", "cidrs", "announcements", "inboundNew", "inboundReply", "withinSeconds", "conflicts", "exact", "error"} {
		if !all.fields[field] {
			t.Errorf("%s expects no %s", EveryWord, field)
		}
	}
}

// guide is the readingGuide of the corpus, as far as words are listed there.
type guide struct {
	Ops, Predicates, AgentExpect, Expect, When map[string]string
}

// ops are the operations of the guide. Those of lifecycle scenarios are in a text.
func (g guide) ops() (all []string) {
	request := regexp.MustCompile(`\b(create|patch|delete|offline-replace|annotate|resync)-[a-z]+`)
	for words, text := range g.Ops {
		if words == "lifecycle ops" {
			all = append(all, request.FindAllString(text, -1)...)
			continue
		}
		all = append(all, strings.Split(words, " / ")...)
	}
	return all
}

// TestReadingGuideIsKnown: the corpus explains its own words, and each of them is
// one that this package knows.
func TestReadingGuideIsKnown(t *testing.T) {
	var g guide
	if err := json.Unmarshal(read(t, OwnCorpus).ReadingGuide, &g); err != nil {
		t.Fatal(err)
	}
	ops := make(map[string]bool)
	for _, section := range []Section{States, Agents, Lifecycle} {
		for op := range operations(section) {
			ops[op] = true
		}
	}
	for _, op := range g.ops() {
		if !ops[op] {
			t.Errorf("operation %q of the guide is not known", op)
		}
	}
	for words := range g.Predicates {
		name := regexp.MustCompile(`[A-Za-z-]+`).FindString(words)
		_, isPredicate := predicates()[name]
		_, isConstraint := constraints()[name]
		if isPredicate == isConstraint {
			t.Errorf("%q of the guide is known as a predicate: %t, as a constraint: %t", name, isPredicate, isConstraint)
		}
	}
	knownFields(t, g.AgentExpect, &AgentExpect{})
	knownFields(t, g.Expect, &Expect{})
	for moment := range g.When {
		if moment != Instant && moment != Settled {
			t.Errorf("the moment %q of the guide is not known", moment)
		}
	}
}

func knownFields(t *testing.T, fields map[string]string, expect any) {
	t.Helper()
	for field := range fields {
		if strict([]byte(`{"`+field+`": null}`), expect) != nil {
			t.Errorf("the expectation %q of the guide is no field of %T", field, expect)
		}
	}
}

// TestPredicates: each holds and fails as the guide says.
func TestPredicates(t *testing.T) {
	other := func(string) any { return []string{"b", "a"} }
	for _, c := range []struct {
		want   string
		values Values
		holds  bool
	}{
		{`{"oneOf": ["x", ["a", "b"]]}`, Values{Got: []string{"b", "a"}}, true},
		{`{"oneOf": ["x", {"size": 3}]}`, Values{Got: []string{"b", "a"}}, false},
		{`{"size": 2}`, Values{Got: []string{"b", "a"}}, true},
		{`{"size": 0}`, Values{Got: "dropped"}, false},
		{`{"sizeBetween": [0, 1]}`, Values{Got: []string{"b", "a"}}, false},
		{`{"between": [10, 20]}`, Values{Got: uint32(20)}, true},
		{`{"between": [10, 20]}`, Values{Got: nil}, false},
		{`{"excludes": ["c"]}`, Values{Got: []string{"b", "a"}}, true},
		{`{"excludes": ["c", "a"]}`, Values{Got: []string{"b", "a"}}, false},
		{`{"contains": ["a"]}`, Values{Got: []string{"b", "a"}}, true},
		{`{"contains": ["a", "c"]}`, Values{Got: []string{"b", "a"}}, false},
		{`{"contains": [{"egressIP": "1.2.3.4", "node": "w0"}]}`, Values{Got: []string{"1.2.3.4@w0"}}, true},
		{`{"unchanged": true}`, Values{Got: []string{"b", "a"}, Before: []string{"a", "b"}}, true},
		{`{"unchanged": true}`, Values{Got: float64(1), Before: float64(2)}, false},
		{`{"sameAs": "w1"}`, Values{Got: []string{"a", "b"}, Of: other}, true},
		{`{"sameAs": "w1"}`, Values{Got: []string{"a"}, Of: other}, false},
		{`{"nonEmpty": true}`, Values{Got: []string{}}, false},
		{`{"nonEmpty": true, "size": 1}`, Values{Got: []string{"a"}}, true},
		{`{"odd": true}`, Values{Got: float64(1)}, false},
		{`null`, Values{}, true},
		{`["a"]`, Values{Got: "a"}, false},
	} {
		var want any
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if wrong := Match(want, c.values); (wrong == "") != c.holds {
			t.Errorf("%s on %v: %q", c.want, c.values.Got, wrong)
		}
	}
}

// TestConstraints: each fails where it must.
func TestConstraints(t *testing.T) {
	number := func(n int) *int { return &n }
	got := NewState()
	got.Assignments = map[string]string{"a": "w0", "b": "w0"}
	got.HostSubnets = map[string][]string{"w0": {"a", "b"}, "w1": nil}
	got.NetIDs = map[string]uint32{"red": 1, "blue": 1}
	placed := NewState()
	placed.Assignments = map[string]string{"a": "w1", "b": "w0"}
	before := NewState()
	before.NetIDs = map[string]uint32{"gone": 2, "joined": 1}
	for want, c := range map[string]Constraint{
		"want 1, got 2":                     {Kind: "assigned-count", IPs: []string{"a", "b"}, Equals: number(1)},
		"want at least 3, got 2":            {Kind: "assigned-count", IPs: []string{"a", "b"}, Min: number(3)},
		"want at most 1, got 2":             {Kind: "assigned-count", IPs: []string{"a", "b"}, Max: number(1)},
		"a and b are both on w0":            {Kind: "distinct-nodes", IPs: []string{"a", "b"}},
		"the fullest has 2, the emptiest 0": {Kind: "balanced", Nodes: []string{"w0", "w1"}, MaxMinusMin: number(1)},
		"moved: [a]":                        {Kind: "moved-at-most", Count: number(0)},
		`a moved from "w1" to "w0"`:         {Kind: "unmoved", IPs: []string{"b", "a"}},
		"red and blue have netid 1":         {Kind: "netids-distinct", Names: []string{"red", "blue"}},
		"there is no NetNamespace green":    {Kind: "netids-distinct", Names: []string{"red", "green"}},
		"netid 2 of gone belongs to no":     {Kind: "netid-in-use", Of: "gone"},
		"netid 7 of 7 belongs to no":        {Kind: "netid-in-use", Of: float64(7)},
		`unknown constraint "sorted"`:       {Kind: "sorted"},
	} {
		if wrong := CheckConstraints([]Constraint{c}, got, before, placed); len(wrong) != 1 || !strings.Contains(wrong[0], want) {
			t.Errorf("%s: got %q, want %q", c.Kind, wrong, want)
		}
	}
	for _, c := range []Constraint{
		{Kind: "netid-in-use", Of: "joined"},
		{Kind: "netid-in-use", Of: float64(1)},
		{Kind: "moved-at-most", Count: number(1)},
		{Kind: "unmoved", IPs: []string{"b"}},
	} {
		if wrong := CheckConstraints([]Constraint{c}, got, before, placed); len(wrong) > 0 {
			t.Errorf("%q", wrong)
		}
	}
}
