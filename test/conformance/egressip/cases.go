package egressip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Format is the first line of each file of cases.
const Format = "EgressIP conformance cases, version 1"

// File is one file of cases.
type File struct {
	Format string `json:"format"`
	About  string `json:"about"`
	Cases  []Case `json:"cases"`
}

// Case is a cluster that changes step by step.
type Case struct {
	Name string `json:"name"`
	// From are the peers' tests that it restates: "PEER FILE: what it is about".
	From  []string `json:"from"`
	Steps []Step   `json:"steps"`
}

// Step is a change, and what must hold when everything is quiet again.
type Step struct {
	Note string `json:"note,omitempty"`
	// Do is a merge patch (RFC 7386) to the Cluster: what is null goes.
	Do map[string]any `json:"do,omitempty"`
	// Restart: all that is no object is forgotten.
	Restart bool `json:"restart,omitempty"`
	// Then is the peer's answer.
	Then Expect `json:"then"`
	// Ours is where we differ on purpose.
	Ours *Ours `json:"ours,omitempty"`
}

// Expect is what must hold; what it does not name may be anything.
type Expect struct {
	// Items are, by EgressIP, those of its status, in any order: "ADDRESS NODE". Each of both
	// is a star for anything, or a list with bars between them.
	Items map[string][]string `json:"items,omitempty"`
	// Unmoved names EgressIPs whose items are those of the step before.
	Unmoved []string `json:"unmoved,omitempty"`
	// Sources are, by pod, what its packets have as source outside the cluster; see sourceWords.
	Sources map[string]string `json:"sources,omitempty"`
	// Inside are, by pod, destinations that never see an egress IP.
	Inside map[string][]string `json:"inside,omitempty"`
	// Refused names EgressIPs that the API server does not accept.
	Refused []string `json:"refused,omitempty"`
}

// Ours is our answer, in place of the peer's as far as it names the same.
type Ours struct {
	Why string `json:"why"`
	Expect
}

// Cluster is what a case is about.
type Cluster struct {
	Nodes      map[string]Node      `json:"nodes,omitempty"`
	Namespaces map[string]Namespace `json:"namespaces,omitempty"`
	// Pods by "NAMESPACE/NAME".
	Pods      map[string]Pod      `json:"pods,omitempty"`
	EgressIPs map[string]EgressIP `json:"egressIPs,omitempty"`
}

// Node is one that runs, Ready and reachable, unless it says otherwise.
type Node struct {
	// Addresses of the uplink with their prefix lengths, at most one of each family.
	Addresses []string `json:"addresses"`
	// Further are addresses on its interfaces that no list of the API has.
	Further []string `json:"further,omitempty"`
	// Assignable: it has the label k8s.ovn.org/egress-assignable.
	Assignable bool `json:"assignable,omitempty"`
	// NotReady: its Node says so. Silent: it does not answer probes.
	NotReady bool `json:"notReady,omitempty"`
	Silent   bool `json:"silent,omitempty"`
	// Capacity as a cloud gives it, by ip, ipv4 or ipv6.
	Capacity map[string]int `json:"capacity,omitempty"`
}

// Namespace is one with labels.
type Namespace struct {
	Labels map[string]string `json:"labels,omitempty"`
}

// Pod is one that runs. It has an address of each family of its node.
type Pod struct {
	Node        string            `json:"node"`
	Labels      map[string]string `json:"labels,omitempty"`
	HostNetwork bool              `json:"hostNetwork,omitempty"`
}

// EgressIP is the spec of one.
type EgressIP struct {
	EgressIPs         []string             `json:"egressIPs"`
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector,omitzero"`
	PodSelector       metav1.LabelSelector `json:"podSelector,omitzero"`
}

