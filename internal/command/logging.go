package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// loggingOptions are the flags of each command that logs.
type loggingOptions struct {
	format  string
	verbose int
}

func (o *loggingOptions) add(f *pflag.FlagSet) {
	o.format = "text"
	f.Var(newChoice(&o.format, "text", "json"), "log-format", "`format` of the log: text or json")
	f.IntVarP(&o.verbose, "v", "v", 0, "`verbosity` of the log, 0 to 10")
}

// start routes all logs, those of libraries included, into one structured log
// on standard error.
func (o *loggingOptions) start(cmd *cobra.Command) (context.Context, error) {
	if o.verbose < 0 || o.verbose > 10 {
		return nil, fmt.Errorf("--v %d: give a number from 0 to 10", o.verbose)
	}
	handler := newHandler(cmd.ErrOrStderr(), o.format, o.verbose)
	log := logr.FromSlogHandler(handler)
	slog.SetDefault(slog.New(handler)) // and the standard library's log with it
	ctrl.SetLogger(log)
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	if err := klogFlags.Set("v", strconv.Itoa(o.verbose)); err != nil {
		return nil, fmt.Errorf("set the verbosity of klog: %w", err)
	}
	klog.SetLogger(log)
	return ctrl.LoggerInto(cmd.Context(), log), nil
}

// newHandler makes a handler whose levels are logr's: verbosity n is -n.
func newHandler(w io.Writer, format string, verbose int) slog.Handler {
	o := &slog.HandlerOptions{Level: slog.Level(-verbose)}
	if format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}
