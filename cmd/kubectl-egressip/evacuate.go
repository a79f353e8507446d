package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// exitStays is the exit code of an evacuation that is done, and leaves egress IPs in use on the host.
const exitStays = 2

// evacuation moves egress IPs away from a host, or lets it have some again.
type evacuation struct {
	c    client.Client
	host string
	// away: the host is evacuated. Otherwise it is restored.
	away        bool
	timeout     time.Duration
	every       time.Duration
	out, errOut io.Writer
	// first are the egress IPs that the host had for groups when it began.
	first []netip.Addr
}

// evacuateCommand returns the command that moves egress IPs away from a host.
func evacuateCommand(out, errOut io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	return evacuationCommand(out, errOut, config, true, &cobra.Command{
		Use:   "evacuate HOST",
		Short: "Move the egress IPs of a host away, before maintenance",
		Long: `Move the egress IPs of a host away, before maintenance, and wait until that is done.

The Node gets annotation ` + v1.AnnotationEvacuate + `: "true". The controller then moves the
egress IPs of automatic and labelled hosts one by one, each when the last one is configured on its
new host; groups with several egress IPs use those of other hosts. What no other host can take over
stays, and is reported at the end. Pods on the host are not concerned: "kubectl drain" is for them.

Exit codes: 0 no traffic leaves through the host; 2 done, and some egress IPs in use stay; 1 an error,
or the time is over. The annotation stays in any case, until "kubectl egressip restore HOST".`,
		Example: `  kubectl egressip evacuate node3 --dry-run
  kubectl egressip evacuate node3 && kubectl drain node3 --ignore-daemonsets`,
	})
}

// restoreCommand returns the command that ends an evacuation.
func restoreCommand(out, errOut io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	return evacuationCommand(out, errOut, config, false, &cobra.Command{
		Use:   "restore HOST",
		Short: "Let a host have egress IPs again, after maintenance",
		Long: `Let a host have egress IPs again, after maintenance, and wait until the controller is at rest.

The annotation ` + v1.AnnotationEvacuate + ` of the Node is removed. Egress IPs that it listed by
hand are used again; others come back only as far as loads differ much, so that few addresses move.`,
		Example: "  kubectl egressip restore node3",
	})
}

func evacuationCommand(out, errOut io.Writer, config clientcmd.ClientConfig, away bool, cmd *cobra.Command) *cobra.Command {
	e := evacuation{away: away, out: out, errOut: errOut, every: time.Second}
	var dryRun bool
	cmd.Flags().DurationVar(&e.timeout, "timeout", 5*time.Minute, "how long to wait until it is done; 0 for not at all")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would happen, and change nothing")
	cmd.Args = cobra.ExactArgs(1)
	cmd.ValidArgsFunction = completion(config, hostNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, c, err := connect(cmd.Context(), config)
		if err != nil {
			return err
		}
		e.c, e.host = c, args[0]
		if hostSubnetOf(o.HostSubnets, e.host) == nil {
			return noSuchHost(e.host, o.HostSubnets)
		}
		if dryRun {
			return e.preview(cmd.Context(), o)
		}
		return e.run(cmd.Context(), o)
	}
	return cmd
}

