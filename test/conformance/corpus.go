package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// Corpus is a file of scenarios.
type Corpus struct {
	Format             string           `json:"format"`
	About              string           `json:"about"`
	ReadingGuide       json.RawMessage  `json:"readingGuide"`
	Scenarios          []Scenario       `json:"scenarios"`
	AgentScenarios     []Scenario       `json:"agentScenarios"`
	TrafficCases       []TrafficCase    `json:"trafficCases"`
	HealthScenarios    []HealthScenario `json:"healthScenarios"`
	LifecycleScenarios []Scenario       `json:"lifecycleScenarios"`
	Vectors            Vectors          `json:"vectors"`
}

// Scenario is a story of steps.
type Scenario struct {
	Name    string `json:"name"`
	Area    string `json:"area"`
	Shows   string `json:"shows"`
	Parity  string `json:"parity"`
	Profile string `json:"profile"`
	Why     string `json:"why"`
	Cloud   bool   `json:"cloud"`
	// Viewer is the node whose agent is looked at, in AgentScenarios.
	Viewer string `json:"viewer"`
	// Mode is the network plugin's mode, in LifecycleScenarios.
	Mode              string   `json:"mode"`
	StandsFor         []string `json:"standsFor"`
	ReferenceOutcomes int      `json:"referenceOutcomes"`
	Verified          string   `json:"verified"`
	Steps             []Step   `json:"steps"`
}

// The profiles of the reference.
const (
	// FirstAvailable is OpenShift up to 4.7, our mode ordered.
	FirstAvailable = "first-available"
	// LoadBalance is OpenShift from 4.8 on, our mode balanced.
	LoadBalance = "load-balance"
)

// Step is one operation and what must hold after it. Of the fields, each
// operation uses some; a nil pointer means that the field is not given.
type Step struct {
	Op   string `json:"op"`
	Name string `json:"name"`
	When string `json:"when"`

	HostIP      *string   `json:"hostIP"`
	EgressIPs   *[]string `json:"egressIPs"`
	EgressCIDRs *[]string `json:"egressCIDRs"`
	NetID       *uint32   `json:"netid"`

	IP           string `json:"ip"`
	Capacity     *int   `json:"capacity"`
	CapacityKind string `json:"capacityKind"`
	Network      string `json:"network"`
	Order        string `json:"order"`

	IfName  string             `json:"ifname"`
	Present []InterfaceAddress `json:"present"`
	Rules   []string           `json:"rules"`

	UID         string            `json:"uid"`
	Addresses   []NodeAddress     `json:"addresses"`
	Subnet      *string           `json:"subnet"`
	Annotations map[string]string `json:"annotations"`
	Key         string            `json:"key"`
	Value       string            `json:"value"`
	AsUser      string            `json:"asUser"`

	Expect json.RawMessage `json:"expect"`
}

// The moments of an expectation.
const (
	// Instant expectations hold right after the step in a pure state machine.
	Instant = "instant"
	// Settled expectations hold once things are quiet.
	Settled = "settled"
)

// InterfaceAddress is an address on an interface.
type InterfaceAddress struct {
	IP    string `json:"ip"`
	Label string `json:"label"`
}

// NodeAddress is an address in the status of a Node.
type NodeAddress struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// Expect is what must hold after a step of Scenarios. The values are compared
// by Match.
type Expect struct {
	Assignments map[string]any    `json:"assignments"`
	Active      map[string]any    `json:"active"`
	HostSubnets map[string]any    `json:"hostsubnets"`
	Conflicts   map[string]string `json:"conflicts"`
	Exact       bool              `json:"exact"`
	Constraints []Constraint      `json:"constraints"`
	// UpstreamObserved is what the reference did; for readers.
	UpstreamObserved json.RawMessage `json:"upstreamObserved"`
}

