package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
)

// The exit codes of check. 1 is an error, as of all commands.
const (
	exitWarnings = 2
	exitErrors   = 3
)

// severity is how bad a finding is.
type severity string

// The severities: an error means that somebody's traffic does not leave as it should, or would not after
// the next change; a warning that something is weaker than it could be, or is not known.
const (
	isError   severity = "Error"
	isWarning severity = "Warning"
)

// finding is something that is wrong with the installation.
type finding struct {
	Severity severity `json:"severity"`
	// Code is a word for programs.
	Code   string `json:"code"`
	Object string `json:"object"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

// findings collects them.
type findings []finding

func (f *findings) add(s severity, code, object, remedy, format string, args ...any) {
	*f = append(*f, finding{Severity: s, Code: code, Object: object, Remedy: remedy, Reason: fmt.Sprintf(format, args...)})
}

// worst returns the exit code as an error; nil for 0.
func (f findings) worst() error {
	code := 0
	for _, found := range f {
		if found.Severity == isError {
			return exitError{exitErrors}
		}
		code = exitWarnings
	}
	if code == 0 {
		return nil
	}
	return exitError{code}
}

// checkCommand returns the command that looks for what is wrong with the installation.
func checkCommand(out io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what is wrong with the installation, with reason and remedy",
		Long: `Look for what is wrong with the installation, by what the API server has: definitions, controller and
agents, hosts, and what they report. Each finding has the object, the reason and the remedy. Nothing is
changed. What may not be read is a finding itself (NotReadable).

Whether the leader renews its Lease, and whether clocks differ, is seen by the Lease itself: that takes
up to some seconds if it does not.

Exit codes: 0 nothing found, 2 warnings, 3 errors, 1 the check itself failed.`,
		Example: `  kubectl egressip check
  kubectl egressip check -o json`,
		Args: cobra.NoArgs,
	}
	f := addFormat(cmd.Flags(), formatTable, formatJSON, formatYAML)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(config)
		if err != nil {
			return err
		}
		i, err := readInstallation(cmd.Context(), c, 100*time.Millisecond)
		if err != nil {
			return err
		}
		found := i.check()
		if err := f.print(out, found, func() error { return found.print(out) }); err != nil {
			return err
		}
		return found.worst()
	}
	return cmd
}

// check looks for everything.
func (i *installation) check() findings {
	found := slices.Clone(i.unread)
	for _, rule := range []func(*findings){
		i.checkDefinitions, i.checkController, i.checkLease, i.checkClocks, i.checkAgents, i.checkVersions,
		i.checkNodes, i.checkHosts, i.checkObjects, i.checkGroups, i.checkEvents,
	} {
		rule(&found)
	}
	if found == nil {
		return findings{} // for programs: an empty list
	}
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Object, b.Object))
	})
	return found
}

// print writes them for people.
func (f findings) print(w io.Writer) error {
	counts := make(map[severity]int)
	for _, found := range f {
		counts[found.Severity]++
		if _, err := fmt.Fprintf(w, "%s %s: %s\n    %s\n    To do: %s\n", found.Severity, found.Code, found.Object, found.Reason, found.Remedy); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "Errors: %d, warnings: %d\n", counts[isError], counts[isWarning])
	return err
}
