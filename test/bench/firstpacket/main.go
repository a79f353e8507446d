// Command firstpacket measures what becomes of a new pod's first packets, with
// each way of classifying addresses that the agent does not know yet.
//
// On a test bed of its own it makes pods, on nodes other than the egress host,
// whose first process asks the bastion over a new connection every 20 ms, from
// its first moment on. Packets that reach the bastion with another source than
// the namespace's egress IP are leaks; the time from the process's start to the
// first answer is the delay. Modes take turns within one run; pods are made all at
// once, which is more than the machine's processors can start without queueing,
// and one after the other.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	egressIP        = "192.168.7.200"
	egressHost      = "node3"
	egressNamespace = "firstpacket"
	plainNamespace  = "firstpacket-plain"

	settle = time.Minute
	// every and length are the pace of a pod's questions and how long it asks;
	// timeout is how long it waits for an answer.
	every   = 20 * time.Millisecond
	length  = 1500 * time.Millisecond
	timeout = 3 * time.Second
)

// mode is a way of classifying, as values of the chart.
type mode struct {
	name string
	set  []string
	// plain: pods of a namespace without egress IP may wait, too.
	plain bool
}

// pace is how pods are made.
type pace struct {
	name  string
	apart time.Duration
}

func paces() []pace {
	return []pace{{"at once", 0}, {"one by one", 500 * time.Millisecond}}
}

func (m mode) namespaces() []string {
	if m.plain {
		return []string{egressNamespace, plainNamespace}
	}
	return []string{egressNamespace}
}

func modes() []mode {
	return []mode{
		{"open", []string{"strict=false", "agent.criSocket=none"}, false},
		{"open+cri", []string{"strict=false", "agent.criSocket=auto"}, false},
		{"strict", []string{"strict=true", "agent.criSocket=none"}, true},
		{"strict+cri", []string{"strict=true", "agent.criSocket=auto"}, true},
	}
}

func main() { os.Exit(run()) }

