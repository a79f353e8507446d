// Command demo shows what the operator does, on a real cluster that it brings up
// in network namespaces of this machine: the traffic of a namespace leaves the
// cluster with its egress IP, and with no other address.
//
// It explains each step, prints each command with its answer, and ends with a
// table of the source addresses that a server outside the cluster saw. It exits
// with 1 on the first source that is not the expected one.
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
	"strings"
	"syscall"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	// prefix begins the names of all that the cluster consists of.
	prefix    = "demo"
	egressIP  = "192.168.7.200"
	egressIP6 = "fd00:7::200"
	container = "client"
	// settleIn bounds the wait for anything that the cluster does by itself.
	settleIn = 2 * time.Minute
)

func main() { os.Exit(run()) }

func run() int {
	image := flag.String("image", filepath.Join("build", "image.tar"), "archive with the operator's image, made by \"make image\"")
	chart := flag.String("chart", filepath.Join("charts", "egressip-operator"), "Helm chart to install")
	keep := flag.Bool("keep", false, "keep the cluster running at the end")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{out: os.Stdout, began: time.Now()}
	err := d.play(ctx, *image, *chart)
	if d.cluster != nil && !*keep {
		err = errors.Join(err, d.slow("Removing the cluster", func() error {
			// The cluster must go even if the demo was interrupted.
			downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleIn)
			defer cancel()
			return d.cluster.Down(downCtx)
		}))
	}
	d.table()
	if d.cluster != nil && *keep {
		fmt.Fprintf(d.out, "\nThe cluster is still running: \"go run ./test/testbed/cmd/testbed -prefix %s shell\" opens a shell, and \"down\" instead of \"shell\" removes it.\n", prefix)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed after %s: %v\n", d.elapsed(), err)
		return 1
	}
	fmt.Fprintf(d.out, "\nEvery request had the expected source address. The demo took %s.\n", d.elapsed())
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
	ok                         bool
}

func (d *demo) play(ctx context.Context, image, chart string) error {
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return d.install(ctx, image, chart) },
		d.withoutEgressIP,
		d.request,
		d.claim,
		d.addressOnNode,
		d.everyPodUsesIt,
		d.bothFamilies,
		d.removeClaim,
		d.removeRequest,
		d.selectedPods,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) install(ctx context.Context, image, chart string) error {
	d.title("0. Start a cluster of three nodes and install the operator",
		"The nodes are network namespaces of this machine, with a real kubelet and containerd each,",
		"and addresses of IPv4 and IPv6.",
		"Outside the cluster, a web server called the bastion logs the source address of each request.")
	err := d.slow("Starting etcd, the control plane and three nodes", func() (err error) {
		d.cluster, err = testbed.Up(ctx, testbed.Options{Prefix: prefix, Nodes: 3, DualStack: true, Progress: d.out})
		return err
	})
	if err != nil {
		return err
	}
	if err := d.slow("Loading the operator's image on each node", func() error {
		return d.cluster.LoadImage(ctx, image)
	}); err != nil {
		return err
	}
	if err := d.slow("Installing the Helm chart", func() error {
		return d.cluster.InstallChart(ctx, chart)
	}); err != nil {
		return err
	}
	_, err = d.kubectl(ctx, "get", "nodes,pods", "-A", "-o", "wide")
	return err
}

func (d *demo) withoutEgressIP(ctx context.Context) error {
	d.title("1. Without an egress IP, a pod's traffic has its node's address",
		"This is what Kubernetes does by default: the bastion sees the address of the pod's node.")
	if err := d.deploy(ctx, "no-egress-ip", 1); err != nil {
		return err
	}
	return d.eachPodIsSeenAs(ctx, "1 no egress IP", "no-egress-ip", testbed.BastionIP, d.nodeIP)
}

