package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/internal/record"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// historyPage is how many periods are asked for at a time.
const historyPage = "5000"

// historyReport is what the record has, as -o json prints it.
type historyReport struct {
	// Rows are uses and gaps, in order of time. They are left out if one moment is asked for.
	Rows []record.Row `json:"rows,omitempty"`
	// Moment is what is known of one moment.
	Moment *record.Moment `json:"moment,omitempty"`
	// Notes say what the record lacks.
	Notes []string `json:"notes,omitempty"`
}

// historyCommand returns the command that shows who had which egress IP.
func historyCommand(out, errOut io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	var since, until, at string
	cmd := &cobra.Command{
		Use:   "history [IP | NAMESPACE | egressip/NAME]",
		Short: "Show who had an egress IP, from which host, and when",
		Long: `Show who had an egress IP, from which host, and when: what the controllers have recorded. With --at it says who
had it at that moment.

A time in which no controller recorded is a row of its own, "not recorded": before the record begins, between two
controllers, and after a crash. What was so in such a time is not known. "<=" is before a time at which a use was found
that had begun earlier, and ">=" before one at which a use went on that was not recorded any further.

The record is kept on a volume if the chart's controller.record.enabled is true. Otherwise it is in the memory of the
controller that leads, and has what happened since that began to lead.

It is read from the controllers' pods through the API server. You need the rights to list pods, to create
pods/portforward, and to create serviceaccounts/token of egressip-reader, in the operator's namespace.

Times are such as "2026-11-24 14:00" in your time zone, 2026-11-24T14:00:00Z, 14:00 for today, or 90m, 24h or 7d for so
long ago. They are printed in UTC.`,
		Example: `  kubectl egressip history 192.168.7.200 --since 7d
  kubectl egressip history 192.168.7.200 --at "2026-11-24 14:00"
  kubectl egressip history shop -o wide
  kubectl egressip history --at 2h`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completion(config, explainable),
	}
	f := addFormat(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML)
	cmd.Flags().StringVar(&since, "since", "", "show what was so after this `time`; all by default")
	cmd.Flags().StringVar(&until, "until", "", "show what was so before this `time`; now by default")
	cmd.Flags().StringVar(&at, "at", "", "show what was so at this `time` alone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		now := time.Now()
		h := history{now: now}
		var err error
		if h.query, err = historyQuery(args, since, until, now); err != nil {
			return err
		}
		if at != "" {
			if since != "" || until != "" {
				return errors.New("--at is one moment: leave --since and --until out")
			}
			if h.at, err = parseMoment("--at", at, now); err != nil {
				return err
			}
			if h.at.After(now) {
				return fmt.Errorf("--at %s: that is still to come", at)
			}
		}
		c, err := newClient(config)
		if err != nil {
			return err
		}
		r, err := newReacher(config)
		if err != nil {
			return err
		}
		if err := h.read(cmd.Context(), c, r); err != nil {
			return err
		}
		report := h.report()
		if *f == formatTable || *f == formatWide {
			for _, note := range report.Notes {
				fmt.Fprintf(errOut, "note: %s\n", note)
			}
		}
		return f.print(out, report, func() error { return h.print(out, report, *f == formatWide) })
	}
	return cmd
}

// historyQuery is what is asked for.
func historyQuery(args []string, since, until string, now time.Time) (q record.Query, err error) {
	if len(args) > 0 {
		ip, parseErr := netip.ParseAddr(strings.TrimPrefix(args[0], "ip/"))
		switch {
		case parseErr == nil:
			q.IP = ip.Unmap().String()
		case strings.HasPrefix(args[0], "ip/"):
			return q, fmt.Errorf("%s: %w", args[0], parseErr)
		default:
			q.Group = groupOf(args[0])
		}
	}
	if since != "" {
		if q.From, err = parseMoment("--since", since, now); err != nil {
			return q, err
		}
	}
	if until != "" {
		if q.To, err = parseMoment("--until", until, now); err != nil {
			return q, err
		}
	}
	if !q.To.IsZero() && q.To.Before(q.From) {
		return q, fmt.Errorf("--until %s is before --since %s", until, since)
	}
	return q, nil
}

