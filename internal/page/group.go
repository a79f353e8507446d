package page

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Kinds of objects in issues, changes and links.
const (
	kindNamespace = "namespace"
	kindEgressIP  = "EgressIP"
	kindHost      = "host"
)

// What an agent reports about an egress IP.
const (
	yes     = "yes"
	no      = "no"
	unknown = "unknown"
)

// maker makes the parts of a Model.
type maker struct {
	Input
	namespaces  map[string]*v1.NetNamespace
	egressIPs   map[string]*ovnv1.EgressIP
	hostSubnets map[string]*v1.HostSubnet
	hosts       map[string]*egress.Host
	selectors   []selector
	// problems are the messages of problems, by KIND/NAME.
	problems map[string][]string
}

// selector is how an EgressIP selects namespaces.
type selector struct {
	egressIP   string
	namespaces labels.Selector
}

func newMaker(in Input, cluster egress.Cluster, problems map[string][]string) *maker {
	m := &maker{
		Input: in, problems: problems,
		namespaces:  make(map[string]*v1.NetNamespace, len(in.NetNamespaces)),
		egressIPs:   make(map[string]*ovnv1.EgressIP, len(in.EgressIPs)),
		hostSubnets: make(map[string]*v1.HostSubnet, len(in.HostSubnets)),
		hosts:       make(map[string]*egress.Host, len(cluster.Hosts)),
	}
	for i := range in.NetNamespaces {
		m.namespaces[in.NetNamespaces[i].Name] = &in.NetNamespaces[i]
	}
	for i := range in.EgressIPs {
		e := &in.EgressIPs[i]
		m.egressIPs[e.Name] = e
		if len(e.Spec.EgressIPs) == 0 {
			continue // it changes nothing for the pods that it selects
		}
		if used := egress.SelectorsInUse(e); used != nil {
			if s, err := metav1.LabelSelectorAsSelector(&used.NamespaceSelector); err == nil {
				m.selectors = append(m.selectors, selector{egressIP: e.Name, namespaces: s})
			}
		}
	}
	for i := range in.HostSubnets {
		m.hostSubnets[in.HostSubnets[i].Name] = &in.HostSubnets[i]
	}
	for i := range cluster.Hosts {
		m.hosts[cluster.Hosts[i].Name] = &cluster.Hosts[i]
	}
	return m
}

// group makes a Group.
func (m *maker) group(result *egress.GroupResult) Group {
	g := Group{
		ID: result.Name, Kind: kindNamespace, Name: result.Name, Ready: string(result.Ready), Reason: string(result.Reason), Message: result.Message,
		Dropped: result.Dropped, Mode: result.Mode.String(), Requests: make([]Request, 0, len(result.Requests)),
	}
	if !result.Unnumbered {
		g.NetID = fmt.Sprint(result.NetID)
	}
	for family, dropped := range result.Drops {
		if dropped {
			g.Drops = append(g.Drops, egress.Family(family).String())
		}
	}
	if name, ok := egress.NameOfEgressIP(result.Name); ok {
		g.Kind, g.Name = kindEgressIP, name
		g.Problems = m.problems["EgressIP/"+name]
		if e := m.egressIPs[name]; e != nil {
			g.Published = reported(e.Status.Conditions, v1.ConditionEgressReady)
		}
	} else {
		g.Problems = m.problems["NetNamespace/"+result.Name]
		if n := m.namespaces[result.Name]; n != nil {
			g.Published = reported(n.Status.Conditions, v1.ConditionEgressReady)
		}
		g.Selecting, g.SelectingKnown = m.selecting(result.Name)
	}
	for i := range result.Requests {
		g.Requests = append(g.Requests, m.request(&result.Requests[i]))
	}
	g.Level = groupLevel(g)
	return g
}

// selecting are the EgressIPs that select a namespace; known is false if its labels are not known.
func (m *maker) selecting(namespace string) (names []string, known bool) {
	if len(m.selectors) == 0 {
		return nil, true
	}
	of, known := m.NamespaceLabels[namespace]
	if !known {
		return nil, false
	}
	for _, s := range m.selectors {
		if s.namespaces.Matches(labels.Set(of)) {
			names = append(names, s.egressIP)
		}
	}
	slices.Sort(names)
	return names, true
}

