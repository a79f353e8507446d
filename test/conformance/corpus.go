package conformance

import (
	"encoding/json"
)

// Corpus is a file of scenarios.
type Corpus struct {
	Format       string
	About        string
	ReadingGuide json.RawMessage

	Scenarios          []Scenario
	AgentScenarios     []Scenario
	TrafficCases       []TrafficCase
	HealthScenarios    []HealthScenario
	LifecycleScenarios []Scenario
	Vectors            Vectors

	// Problems are the parts of the file that are not understood and belong to no
	// scenario.
	Problems []string
}

// Section is a list of scenarios with operations and expectations of its own.
type Section string

// The sections that consist of steps.
const (
	// States are scenarios about the whole cluster.
	States Section = "scenarios"
	// Agents are scenarios about one node.
	Agents Section = "agentScenarios"
	// Lifecycle scenarios are about how objects come, change and go.
	Lifecycle Section = "lifecycleScenarios"
)

// Scenario is a story of steps.
type Scenario struct {
	Name    string `json:"name"`
	Area    string `json:"area"`
	Shows   string `json:"shows"`
	Parity  string `json:"parity"`
	Profile string `json:"profile"`
	Why     string `json:"why"`
	Note    string `json:"note"`
	Cloud   bool   `json:"cloud"`
	// Viewer is the node whose agent is observed, in AgentScenarios.
	Viewer string `json:"viewer"`
	// Mode is the network plugin's mode, in LifecycleScenarios.
	Mode              string   `json:"mode"`
	StandsFor         []string `json:"standsFor"`
	ReferenceOutcomes int      `json:"referenceOutcomes"`
	Verified          string   `json:"verified"`
	Steps             []Step   `json:"steps"`

	// Problems are the words of the scenario that this package does not know,
	// each with its step. A scenario that has some is not played, and fails.
	Problems []string `json:"-"`
}

// The profiles of the reference.
const (
	// FirstAvailable is OpenShift up to 4.7, our mode ordered.
	FirstAvailable = "first-available"
	// LoadBalance is OpenShift from 4.8 on, our mode balanced.
	LoadBalance = "load-balance"
)

// Step is one operation and what must hold after it. Each operation uses some
// of the fields; a nil pointer means that the field is not given.
type Step struct {
	Op   string `json:"op"`
	Name string `json:"name"`
	When string `json:"when"`
	Note string `json:"note"`

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
	// Rules are packet filter rules that exist before the agent starts, each as
	// the arguments of one call of iptables.
	Rules []string `json:"rules"`

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
	// Settled expectations hold once nothing changes any more.
	Settled = "settled"
)

// The orders in which a restarted process may read the kinds of objects.
const (
	NetNamespacesFirst = "netnamespaces-first"
	HostSubnetsFirst   = "hostsubnets-first"
)

// ProjectAdmin is the user who may do everything in one namespace.
const ProjectAdmin = "project-admin"

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
	Note        string            `json:"note"`
	// UpstreamObserved is what the reference did; for readers.
	UpstreamObserved json.RawMessage `json:"upstreamObserved"`
}

// Constraint is a predicate over the whole state. Each kind uses some of the
// fields.
type Constraint struct {
	Kind        string   `json:"kind"`
	IPs         []string `json:"ips"`
	Nodes       []string `json:"nodes"`
	Namespaces  []string `json:"namespaces"`
	Names       []string `json:"names"`
	Of          any      `json:"of"`
	Equals      *int     `json:"equals"`
	Min         *int     `json:"min"`
	Max         *int     `json:"max"`
	Count       *int     `json:"count"`
	MaxMinusMin *int     `json:"maxMinusMin"`
	Note        string   `json:"note"`
}

// AgentExpect is what must hold on the viewer's node.
type AgentExpect struct {
	Addresses     *[]string           `json:"addresses"`
	Paths         map[string]any      `json:"paths"`
	Interface     *[]InterfaceAddress `json:"interface"`
	RulesFor      *[]string           `json:"rulesFor"`
	CIDRs         *[]string           `json:"cidrs"`
	Announcements *Announcements      `json:"announcements"`
	InboundNew    *Inbound            `json:"inboundNew"`
	InboundReply  *Inbound            `json:"inboundReply"`
	WithinSeconds *int                `json:"withinSeconds"`
	Note          string              `json:"note"`
}

// Announcements are gratuitous ARP frames for an address.
type Announcements struct {
	IP            string `json:"ip"`
	Min           int    `json:"min"`
	WithinSeconds *int   `json:"withinSeconds"`
}

// Inbound says what becomes of a packet to an egress IP.
type Inbound struct {
	To     string `json:"to"`
	Result string `json:"result"`
}

// LifecycleExpect is what must hold after a step of LifecycleScenarios: for each
// object the values of some of its fields, or null where it must not exist.
type LifecycleExpect struct {
	NetNamespaces map[string]map[string]any `json:"netnamespaces"`
	HostSubnets   map[string]map[string]any `json:"hostsubnets"`
	Constraints   []Constraint              `json:"constraints"`
	Error         *string                   `json:"error"`
	Note          string                    `json:"note"`
}

// TrafficCase says, in words, which source address a packet has.
type TrafficCase struct {
	Name      string   `json:"name"`
	Area      string   `json:"area"`
	Setup     string   `json:"setup"`
	Given     string   `json:"given"`
	Expect    string   `json:"expect"`
	Parity    string   `json:"parity"`
	StandsFor []string `json:"standsFor"`
	Why       string   `json:"why"`
	Note      string   `json:"note"`

	Problems []string `json:"-"`
}

// HealthScenario is a sequence of probe results and the judgement after each.
type HealthScenario struct {
	Name      string       `json:"name"`
	Area      string       `json:"area"`
	Shows     string       `json:"shows"`
	Role      string       `json:"role"`
	Parity    string       `json:"parity"`
	Why       string       `json:"why"`
	Note      string       `json:"note"`
	StandsFor []string     `json:"standsFor"`
	Sequence  []HealthStep `json:"sequence"`

	Problems []string `json:"-"`
}

// HealthStep is one probe result; see readingGuide.
type HealthStep struct {
	Node    string          `json:"node"`
	Probe   string          `json:"probe"`
	Expect  string          `json:"expect"`
	Ready   *bool           `json:"ready"`
	Deleted bool            `json:"deleted"`
	Traffic json.RawMessage `json:"traffic"`
	Note    string          `json:"note"`
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
		Note              string         `json:"note"`
	} `json:"objects"`
	Columns []struct {
		Kind    string         `json:"kind"`
		Headers []string       `json:"headers"`
		Row     map[string]any `json:"row"`
		Cells   []string       `json:"cells"`
		Note    string         `json:"note"`
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
		Note        string `json:"note"`
	} `json:"rangeInNodeNetwork"`
}
