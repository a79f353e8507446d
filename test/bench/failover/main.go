// Command failover measures how long a namespace is without new connections when
// the host of its egress IP loses power.
//
// It brings a cluster of four nodes up on this machine, with a client on the
// first and egress hosts on the others, and cuts the power of the host whose
// egress IP is in use, again and again; the host boots and is back before the
// next cut. The client opens a connection to a server outside the cluster every
// 10 ms. The outage is the longest time between the beginnings of two connections
// that were answered. Each line of the output is one cut; the last lines sum up.
// With -ipv6, nodes and pods have both families, and egress IPs, connections and so what is
// measured are of IPv6.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	namespace = "bench"
	client    = "node1"
	// probePort is the port on which agents answer probes.
	probePort = 9788
	// every is the pause between two connections, around the time that the
	// measurement takes.
	every    = 10 * time.Millisecond
	around   = 6 * time.Second
	patience = 3 * time.Minute
	// nodeGrace is how long Kubernetes gives a silent node, as by default: so
	// long that it has no part in what is measured.
	nodeGrace = 40 * time.Second
)

func main() { os.Exit(run()) }

func run() int {
	kills := flag.Int("kills", 50, "power cuts of each kind")
	ipv6 := flag.Bool("ipv6", false, "measure with egress IPs of IPv6")
	only := flag.String("only", "", "make cuts of this kind alone: ordered or automatic")
	image := flag.String("image", filepath.Join("build", "image.tar"), "docker-archive of the operator, from `make image`")
	chart := flag.String("chart", filepath.Join("charts", "egressip-operator"), "the Helm chart to install")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{out: os.Stdout, family: families()[*ipv6]}
	err := b.measure(ctx, *image, *chart, *only, *kills)
	if b.cluster != nil {
		downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, b.cluster.Down(downCtx))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "failover: %v\n", err)
		return 1
	}
	return 0
}

type bench struct {
	cluster *testbed.Cluster
	out     io.Writer
	pod     testbed.Pod
	family  family
}

// family is that of the egress IPs.
type family struct {
	ipv6 bool
	// ips are the egress IPs, in network; server is the bastion's address.
	ips             []string
	network, server string
}

// families are those of IPv4 and IPv6.
func families() map[bool]family {
	return map[bool]family{
		false: {ips: []string{"192.168.7.200", "192.168.7.201", "192.168.7.202"}, network: "192.168.7.200/29", server: testbed.BastionIP},
		true: {
			ipv6: true, ips: []string{"fd00:7::200", "fd00:7::201", "fd00:7::202"}, network: "fd00:7::200/125", server: testbed.BastionIPv6,
		},
	}
}

// echo is the server that the connections go to, for the traffic client.
func (f family) echo() string {
	return "tcp://" + net.JoinHostPort(f.server, strconv.Itoa(testbed.BastionEchoPort))
}

// hosts are the nodes that may host egress IPs.
func hosts() []string { return []string{"node2", "node3", "node4"} }

