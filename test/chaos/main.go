// Command chaos breaks a cluster on this machine at random, in every way that it
// knows. Meanwhile pods of several namespaces send to a server outside the cluster
// without a pause, and the source of every packet that arrives there is checked.
//
// The same seed breaks the same things in the same order. The run fails, and exits
// with 1, if a packet has a source that its namespace must not have, if two machines
// answer ARP for one egress IP of IPv4 for longer than a bound, or if the cluster does not
// recover from a fault. At the end it prints, for each kind of fault, how long pods
// that were not on the broken node were without new connections.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	o := options{out: os.Stdout}
	flag.Uint64Var(&o.seed, "seed", rand.Uint64()%1_000_000, "of what breaks, and when; random by default")
	flag.DurationVar(&o.length, "for", 30*time.Minute, "how long faults are made")
	flag.DurationVar(&o.every, "every", 40*time.Millisecond, "pause between two connections, and two datagrams, of a pod")
	flag.DurationVar(&o.twoOwners, "two-owners", 2*time.Second, "how long two machines may answer for one address")
	flag.BoolVar(&o.families.ipv6, "dual-stack", false, "nodes, pods and egress IPs of both families; each pod sends by both, half as often by each")
	ipv6Only := flag.Bool("ipv6-only", false, "nodes, pods and egress IPs of IPv6 alone; nobody watches then who answers for egress IPs")
	flag.DurationVar(&o.within, "within", 0, "end, and keep what the operator says, after an outage longer than this by a fault that has no bound of its own; 0 for never")
	flag.IntVar(&o.stretch, "stretch", 1, "how many times longer each fault lasts, such as 30 for minutes")
	flag.StringVar(&o.only, "only", "", "make faults of this kind alone")
	flag.StringVar(&o.image, "image", filepath.Join("build", "image.tar"), "docker-archive of the operator, from `make image`")
	flag.StringVar(&o.chart, "chart", filepath.Join("charts", "egressip-operator"), "the Helm chart to install")
	flag.StringVar(&o.report, "report", filepath.Join("build", "chaos.txt"), "file for the table")
	flag.Parse()
	o.families.ipv4, o.families.ipv6 = !*ipv6Only, o.families.ipv6 || *ipv6Only
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := play(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: seed %d: %v\n", o.seed, err)
		return 1
	}
	return 0
}

// options of a run.
type options struct {
	seed uint64
	// length is how long faults are made; faults ends it sooner, if not 0.
	length    time.Duration
	faults    int
	every     time.Duration
	twoOwners time.Duration
	only      string
	last      string // the fault that ends the run, in addition to those drawn
	stretch   int
	within    time.Duration
	families  families
	prefix    string
	image     string
	chart     string
	report    string
	out       io.Writer
}
