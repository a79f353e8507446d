// Command demo plays the project's main job on a real cluster that it brings
// up itself, in network namespaces of this machine: a namespace leaves the
// cluster with its egress IP, and with no other address.
//
// It prints each command and what it answered, ends with a table of who was
// seen from where, and exits with 1 on the first difference.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	egressIP  = "192.168.7.200"
	container = "client"
	// settleIn bounds the wait for anything that the cluster does by itself.
	settleIn = 2 * time.Minute
)

func main() { os.Exit(run()) }

func run() int {
	image := flag.String("image", filepath.Join("build", "image.tar"), "docker-archive of the operator, from `make image`")
	chart := flag.String("chart", filepath.Join("charts", "egressip-operator"), "the Helm chart to install")
	keep := flag.Bool("keep", false, "leave the cluster up, for `make shell`; `make down` ends it")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{out: os.Stdout, began: time.Now()}
	err := d.play(ctx, *image, *chart)
	if d.cluster != nil && !*keep {
		err = errors.Join(err, d.slow("taking the cluster down", func() error {
			// The demo's own ctx may have ended: what was made goes away all the same.
			downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleIn)
			defer cancel()
			return d.cluster.Down(downCtx)
		}))
	}
	d.table()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo failed after %s: %v\n", d.elapsed(), err)
		return 1
	}
	fmt.Fprintf(d.out, "\nEach packet bore the expected source. %s in all.\n", d.elapsed())
	return 0
}

// demo is one run: the cluster, and what has been seen so far.
type demo struct {
	cluster *testbed.Cluster
	out     io.Writer
	began   time.Time
	seen    []sighting
}

// sighting is one request of a pod, and the source that the bastion logged.
type sighting struct {
	step, pod, node, want, got string
}

func (d *demo) play(ctx context.Context, image, chart string) error {
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return d.install(ctx, image, chart) },
		d.withoutEgressIP,
		d.request,
		d.claim,
		d.addressOnNode,
		d.everyPodBearsIt,
		d.undo,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) install(ctx context.Context, image, chart string) error {
	d.title("0. A cluster of three nodes, and the operator by its chart")
	err := d.slow("bringing up etcd, the control plane and three nodes", func() (err error) {
		d.cluster, err = testbed.Up(ctx, testbed.Options{Prefix: "demo", Nodes: 3, Progress: d.out})
		return err
	})
	if err != nil {
		return err
	}
	if err := d.slow("loading the operator's image into each node", func() error {
		return d.cluster.LoadImage(ctx, image)
	}); err != nil {
		return err
	}
	if err := d.slow("helm install egressip-operator", func() error {
		return d.cluster.InstallChart(ctx, chart)
	}); err != nil {
		return err
	}
	_, err = d.kubectl(ctx, "get", "nodes,pods", "-A", "-o", "wide")
	return err
}

func (d *demo) withoutEgressIP(ctx context.Context) error {
	d.title("1. A namespace without egress IP leaves with its node's address")
	if err := d.deploy(ctx, "no-egress-ip", 1); err != nil {
		return err
	}
	return d.eachPodIsSeenAs(ctx, "1 no egress IP", "no-egress-ip", d.nodeIP)
}

func (d *demo) request(ctx context.Context) error {
	d.title("2. A namespace requests " + egressIP)
	if _, err := d.kubectl(ctx, "create", "namespace", "egress-test"); err != nil {
		return err
	}
	if err := d.await(ctx, "the NetNamespace of egress-test", func(ctx context.Context) error {
		_, err := d.cluster.Kubectl(ctx, "get", "netnamespace", "egress-test")
		return err
	}); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "patch", "netnamespace", "egress-test", "--type=merge",
		"-p", `{"egressIPs": ["`+egressIP+`"]}`); err != nil {
		return err
	}
	out, err := d.kubectl(ctx, "get", "netnamespace", "egress-test")
	return errors.Join(err, contains(out, `["`+egressIP+`"]`))
}

func (d *demo) claim(ctx context.Context) error {
	host := d.egressHost()
	d.title("3. " + host + " claims it")
	if _, err := d.kubectl(ctx, "patch", "hostsubnet", host, "--type=merge",
		"-p", `{"egressIPs": ["`+egressIP+`/24"]}`); err != nil {
		return err
	}
	if err := d.await(ctx, "the canonical address in the HostSubnet", func(ctx context.Context) error {
		out, err := d.cluster.Kubectl(ctx, "get", "hostsubnet", host)
		return errors.Join(err, contains(out, `["`+egressIP+`"]`))
	}); err != nil {
		return err
	}
	_, err := d.kubectl(ctx, "get", "hostsubnet")
	return err
}

func (d *demo) addressOnNode(ctx context.Context) error {
	host := d.egressHost()
	d.title("4. The address is on the uplink of " + host)
	if err := d.awaitAddress(ctx, host, true); err != nil {
		return err
	}
	out, err := d.onNode(ctx, host, "ip", "address", "show", "dev", "eth0")
	return errors.Join(err,
		contains(out, "inet "+egressIP+"/24"),
		contains(out, "scope global secondary eth0:eip"))
}

func (d *demo) everyPodBearsIt(ctx context.Context) error {
	d.title("5. A pod on every node, and each one leaves with " + egressIP)
	if err := d.deploy(ctx, "egress-test", len(d.cluster.Nodes())); err != nil {
		return err
	}
	if err := d.await(ctx, "condition EgressReady", func(ctx context.Context) error {
		_, err := d.cluster.Kubectl(ctx, "wait", "--for=condition=EgressReady", "netnamespace/egress-test", "--timeout=1s")
		return err
	}); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "get", "netnamespace", "egress-test", "-o", "wide"); err != nil {
		return err
	}
	return d.eachPodIsSeenAs(ctx, "5 egress IP", "egress-test", func(string) string { return egressIP })
}

func (d *demo) undo(ctx context.Context) error {
	host := d.egressHost()
	d.title("6. The claim is undone: dropped, not leaked; then the request")
	if _, err := d.kubectl(ctx, "patch", "hostsubnet", host, "--type=merge", "-p", `{"egressIPs": []}`); err != nil {
		return err
	}
	if err := d.awaitAddress(ctx, host, false); err != nil {
		return err
	}
	if _, err := d.onNode(ctx, host, "ip", "address", "show", "dev", "eth0"); err != nil {
		return err
	}
	pods, err := d.cluster.Pods(ctx, "egress-test", "app=client")
	if err != nil {
		return err
	}
	for _, p := range pods {
		if err := d.isDropped(ctx, p); err != nil {
			return err
		}
	}
	if _, err := d.kubectl(ctx, "get", "netnamespace", "egress-test", "-o", "wide"); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "patch", "netnamespace", "egress-test", "--type=merge", "-p", `{"egressIPs": []}`); err != nil {
		return err
	}
	return d.eachPodIsSeenAs(ctx, "6 request undone", "egress-test", d.nodeIP)
}
