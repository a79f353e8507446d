package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// hostReport is the state of one host.
type hostReport struct {
	Host    string   `json:"host"`
	HostIPs []string `json:"hostIPs"`
	Mode    string   `json:"mode"`
	// Conditions are those of its HostSubnet that say how it is.
	Online      reported      `json:"online"`
	Agent       reported      `json:"agent"`
	Evacuating  bool          `json:"evacuating"`
	Version     string        `json:"version,omitempty"`
	Kernel      string        `json:"kernel,omitempty"`
	Backend     string        `json:"backend,omitempty"`
	EgressIPs   []claimReport `json:"egressIPs"`
	Invalid     []string      `json:"invalid,omitempty"`
	Reason      egress.Reason `json:"reason"`
	Remedies    []string      `json:"remedies,omitempty"`
	onlineShort string
}

// reported is what a condition says, since when, and who wrote it.
type reported struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Since is when the status changed last, in the form of RFC 3339. By is the field manager that
	// owns the condition, and At when that wrote its part of the status last.
	Since   string `json:"since,omitempty"`
	By      string `json:"by,omitempty"`
	At      string `json:"at,omitempty"`
	Message string `json:"message,omitempty"`
}

// claimReport is an egress IP of a host.
type claimReport struct {
	IP    string       `json:"ip"`
	State egress.State `json:"state"`
	Group string       `json:"group,omitempty"`
	// Configured is what the agent reports: yes, no, or nothing.
	Configured string `json:"configured,omitempty"`
}

// reportedOf reads a condition. One that is missing is unknown, and not good.
func reportedOf(object metav1.ObjectMeta, conditions []metav1.Condition, name string) reported {
	c := meta.FindStatusCondition(conditions, name)
	if c == nil {
		return reported{Status: "-"}
	}
	r := reported{Status: string(c.Status), Reason: c.Reason, Message: c.Message}
	if !c.LastTransitionTime.IsZero() {
		r.Since = timeText(c.LastTransitionTime)
	}
	r.By, r.At = writerOf(object.ManagedFields, name)
	return r
}