// request makes a Request.
func (m *maker) request(r *egress.RequestResult) Request {
	q := Request{IP: r.IP, Host: r.Host, State: string(r.State), Reason: string(r.Reason), Message: r.Message}
	if r.State == egress.Active || r.State == egress.Standby || r.State == egress.HostOffline {
		q.Configured, q.Agent, _ = configured(m.hosts[r.Host], r.IP)
	}
	q.Level = requestLevel(q, m.inUse(r))
	return q
}

// inUse reports whether another machine has the address, as the agent of its host reports.
func (m *maker) inUse(r *egress.RequestResult) bool {
	_, _, reason := configured(m.hosts[r.Host], r.IP)
	return reason == egress.ReasonAddressInUse
}

// configured is what the agent of a host reports about one of its egress IPs.
func configured(host *egress.Host, ip string) (state, message string, reason egress.Reason) {
	if host == nil {
		return unknown, "", ""
	}
	address, err := netip.ParseAddr(ip)
	report, reported := host.Reports[address]
	switch {
	case err != nil || !reported:
		return unknown, "", ""
	case report.Configured:
		return yes, "", ""
	}
	return no, report.Message, report.Reason
}

// requestLevel is the level of one egress IP alone.
func requestLevel(q Request, inUse bool) Level {
	switch egress.State(q.State) {
	case egress.Conflict:
		return LevelConflict
	case egress.Active, egress.Standby:
		switch {
		case inUse:
			return LevelConflict
		case q.Configured == no && q.State == string(egress.Active):
			return LevelFailed
		case q.Configured == no:
			return LevelDegraded
		case q.Configured == unknown:
			return LevelUnknown
		}
		return LevelOK
	default:
		return LevelDegraded
	}
}

// contrary reports whether a reason says that two objects, or two machines, say contrary things.
func contrary(reason string) bool {
	switch egress.Reason(reason) {
	case egress.ReasonMultipleNamespaces, egress.ReasonMultipleHosts, egress.ReasonDuplicateNetID, egress.ReasonSameHost,
		egress.ReasonOverlap, egress.ReasonAddressInUse:
		return true
	default:
		return false
	}
}

// groupLevel is the level of a group as a whole.
func groupLevel(g Group) Level {
	level := LevelNone
	for _, r := range g.Requests {
		level = worst(level, LevelOK, inGroup(r.Level, g))
	}
	if len(g.Problems) > 0 {
		level = worst(level, LevelDegraded)
	}
	switch {
	case contrary(g.Reason):
		return LevelConflict
	case g.Dropped:
		return worst(level, LevelFailed)
	case g.Ready == string(egress.ReadyUnknown):
		return worst(level, LevelUnknown)
	case g.Ready == string(egress.ReadyFalse) && len(g.Requests) > 0:
		return worst(level, LevelFailed)
	case g.Ready == string(egress.ReadyFalse):
		return worst(level, LevelDegraded)
	}
	return level
}

// inGroup is what the level of one egress IP means for a group that others serve: one that stands by
// and is not known to work takes nothing from traffic.
func inGroup(level Level, g Group) Level {
	if level == LevelUnknown && g.Ready == string(egress.ReadyTrue) {
		return LevelDegraded
	}
	return level
}

// groupIssues are what needs attention of a group: one issue, which names its egress IPs that are
// not in order.
func groupIssues(g Group) []Issue {
	if !g.Level.Bad() {
		return nil
	}
	const most = 3
	var texts []string
	if g.Message != "" {
		texts = append(texts, g.Message)
	}
	add := func(text string) {
		if text != "" && !strings.Contains(strings.Join(texts, " "), text) {
			texts = append(texts, text)
		}
	}
	bad := 0
	for _, r := range g.Requests {
		if !r.Level.Bad() {
			continue
		}
		if bad++; bad <= most {
			add(r.Message)
			if r.Configured == no && r.Agent != "" {
				add(fmt.Sprintf("The agent of host %s says of %s: %s", r.Host, r.IP, r.Agent))
			}
		}
	}
	if bad > most {
		add(fmt.Sprintf("%d more of its egress IPs are not in order.", bad-most))
	}
	for _, p := range g.Problems {
		add(p)
	}
	return []Issue{{
		Level: g.Level, Kind: g.Kind, Name: g.Name, Reason: g.Reason, Text: strings.Join(texts, " "), Since: g.since(),
	}}
}

// since is since when a group is as it is; empty if its condition says something else.
func (g Group) since() string {
	if g.Differs() {
		return ""
	}
	return timeText(g.Published.Since)
}
