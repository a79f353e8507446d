package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed/internal/node"
)

// Nodes returns the names of the nodes, in order.
func (c *Cluster) Nodes() []string {
	names := make([]string, c.options.Nodes)
	for i := range names {
		names[i] = nodeName(i + 1)
	}
	return names
}

// NodeIP returns the first LAN address of a node, of IPv6 with IPv6Only; the zero Addr if
// there is no such node.
func (c *Cluster) NodeIP(name string) netip.Addr {
	i, ok := c.nodeIndex(name)
	switch {
	case !ok:
		return netip.Addr{}
	case c.options.IPv6Only:
		return nodeIPv6(i)
	}
	return nodeIP(i)
}

// DualStack reports whether the test bed has both families.
func (c *Cluster) DualStack() bool { return c.options.DualStack }

// IPv6Only reports whether the test bed has IPv6 alone.
func (c *Cluster) IPv6Only() bool { return c.options.IPv6Only }

// NodeIPv6 is NodeIP for IPv6; the zero Addr in a test bed of IPv4 alone.
func (c *Cluster) NodeIPv6(name string) netip.Addr {
	if i, ok := c.nodeIndex(name); ok && c.options.ipv6() {
		return nodeIPv6(i)
	}
	return netip.Addr{}
}

// BridgeIP returns the first address of a node on its pods' bridge; the zero Addr if there is
// no such node.
func (c *Cluster) BridgeIP(name string) netip.Addr {
	i, ok := c.nodeIndex(name)
	if !ok {
		return netip.Addr{}
	}
	return netip.MustParsePrefix(c.options.first(podCIDR(i), podCIDRv6(i))).Addr().Next()
}

// nodeIndex returns the number of a node, from 1.
func (c *Cluster) nodeIndex(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, "node")
	i, err := strconv.Atoi(number)
	return i, ok && err == nil && i >= 1 && i <= c.options.Nodes
}

func (c *Cluster) nodeDir(name string) string { return filepath.Join(c.dir, "nodes", name) }

// startNode boots a node on its network, which must be there.
func (c *Cluster) startNode(ctx context.Context, name string) error {
	i, ok := c.nodeIndex(name)
	if !ok {
		return fmt.Errorf("start node: no node %q", name)
	}
	dir := c.nodeDir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	config := node.Config{
		Name: name, IPs: c.options.joined(nodeIP(i).String(), nodeIPv6(i).String()), Prefix: c.options.Prefix,
		PodCIDRs: c.options.families(podCIDR(i), podCIDRv6(i)), PodAddresses: c.options.PodAddresses, ClusterCIDRs: c.options.joined(ClusterCIDR, ClusterCIDRv6),
		Dir: dir, Tools: c.tools, CNI: cniDir(), PKI: c.pkiDir(), API: c.apiURL(),
		Images: append([]string{c.trafficImage()}, c.options.Images...), Sandbox: TrafficImage,
		Legacy: c.options.Backend == Legacy, MTU: c.options.MTU,
		Network: string(c.options.CNI), NetworkTool: c.cniTool, Nodes: c.options.Nodes, ProxyMode: string(c.options.ProxyMode),
	}
	file := filepath.Join(dir, "node.json")
	if err := node.WriteConfig(file, config); err != nil {
		return err
	}
	// Ends once the node's first process runs.
	if err := c.runToEnd(ctx, name, name+"-enter", "node", "enter", file); err != nil {
		return err
	}
	return Poll(ctx, 30*time.Second, func() error {
		text, err := os.ReadFile(config.PIDFile())
		if err != nil {
			return fmt.Errorf("node %s did not start, see logs/%s-enter.log", name, name)
		}
		pid, err := strconv.Atoi(string(text))
		if err != nil {
			return err
		}
		p, err := identify(pid)
		if err != nil {
			return fmt.Errorf("node %s ended, see logs/%s-enter.log: %w", name, name, err)
		}
		return c.record(name, p)
	})
}

// nodeProcess returns a node's first process.
func (c *Cluster) nodeProcess(name string) (process, error) {
	if _, ok := c.nodeIndex(name); !ok {
		return process{}, fmt.Errorf("no node %q", name)
	}
	p, ok := c.recorded(name)
	if !ok {
		return p, fmt.Errorf("node %s is off", name)
	}
	return p, nil
}

// proxyHealth is where kube-proxy says whether its rules are up to date.
const proxyHealth = "http://127.0.0.1:10256/healthz"