// Load reads the cases of a directory, in order of the files' names. What is not understood is
// an error: it would be an expectation that nothing checks.
func Load(dir string) ([]Case, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var cases []Case
	var errs []error
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var file File
		if err := yaml.UnmarshalStrict(data, &file); err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", name, err))
			continue
		}
		if file.Format != Format {
			errs = append(errs, fmt.Errorf("read %s: the format is %q, not %q", name, file.Format, Format))
		}
		subject := strings.TrimSuffix(filepath.Base(name), ".yaml")
		for _, c := range file.Cases {
			if err := c.check(subject); err != nil {
				errs = append(errs, fmt.Errorf("read %s: case %s: %w", name, c.Name, err))
			}
			cases = append(cases, c)
		}
	}
	return cases, errors.Join(errs...)
}

// check finds what would not be played as it is meant.
func (c *Case) check(subject string) error {
	var errs []error
	if !strings.HasPrefix(c.Name, subject+"/") {
		errs = append(errs, fmt.Errorf("the name does not begin with that of the file, %s/", subject))
	}
	if len(c.From) == 0 {
		errs = append(errs, errors.New("it says no source"))
	}
	var now Cluster
	for i, step := range c.Steps {
		next, err := now.After(step.Do)
		if err == nil {
			now = next
			err = step.check(now)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("step %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Step) check(now Cluster) error {
	var errs []error
	if s.Ours != nil && len(s.Ours.Why) < 20 {
		errs = append(errs, errors.New("ours gives no reason"))
	}
	want := s.Expect()
	if len(want.Items)+len(want.Unmoved)+len(want.Sources)+len(want.Inside)+len(want.Refused) == 0 {
		errs = append(errs, errors.New("nothing is expected"))
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(want.Items)), want.Unmoved, want.Refused) {
		if _, ok := now.EgressIPs[name]; !ok {
			errs = append(errs, fmt.Errorf("there is no EgressIP %s", name))
		}
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(want.Sources)), slices.Collect(maps.Keys(want.Inside))) {
		if _, ok := now.Pods[strings.TrimSuffix(name, ofIPv6)]; !ok {
			errs = append(errs, fmt.Errorf("there is no pod %s", name))
		}
	}
	return errors.Join(errs...)
}

// Expect is what we must do: the peer's answer, and ours in its place.
func (s *Step) Expect() Expect {
	if s.Ours == nil {
		return s.Then
	}
	want := Expect{
		Items: over(s.Then.Items, s.Ours.Items), Sources: over(s.Then.Sources, s.Ours.Sources),
		Inside: over(s.Then.Inside, s.Ours.Inside), Unmoved: s.Then.Unmoved, Refused: s.Then.Refused,
	}
	if s.Ours.Unmoved != nil {
		want.Unmoved = s.Ours.Unmoved
	}
	if s.Ours.Refused != nil {
		want.Refused = s.Ours.Refused
	}
	return want
}

func over[V any](theirs, ours map[string]V) map[string]V {
	both := make(map[string]V, len(theirs)+len(ours))
	maps.Copy(both, theirs)
	maps.Copy(both, ours)
	return both
}

// Differs reports whether we answer the case otherwise anywhere.
func (c *Case) Differs() bool {
	return slices.ContainsFunc(c.Steps, func(s Step) bool { return s.Ours != nil })
}

// After returns the cluster with a merge patch.
func (c Cluster) After(patch map[string]any) (Cluster, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return Cluster{}, err
	}
	var document any
	if err := json.Unmarshal(data, &document); err != nil {
		return Cluster{}, err
	}
	if data, err = json.Marshal(merged(document, patch)); err != nil {
		return Cluster{}, err
	}
	var after Cluster
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return after, decoder.Decode(&after)
}

// merged is a document with a merge patch.
func merged(document, patch any) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	target, ok := document.(map[string]any)
	if !ok {
		target = make(map[string]any)
	}
	for name, value := range fields {
		if value == nil {
			delete(target, name)
			continue
		}
		target[name] = merged(target[name], value)
	}
	return target
}

// IsRefused reports whether the API server does not accept an EgressIP of the case.
func (c *Case) IsRefused() bool {
	return slices.ContainsFunc(c.Steps, func(s Step) bool { return len(s.Expect().Refused) > 0 })
}
