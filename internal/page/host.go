package page

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// doubtful: probes alone find a host silent.
const doubtful = "doubtful"

// host makes a Host.
func (m *maker) host(host *egress.Host, result *egress.HostResult) Host {
	object := m.hostSubnets[host.Name]
	h := Host{
		Name: host.Name, Claims: len(result.Claims), Mode: hostMode(host), Evacuating: host.Evacuating,
		Reason: string(result.Reason), Message: result.Message, Problems: slices.Clone(m.problems["HostSubnet/"+host.Name]),
	}
	if host.IP.IsValid() {
		h.IPs = append(h.IPs, host.IP.String())
	}
	for _, ip := range object.Status.HostIPs {
		if ip != object.HostIP {
			h.IPs = append(h.IPs, ip)
		}
	}
	if a := object.Status.Agent; a != nil {
		h.Version, h.Kernel, h.Backend = a.Version, a.Kernel, a.Backend
	}
	for _, invalid := range result.Invalid {
		h.Problems = append(h.Problems, fmt.Sprintf("%q in its list of egress IPs is no address.", invalid))
	}
	claims := LevelNone
	for i := range result.Claims {
		c := claim(host, &result.Claims[i])
		claims = worst(claims, c.Level)
		if c.State == string(egress.Active) {
			h.Used++
		}
		h.EgressIPs = append(h.EgressIPs, c)
	}
	h.Conditions = []Reported{reported(object.Status.Conditions, v1.ConditionOnline), reported(object.Status.Conditions, v1.ConditionAgentReady)}
	for i := range object.Status.Conditions {
		if t := object.Status.Conditions[i].Type; t != v1.ConditionOnline && t != v1.ConditionAgentReady {
			h.Conditions = append(h.Conditions, reported(object.Status.Conditions, t))
		}
	}
	h.Online = onlineText(h.Conditions[0])
	h.Level, h.Summary = hostLevel(h, result.Ready, claims, host.Automatic || host.Assignable)
	slices.SortStableFunc(h.Conditions, func(a, b Reported) int { return strings.Compare(a.Type, b.Type) })
	return h
}

// says reports whether a condition of a host has a status.
func (h Host) says(condition string, status metav1.ConditionStatus) bool {
	return slices.ContainsFunc(h.Conditions, func(r Reported) bool { return r.Type == condition && r.Status == string(status) })
}

// hostLevel is the level of a host, and why in a word or two. ready is whether all claims are in
// order, claims the worst level of one; may is whether it may be given some.
func hostLevel(h Host, ready bool, claims Level, may bool) (Level, string) {
	for _, c := range []struct {
		is      bool
		level   Level
		summary string
	}{
		{h.says(v1.ConditionAddressInUse, metav1.ConditionTrue), LevelConflict, "address in use"},
		{claims == LevelConflict, LevelConflict, "conflict"},
		{h.says(v1.ConditionNodeGone, metav1.ConditionTrue), LevelFailed, "node gone"},
		{h.Online == no && (may || h.Claims > 0), LevelFailed, "offline"},
		{h.Online == no, LevelDegraded, "offline"}, // it serves nothing, so no traffic waits for it
		{h.says(v1.ConditionAgentReady, metav1.ConditionFalse), LevelFailed, "kernel not as planned"},
		{claims == LevelFailed, LevelFailed, "not configured"},
		{h.Online == doubtful, LevelUnknown, "doubtful"},
		{h.Online == unknown, LevelUnknown, "not judged"},
		{!h.says(v1.ConditionAgentReady, metav1.ConditionTrue), LevelUnknown, "agent unknown"},
		{claims == LevelUnknown, LevelUnknown, "not reported"},
		{h.says(v1.ConditionWarnings, metav1.ConditionTrue), LevelDegraded, "warning"},
		{!ready || len(h.Problems) > 0, LevelDegraded, h.Reason},
		{h.Evacuating, LevelOK, "evacuating"},
		{h.Claims == 0 && !may, LevelNone, "no egress IPs"},
	} {
		if c.is {
			return c.level, c.summary
		}
	}
	return LevelOK, "online"
}

// claim makes a Claim.
func claim(host *egress.Host, c *egress.ClaimResult) Claim {
	made := Claim{
		IP: c.IP.String(), State: string(c.State), Group: c.Group, Reason: string(c.Reason), Message: c.Message, Level: LevelDegraded,
	}
	if c.Assigned() {
		made.Configured, _, _ = configured(host, made.IP)
	}
	switch {
	case c.State == egress.Conflict || host.Reports[c.IP].Reason == egress.ReasonAddressInUse && !host.Reports[c.IP].Configured:
		made.Level = LevelConflict
	case c.State != egress.Active && c.State != egress.Standby:
	case made.Configured == no:
		made.Level = LevelFailed
	case made.Configured == unknown:
		made.Level, made.Message = LevelUnknown, "The host's agent has not reported whether the host has it."
	default:
		made.Level = LevelOK
	}
	if made.Configured == no {
		made.Message = strings.TrimSpace(made.Message + " " + host.Reports[c.IP].Message)
	}
	return made
}

// hostMode says who assigns egress IPs to a host.
func hostMode(host *egress.Host) string {
	switch {
	case host.Automatic:
		return "automatic"
	case host.Assignable:
		return "labelled"
	default:
		return "manual"
	}
}

// onlineText reads condition Online. Without one it is not known.
func onlineText(online Reported) string {
	switch {
	case online.Missing:
		return unknown
	case online.Status == string(metav1.ConditionTrue):
		return yes
	case online.Status == string(metav1.ConditionFalse):
		return no
	default:
		return doubtful
	}
}

// hostIssues are what needs attention of a host: one issue.
func hostIssues(h Host) []Issue {
	if !h.Level.Bad() {
		return nil
	}
	issue := Issue{Level: h.Level, Kind: kindHost, Name: h.Name, Reason: h.Summary}
	var texts []string
	add := func(text string) {
		if text != "" && !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	for _, c := range h.Conditions {
		if c.needsAttention() {
			add(c.explained())
			if issue.Since == "" {
				issue.Since = timeText(c.Since)
			}
		}
	}
	for _, c := range h.EgressIPs {
		if c.Level == LevelUnknown {
			add(fmt.Sprintf("Its agent has not reported whether it has %s.", c.IP))
		}
	}
	if h.Reason != string(egress.ReasonAssigned) {
		add(h.Message)
	}
	for _, p := range h.Problems {
		add(p)
	}
	issue.Text = strings.Join(texts, " ")
	return []Issue{issue}
}

// needsAttention reports whether a condition says that something is wrong, or does not say whether it is.
func (r Reported) needsAttention() bool {
	switch r.Type {
	case v1.ConditionOnline, v1.ConditionAgentReady, v1.ConditionEgressReady:
		return r.Status != string(metav1.ConditionTrue)
	case v1.ConditionAddressInUse, v1.ConditionWarnings, v1.ConditionNodeGone:
		return r.Status == string(metav1.ConditionTrue)
	default:
		return false
	}
}

// explained says what a condition says, or what it means that there is none.
func (r Reported) explained() string {
	switch {
	case r.Message != "" && !r.Missing:
		return r.Message
	case r.Missing && r.Type == v1.ConditionAgentReady:
		return "Its agent has not reported yet: check that the DaemonSet runs on the node."
	case r.Missing && r.Type == v1.ConditionOnline:
		return "Whether it is online is not known: the controller has not judged it yet."
	default:
		return fmt.Sprintf("Condition %s is %s (%s).", r.Type, r.Status, r.Reason)
	}
}
