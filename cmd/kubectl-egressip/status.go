package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// groupReport is the state of one namespace, or of the pods of one EgressIP.
type groupReport struct {
	Group string `json:"group"`
	NetID string `json:"netid"`
	Mode  string `json:"mode"`
	// Ready is what the objects say now, Published the condition as it is written.
	Ready     egress.Readiness `json:"ready"`
	Reason    egress.Reason    `json:"reason"`
	Dropped   bool             `json:"dropped"`
	Published reported         `json:"published"`
	Active    []string         `json:"active"`
	Requests  []claimReport    `json:"requests"`
	Message   string           `json:"message"`
}

// statusReport is the state of the cluster, or of a part of it.
type statusReport struct {
	Hosts  []hostReport  `json:"hosts,omitempty"`
	Groups []groupReport `json:"groups,omitempty"`
	// Counts are of all groups.
	Counts *groupCounts `json:"counts,omitempty"`
}

// groupCounts counts groups.
type groupCounts struct {
	Namespaces int `json:"namespaces"`
	EgressIPs  int `json:"egressIPs"`
	Requesting int `json:"requesting"`
	Dropped    int `json:"dropped"`
}

// statusOptions are the flags of status and hosts.
type statusOptions struct {
	format *format
	watch  bool
	every  time.Duration
	paint  bool
}

