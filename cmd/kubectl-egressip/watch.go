package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/wait"
)

// watch prints what render returns whenever it is another than before, until ctx ends. An error is
// printed as well, once: the API server may be away for a while.
func watch(ctx context.Context, out io.Writer, o statusOptions, render func(context.Context) (string, error)) error {
	last := ""
	err := wait.PollUntilContextCancel(ctx, o.every, true, func(ctx context.Context) (_ bool, err error) {
		if text := textOf(render(ctx)); text != last && ctx.Err() == nil {
			last = text
			_, err = fmt.Fprintf(out, "%s\n%s\n", time.Now().UTC().Format(time.RFC3339), o.colored(text))
		}
		return false, err
	})
	if ctx.Err() == nil {
		return err
	}
	return nil // an interruption is how it ends
}

// textOf is what is printed of an answer.
func textOf(text string, err error) string {
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	return text
}

// paints reports whether colours are wanted: on a terminal, unless NO_COLOR is set.
func paints(out io.Writer) bool {
	f, ok := out.(*os.File)
	_, unwanted := os.LookupEnv("NO_COLOR")
	return ok && !unwanted && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// The colours of ANSI terminals.
const (
	red     = "\x1b[31m"
	green   = "\x1b[32m"
	yellow  = "\x1b[33m"
	noColor = "\x1b[0m"
)

// colored paints the states in a table, if colours are wanted. Cells are told by the blanks around
// them, and states of egress IPs by their brackets, so that a host called "no" stays as it is.
func (o statusOptions) colored(text string) string {
	if !o.paint || *o.format == formatJSON || *o.format == formatYAML {
		return text
	}
	for _, c := range []struct{ color, cells, states string }{
		{red, "False|Dropped|ApplyFailed", "HostOffline|Unassigned|Conflict|Invalid"},
		{yellow, "Unknown|NoAgent", "Standby"},
		{green, "True|Ready|Assigned", "Active"},
	} {
		text = regexp.MustCompile(`(?m)( {3})(`+c.cells+`)( {3}|$)`).ReplaceAllString(text, "${1}"+c.color+"${2}"+noColor+"${3}")
		text = regexp.MustCompile(`\((`+c.states+`)\)`).ReplaceAllString(text, "("+c.color+"${1}"+noColor+")")
	}
	return text
}