// annotate asks for it.
func (e *evacuation) annotate(ctx context.Context, options ...client.PatchOption) error {
	value := "null"
	if e.away {
		value = `"true"`
	}
	node := &corev1.Node{}
	node.Name = e.host
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %s}}}`, v1.AnnotationEvacuate, value)
	if err := e.c.Patch(ctx, node, client.RawPatch(types.MergePatchType, []byte(patch)), options...); err != nil {
		return fmt.Errorf("annotate Node %s: %w", e.host, err)
	}
	return nil
}

// preview prints what would happen.
func (e *evacuation) preview(ctx context.Context, o egress.Objects) error {
	if err := e.annotate(ctx, client.DryRunAll); err != nil {
		return err
	}
	s, err := newScenario(ctx, e.c, o)
	if err != nil {
		return err
	}
	s.after.Evacuating[e.host] = e.away
	f := s.predict(ctx, e.c)
	return f.print(e.out)
}

// run asks for it, and waits.
func (e *evacuation) run(ctx context.Context, o egress.Objects) error {
	cluster, _ := egress.Snapshot(o)
	begun := egress.Evacuated(cluster, e.host)
	for _, s := range begun.Stays {
		e.first = append(e.first, s.IP)
	}
	if err := e.annotate(ctx); err != nil {
		return err
	}
	if e.timeout == 0 {
		_, err := fmt.Fprintf(e.out, "Node %s is annotated; not waiting.\n", e.host)
		return err
	}
	last, said := begun, ""
	err := wait.PollUntilContextTimeout(ctx, e.every, e.timeout, true, func(ctx context.Context) (bool, error) {
		state, err := e.look(ctx)
		if err != nil {
			fmt.Fprintf(e.errOut, "%v; trying again\n", err) // the API server may be away for a moment
			return false, nil
		}
		last = state
		if line := e.progress(&state); line != said {
			said = line
			fmt.Fprintln(e.errOut, line)
		}
		return e.done(&state), nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Interrupted(err):
		return e.late(&last)
	case err != nil:
		return err
	}
	return e.report(&last)
}

// look reads how far it is. Of egress IPs that other hosts still have to configure, those count that this
// one had.
func (e *evacuation) look(ctx context.Context) (egress.Evacuation, error) {
	o, err := readObjects(ctx, e.c)
	if err != nil {
		return egress.Evacuation{}, err
	}
	s, err := newScenario(ctx, e.c, o)
	if err != nil {
		return egress.Evacuation{}, err
	}
	cluster, _, _ := s.clusters()
	state := egress.Evacuated(cluster, e.host)
	state.Waiting = slices.DeleteFunc(state.Waiting, func(ip netip.Addr) bool { return !slices.Contains(e.first, ip) })
	return state, nil
}

func (e *evacuation) done(state *egress.Evacuation) bool {
	if e.away {
		return state.Done()
	}
	return !state.Asked && !state.Moving
}

// progress is one line.
func (e *evacuation) progress(state *egress.Evacuation) string {
	inUse := 0
	for _, s := range state.Stays {
		if s.InUse {
			inUse++
		}
	}
	line := fmt.Sprintf("%s: %d egress IPs, %d in use", e.host, len(state.Stays), inUse)
	switch {
	case state.Asked != e.away:
		return line + "; the controller has not seen the annotation yet"
	case len(state.Waiting) > 0:
		return line + "; not configured on their new hosts yet: " + joined(state.Waiting)
	case state.Moving:
		return line + "; moving"
	}
	return line
}

func joined(ips []netip.Addr) string {
	texts := make([]string, 0, len(ips))
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}

// late is the error when the time is over.
func (e *evacuation) late(state *egress.Evacuation) error {
	why := "the controller still moves egress IPs"
	switch {
	case state.Asked != e.away:
		why = `the controller has not seen the annotation: check that it runs ("kubectl egressip check")`
	case len(state.Waiting) > 0:
		why = fmt.Sprintf(`agents have not configured %s: "kubectl egressip explain" says why`, joined(state.Waiting))
	}
	return fmt.Errorf("%s is not done after %v: %s. What was asked for goes on; wait on by the same command", e.host, e.timeout, why)
}

// report prints what became of it.
func (e *evacuation) report(state *egress.Evacuation) error {
	if !e.away {
		_, err := fmt.Fprintf(e.out, "%s may have egress IPs again; it has %d.\n", e.host, len(state.Stays))
		return err
	}
	if !state.InUse() {
		_, err := fmt.Fprintf(e.out, "No traffic leaves through %s; egress IPs that it still has, which nothing uses: %d.\n", e.host, len(state.Stays))
		return err
	}
	fmt.Fprintf(e.out, "%s is evacuated as far as that is possible. These stay in use:\n", e.host)
	table := newTable(e.out, "EGRESS IP", "GROUP", "WHY")
	for _, s := range state.Stays {
		why := "an administrator listed it for this host: list it for another one, or give the group a second egress IP elsewhere"
		if s.Managed {
			why = "no other host can take it: add one, or capacity"
		}
		if s.InUse {
			table.row(s.IP, s.Group, why)
		}
	}
	return errors.Join(table.flush(""), exitError{exitStays})
}