// parseMoment reads a time, which may be in the user's zone, or so long before now.
func parseMoment(flag, written string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(written, "d"); ok {
		var n int
		if _, err := fmt.Sscanf(days+" ", "%d ", &n); err == nil && n >= 0 && fmt.Sprint(n) == days {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if ago, err := time.ParseDuration(written); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if at, err := time.ParseInLocation(layout, written, now.Location()); err == nil {
			return at, nil
		}
	}
	if clock, err := time.ParseInLocation("15:04", written, now.Location()); err == nil {
		return time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), 0, 0, now.Location()), nil
	}
	if day, err := time.ParseInLocation("2006-01-02", written, now.Location()); err == nil {
		if flag == "--at" {
			return time.Time{}, fmt.Errorf("--at %s: give a time of that day, such as %q", written, written+" 14:00")
		}
		return day, nil
	}
	return time.Time{}, fmt.Errorf("%s %s: give a time such as %q, %s, 14:00, or 90m, 24h or 7d for so long ago", flag, written, "2026-11-24 14:00", "2026-11-24T14:00:00Z")
}

// history is what the controllers know of what is asked for.
type history struct {
	query record.Query
	// at is the one moment that is asked for; zero for none. now is when all is printed.
	at, now  time.Time
	segments []record.Segment
	notes    []string
}

