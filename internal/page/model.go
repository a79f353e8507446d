package page

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Level is how much something needs attention. Lists are in this order.
type Level string

// The levels, worst first.
const (
	// LevelConflict: two objects, or two machines, say contrary things about an egress IP.
	LevelConflict Level = "conflict"
	// LevelFailed: traffic of a namespace is dropped, or does not get out; a host is offline.
	LevelFailed Level = "failed"
	// LevelUnknown: it is not known whether traffic leaves as it should.
	LevelUnknown Level = "unknown"
	// LevelDegraded: traffic leaves as it should, and something is not as it was asked for.
	LevelDegraded Level = "degraded"
	// LevelOK: all is as it was asked for.
	LevelOK Level = "ok"
	// LevelNone: nothing is asked for.
	LevelNone Level = "none"
)

// Levels are all levels, worst first.
func Levels() []Level {
	return []Level{LevelConflict, LevelFailed, LevelUnknown, LevelDegraded, LevelOK, LevelNone}
}

func (l Level) rank() int { return slices.Index(Levels(), l) }

// Bad reports whether the level needs attention.
func (l Level) Bad() bool { return l != LevelOK && l != LevelNone }

// Model is what the page shows at one moment. It shares nothing with the objects that it was made from.
type Model struct {
	// Groups and Hosts are in order of name.
	Groups []Group
	Hosts  []Host
	// Issues are in order of level.
	Issues []Issue
	// Changes are in order of time, the last first.
	Changes []Change
	// Moves are those that this process has seen, the last first.
	Moves []Move
}

// Group is what has become of the egress IPs of a namespace, or of the pods of an EgressIP.
type Group struct {
	// ID is unique: the name of the namespace, or EgressIP/NAME.
	ID string `json:"id"`
	// Kind is namespace or EgressIP.
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Level Level  `json:"level"`
	// Ready is True, False or Unknown, and Reason why.
	Ready  string `json:"ready"`
	Reason string `json:"reason"`
	// Dropped: of a family egress IPs are requested and none is active. Drops are the families
	// of which traffic to the outside is dropped.
	Dropped  bool      `json:"dropped,omitempty"`
	Drops    []string  `json:"drops,omitempty"`
	Requests []Request `json:"requests"`

	// What follows is for the page of the group alone.

	// NetID is empty if there is none yet.
	NetID   string `json:"-"`
	Mode    string `json:"-"`
	Message string `json:"-"`
	// Published is condition EgressReady as it is written.
	Published Reported `json:"-"`
	// Selecting are the EgressIPs that select the namespace, by name. SelectingKnown is false
	// where the labels of the namespace are not known.
	Selecting      []string `json:"-"`
	SelectingKnown bool     `json:"-"`
	// Problems are parts of the object that cannot be used.
	Problems []string `json:"-"`
}

// Differs reports whether the condition says something else than the objects: the controller has
// not decided on them yet, or does not run.
func (g Group) Differs() bool {
	return g.Published.Status != g.Ready || g.Published.Reason != g.Reason
}

// Active are the requests in use.
func (g Group) Active() []Request {
	var active []Request
	for _, r := range g.Requests {
		if r.State == string(egress.Active) {
			active = append(active, r)
		}
	}
	return active
}

// Request is one egress IP that a group requests.
type Request struct {
	IP string `json:"ip"`
	// Host claims it; empty if none does, or more than one.
	Host  string `json:"host,omitempty"`
	State string `json:"state"`
	// Level is that of this egress IP alone.
	Level  Level  `json:"level"`
	Reason string `json:"reason"`
	// Configured is what the agent of the host reports: yes, no, or unknown; empty if no host
	// should have the address.
	Configured string `json:"configured,omitempty"`

	Message string `json:"-"`
	// Agent says why it is not configured, as the agent reports.
	Agent string `json:"-"`
}