// awaitNode waits until a node is Ready, its kube-proxy works, and it and the other nodes
// have routes to each other's pods.
func (c *Cluster) awaitNode(ctx context.Context, name string) error {
	if err := c.setPodCIDR(ctx, name); err != nil {
		return err
	}
	err := Poll(ctx, 120*time.Second, func() error {
		_, err := c.nodeProcess(name)
		if err != nil {
			return err
		}
		if _, err = c.Kubectl(ctx, "wait", "--for=condition=Ready", "node/"+name, "--timeout="+testenv.Stretch(5*time.Second).String()); err != nil {
			return err
		}
		// The node is Ready without it, and no Service works.
		if _, err = c.NodeExec(ctx, name, "traffic", "get", "-timeout", testenv.Stretch(time.Second).String(), proxyHealth); err != nil {
			return fmt.Errorf("kube-proxy of %s does not work, see its log: %w", name, err)
		}
		return c.routed(ctx, name)
	})
	if err != nil {
		return fmt.Errorf("node %s does not become Ready, see %s: %w", name, c.nodeDir(name), err)
	}
	return nil
}

// setPodCIDR waits until a node has registered and gives it its podCIDR, as an allocator
// does, before its CNI asks for it. To write it again changes nothing.
func (c *Cluster) setPodCIDR(ctx context.Context, name string) error {
	i, ok := c.nodeIndex(name)
	if !ok {
		return fmt.Errorf("no node %q", name)
	}
	cidrs := c.options.families(podCIDR(i), podCIDRv6(i))
	patch := fmt.Sprintf(`{"spec":{"podCIDR":%q,"podCIDRs":["%s"]}}`, cidrs[0], strings.Join(cidrs, `","`))
	err := Poll(ctx, 120*time.Second, func() error {
		if _, err := c.nodeProcess(name); err != nil {
			return err
		}
		if c.options.NoPodCIDRs {
			_, err := c.Kubectl(ctx, "get", "node", name)
			return err
		}
		_, err := c.Kubectl(ctx, "patch", "node", name, "-p", patch)
		return err
	})
	if err != nil {
		return fmt.Errorf("node %s does not register, see %s: %w", name, c.nodeDir(name), err)
	}
	return nil
}

// PowerOff cuts a node's power: from one moment to the next it sends and
// answers nothing, and its processes and all that its kernel knew are gone.
func (c *Cluster) PowerOff(ctx context.Context, name string) error {
	p, err := c.nodeProcess(name)
	if err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	// The cable first: a network namespace answers ARP and ping without any
	// process.
	if err := c.LinkDown(ctx, name); err != nil {
		return fmt.Errorf("power off %s: %w", name, err)
	}
	return errors.Join(p.kill(ctx), os.Remove(filepath.Join(c.nodeDir(name), "pid")), c.removePlace(ctx, name),
		// The kernel takes devices out of a deleted namespace in its own time,
		// but the node may boot at once.
		c.ip(ctx, "-netns", c.netnsName(lan), "link", "del", portName(name)))
}

// PowerOn boots a node that is off, and returns when it is up, if not yet
// Ready. Its disk, images included, is as it was.
func (c *Cluster) PowerOn(ctx context.Context, name string) error {
	return c.PowerOnWith(ctx, name)
}

// PowerOnWith boots a node as PowerOn does, with configured addresses on its
// eth0 before any program of it runs: each is what "ip address add" takes, such
// as "192.168.7.200/24 label eth0:eip". So does a machine that was restored as
// it was.
func (c *Cluster) PowerOnWith(ctx context.Context, name string, addresses ...string) error {
	i, ok := c.nodeIndex(name)
	if !ok {
		return fmt.Errorf("power on: no node %q", name)
	}
	if err := c.makeNodeNetwork(ctx, i); err != nil {
		return fmt.Errorf("power on %s: %w", name, err)
	}
	for _, address := range addresses {
		if _, err := c.NodeExec(ctx, name, append(strings.Fields("ip address add dev eth0"), strings.Fields(address)...)...); err != nil {
			return fmt.Errorf("power on %s: %w", name, err)
		}
	}
	return c.startNode(ctx, name)
}

// AwaitReady waits until nodes are Ready; all of them if none is named.
func (c *Cluster) AwaitReady(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		names = c.Nodes()
	}
	for _, name := range names {
		if err := c.awaitNode(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// LoadImage loads a docker-archive into every node that is on.
func (c *Cluster) LoadImage(ctx context.Context, archive string) error {
	archive, err := filepath.Abs(archive)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	for _, name := range c.Nodes() {
		if _, err := c.nodeProcess(name); err != nil {
			continue
		}
		if _, err := c.NodeShell(ctx, name, "ctr", "--namespace", "k8s.io", "images", "import", archive); err != nil {
			return fmt.Errorf("load image on %s: %w", name, err)
		}
	}
	return nil
}