func (b *bench) measure(ctx context.Context, image, chart, only string, kills int) error {
	var err error
	b.cluster, err = testbed.Up(ctx, testbed.Options{
		Prefix: "bench", Nodes: 4, Images: []string{image}, Progress: os.Stderr, NodeMonitorGrace: nodeGrace,
		DualStack: b.family.ipv6,
	})
	if err != nil {
		return err
	}
	// One controller, on the node that stays: what is measured is the death of
	// an egress host, not the choice of a new leader.
	err = b.cluster.InstallChart(ctx, chart, "controller.replicas=1", `controller.nodeSelector.kubernetes\.io/hostname=`+client)
	if err != nil {
		return err
	}
	if err := b.deploy(ctx); err != nil {
		return err
	}
	for _, kind := range []struct {
		name  string
		setUp func(context.Context) error
	}{
		{"ordered", b.ordered},
		{"automatic", b.automatic},
	} {
		if only != "" && only != kind.name {
			continue
		}
		if err := kind.setUp(ctx); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		if err := b.series(ctx, kind.name, kills); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return nil
}

func (b *bench) deploy(ctx context.Context) error {
	_, err := b.cluster.Apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: %[1]s, labels: {app: client}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "%[3]s", imagePullPolicy: Never, args: [serve, ":8080"]}
`, namespace, client, testbed.TrafficImage))
	if err != nil {
		return err
	}
	pods, err := b.cluster.AwaitPods(ctx, namespace, "app=client", 1)
	if err != nil {
		return err
	}
	b.pod = pods[0]
	return testbed.Poll(ctx, patience, func() error {
		_, err := b.cluster.Kubectl(ctx, append([]string{"get", "hostsubnets"}, hosts()...)...)
		return err
	})
}

func (b *bench) patch(ctx context.Context, object, patch string) error {
	_, err := b.cluster.Kubectl(ctx, "patch", object, "--type=merge", "-p", patch)
	return err
}

// ordered gives the namespace an egress IP on each host: the first that is online
// is used.
func (b *bench) ordered(ctx context.Context) error {
	errs := []error{b.patch(ctx, "netnamespace/"+namespace, `{"egressIPs": ["`+strings.Join(b.family.ips, `", "`)+`"]}`)}
	for i, host := range hosts() {
		errs = append(errs, b.patch(ctx, "hostsubnet/"+host, `{"egressIPs": ["`+b.family.ips[i]+`"]}`))
	}
	return errors.Join(errs...)
}

// automatic gives the namespace one egress IP, which any host may host.
func (b *bench) automatic(ctx context.Context) error {
	errs := []error{b.patch(ctx, "netnamespace/"+namespace, `{"egressIPs": ["`+b.family.ips[0]+`"]}`)}
	for _, host := range hosts() {
		errs = append(errs, b.patch(ctx, "hostsubnet/"+host, `{"egressIPs": [], "egressCIDRs": ["`+b.family.network+`"]}`))
	}
	return errors.Join(errs...)
}

// series makes the cuts of one kind.
func (b *bench) series(ctx context.Context, kind string, kills int) error {
	var outages []time.Duration
	for n := 0; n < kills; {
		host, err := b.ready(ctx)
		if err != nil {
			return fmt.Errorf("cut %d: %w", n+1, err)
		}
		outage, err := b.cut(ctx, host)
		if errors.Is(err, errUnused) {
			// A host before it in the order was trusted again in between.
			fmt.Fprintf(b.out, "%-10s      %s  not counted: %v\n", kind, host, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("cut %d, of %s: %w", n+1, host, err)
		}
		n++
		outages = append(outages, outage)
		fmt.Fprintf(b.out, "%-10s %3d  %s  %5d ms\n", kind, n, host, outage.Milliseconds())
	}
	slices.Sort(outages)
	at := func(share float64) int64 { return outages[int(share*float64(len(outages)-1)+0.5)].Milliseconds() }
	fmt.Fprintf(b.out, "%-10s %d cuts: median %d ms, p90 %d ms, p99 %d ms, most %d ms\n",
		kind, kills, at(0.5), at(0.9), at(0.99), at(1))
	return nil
}

// ready waits until every node is well, the host in use is known, it and another
// are online, and connections succeed.
func (b *bench) ready(ctx context.Context) (host string, err error) {
	if err := b.cluster.AwaitReady(ctx); err != nil {
		return "", err
	}
	for _, host := range hosts() {
		// A Ready Node says nothing about the agent: it must answer.
		err := testbed.Poll(ctx, patience, func() error {
			_, err := b.cluster.NodeExec(ctx, host, "grep", "-q", fmt.Sprintf(":%04X ", probePort), "/proc/net/udp")
			return err
		})
		if err != nil {
			return "", fmt.Errorf("the agent of %s answers no probes: %w", host, err)
		}
	}
	err = testbed.Poll(ctx, patience, func() error {
		if host, err = b.inUse(ctx); err != nil {
			return err
		}
		online, err := b.cluster.Kubectl(ctx, "get", "hostsubnets", "-o", `jsonpath={range .items[?(@.metadata.name!="`+client+`")]}{.status.conditions[?(@.type=="Online")].status} {end}`)
		if err != nil || strings.Count(online, "True") < 2 {
			return errors.Join(fmt.Errorf("online are %s", online), err)
		}
		// The client is a witness of both hosts, and knows that they are well.
		silent, err := b.cluster.Kubectl(ctx, "get", "hostsubnet", client, "-o", "jsonpath={.status.agent.silent[*]}")
		if err != nil || silent != "" {
			return errors.Join(fmt.Errorf("%s finds %s silent", client, silent), err)
		}
		for _, watched := range hosts() {
			witnesses, err := b.cluster.Kubectl(ctx, "get", "hostsubnet", watched, "-o", "jsonpath={.status.witnesses[*]}")
			if err != nil || !slices.Contains(strings.Fields(witnesses), client) {
				return errors.Join(fmt.Errorf("the witnesses of %s are %s", watched, witnesses), err)
			}
		}
		return nil
	})
	return host, err
}

// inUse is the host by which a connection of the client leaves. The status may be
// ahead of it: a node that has seen a host die takes its time to trust it again.
func (b *bench) inUse(ctx context.Context) (string, error) {
	out, err := b.cluster.PodExec(ctx, b.pod.Namespace, b.pod.Name, "/traffic", "watch", "-every", "20ms", "-for", "30ms", "-timeout", "1s",
		"-id", "who", b.family.echo())
	if err != nil {
		return "", err
	}
	var r struct{ Saw string }
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return "", fmt.Errorf("line of the traffic client: %w: %s", err, line)
	}
	source := sourceOf(r.Saw)
	for _, host := range hosts() {
		claims, err := b.cluster.Kubectl(ctx, "get", "hostsubnet", host, "-o", "jsonpath={.egressIPs[*]}")
		if err != nil {
			return "", err
		}
		if claims == source {
			return host, nil
		}
	}
	return "", fmt.Errorf("a connection came from %q, which no host claims", r.Saw)
}

// cut cuts the host's power while connections are made, and boots it again.
func (b *bench) cut(ctx context.Context, host string) (outage time.Duration, err error) {
	type answer struct {
		out string
		err error
	}
	done := make(chan answer, 1)
	seen, err := b.cluster.Capture(ctx, testbed.Bastion, "eth0", func(p testbed.Packet) bool {
		return !p.Outgoing && p.Destination.Port() == testbed.BastionEchoPort
	})
	if err != nil {
		return 0, err
	}
	go func() {
		out, err := b.cluster.PodExec(ctx, b.pod.Namespace, b.pod.Name, "/traffic", "watch", "-every", every.String(), "-for", around.String(),
			"-timeout", "1s", "-id", "cut", b.family.echo())
		done <- answer{out, err}
	}()
	err = testbed.Poll(ctx, patience, func() error {
		if len(seen.Packets()) < 50 {
			return errors.New("no connections yet")
		}
		return nil
	})
	_, errStop := seen.Stop()
	claims, errClaims := b.cluster.Kubectl(ctx, "get", "hostsubnet", host, "-o", "jsonpath={.egressIPs[*]}")
	at := time.Now()
	if err := errors.Join(err, errStop, errClaims, b.cluster.PowerOff(ctx, host)); err != nil {
		<-done
		return 0, err
	}
	a := <-done
	if err := errors.Join(a.err, b.cluster.PowerOn(ctx, host)); err != nil {
		return 0, err
	}
	return longest(a.out, claims, b.family.ips, at)
}

// sourceOf is the address of a source that a server saw; empty if there is none.
func sourceOf(saw string) string {
	source, err := netip.ParseAddrPort(saw)
	if err != nil {
		return ""
	}
	return source.Addr().String()
}

var errUnused = errors.New("connections left by another host when the power was cut")

// longest is the longest time between the beginnings of two connections that
// were answered. The last one before the cut must have had the given source.
func longest(lines, ip string, allowed []string, cut time.Time) (time.Duration, error) {
	var answered []time.Time
	var last time.Time
	before := ""
	for line := range strings.Lines(lines) {
		var r struct {
			At  time.Time
			Saw string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return 0, fmt.Errorf("line of the traffic client: %w: %s", err, line)
		}
		source := sourceOf(r.Saw)
		if r.Saw != "" && !slices.Contains(allowed, source) {
			return 0, fmt.Errorf("a connection came from %s, which is no egress IP of the namespace", r.Saw)
		}
		if r.Saw != "" && r.At.Before(cut) && r.At.After(last) {
			last = r.At
			before = source
		}
		if r.Saw != "" {
			answered = append(answered, r.At)
		}
	}
	if before != ip {
		return 0, errUnused
	}
	slices.SortFunc(answered, time.Time.Compare)
	if len(answered) < 100 {
		return 0, fmt.Errorf("only %d connections were answered", len(answered))
	}
	var most time.Duration
	for i := range answered[1:] {
		most = max(most, answered[i+1].Sub(answered[i]))
	}
	return most, nil
}