func timeText(t metav1.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// writerOf returns the field manager that owns a condition, and when it wrote last.
func writerOf(fields []metav1.ManagedFieldsEntry, condition string) (manager, at string) {
	key, err := json.Marshal(`k:{"type":"` + condition + `"}`)
	if err != nil {
		return "", ""
	}
	for _, f := range fields {
		if f.Subresource == "status" && f.FieldsV1 != nil && bytes.Contains(f.FieldsV1.GetRawBytes(), key) {
			manager = f.Manager
			if f.Time != nil {
				at = timeText(*f.Time)
			}
		}
	}
	return manager, at
}

// reportHosts reports all hosts.
func reportHosts(o egress.Objects) []hostReport {
	cluster, problems := egress.Snapshot(o)
	resolution := egress.Resolve(cluster)
	all := make([]hostReport, 0, len(cluster.Hosts))
	for _, host := range cluster.Hosts {
		result, _ := resolution.Host(host.Name)
		object := hostSubnetOf(o.HostSubnets, host.Name)
		r := hostReport{
			Host: host.Name, HostIPs: hostIPs(object, host), Mode: modeOf(host), Evacuating: host.Evacuating, Reason: result.Reason, Invalid: result.Invalid,
			Online: reportedOf(object.ObjectMeta, object.Status.Conditions, v1.ConditionOnline),
			Agent:  reportedOf(object.ObjectMeta, object.Status.Conditions, v1.ConditionAgentReady),
			// Without a verdict a host counts as online, and with doubt as offline.
			onlineShort: yesNo(host.Online), EgressIPs: []claimReport{},
		}
		if a := object.Status.Agent; a != nil {
			r.Version, r.Kernel, r.Backend = a.Version, a.Kernel, a.Backend
		}
		if message := agentMessage(object); message != "" {
			r.Remedies = append(r.Remedies, fmt.Sprintf("%s, agent: %s", host.Name, message))
		}
		if why := whyNotIPv6(object); cluster.WithIPv6 && why != "" {
			r.Remedies = append(r.Remedies, fmt.Sprintf("%s, egress IPs of IPv6: it cannot serve them: %s", host.Name, why))
		}
		for _, c := range result.Claims {
			r.EgressIPs = append(r.EgressIPs, claimReport{IP: c.IP.String(), State: c.State, Group: c.Group, Configured: configuredText(host, c)})
			if !c.Assigned() || c.State == egress.HostOffline {
				r.Remedies = append(r.Remedies, fmt.Sprintf("%s, %s: %s", host.Name, c.IP, c.Message))
			}
		}
		for _, p := range problems {
			if p.Kind == kindHostSubnet && p.Name == host.Name {
				r.Remedies = append(r.Remedies, p.Message)
			}
		}
		all = append(all, r)
	}
	return all
}

func configuredText(host egress.Host, c egress.ClaimResult) string {
	report, known := host.Reports[c.IP]
	if !known {
		return ""
	}
	return yesNo(report.Configured)
}

// printHosts prints hosts for people.
func printHosts(w io.Writer, hosts []hostReport, f format) error {
	header := []any{"HOST", "HOST IP", "MODE", "ONLINE", "AGENT", "EGRESS IPS", "REASON"}
	if f == formatWide {
		header = append(header, "ONLINE SINCE", "BY", "AGENT SINCE", "BY", "LAST REPORT", "VERSION", "KERNEL", "RULES")
	}
	table := newTable(w, header...)
	for i := range hosts {
		h := &hosts[i]
		mode := h.Mode
		if h.Evacuating {
			mode += ",evacuating"
		}
		row := []any{h.Host, orDash(strings.Join(h.HostIPs, ",")), mode, h.onlineShort, orDash(h.Agent.Reason), h.claims(), h.Reason}
		if f == formatWide {
			row = append(row, orDash(h.Online.Since), orDash(h.Online.By), orDash(h.Agent.Since), orDash(h.Agent.By), orDash(h.Agent.At),
				orDash(h.Version), orDash(h.Kernel), orDash(h.Backend))
		}
		table.row(row...)
	}
	return table.flush("There are no HostSubnets: the controller makes one for each Node; check that it runs.")
}

func (h *hostReport) claims() string {
	list := make([]string, 0, len(h.EgressIPs))
	for _, c := range h.EgressIPs {
		list = append(list, fmt.Sprintf("%s(%s)", c.IP, c.State))
	}
	return orDash(strings.Join(append(list, h.Invalid...), ","))
}

// modeOf says who assigns egress IPs to a host: the administrator, or the controller, by its ranges or
// because its Node has the label.
func modeOf(host egress.Host) string {
	switch {
	case host.Automatic:
		return "automatic"
	case host.Assignable:
		return "labelled"
	default:
		return "manual"
	}
}

// whyNotIPv6 returns why a host cannot serve egress IPs of IPv6, as its agent reports; ""
// if it can, or if that is not known.
func whyNotIPv6(h *v1.HostSubnet) string {
	if h.Status.Agent == nil {
		return ""
	}
	return h.Status.Agent.IPv6Reason
}

// agentMessage is what a host's agent says, or warns of, if something needs attention.
func agentMessage(h *v1.HostSubnet) string {
	c := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionAgentReady)
	warnings := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionWarnings)
	switch {
	case c == nil:
		return "it has not reported yet: check that the DaemonSet runs on the node."
	case c.Status == metav1.ConditionTrue && warnings != nil && warnings.Status == metav1.ConditionTrue:
		return warnings.Message
	case c.Status != metav1.ConditionTrue || c.Reason != "Ready":
		return c.Message
	}
	return ""
}

// hostIPs are the host's addresses, as far as they are usable or published.
func hostIPs(h *v1.HostSubnet, host egress.Host) []string {
	ips := []string{}
	if host.IP.IsValid() {
		ips = append(ips, host.IP.String())
	}
	for _, ip := range h.Status.HostIPs {
		if ip != h.HostIP {
			ips = append(ips, ip)
		}
	}
	return ips
}