func (d *demo) request(ctx context.Context) error {
	d.title("2. A namespace requests the egress IP "+egressIP,
		"For each Namespace, the operator creates a NetNamespace. Its field egressIPs is the request.")
	if _, err := d.kubectl(ctx, "create", "namespace", "egress-test"); err != nil {
		return err
	}
	if err := d.await(ctx, "the NetNamespace egress-test to appear", func(ctx context.Context) error {
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
	d.title("3. A node claims the egress IP",
		"For each Node, the operator creates a HostSubnet. Its field egressIPs lists what the node hosts.",
		"An administrator writes the claim here. With egressCIDRs, the operator would choose a node itself.")
	if _, err := d.kubectl(ctx, "patch", "hostsubnet", host, "--type=merge",
		"-p", `{"egressIPs": ["`+egressIP+`/24"]}`); err != nil {
		return err
	}
	if err := d.await(ctx, "the operator to store the address without its prefix length", func(ctx context.Context) error {
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
	d.title("4. The egress IP is now an address of "+host,
		"The node's agent added it to the uplink, marked with the label eth0:eip.")
	if err := d.awaitAddress(ctx, host, true); err != nil {
		return err
	}
	out, err := d.onNode(ctx, host, "ip", "address", "show", "dev", "eth0")
	return errors.Join(err,
		contains(out, "inet "+egressIP+"/24"),
		contains(out, "scope global secondary eth0:eip"))
}

func (d *demo) everyPodUsesIt(ctx context.Context) error {
	d.title("5. Traffic from every node leaves with "+egressIP,
		"The namespace gets a pod on each node. Traffic of pods on other nodes goes through "+d.egressHost()+".")
	if err := d.deploy(ctx, "egress-test", len(d.cluster.Nodes())); err != nil {
		return err
	}
	if err := d.await(ctx, "the condition EgressReady to be True", func(ctx context.Context) error {
		_, err := d.cluster.Kubectl(ctx, "wait", "--for=condition=EgressReady", "netnamespace/egress-test", "--timeout=1s")
		return err
	}); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "get", "netnamespace", "egress-test", "-o", "wide"); err != nil {
		return err
	}
	return d.eachPodIsSeenAs(ctx, "5 egress IP", "egress-test", testbed.BastionIP, func(string) string { return egressIP })
}

func (d *demo) bothFamilies(ctx context.Context) error {
	host := d.cluster.Nodes()[1]
	d.title("6. IPv6 leaves with "+egressIP6+", through another node",
		"Until now the namespace had no way out by IPv6, as it had no egress IP of IPv6.",
		"Each family is decided by itself: "+host+" claims this one.")
	if _, err := d.kubectl(ctx, "patch", "netnamespace", "egress-test", "--type=merge",
		"-p", `{"egressIPs": ["`+egressIP+`", "`+egressIP6+`"]}`); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "patch", "hostsubnet", host, "--type=merge", "-p", `{"egressIPs": ["`+egressIP6+`"]}`); err != nil {
		return err
	}
	const active = `{range .status.activeIPs[*]}{.ip} on {.host}{"\n"}{end}`
	if err := d.await(ctx, host+" to have the egress IP", func(ctx context.Context) error {
		_, err := d.cluster.Kubectl(ctx, "wait", "--for=condition=EgressReady", "netnamespace/egress-test", "hostsubnet/"+host, "--timeout=1s")
		out, errGet := d.cluster.Kubectl(ctx, "get", "netnamespace", "egress-test", "-o", "jsonpath="+active)
		return errors.Join(err, errGet, contains(out, egressIP6+" on "+host))
	}); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "get", "netnamespace", "egress-test", "-o", "jsonpath="+active); err != nil {
		return err
	}
	return errors.Join(
		d.eachPodIsSeenAs(ctx, "6 both families", "egress-test", testbed.BastionIPv6, func(string) string { return egressIP6 }),
		d.eachPodIsSeenAs(ctx, "6 both families", "egress-test", testbed.BastionIP, func(string) string { return egressIP }),
	)
}

func (d *demo) removeClaim(ctx context.Context) error {
	host := d.egressHost()
	d.title("7. Without a node for the egress IP, traffic is dropped and does not leak",
		"The claim of "+egressIP+" is removed, the request stays. IPv4 requests time out rather than leave with a node's address.")
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
	_, err = d.kubectl(ctx, "get", "netnamespace", "egress-test", "-o", "wide")
	return err
}

func (d *demo) removeRequest(ctx context.Context) error {
	d.title("8. Without a request, the node's address is used again",
		"The namespace gives its egress IPs up. Its traffic is ordinary traffic again.")
	if _, err := d.kubectl(ctx, "patch", "netnamespace", "egress-test", "--type=merge", "-p", `{"egressIPs": []}`); err != nil {
		return err
	}
	return d.eachPodIsSeenAs(ctx, "8 request removed", "egress-test", testbed.BastionIP, d.nodeIP)
}

// documented is the example of OpenShift's and OKD's documentation, with addresses of this segment.
const documented = `apiVersion: k8s.ovn.org/v1
kind: EgressIP
metadata:
  name: egress-group1
spec:
  egressIPs:
  - 192.168.7.101
  - 192.168.7.102
  podSelector:
    matchLabels:
      app: client
  namespaceSelector:
    matchLabels:
      env: prod
`

func (d *demo) selectedPods(ctx context.Context) error {
	d.title("9. The other API of OpenShift: an EgressIP selects pods by labels",
		"Its YAML is that of OVN-Kubernetes. Each address goes to another node with the label k8s.ovn.org/egress-assignable,",
		"and connections are spread over them; a pod on such a node leaves from there.")
	hosts := d.cluster.Nodes()[1:]
	for _, host := range hosts {
		if _, err := d.kubectl(ctx, "label", "node", host, "k8s.ovn.org/egress-assignable="); err != nil {
			return err
		}
	}
	fmt.Fprint(d.out, documented)
	out, err := d.cluster.Apply(ctx, documented)
	d.show("$ kubectl", []string{"apply", "-f", "egress-group1.yaml"}, out)
	if err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "label", "namespace", "egress-test", "env=prod"); err != nil {
		return err
	}
	if err := d.await(ctx, "the EgressIP to be ready", func(ctx context.Context) error {
		_, err := d.cluster.Kubectl(ctx, "wait", "--for=condition=EgressReady", "egressip/egress-group1", "--timeout=1s")
		return err
	}); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "get", "eip"); err != nil {
		return err
	}
	items, err := d.cluster.Kubectl(ctx, "get", "eip", "egress-group1", "-o", `jsonpath={range .status.items[*]}{.node} {.egressIP}{"\n"}{end}`)
	if err != nil {
		return err
	}
	on := map[string]string{}
	var all []string
	for line := range strings.Lines(items) {
		if node, ip, found := strings.Cut(strings.TrimSpace(line), " "); found {
			on[node], all = ip, append(all, ip)
		}
	}
	if len(on) != len(hosts) {
		return fmt.Errorf("the EgressIP is on %v, want one address on each of %v", on, hosts)
	}
	return errors.Join(
		d.eachPodIsSeenAsOneOf(ctx, "9 EgressIP", "egress-test", testbed.BastionIP, func(node string) []string {
			if ip := on[node]; ip != "" {
				return []string{ip}
			}
			return all
		}),
		d.eachPodIsSeenAs(ctx, "9 EgressIP", "no-egress-ip", testbed.BastionIP, d.nodeIP),
	)
}