// read asks all controllers. One that answers is enough.
func (h *history) read(ctx context.Context, c client.Reader, r *reacher) error {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, ours(), client.MatchingLabels{labelComponent: componentController}); err != nil {
		return fmt.Errorf("list the pods of controllers: %w", err)
	}
	if len(pods.Items) == 0 {
		return fmt.Errorf("there is no pod of a controller, with labels %s=%s and %s=%s: the record is read from controllers", labelName, ourName, labelComponent, componentController)
	}
	var answers [][]record.Segment
	var errs []error
	var durable, leading bool
	for i := range pods.Items {
		a, err := h.ask(ctx, r, &pods.Items[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		answers = append(answers, a.Segments)
		durable = durable || a.Durable
		for _, s := range a.Segments {
			leading = leading || s.Live
		}
		if a.Problem != "" {
			h.notes = append(h.notes, fmt.Sprintf("the controller on %s cannot write its volume, and its record is in memory: %s", a.Writer, a.Problem))
		}
	}
	if len(answers) == 0 {
		return errors.Join(errs...)
	}
	for _, err := range errs {
		h.notes = append(h.notes, fmt.Sprintf("what one controller alone recorded looks like a gap: %v", err))
	}
	if !durable {
		h.notes = append(h.notes, "the record is in the leader's memory alone, and begins with its lead: the chart's controller.record.enabled keeps it on a volume")
	}
	if !leading {
		h.notes = append(h.notes, "none of the controllers that answered leads: nobody records, or the one that does was not reached")
	}
	h.segments = record.Merge(answers...)
	return nil
}

// ask gets all pages of what one controller knows.
func (h *history) ask(ctx context.Context, r *reacher, pod *corev1.Pod) (all record.Answer, err error) {
	q := h.query
	if !h.at.IsZero() && q.IP == "" && q.Group == "" {
		q.From, q.To = h.at, h.at
	}
	values := q.Values()
	values.Set("limit", historyPage)
	for first := true; first || all.Next != ""; first = false {
		text, err := r.get(ctx, pod, record.Path+"?"+values.Encode())
		if err != nil {
			return all, err
		}
		var page record.Answer
		if err := json.Unmarshal(text, &page); err != nil {
			return all, fmt.Errorf("read %s of pod %s/%s: it is no record: %w", record.Path, pod.Namespace, pod.Name, err)
		}
		if first {
			all.Writer, all.Durable = page.Writer, page.Durable
		}
		all.Join(page)
		values.Set("after", all.Next)
	}
	return all, nil
}

func (h *history) report() historyReport {
	report := historyReport{Notes: h.notes}
	if h.at.IsZero() {
		report.Rows = record.Rows(h.segments, h.query, h.now)
		return report
	}
	m := record.At(h.segments, h.query, h.at, h.now)
	report.Moment = &m
	return report
}

// print prints the report for people.
func (h *history) print(w io.Writer, report historyReport, wide bool) error {
	m := report.Moment
	if m == nil {
		return historyTable(w, report.Rows, wide)
	}
	switch {
	case !m.Known:
		return h.printUnknown(w, m, wide)
	case len(m.Uses) == 0 && h.query.IP == "" && h.query.Group == "":
		_, err := fmt.Fprintf(w, "At %s no egress IP was in use.\n", stamp(m.At))
		return err
	case len(m.Uses) == 0:
		_, err := fmt.Fprintf(w, "At %s %s\n", stamp(m.At), h.nobody())
		return err
	case h.query.IP == "":
		return historyTable(w, m.Uses, wide)
	}
	for i := range m.Uses {
		u := &m.Uses[i]
		from, to := span(u)
		if _, err := fmt.Fprintf(w, "At %s %s had %s (netid %d), from host %s: since %s, until %s.\n", stamp(m.At), egress.Title(u.Group), u.IP, u.NetID, u.Host, from, to); err != nil {
			return err
		}
	}
	return nil
}

// nobody says that nothing was in use of what is asked for.
func (h *history) nobody() string {
	if h.query.IP != "" {
		return "nobody had " + h.query.IP + "."
	}
	return egress.Title(h.query.Group) + " had no egress IP."
}

// printUnknown says what is known around a moment of which nothing is.
func (h *history) printUnknown(w io.Writer, m *record.Moment, wide bool) error {
	what := cmp.Or(h.query.IP, h.query.Group, "an egress IP")
	from, to := span(m.Gap)
	if m.Gap.From.IsZero() {
		_, err := fmt.Fprintf(w, "It is not known who had %s at %s: the record begins at %s.\n", what, stamp(m.At), to)
		return err
	}
	if _, err := fmt.Fprintf(w, "It is not known who had %s at %s: nobody recorded from %s to %s. Before and after that:\n\n", what, stamp(m.At), from, to); err != nil {
		return err
	}
	return historyTable(w, m.Uses, wide)
}

// historyTable prints rows.
func historyTable(w io.Writer, rows []record.Row, wide bool) error {
	header := []any{"FROM", "UNTIL", "EGRESS IP", "GROUP", "NETID", "HOST"}
	if wide {
		header = append(header, "UID", "BEGAN", "ENDED", "RECORDED BY")
	}
	t := newTable(w, header...)
	for i := range rows {
		r := &rows[i]
		from, to := span(r)
		cells := []any{from, to, r.IP, r.Group, r.NetID, r.Host}
		more := []any{r.UID, cmp.Or(r.Began, "-"), cmp.Or(r.Ended, "-"), cmp.Or(r.Writer, "-")}
		if r.Gap {
			cells = []any{from, to, "-", "not recorded", "-", "-"}
			more = []any{"-", gapReason(r), "-", "-"}
		}
		if wide {
			cells = append(cells, more...)
		}
		t.row(cells...)
	}
	return t.flush("Nothing is recorded of that.")
}

// gapReason says how a gap began.
func gapReason(r *record.Row) string {
	switch {
	case r.Writer == "":
		return "-"
	case r.Stopped:
		return r.Writer + " stopped"
	}
	return r.Writer + " was gone"
}

// span is from when until when a row is so, in words.
func span(r *record.Row) (from, to string) {
	from, to = stamp(r.From), stamp(r.To)
	switch {
	case r.From.IsZero():
		from = "-"
	case r.Found:
		from = "<= " + from
	}
	switch {
	case r.Gap && r.Open, r.Open && r.Live:
		to = "now"
	case r.Open:
		to = ">= " + to
	}
	return from, to
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }
