package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The exit codes of plan, for pipelines. 1 is an error, as of all commands.
const (
	exitChanges = 2
	exitDrops   = 3
)

// exitError ends the program with a code, after everything was printed.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// forecast is what plan prints.
type forecast struct {
	Result     string              `json:"result"`
	Moves      []moveRow           `json:"moves"`
	Groups     []groupRow          `json:"groups"`
	Regrouping []egress.Regrouping `json:"regrouping,omitempty"`
	// Problems are parts of changed objects that cannot be used, Notes what was taken for granted.
	Problems []string `json:"problems,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// moveRow is an egress IP that is elsewhere, or in another state.
type moveRow struct {
	IP        string        `json:"ip"`
	Group     string        `json:"group"`
	FromHost  string        `json:"fromHost,omitempty"`
	FromState egress.State  `json:"fromState,omitempty"`
	ToHost    string        `json:"toHost,omitempty"`
	ToState   egress.State  `json:"toState,omitempty"`
	Reason    egress.Reason `json:"reason,omitempty"`
}

// groupRow is a group whose traffic is another.
type groupRow struct {
	Group  string   `json:"group"`
	Before []string `json:"before"`
	After  []string `json:"after"`
	// Changes are words of: Source, Moved, Destinations, Dropped, Served, Refused, Released, Exposed.
	Changes []string `json:"changes"`
	Message string   `json:"message"`
	dropped bool
}

// The results.
const (
	resultNothing = "Nothing"
	resultChanges = "Changes"
	resultDropped = "Dropped"
)

// planCommand returns the command that says what would happen.
func planCommand(out io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	var without, evacuated, files []string
	cmd := &cobra.Command{
		Use:   "plan [--without HOST]... [--evacuate HOST]... [-f FILE]...",
		Short: "Show what would happen if hosts were lost, or manifests applied, without doing it",
		Long: `Show what would happen if hosts were lost or evacuated, or manifests applied. Nothing is changed.

The objects of the cluster are read, changed in memory, and decided about by the code that the
controller runs, until it would change nothing more. The answer is the difference: egress IPs that
move, groups of pods whose source changes, that are dropped, or that the loss of one more host would
drop (Exposed). Manifests are merged as "kubectl apply" merges them: NetNamespaces, HostSubnets,
EgressIPs, and the labels and the annotation for evacuation of Nodes. The schemas of the API server
are not asked: "kubectl apply --dry-run=server" does that.

Exit codes: 0 nothing changes; 2 something changes, and nobody is dropped who was not before;
3 somebody would be dropped; 1 an error.`,
		Example: `  kubectl egressip plan --without node3                 # node3 dies
  kubectl egressip plan -f shop.yaml -o json            # before "kubectl apply -f shop.yaml"
  kubectl egressip plan --evacuate node1 --without node2`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringArrayVar(&without, "without", nil, "`host` that is lost; may be repeated")
	cmd.Flags().StringArrayVar(&evacuated, "evacuate", nil, "`host` that is being evacuated; may be repeated")
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "`file` with objects, in YAML or JSON, to apply; - is stdin; may be repeated")
	hosts := completion(config, hostNames)
	completes := errors.Join(cmd.RegisterFlagCompletionFunc("without", hosts), cmd.RegisterFlagCompletionFunc("evacuate", hosts))
	f := addFormat(cmd.Flags(), formatTable, formatYAML, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if completes != nil {
			return completes
		}
		if len(without)+len(evacuated)+len(files) == 0 {
			return errors.New("say what would change: --without HOST, --evacuate HOST, or -f FILE")
		}
		in := input{}
		if len(files) > 0 {
			var err error
			if in, err = readFiles(files, cmd.InOrStdin()); err != nil {
				return err
			}
		}
		o, c, err := connect(cmd.Context(), config)
		if err != nil {
			return err
		}
		s, err := newScenario(cmd.Context(), c, o)
		if err != nil {
			return err
		}
		if err := errors.Join(s.apply(cmd.Context(), c, in), s.without(without), s.evacuate(evacuated)); err != nil {
			return err
		}
		result := s.predict(cmd.Context(), c)
		if err := f.print(out, result, func() error { return result.print(out) }); err != nil {
			return err
		}
		return result.exit()
	}
	return cmd
}

// predict asks the brain.
func (s *scenario) predict(ctx context.Context, c client.Reader) forecast {
	before, after, problems := s.clusters()
	p := egress.Predict(before, after)
	f := forecast{Moves: []moveRow{}, Groups: []groupRow{}, Notes: s.notes}
	f.Result = [...]string{resultNothing, resultChanges, resultDropped}[p.Severity()]
	for _, m := range p.Moves {
		f.Moves = append(f.Moves, moveRow{
			IP: m.IP.String(), Group: m.Group, FromHost: m.From.Host, FromState: m.From.State, ToHost: m.To.Host, ToState: m.To.State, Reason: m.Reason,
		})
	}
	dual := slices.ContainsFunc(after.Hosts, func(h egress.Host) bool { return len(h.IPv6) > 0 })
	for i := range p.Groups {
		f.Groups = append(f.Groups, rowOf(&p.Groups[i], dual))
	}
	for _, problem := range problems {
		f.Problems = append(f.Problems, problem.Message)
	}
	regrouping, err := s.regroup(ctx, c, before, after)
	if f.Regrouping = regrouping; err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("Not known: which pods change their group (%v).", err))
	}
	if len(regrouping) > 0 && f.Result == resultNothing {
		f.Result = resultChanges
	}
	if p.Pending {
		f.Notes = append(f.Notes, "The cluster is not at rest now: what changes anyway is not shown. Check that the controller runs, or ask again.")
	}
	if p.Unsettled {
		f.Notes = append(f.Notes, "The allocation finds no rest: what is shown is one of its states.")
	}
	if p.ExposedUnknown {
		f.Notes = append(f.Notes, "Not known: which groups the loss of one more host would drop; there are too many hosts to play each loss.")
	}
	return f
}

// rowOf is what is printed of a change. Where no Node names addresses of IPv6, it is of no interest
// what becomes of the other family.
func rowOf(g *egress.GroupChange, dual bool) groupRow {
	row := groupRow{Group: g.Name, Before: active(g.Before), After: active(g.After), Message: g.Message, dropped: len(g.Dropped) > 0}
	add := func(name string, families []egress.Family) {
		for _, f := range families {
			row.Changes = append(row.Changes, name+" "+f.String())
		}
	}
	add("Dropped", g.Dropped)
	add("Served", g.Served)
	if g.Source {
		row.Changes = append(row.Changes, "Source")
	}
	if g.Moved {
		row.Changes = append(row.Changes, "Moved")
	}
	if g.Destinations {
		row.Changes = append(row.Changes, "Destinations")
	}
	if dual {
		add("Refused", g.Refused)
		add("Released", g.Released)
	}
	if g.Exposed != "" {
		row.Changes = append(row.Changes, "Exposed to "+g.Exposed)
	}
	return row
}

func active(list []egress.Assignment) []string {
	texts := make([]string, 0, len(list))
	for _, a := range list {
		texts = append(texts, a.IP.String()+"@"+a.Host)
	}
	return texts
}

// exit returns the exit code as an error; nil for 0.
func (f *forecast) exit() error {
	switch f.Result {
	case resultDropped:
		return exitError{exitDrops}
	case resultChanges:
		return exitError{exitChanges}
	}
	return nil
}

// print writes it for people.
func (f *forecast) print(w io.Writer) error {
	moved := newTable(w, "EGRESS IP", "GROUP", "FROM", "STATE", "TO", "STATE", "REASON")
	for _, m := range f.Moves {
		moved.row(m.IP, m.Group, orDash(m.FromHost), orDash(string(m.FromState)), orDash(m.ToHost), orDash(string(m.ToState)), orDash(string(m.Reason)))
	}
	if err := moved.flush("No egress IP moves."); err != nil {
		return err
	}
	fmt.Fprintln(w)
	groups := newTable(w, "GROUP", "BEFORE", "AFTER", "CHANGE")
	dropped := 0
	var lines []string
	for _, g := range f.Groups {
		groups.row(g.Group, orDash(strings.Join(g.Before, ",")), orDash(strings.Join(g.After, ",")), strings.Join(g.Changes, ", "))
		if g.dropped {
			dropped++
			lines = append(lines, fmt.Sprintf("%s: %s", g.Group, g.Message))
		}
	}
	if err := groups.flush("The traffic of no namespace and of no EgressIP changes."); err != nil {
		return err
	}
	for _, r := range f.Regrouping {
		lines = append(lines, fmt.Sprintf("%d pods, such as %s, leave as %s says, and not as %s does.", r.Pods, r.Example, egress.Title(r.To), egress.Title(r.From)))
	}
	lines = append(append(lines, f.Problems...), f.Notes...)
	if err := printAll(w, lines); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nEgress IPs that move or change their state: %d, groups whose traffic changes: %d, dropped: %d\n", len(f.Moves), len(f.Groups), dropped)
	return err
}
