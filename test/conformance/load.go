package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Load reads a corpus. What is not understood fails nothing here: it is noted in
// the scenario, or in the corpus where it belongs to no scenario, so that all
// others can be played.
func Load(path string) (*Corpus, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read corpus: %w", err)
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read corpus %s: %w", path, err)
	}
	c := &Corpus{}
	sections := map[string]func(json.RawMessage) error{
		"format":          func(raw json.RawMessage) error { return json.Unmarshal(raw, &c.Format) },
		"about":           func(raw json.RawMessage) error { return json.Unmarshal(raw, &c.About) },
		"readingGuide":    func(raw json.RawMessage) error { c.ReadingGuide = raw; return nil },
		"trafficCases":    func(raw json.RawMessage) error { return list(raw, readTraffic, &c.TrafficCases) },
		"healthScenarios": func(raw json.RawMessage) error { return list(raw, readHealth, &c.HealthScenarios) },
		"vectors":         func(raw json.RawMessage) error { return strict(raw, &c.Vectors) },
		string(States):    func(raw json.RawMessage) error { return list(raw, reader(States), &c.Scenarios) },
		string(Agents):    func(raw json.RawMessage) error { return list(raw, reader(Agents), &c.AgentScenarios) },
		string(Lifecycle): func(raw json.RawMessage) error { return list(raw, reader(Lifecycle), &c.LifecycleScenarios) },
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		read, known := sections[name]
		if !known {
			c.Problems = append(c.Problems, fmt.Sprintf("unknown section %q", name))
			continue
		}
		if err := read(file[name]); err != nil {
			c.Problems = append(c.Problems, fmt.Sprintf("section %s: %s", name, plainly(err)))
		}
	}
	return c, nil
}

// list reads the elements of a list one by one, so that one that is not
// understood does not take the others with it.
func list[T any](raw json.RawMessage, read func(n int, raw json.RawMessage) T, into *[]T) error {
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return err
	}
	for i, element := range elements {
		*into = append(*into, read(i+1, element))
	}
	return nil
}

// reader returns the function that reads the nth scenario of a section.
func reader(section Section) func(n int, raw json.RawMessage) Scenario {
	return func(n int, raw json.RawMessage) Scenario {
		var s Scenario
		// The steps are read one by one, to name the one that is not understood.
		var steps []json.RawMessage
		err := strict(raw, &struct {
			*Scenario
			Steps *[]json.RawMessage `json:"steps"`
		}{&s, &steps})
		if s.Name == "" {
			s.Name = fmt.Sprintf("%s/%d", section, n)
		}
		if err != nil {
			s.Problems = append(s.Problems, fmt.Sprintf("scenario %s: %s", s.Name, plainly(err)))
		}
		for _, problem := range s.check() {
			s.Problems = append(s.Problems, fmt.Sprintf("scenario %s: %s", s.Name, problem))
		}
		for i, raw := range steps {
			step, problems := readStep(section, raw)
			s.Steps = append(s.Steps, step)
			for _, problem := range problems {
				s.Problems = append(s.Problems, fmt.Sprintf("scenario %s, step %d: %s", s.Name, i+1, problem))
			}
		}
		return s
	}
}

func readTraffic(n int, raw json.RawMessage) (c TrafficCase) {
	err := strict(raw, &c)
	if c.Name == "" {
		c.Name = fmt.Sprintf("trafficCases/%d", n)
	}
	if err != nil {
		c.Problems = append(c.Problems, fmt.Sprintf("case %s: %s", c.Name, plainly(err)))
	}
	return c
}

func readHealth(n int, raw json.RawMessage) (s HealthScenario) {
	err := strict(raw, &s)
	if s.Name == "" {
		s.Name = fmt.Sprintf("healthScenarios/%d", n)
	}
	if err != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("scenario %s: %s", s.Name, plainly(err)))
	}
	for _, problem := range s.check() {
		s.Problems = append(s.Problems, fmt.Sprintf("scenario %s, %s", s.Name, problem))
	}
	return s
}

// OwnCorpus is the corpus of the project.
const OwnCorpus = "testdata/conformance.json"

// EveryWord is a corpus that uses every word of the format once.
const EveryWord = "testdata/every-word.json"

// Path is the corpus to play.
func Path() string {
	if path := os.Getenv("CONFORMANCE"); path != "" {
		return path
	}
	return OwnCorpus
}

// strict decodes what a scenario says. A field that is not known is an error:
// it would be an expectation that nothing checks. The rest is decoded all the
// same.
func strict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// Expected decodes what a step expects; the zero value where it expects nothing.
func Expected[E Expect | AgentExpect | LifecycleExpect](step Step) (expect E, err error) {
	if len(step.Expect) == 0 {
		return expect, nil
	}
	if err := strict(step.Expect, &expect); err != nil {
		return expect, fmt.Errorf("read expectation: %w", err)
	}
	return expect, nil
}

// plainly is an error of the JSON package without its prefix.
func plainly(err error) string { return strings.TrimPrefix(err.Error(), "json: ") }
