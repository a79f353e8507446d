// Command paths measures what connections of a pod cost on their way out of the cluster, beside
// what the kernel does by itself on the same way.
//
// Six clusters stand side by side, each in network namespaces of its own: two nodes, a pod, and a
// server outside. In each, the pod's packets leave another way:
//
//	local    plain      the pod's node masquerades: what a cluster does without us
//	         nftables   the pod's node has the egress IP, rules in a table of our own
//	         iptables   the same, rules among those of iptables
//	remote   bare       a VXLAN device leads to the other node, which has one rule of SNAT: the
//	                    least that can be done about an egress IP of another node
//	         nftables   our overlay leads to the other node, which has the egress IP
//	         iptables   the same
//
// They take turns in each round, the first first in one and last in the next, so that what else the
// machine does meets them all. A ratio is that of a round. The dataplane is in the kernel as an
// agent leaves it; no agent runs beside it.
//
//	go run ./test/bench/paths [-rounds 30] [-each 400ms] [-o results.json]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/test/bench/figures"
)

// inside is in the environment of the process that has namespaces of its own.
const inside = "EGRESSIP_BENCH_INSIDE"

func main() {
	rounds := flag.Int("rounds", 30, "rounds of each measurement; all ways take a turn in each")
	each := flag.Duration("each", 400*time.Millisecond, "time of a turn")
	out := flag.String("o", "", "file for the figures, as JSON")
	set := flag.String("set", "ways", "what to compare: ways, or growth: the same way beside more and more other pods")
	only := flag.String("only", "", "take only the turns that this regular expression matches, such as \"local, plain: TCP, 1 stream\"")
	put := flag.String("put", "", "put the dataplane of this way into the kernel of this network namespace, and end")
	node := flag.Int("node", 0, "with -put: the node, 1 or 2")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	var err error
	switch {
	case *put != "":
		err = putHere(ctx, *put, *node)
	case os.Getenv(inside) == "":
		err = apart(ctx)
	default:
		var p plan
		if p, err = newPlan(*set, *only, *rounds, *each); err == nil {
			err = run(ctx, p, *out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "paths:", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

// passesOf are what passes took with the states of worlds that have ours.
func passesOf(worlds []*world) []figures.Series {
	list := []figures.Series{
		{Name: "first pass, which puts all into the kernel", Unit: "ms", LessIsBetter: true},
		{Name: "pass with one pod more, or less, processor time", Unit: "ms", LessIsBetter: true},
		{Name: "pass in which nothing changes, processor time", Unit: "ms", LessIsBetter: true},
	}
	for i := range list {
		list[i].Values = make(map[string][]float64)
		for _, w := range worlds {
			if w.way.backend != "" {
				list[i].Values[w.way.name] = []float64{[]float64{w.passes.First, w.passes.OnePodMore, w.passes.Idle}[i]}
			}
		}
		list[i].Print(os.Stdout)
	}
	return list
}

// apart runs this program with namespaces of its own, which end with it.
func apart(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the child dies with the thread that started it
	return cmd.Run()
}

// plan is what is measured, and how often.
type plan struct {
	ways   []way
	turns  *regexp.Regexp // of a way and a measurement, as WAY: MEASUREMENT
	rounds int
	each   time.Duration
}

func newPlan(set, only string, rounds int, each time.Duration) (plan, error) {
	p := plan{rounds: rounds, each: each}
	var known bool
	if p.ways, known = sets()[set]; !known {
		return p, fmt.Errorf("-set: there is no %q", set)
	}
	var err error
	if p.turns, err = regexp.Compile(only); err != nil {
		return p, fmt.Errorf("-only: %w", err)
	}
	p.ways = slices.DeleteFunc(p.ways, func(y way) bool {
		return !slices.ContainsFunc(measurements(), func(m measurement) bool { return p.has(y, m) })
	})
	return p, nil
}

func (p plan) has(y way, m measurement) bool { return p.turns.MatchString(y.name + ": " + m.name) }

func run(ctx context.Context, p plan, out string) error {
	machine, err := figures.ThisMachine()
	if err != nil {
		return err
	}
	if err := makeRoom(ctx); err != nil {
		return err
	}
	var worlds []*world
	for _, y := range p.ways {
		w, err := newWorld(ctx, y)
		if err != nil {
			return fmt.Errorf("%s: %w", y.name, err)
		}
		worlds = append(worlds, w)
	}
	report := figures.Report{Machine: machine, Began: time.Now().UTC().Truncate(time.Second)}
	for _, m := range measurements() {
		s, err := p.measure(ctx, worlds, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if len(s.Values) > 0 {
			report.Series = append(report.Series, s)
			s.Print(os.Stdout)
		}
	}
	report.Series = append(report.Series, passesOf(worlds)...)
	var errs []error
	for _, w := range worlds { // a way that was measured was the right one
		errs = append(errs, w.check())
	}
	if err := errors.Join(errs...); err != nil || out == "" {
		return err
	}
	encoded, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(encoded, '\n'), 0o600)
}

// measure has the ways take turns.
func (p plan) measure(ctx context.Context, worlds []*world, m measurement) (figures.Series, error) {
	s := figures.Series{Name: m.name, Unit: m.unit, LessIsBetter: m.lessIsBetter, Values: make(map[string][]float64)}
	order := slices.DeleteFunc(slices.Clone(worlds), func(w *world) bool { return !p.has(w.way, m) })
	for range p.rounds {
		for _, w := range order {
			value, err := m.take(ctx, w, p.each)
			if err != nil {
				return s, fmt.Errorf("%s: %w", w.way.name, err)
			}
			s.Values[w.way.name] = append(s.Values[w.way.name], value)
		}
		slices.Reverse(order)
	}
	for _, y := range p.ways {
		if y.beside != "" && len(s.Values[y.name]) > 0 && len(s.Values[y.beside]) > 0 {
			s.Ratios = append(s.Ratios, figures.RatioOf(s, y.name, y.beside))
		}
	}
	return s, nil
}