// Constraint is a predicate over the whole state.
type Constraint struct {
	Kind        string   `json:"kind"`
	IPs         []string `json:"ips"`
	Nodes       []string `json:"nodes"`
	Namespaces  []string `json:"namespaces"`
	Names       []string `json:"names"`
	Equals      *int     `json:"equals"`
	Min         *int     `json:"min"`
	Max         *int     `json:"max"`
	Count       *int     `json:"count"`
	MaxMinusMin *int     `json:"maxMinusMin"`
}

// AgentExpect is what must hold on the viewer's node.
type AgentExpect struct {
	Addresses     *[]string           `json:"addresses"`
	Paths         map[string]any      `json:"paths"`
	Interface     *[]InterfaceAddress `json:"interface"`
	RulesFor      *[]string           `json:"rulesFor"`
	CIDRs         *[]string           `json:"cidrs"`
	Announcements json.RawMessage     `json:"announcements"`
	InboundNew    json.RawMessage     `json:"inboundNew"`
	InboundReply  json.RawMessage     `json:"inboundReply"`
	WithinSeconds *int                `json:"withinSeconds"`
}

// TrafficCase says, in words, which source address a packet bears.
type TrafficCase struct {
	Name   string `json:"name"`
	Setup  string `json:"setup"`
	Given  string `json:"given"`
	Expect string `json:"expect"`
	Parity string `json:"parity"`
}

// HealthScenario is a sequence of probe results and the judgement after each.
type HealthScenario struct {
	Name     string       `json:"name"`
	Shows    string       `json:"shows"`
	Role     string       `json:"role"`
	Parity   string       `json:"parity"`
	Sequence []HealthStep `json:"sequence"`
}

// HealthStep is one probe result; see readingGuide.
type HealthStep struct {
	Node    string          `json:"node"`
	Probe   string          `json:"probe"`
	Expect  string          `json:"expect"`
	Ready   *bool           `json:"ready"`
	Deleted bool            `json:"deleted"`
	Traffic json.RawMessage `json:"traffic"`
}

// Vectors are single values and what becomes of them.
type Vectors struct {
	Validation []struct {
		Field         string `json:"field"`
		Value         any    `json:"value"`
		SchemaAccepts bool   `json:"schemaAccepts"`
		Note          string `json:"note"`
	} `json:"validation"`
	Objects []struct {
		Kind              string         `json:"kind"`
		Object            map[string]any `json:"object"`
		SchemaAccepts     *bool          `json:"schemaAccepts"`
		ControllerAccepts *bool          `json:"controllerAccepts"`
		From              string         `json:"from"`
	} `json:"objects"`
	Columns []struct {
		Kind    string         `json:"kind"`
		Headers []string       `json:"headers"`
		Row     map[string]any `json:"row"`
		Cells   []string       `json:"cells"`
	} `json:"columns"`
	AddressLabel []struct {
		Interface string  `json:"interface"`
		Label     *string `json:"label"`
		Note      string  `json:"note"`
	} `json:"addressLabel"`
	RangeInNodeNetwork []struct {
		NodeNetwork string `json:"node network"`
		Range       string `json:"range"`
		Accepted    bool   `json:"accepted"`
	} `json:"rangeInNodeNetwork"`
}

// Load reads a corpus. A word that this package does not know is an error: it
// would be a scenario that is played only in part.
func Load(path string) (*Corpus, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read corpus: %w", err)
	}
	var corpus Corpus
	if err := decode(data, &corpus); err != nil {
		return nil, fmt.Errorf("read corpus %s: %w", path, err)
	}
	return &corpus, nil
}

// OwnCorpus is the corpus of the project.
const OwnCorpus = "testdata/conformance.json"

// Path is the corpus to play.
func Path() string {
	if path := os.Getenv("CONFORMANCE"); path != "" {
		return path
	}
	return OwnCorpus
}

func decode(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	return decoder.Decode(into)
}

// strict decodes what a scenario expects: a word that is not known would be an
// expectation that nobody checks.
func strict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