// Host is an egress host.
type Host struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	// Online is yes, no, doubtful or unknown.
	Online string `json:"online"`
	// Summary says in a word or two what is wrong, or that nothing is.
	Summary string `json:"summary"`
	// Claims counts its egress IPs, Used those that are active.
	Claims int `json:"claims"`
	Used   int `json:"used"`

	IPs        []string `json:"-"`
	Mode       string   `json:"-"`
	Evacuating bool     `json:"-"`
	Reason     string   `json:"-"`
	Message    string   `json:"-"`
	// Conditions are those of its HostSubnet, in order of type.
	Conditions []Reported `json:"-"`
	EgressIPs  []Claim    `json:"-"`
	// Version, Kernel and Backend are what the agent reports; empty if it has not.
	Version  string   `json:"-"`
	Kernel   string   `json:"-"`
	Backend  string   `json:"-"`
	Problems []string `json:"-"`
}

// Claim is an egress IP that a host claims.
type Claim struct {
	IP         string
	Level      Level
	State      string
	Group      string
	Reason     string
	Configured string
	Message    string
}

// Reported is what a condition says. One that is missing has status Unknown and reason NotReported.
type Reported struct {
	Type, Status, Reason, Message string
	// Since is when the status changed last; zero if that is not known.
	Since metav1.Time
	// Missing: there is no such condition.
	Missing bool
}

// Issue is something that needs attention.
type Issue struct {
	Level Level  `json:"level"`
	Kind  string `json:"kind"` // namespace, EgressIP or host
	Name  string `json:"name"`
	// Reason is a word for programs; Text says what is wrong and what to do.
	Reason string `json:"reason"`
	Text   string `json:"text"`
	// Since is in the form of RFC 3339; empty if it is not known.
	Since string `json:"since,omitempty"`
}

// Change is when something became as it is now, as a condition says.
type Change struct {
	// At is in the form of RFC 3339.
	At     string `json:"at"`
	Level  Level  `json:"level"`
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

// Input is what a Model is made from.
type Input struct {
	egress.Objects
	// NamespaceLabels are the labels of Namespaces; nil if they are not known.
	NamespaceLabels map[string]map[string]string
}

// reported reads a condition.
func reported(conditions []metav1.Condition, name string) Reported {
	c := meta.FindStatusCondition(conditions, name)
	if c == nil {
		return Reported{Type: name, Status: string(metav1.ConditionUnknown), Reason: string(egress.ReasonNotReported), Missing: true}
	}
	return Reported{Type: name, Status: string(c.Status), Reason: c.Reason, Message: c.Message, Since: c.LastTransitionTime}
}

// timeText is a time in the form of RFC 3339; empty if it is not known.
func timeText(t metav1.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// worst is the level that needs attention most.
func worst(levels ...Level) Level {
	return slices.MinFunc(levels, func(a, b Level) int { return cmp.Compare(a.rank(), b.rank()) })
}

// byProblem orders by level; hosts come after what leaves by them.
func byProblem(a, b Issue) int {
	hosts := func(i Issue) int { return map[bool]int{true: 1}[i.Kind == kindHost] }
	return cmp.Or(cmp.Compare(a.Level.rank(), b.Level.rank()), cmp.Compare(hosts(a), hosts(b)), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), strings.Compare(a.Text, b.Text))
}

// Make makes a Model. memo remembers what it was made from the last time; it may be nil.
func Make(in Input, memo *egress.Memo) Model {
	cluster, problems := memo.Snapshot(in.Objects)
	resolution := memo.Resolve(cluster)
	said := make(map[string][]string)
	for _, p := range problems {
		key := p.Kind + "/" + p.Name
		said[key] = append(said[key], p.Message)
	}
	m := Model{
		Groups: make([]Group, 0, len(resolution.Groups)), Hosts: make([]Host, 0, len(resolution.Hosts)), Issues: []Issue{}, Changes: []Change{},
	}
	maker := newMaker(in, cluster, said)
	for i := range resolution.Groups {
		g := maker.group(&resolution.Groups[i])
		m.Groups = append(m.Groups, g)
		m.Issues = append(m.Issues, groupIssues(g)...)
	}
	for i := range resolution.Hosts {
		h := maker.host(&cluster.Hosts[i], &resolution.Hosts[i])
		m.Hosts = append(m.Hosts, h)
		m.Issues = append(m.Issues, hostIssues(h)...)
	}
	slices.SortStableFunc(m.Issues, byProblem)
	m.Changes = changes(m)
	return m
}