// statusCommand returns the command that shows what is.
func statusCommand(out io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	return reportCommand(out, config, &cobra.Command{
		Use:   "status [NAMESPACE | egressip/NAME]",
		Short: "Show each host with its egress IPs, or one namespace, and what is wrong",
		Long: `Show each host with its egress IPs, or one namespace or EgressIP, and what is wrong.

-o wide shows since when it is so, and who reported it: the field manager that wrote the condition. -o json
and yaml have the messages, too. On a terminal, what is wrong is in colour, unless NO_COLOR is set.`,
		Example: `  kubectl egressip status
  kubectl egressip status shop -o wide
  kubectl egressip status --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completion(config, groupNames),
	}, func(o egress.Objects, args []string) (statusReport, error) {
		if len(args) == 0 {
			groups := reportGroups(o)
			counts := count(groups)
			return statusReport{Hosts: reportHosts(o), Counts: &counts}, nil
		}
		name := groupOf(args[0])
		for _, g := range reportGroups(o) {
			if g.Group == name {
				return statusReport{Groups: []groupReport{g}}, nil
			}
		}
		return statusReport{}, noSuchGroup(name)
	})
}

// hostsCommand returns the command that shows hosts alone.
func hostsCommand(out io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	return reportCommand(out, config, &cobra.Command{
		Use:   "hosts [HOST]",
		Short: "Show hosts: whether they are online, their agents, egress IPs, and what is wrong",
		Example: `  kubectl egressip hosts -o wide
  kubectl egressip hosts node3 -o yaml`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completion(config, hostNames),
	}, func(o egress.Objects, args []string) (statusReport, error) {
		hosts := reportHosts(o)
		if len(args) == 0 {
			return statusReport{Hosts: hosts}, nil
		}
		for _, h := range hosts {
			if h.Host == args[0] {
				return statusReport{Hosts: []hostReport{h}}, nil
			}
		}
		return statusReport{}, noSuchHost(args[0], o.HostSubnets)
	})
}

func reportCommand(out io.Writer, config clientcmd.ClientConfig, cmd *cobra.Command, made func(egress.Objects, []string) (statusReport, error)) *cobra.Command {
	o := statusOptions{format: addFormat(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML), paint: paints(out)}
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "print again whenever something has changed, until it is interrupted")
	cmd.Flags().DurationVar(&o.every, "interval", 2*time.Second, "how often --watch looks")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(config)
		if err != nil {
			return err
		}
		render := func(ctx context.Context) (string, error) {
			objects, err := readObjects(ctx, c)
			if err != nil {
				return "", err
			}
			report, err := made(objects, args)
			if err != nil {
				return "", err
			}
			var text strings.Builder
			err = o.format.print(&text, report, func() error { return report.print(&text, *o.format) })
			return text.String(), err
		}
		if o.watch {
			return watch(cmd.Context(), out, o, render)
		}
		text, err := render(cmd.Context())
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, o.colored(text))
		return err
	}
	return cmd
}

// status prints the whole cluster.
func status(w io.Writer, o egress.Objects) error {
	counts := count(reportGroups(o))
	report := statusReport{Hosts: reportHosts(o), Counts: &counts}
	return report.print(w, formatTable)
}

// reportGroups reports all groups.
func reportGroups(o egress.Objects) []groupReport {
	cluster, _ := egress.Snapshot(o)
	var all []groupReport
	for _, n := range egress.Resolve(cluster).Groups {
		g := groupReport{
			Group: n.Name, NetID: netID(n), Mode: n.Mode.String(), Ready: n.Ready, Reason: n.Reason, Dropped: n.Dropped, Message: n.Message,
			Published: publishedOf(o, n.Name), Active: active(n.Active), Requests: []claimReport{},
		}
		for _, r := range n.Requests {
			configured := ""
			if claim := claimOf(o.HostSubnets, r); claim != nil {
				configured = yesNo(claim.Configured)
			}
			g.Requests = append(g.Requests, claimReport{IP: r.IP, State: r.State, Group: n.Name, Configured: configured})
		}
		all = append(all, g)
	}
	return all
}

// publishedOf is condition EgressReady of the object of a group.
func publishedOf(o egress.Objects, group string) reported {
	var meta metav1.ObjectMeta
	var conditions []metav1.Condition
	if name, ok := egress.NameOfEgressIP(group); ok {
		if e, found := named(o.EgressIPs, name); found {
			meta, conditions = e.ObjectMeta, e.Status.Conditions
		}
	} else if n, found := named(o.NetNamespaces, group); found {
		meta, conditions = n.ObjectMeta, n.Status.Conditions
	}
	return reportedOf(meta, conditions, v1.ConditionEgressReady)
}

func count(groups []groupReport) (c groupCounts) {
	for _, g := range groups {
		if _, ok := egress.NameOfEgressIP(g.Group); ok {
			c.EgressIPs++
		} else {
			c.Namespaces++
		}
		if len(g.Requests) > 0 {
			c.Requesting++
		}
		if g.Dropped {
			c.Dropped++
		}
	}
	return c
}

// print writes it for people.
func (r *statusReport) print(w io.Writer, f format) error {
	if r.Groups != nil {
		return printGroups(w, r.Groups, f)
	}
	if err := printHosts(w, r.Hosts, f); err != nil {
		return err
	}
	if c := r.Counts; c != nil {
		see := ""
		if c.Dropped > 0 {
			see = ` (see "kubectl egressip explain")`
		}
		if _, err := fmt.Fprintf(w, "\nNamespaces: %d, EgressIPs: %d, with requests: %d, dropped: %d%s\n", c.Namespaces, c.EgressIPs, c.Requesting, c.Dropped, see); err != nil {
			return err
		}
	}
	var remedies []string
	for i := range r.Hosts {
		remedies = append(remedies, r.Hosts[i].Remedies...)
	}
	return printAll(w, remedies)
}

func printGroups(w io.Writer, groups []groupReport, f format) error {
	header := []any{"GROUP", "NETID", "MODE", "READY", "REASON", "ACTIVE"}
	if f == formatWide {
		header = append(header, "SINCE", "BY", "LAST REPORT")
	}
	table := newTable(w, header...)
	var lines []string
	for _, g := range groups {
		row := []any{g.Group, g.NetID, g.Mode, g.Ready, g.Reason, orDash(strings.Join(g.Active, ","))}
		if f == formatWide {
			row = append(row, orDash(g.Published.Since), orDash(g.Published.By), orDash(g.Published.At))
		}
		table.row(row...)
		lines = append(lines, fmt.Sprintf("%s: %s", g.Group, g.Message))
		if p := g.Published; p.Status != "-" && (p.Status != string(g.Ready) || p.Reason != string(g.Reason)) {
			lines = append(lines, fmt.Sprintf("Its status still says %s (%s), by %s: the controller has not decided on these objects yet, or does not run.", p.Status, p.Reason, orDash(p.By)))
		}
	}
	if err := table.flush(""); err != nil {
		return err
	}
	return printAll(w, lines)
}
