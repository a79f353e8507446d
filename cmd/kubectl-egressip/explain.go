package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// groupOf is the group that a user names: a namespace, or egressip/NAME in any case.
func groupOf(written string) string {
	kind, name, ok := strings.Cut(written, "/")
	if ok && strings.EqualFold(kind, "EgressIP") {
		return egress.GroupOfEgressIP(name)
	}
	return written
}

// explain prints one group, or all that request egress IPs, and what to do about those that are
// not in order.
func explain(w io.Writer, o egress.Objects, group string) error {
	cluster, problems := egress.Snapshot(o)
	e := explanation{
		hostSubnets: o.HostSubnets,
		table:       newTable(w, "GROUP", "NETID", "EGRESS IP", "HOST", "STATE", "REASON"),
	}
	found := false
	for _, n := range egress.Resolve(cluster).Groups {
		if group != "" && n.Name != group {
			continue
		}
		found = true
		if len(n.Requests) > 0 {
			e.addRequests(n)
		} else if group != "" {
			e.table.row(n.Name, netID(n), "-", "-", "-", n.Reason)
			e.remedies = append(e.remedies, n.Message)
			if _, ok := egress.NameOfEgressIP(group); !ok && len(o.EgressIPs) > 0 {
				e.remedies = append(e.remedies, `Those of its pods that an EgressIP selects have its egress IPs: see "kubectl egressip explain".`)
			}
		}
	}
	if group != "" && !found {
		return noSuchGroup(group)
	}
	if err := e.table.flush("No namespace and no EgressIP requests egress IPs."); err != nil {
		return err
	}
	for _, p := range problems {
		// The table covers problems with addresses.
		if of, ok := groupWith(p); ok && p.Field != "egressIPs" && (group == "" || of == group) {
			e.remedies = append(e.remedies, p.Message)
		}
	}
	return printAll(w, e.remedies)
}

// groupWith is the group that a problem is of; false for one of a host.
func groupWith(p egress.Problem) (group string, ok bool) {
	switch p.Kind {
	case "NetNamespace":
		return p.Name, true
	case "EgressIP":
		return egress.GroupOfEgressIP(p.Name), true
	default:
		return "", false
	}
}

func noSuchGroup(group string) error {
	if name, ok := egress.NameOfEgressIP(group); ok {
		return fmt.Errorf("there is no EgressIP %q that this operator serves: check the name, and that the "+
			"CustomResourceDefinition is not another software's", name)
	}
	return fmt.Errorf("there is no NetNamespace %q: the controller makes one for each Namespace; "+
		"check the name, and that the controller runs; an EgressIP is egressip/NAME", group)
}

// explanation collects the table of egress IPs and what to do about them.
type explanation struct {
	hostSubnets []v1.HostSubnet
	table       *table
	remedies    []string
}

// addRequests adds a group that requests egress IPs.
func (e *explanation) addRequests(n egress.GroupResult) {
	if n.Dropped || n.Reason == egress.ReasonOverlap {
		e.remedies = append(e.remedies, fmt.Sprintf("%s: %s", n.Name, n.Message))
	}
	for _, r := range n.Requests {
		reason, message := string(r.Reason), r.Message
		inOrder := r.State == egress.Active || r.State == egress.Standby
		if claim := claimOf(e.hostSubnets, r); claim != nil && !claim.Configured {
			reason = orDash(claim.Reason)
			message = fmt.Sprintf("The agent of host %s says: %s", r.Host, claim.Message)
			inOrder = false
		}
		e.table.row(n.Name, netID(n), r.IP, orDash(r.Host), r.State, reason)
		said := n.Dropped && strings.Contains(n.Message, message)
		if !inOrder && !said {
			e.remedies = append(e.remedies, fmt.Sprintf("%s, %s: %s", n.Name, r.IP, message))
		}
	}
}

// netID is the netid as the table shows it.
func netID(n egress.GroupResult) string {
	if n.Unnumbered {
		return "-"
	}
	return fmt.Sprint(n.NetID)
}

// claimOf returns the status that the agent of the request's host has written for
// the egress IP, or nil if it has written none.
func claimOf(hostSubnets []v1.HostSubnet, r egress.RequestResult) *v1.ClaimStatus {
	if r.State != egress.Active && r.State != egress.Standby {
		return nil
	}
	for i := range hostSubnets {
		if hostSubnets[i].Name != r.Host {
			continue
		}
		for j := range hostSubnets[i].Status.EgressIPs {
			if c := &hostSubnets[i].Status.EgressIPs[j]; c.IP == r.IP {
				return c
			}
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// printAll prints the lines, after an empty line.
func printAll(w io.Writer, lines []string) error {
	for i, line := range lines {
		if i == 0 {
			line = "\n" + line
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// table aligns columns as kubectl does.
type table struct {
	w    io.Writer
	tab  *tabwriter.Writer
	rows int
}

func newTable(w io.Writer, header ...any) *table {
	t := &table{w: w, tab: tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
		t.rows = 0
	}
	return t
}

func (t *table) row(cells ...any) {
	t.rows++
	format := strings.TrimSuffix(strings.Repeat("%v\t", len(cells)), "\t") + "\n"
	fmt.Fprintf(t.tab, format, cells...)
}

// flush prints the table, or the given text if it has no rows.
func (t *table) flush(empty string) error {
	if t.rows == 0 {
		_, err := fmt.Fprintln(t.w, empty)
		return err
	}
	return t.tab.Flush()
}