func run() int {
	image := flag.String("image", filepath.Join("build", "image.tar"), "docker-archive of the operator, from `make image`")
	chart := flag.String("chart", filepath.Join("charts", "egressip-operator"), "the Helm chart to install")
	prefix := flag.String("prefix", "first", "begins the names of all that the test bed makes")
	rounds := flag.Int("rounds", 3, "how often each mode has its turn")
	perNode := flag.Int("pods", 4, "pods that are made on each of the two nodes, in a round")
	only := flag.String("modes", "", "those to measure, with commas between; all by default")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	b := &bench{out: os.Stdout, chart: *chart, perNode: *perNode, totals: map[string]*total{}}
	for _, m := range modes() {
		if *only == "" || slices.Contains(strings.Split(*only, ","), m.name) {
			b.modes = append(b.modes, m)
		}
	}
	if err := b.play(ctx, testbed.Options{Prefix: *prefix, Images: []string{*image}, Progress: os.Stderr}, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type bench struct {
	*testbed.Cluster
	out     io.Writer
	chart   string
	modes   []mode
	perNode int
	totals  map[string]*total // by key
}

// total is what was seen in all rounds of a mode, in one namespace.
type total struct {
	pods int
	// leaky pods had an answer to a wrong source.
	leaky int
	// packets reached the bastion; wrong of them with a wrong source.
	packets, wrong int
	// first are the delays from the process's start to the first answer of
	// any connection, and opening those of the first connection: a lost SYN is
	// sent again after a second. One each for a pod.
	first, opening []time.Duration
	silent         int // pods that never had an answer
}

func (b *bench) play(ctx context.Context, o testbed.Options, rounds int) (err error) {
	b.Cluster, err = testbed.Up(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, b.Down(downCtx))
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "# %s, %d processors, %d rounds of %d pods on each of 2 nodes; a connection every %v\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), rounds, b.perNode, every)
	for round := range rounds {
		for _, m := range b.modes {
			if err := b.choose(ctx, m); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			for _, namespace := range m.namespaces() {
				for _, p := range paces() {
					if err := b.measure(ctx, m, namespace, p, round); err != nil {
						return fmt.Errorf("%s, %s: %w", m.name, namespace, err)
					}
				}
			}
		}
	}
	b.summary()
	return nil
}

// prepare installs the operator, and gives the one namespace its egress IP.
func (b *bench) prepare(ctx context.Context) error {
	if err := b.InstallChart(ctx, b.chart); err != nil {
		return err
	}
	for _, namespace := range []string{egressNamespace, plainNamespace} {
		// It stays, and shows when the kernel of its node is ready.
		if _, err := b.Apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: canary, namespace: %[1]s, labels: {app: canary}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers:
  - {name: client, image: %[2]q, imagePullPolicy: Never, args: [pause]}
`, namespace, testbed.TrafficImage)); err != nil {
			return err
		}
		if _, err := b.AwaitPods(ctx, namespace, "app=canary", 1); err != nil {
			return err
		}
	}
	for _, object := range []string{"netnamespace/" + egressNamespace, "hostsubnet/" + egressHost} {
		if err := testbed.Poll(ctx, settle, func() error {
			_, err := b.Kubectl(ctx, "patch", object, "--type=merge", "-p", fmt.Sprintf(`{"egressIPs": [%q]}`, egressIP))
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// choose restarts the agents in a mode, and waits until they work.
func (b *bench) choose(ctx context.Context, m mode) error {
	if err := b.InstallChart(ctx, b.chart, m.set...); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "-n", testbed.OperatorNamespace, "rollout", "status", "daemonset/egressip-agent", "--timeout=2m"); err != nil {
		return err
	}
	return testbed.Poll(ctx, settle, func() error {
		out, err := b.PodExec(ctx, egressNamespace, "canary", "/traffic", "get", "-timeout", "700ms",
			fmt.Sprintf("http://%s:%d", testbed.BastionIP, testbed.BastionPort))
		if err == nil && !strings.Contains(out, "saw "+egressIP+":") {
			err = fmt.Errorf("seen as %s", out)
		}
		return err
	})
}

// measure makes pods in a namespace, and adds up what they and the bastion saw.
func (b *bench) measure(ctx context.Context, m mode, namespace string, p pace, round int) error {
	arrived, err := b.Capture(ctx, testbed.Bastion, "eth0", func(p testbed.Packet) bool { return !p.Outgoing && p.ARP == 0 })
	if err != nil {
		return err
	}
	names, err := b.pods(ctx, namespace, p.apart)
	if err != nil {
		return err
	}
	packets, err := arrived.Stop()
	if err != nil {
		return err
	}
	key := key(m, namespace, p)
	sum := b.totals[key]
	if sum == nil {
		sum = &total{}
		b.totals[key] = sum
	}
	before := *sum
	for _, p := range packets {
		sum.packets++
		if namespace == egressNamespace && p.Source.Addr().String() != egressIP {
			sum.wrong++
		}
	}
	for _, name := range names {
		if err := b.read(ctx, namespace, name, sum); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.out, "round %d, %s: %d packets, %d with a wrong source, from %d of %d pods; first answer after %v\n",
		round+1, key, sum.packets-before.packets, sum.wrong-before.wrong, sum.leaky-before.leaky, sum.pods-before.pods,
		millis(sum.first[len(before.first):]))
	return b.remove(ctx, namespace)
}

// key says what was measured.
func key(m mode, namespace string, p pace) string {
	return fmt.Sprintf("%-10s %-18s %-10s", m.name, namespace, p.name)
}

// pods makes the pods, so far apart, and returns when all of them have ended.
func (b *bench) pods(ctx context.Context, namespace string, apart time.Duration) ([]string, error) {
	var manifest strings.Builder
	var names []string
	for i := range b.perNode {
		for _, node := range []string{"node1", "node2"} {
			name := fmt.Sprintf("%s-%d", node, i)
			names = append(names, name)
			fmt.Fprintf(&manifest, `---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app: first}}
spec:
  nodeName: %[3]s
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: client
    image: %[4]q
    imagePullPolicy: Never
    args: [watch, "-every", "%[5]v", "-for", "%[6]v", "-timeout", "%[9]v", "tcp://%[7]s:%[8]d"]
`, name, namespace, node, testbed.TrafficImage, every, length, testbed.BastionIP, testbed.BastionPort+1, timeout)
			if apart == 0 {
				continue
			}
			if _, err := b.Apply(ctx, manifest.String()); err != nil {
				return nil, err
			}
			manifest.Reset()
			time.Sleep(apart) // the pace itself; nothing relies on it
		}
	}
	if manifest.Len() > 0 {
		if _, err := b.Apply(ctx, manifest.String()); err != nil {
			return nil, err
		}
	}
	return names, testbed.Poll(ctx, 2*settle, func() error {
		out, err := b.Kubectl(ctx, "-n", namespace, "get", "pods", "-l", "app=first", "-o", "jsonpath={.items[*].status.phase}")
		if err == nil && strings.Count(out, "Succeeded")+strings.Count(out, "Failed") != len(names) {
			err = fmt.Errorf("the pods are %s", out)
		}
		return err
	})
}

// read adds what one pod saw.
func (b *bench) read(ctx context.Context, namespace, name string, sum *total) error {
	out, err := b.Kubectl(ctx, "-n", namespace, "logs", name)
	if err != nil {
		return err
	}
	type answer struct {
		At    time.Time
		Ms    float64
		Saw   string
		Error string
	}
	var began, firstEnd time.Time
	var opening time.Duration
	leaky := false
	for line := range strings.Lines(out) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return fmt.Errorf("pod %s says %q: %w", name, line, err)
		}
		took := time.Duration(a.Ms * float64(time.Millisecond))
		if began.IsZero() || a.At.Before(began) {
			began, opening = a.At, took
		}
		if a.Error != "" {
			continue
		}
		if end := a.At.Add(took); firstEnd.IsZero() || end.Before(firstEnd) {
			firstEnd = end
		}
		leaky = leaky || namespace == egressNamespace && !strings.HasPrefix(a.Saw, egressIP+":")
	}
	sum.pods++
	if leaky {
		sum.leaky++
	}
	if firstEnd.IsZero() {
		sum.silent++
		return nil
	}
	sum.first = append(sum.first, firstEnd.Sub(began))
	sum.opening = append(sum.opening, opening)
	return nil
}

// remove returns when the pods of a measurement are gone.
func (b *bench) remove(ctx context.Context, namespace string) error {
	_, err := b.Kubectl(ctx, "-n", namespace, "delete", "pods", "-l", "app=first", "--wait", "--timeout=1m")
	return err
}

// summary prints a line for each measurement.
func (b *bench) summary() {
	fmt.Fprintf(b.out, "\n%-10s %-18s %-10s %5s %6s %8s %7s %7s   %-32s %s\n", "mode", "namespace", "made", "pods", "leaky", "packets", "wrong", "silent",
		"first answer ms: median p99 max", "first connection ms: median p99 max")
	for _, m := range b.modes {
		for _, namespace := range m.namespaces() {
			for _, p := range paces() {
				s := b.totals[key(m, namespace, p)]
				fmt.Fprintf(b.out, "%s %5d %6d %8d %7d %7d   %-32s %s\n", key(m, namespace, p), s.pods, s.leaky, s.packets, s.wrong, s.silent,
					ranks(s.first), ranks(s.opening))
			}
		}
	}
}

func ranks(delays []time.Duration) string {
	if len(delays) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(delays))
	at := func(percent int) float64 { return ms(sorted[min(len(sorted)*percent/100, len(sorted)-1)]) }
	return fmt.Sprintf("%.1f %.1f %.1f", at(50), at(99), at(100))
}

func millis(delays []time.Duration) string {
	texts := make([]string, len(delays))
	for i, d := range delays {
		texts[i] = fmt.Sprintf("%.1f", ms(d))
	}
	return strings.Join(texts, " ") + " ms"
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
