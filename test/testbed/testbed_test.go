package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const webManifest = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: web
        image: ` + TrafficImage + `
        imagePullPolicy: Never
        args: [serve, ":8080"]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
`

// One test bed of each backend serves all that the tests of other packages
// rely on.
func TestCluster(t *testing.T) {
	for _, backend := range []Backend{NFT, Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
			defer cancel()
			// One of them has addresses of IPv6 in addition.
			o := Options{Prefix: "tb" + string(backend)[:3], Nodes: 2, Backend: backend, DualStack: backend == Legacy, Progress: os.Stderr}
			c, err := Up(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { mustBeGone(t, c) })
			pods := deployWeb(ctx, t, c)
			t.Run("pods reach the world with their node's address", testWorld(c, pods, worldIPv4()))
			if o.DualStack {
				t.Run("pods reach the world by IPv6", testWorld(c, pods, worldIPv6()))
			}
			t.Run("the node's rules are in the chosen backend", testBackend(c))
			t.Run("rp_filter is strict on every device", testStrict(c))
			t.Run("a capture sees each packet", testCapture(c, pods[0]))
			t.Run("a snapshot shows a change and nothing else", testSnapshot(c))
			if backend == NFT {
				t.Run("cuts have a direction", testCuts(c))
				t.Run("the API server stops and starts", testAPIServer(c))
				t.Run("a node loses power and boots again", testPower(c))
				t.Run("a second Up is refused, and follows a crash", testTakeOver(c, o))
			}
		})
	}
}

// A test bed of IPv6 alone does all that without IPv4.
func TestIPv6Only(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	c, err := Up(ctx, Options{Prefix: "tbsix", Nodes: 2, IPv6Only: true, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustBeGone(t, c) })
	pods := deployWeb(ctx, t, c)
	t.Run("pods reach the world with their node's address", testWorld(c, pods, worldIPv6()))
	t.Run("no interface but the loopback one has an address of IPv4", testNoIPv4(c, pods))
	t.Run("a node blocks UDP", testBlockUDP(c))
}

// deployWeb has a web server run in a pod on each node.
func deployWeb(ctx context.Context, t *testing.T, c *Cluster) []Pod {
	t.Helper()
	if _, err := c.Apply(ctx, webManifest); err != nil {
		t.Fatal(err)
	}
	pods, err := c.AwaitPods(ctx, "default", "app=web", len(c.Nodes()))
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

func testBackend(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		other := NFT
		if c.options.Backend == NFT {
			other = Legacy
		}
		for _, node := range c.Nodes() {
			ours, err := c.NodeExec(t.Context(), node, "iptables-"+string(c.options.Backend)+"-save")
			if err != nil || !strings.Contains(ours, "KUBE-SERVICES") || !strings.Contains(ours, "MASQUERADE") {
				t.Errorf("%s: %v: no rules of kube-proxy in %s:\n%s", node, err, c.options.Backend, ours)
			}
			others, err := c.NodeExec(t.Context(), node, "iptables-"+string(other)+"-save")
			if err != nil || strings.Contains(others, "-A ") {
				t.Errorf("%s: %v: rules in %s:\n%s", node, err, other, others)
			}
		}
	}
}

func testStrict(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		for _, node := range c.Nodes() {
			out, err := c.NodeExec(t.Context(), node, "sysctl", "--all", "--pattern", `^net\.ipv4\.conf\..*\.rp_filter$`)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out) {
				if !strings.HasSuffix(line, "= 1\n") {
					t.Errorf("%s: %s", node, line)
				}
			}
		}
	}
}

func testCapture(c *Cluster, p Pod) func(*testing.T) {
	return func(t *testing.T) {
		k, err := c.Capture(t.Context(), Bastion, "eth0", func(p Packet) bool { return p.Protocol != unix.IPPROTO_ICMP && p.ARP == 0 && !p.Outgoing })
		if err != nil {
			t.Fatal(err)
		}
		// Nothing listens there.
		if out, err := c.Exec(t.Context(), Bastion, "traffic", "stream", "-for", "1ms", c.NodeIP(p.Node).String()+":9"); err == nil {
			t.Errorf("port 9 of %s answers: %s", p.Node, out)
		}
		for i := range 3 {
			if _, err := c.PodExec(t.Context(), p.Namespace, p.Name, "/traffic", "udp", "-id", fmt.Sprintf("seen-%d", i), BastionIP+":8080"); err != nil {
				t.Fatal(err)
			}
		}
		packets, err := k.Stop()
		if err != nil {
			t.Fatal(err)
		}
		// The host's own packets pass the router, its pods' the host too.
		if len(packets) > 0 && (packets[0].Source != netip.AddrPortFrom(c.NodeIP(p.Node), 9) || packets[0].TCPFlags&4 == 0 || packets[0].Hops != 63) {
			t.Errorf("of the host itself: %+v", packets[0])
		}
		packets = packets[min(1, len(packets)):]
		for i, got := range packets {
			if got.Hops != 62 || got.Source.Addr() != c.NodeIP(p.Node) || !strings.HasPrefix(string(got.Payload), fmt.Sprintf("seen-%d ", i)) {
				t.Errorf("packet %d: %+v", i, got)
			}
		}
		if len(packets) != 3 {
			t.Errorf("saw %d packets, sent 3", len(packets))
		}
	}
}

func testSnapshot(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		node := c.Nodes()[0]
		before, err := c.Snapshot(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.Snapshot(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		if diff := before.Diff(again); len(diff) > 0 {
			t.Fatalf("nothing has changed, but:\n%s", strings.Join(diff, "\n"))
		}
		undo := [][2]string{
			{"ip address add 192.168.7.99/24 dev eth0", "ip address del 192.168.7.99/24 dev eth0"},
			{"ip rule add fwmark 0x1000/0x1000 lookup 2000 priority 50", "ip rule del priority 50"},
			{"ip route add default dev lo table 2000", "ip route del default dev lo table 2000"},
			{"ip -6 rule add fwmark 0x1000/0x1000 lookup 2000 priority 50", "ip -6 rule del priority 50"},
			{"ip -6 route add default dev lo table 2000", "ip -6 route del default dev lo table 2000"},
			{"ip -6 neighbour add fd00:5::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent", "ip -6 neighbour del fd00:5::1 dev eth0"},
			{"ip -6 neighbour add proxy fd00:5::1 dev eth0", "ip -6 neighbour del proxy fd00:5::1 dev eth0"},
			{"ip6tables-legacy -w -t raw -A PREROUTING -j RETURN", "ip6tables-legacy -w -t raw -D PREROUTING -j RETURN"},
			{"sysctl -q net.ipv6.conf.eth0.proxy_ndp=1", "sysctl -q net.ipv6.conf.eth0.proxy_ndp=0"},
			{"ipset create snap hash:ip", "ipset destroy snap"},
			{"iptables-nft -w -t mangle -A PREROUTING -j RETURN", "iptables-nft -w -t mangle -D PREROUTING -j RETURN"},
			{"iptables-legacy -w -t raw -A PREROUTING -j RETURN", "iptables-legacy -w -t raw -D PREROUTING -j RETURN"},
			{"nft add table inet snap", "nft delete table inet snap"},
			{"tc qdisc add dev eth0 clsact", "tc qdisc del dev eth0 clsact"},
			{"ip link add snap0 type bridge", "ip link del snap0"},
			{"sysctl -q net.ipv4.conf.eth0.rp_filter=2", "sysctl -q net.ipv4.conf.eth0.rp_filter=1"},
			{"mkdir /sys/fs/bpf/snap", "rmdir /sys/fs/bpf/snap"},
		}
		for _, u := range undo {
			if _, err := c.NodeShell(t.Context(), node, strings.Fields(u[0])...); err != nil {
				t.Fatal(err)
			}
			changed, err := c.Snapshot(t.Context(), node)
			if err != nil {
				t.Fatal(err)
			}
			if len(before.Diff(changed)) == 0 {
				t.Errorf("%s: not seen", u[0])
			}
			if _, err := c.NodeShell(t.Context(), node, strings.Fields(u[1])...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testCuts(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		ping := func(from, to string) error {
			_, err := c.Exec(t.Context(), from, "traffic", "ping", "-timeout", "500ms", c.NodeIP(to).String())
			return err
		}
		heard := func() int {
			k, err := c.Capture(t.Context(), "node2", "eth0", func(p Packet) bool {
				return !p.Outgoing && p.Protocol == unix.IPPROTO_ICMP && p.Source.Addr() == c.NodeIP("node1")
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := ping("node1", "node2"); err == nil {
				t.Error("node1 has an answer of node2 through a cut")
			}
			packets, err := k.Stop()
			if err != nil {
				t.Fatal(err)
			}
			return len(packets)
		}
		if err := ping("node1", "node2"); err != nil {
			t.Fatal(err)
		}
		if err := c.Cut(t.Context(), "node2", "node1"); err != nil {
			t.Fatal(err)
		}
		if got := heard(); got != 1 {
			t.Errorf("node2 got %d of 1 requests, though only its answers are cut", got)
		}
		if err := c.Partition(t.Context(), []string{"node1"}, []string{"node2"}); err != nil {
			t.Fatal(err)
		}
		if got := heard(); got != 0 {
			t.Errorf("node2 got %d requests through a partition", got)
		}
		if err := c.Mend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := ping("node1", "node2"); err != nil {
			t.Error(err)
		}
	}
}

func testAPIServer(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		if err := c.StopAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Kubectl(t.Context(), "get", "--raw", "/readyz"); err == nil {
			t.Error("the API server answers, and should not")
		}
		if err := c.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func testPower(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		const node = "node2"
		if err := c.PowerOff(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Exec(t.Context(), Router, "ping", "-c1", "-W1", c.NodeIP(node).String()); err == nil {
			t.Errorf("a node without power answers: %s", out)
		}
		if err := c.PowerOn(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitReady(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		pods, err := c.AwaitPods(t.Context(), "default", "app=web", 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods {
			if err := Poll(t.Context(), 30*time.Second, func() error {
				_, err := c.PodExec(t.Context(), p.Namespace, p.Name, "/traffic", "get", "-timeout", "1s", "http://"+BastionIP+":8080/")
				return err
			}); err != nil {
				t.Errorf("%s after the reboot: %v", p.Name, err)
			}
		}
	}
}

// A test bed whose process was killed must not be in the way of the next.
func testTakeOver(c *Cluster, o Options) func(*testing.T) {
	return func(t *testing.T) {
		if _, err := Up(t.Context(), o); !errors.Is(err, ErrExists) {
			t.Fatalf("second Up: %v, want %v", err, ErrExists)
		}
		s, err := c.readState()
		if err != nil {
			t.Fatal(err)
		}
		s.Owner.Start++ // a process that is no more
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		// Such a crash may also have lost the records of processes.
		if err := errors.Join(os.WriteFile(c.statePath(), data, 0o644), os.RemoveAll(filepath.Join(c.dir, "processes"))); err != nil {
			t.Fatal(err)
		}
		again, err := Up(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := again.Kubectl(t.Context(), "get", "daemonsets", "--all-namespaces", "-o", "name"); err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("the new test bed has %q, %v", out, err)
		}
	}
}

// mustBeGone takes the test bed down and looks for what it left.
func mustBeGone(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Down(ctx); err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{c.netns("*"), c.dir, "/sys/fs/cgroup/*/testbed-" + c.options.Prefix, "/sys/fs/cgroup/testbed-" + c.options.Prefix} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.dir+"/") {
		t.Errorf("left behind mounts: %v:\n%s", err, mounts)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, file := range commands {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), c.dir+"/") {
			t.Errorf("left behind %s: %q", file, line)
		}
	}
}
