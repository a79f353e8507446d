package node

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// networkFile is the configuration by which containerd connects pods.
	networkFile = "/etc/cni/net.d/10-testbed.conflist"
	// flannelNet is what flannel reads, subnetEnv what it writes once it has its subnet.
	flannelNet = "/etc/flannel-net.json"
	subnetEnv  = "/run/flannel/subnet.env"
	// networkWait bounds the wait for what a network's daemon needs, and for what it writes.
	networkWait = 120 * time.Second
	// networkTick is how often these are looked for.
	networkTick = 200 * time.Millisecond
)

// The bridge plugin's own ipMasq would also masquerade traffic to pods of
// other nodes: the test bed has one rule for what leaves the cluster, as most
// CNIs do.
const bridgeConfig = `{ "cniVersion": "1.0.0", "name": "testbed", "plugins": [
  { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "mtu": %d,
    "ipam": { "type": "host-local", "ranges": [%s], "routes": [%s] } },
  { "type": "portmap", "capabilities": {"portMappings": true} } ] }
`

// Each pod has a link of its own, without a bridge.
const ptpConfig = `{ "cniVersion": "1.0.0", "name": "testbed", "plugins": [
  { "type": "ptp", "ipMasq": false, "mtu": %d,
    "ipam": { "type": "host-local", "ranges": [%s], "routes": [%s] } },
  { "type": "portmap", "capabilities": {"portMappings": true} } ] }
`

// flannelConfig is what flannel's own plugin, which is no Go module, makes of subnet.env.
const flannelConfig = `{ "cniVersion": "1.0.0", "name": "cbr0", "plugins": [
  { "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": %t, "hairpinMode": true, "mtu": %s,
    "ipam": { "type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": %q}] } },
  { "type": "portmap", "capabilities": {"portMappings": true} } ] }
`

// kube-router itself adds the subnet, and the MTU.
const kubeRouterConfig = `{ "cniVersion": "0.3.0", "name": "mynet", "plugins": [
  { "name": "kubernetes", "type": "bridge", "bridge": "kube-bridge", "isDefaultGateway": true, "hairpinMode": true, "ipam": { "type": "host-local" } },
  { "type": "portmap", "capabilities": {"portMappings": true} } ] }
`

// networkConfig is the configuration that a node has from its start on, or "" if its network
// writes one later: until then the node is not Ready.
func networkConfig(c Config) string {
	switch c.Network {
	case "ptp":
		return fmt.Sprintf(ptpConfig, c.MTU, podRanges(c), podRoutes(c))
	case "kube-router":
		return kubeRouterConfig
	case "flannel", "flannel-host-gw", "flannel-nftables":
		return ""
	default:
		return fmt.Sprintf(bridgeConfig, c.MTU, podRanges(c), podRoutes(c))
	}
}

// podRanges are the ranges of which each pod gets an address, podRoutes its routes, as the
// CNI plugin host-local takes them.
func podRanges(c Config) string {
	ranges := make([]string, len(c.PodCIDRs))
	for i, cidr := range c.PodCIDRs {
		ranges[i] = fmt.Sprintf(`[{"subnet": %q}]`, cidr)
	}
	ranges[0] = "[" + podRange(c) + "]"
	return strings.Join(ranges, ", ")
}

func podRoutes(c Config) string {
	routes := make([]string, len(c.PodCIDRs))
	for i, cidr := range c.PodCIDRs {
		routes[i] = `{"dst": "0.0.0.0/0"}`
		if strings.Contains(cidr, ":") {
			routes[i] = `{"dst": "::/0"}`
		}
	}
	return strings.Join(routes, ", ")
}

// podRange is the first range of pod addresses as the CNI plugin host-local takes it.
func podRange(c Config) string {
	subnet, err := netip.ParsePrefix(c.PodCIDRs[0])
	if c.PodAddresses == 0 || err != nil {
		return fmt.Sprintf(`{"subnet": %q}`, c.PodCIDRs[0])
	}
	// The first address is the node's own, of its bridge.
	first := subnet.Addr().Next().Next()
	last := first
	for range c.PodAddresses - 1 {
		last = last.Next()
	}
	return fmt.Sprintf(`{"subnet": %q, "rangeStart": %q, "rangeEnd": %q}`, c.PodCIDRs[0], first, last)
}

// networkDaemons are the daemons of the node's network: one, or none.
func networkDaemons(configPath string, c Config) ([]daemon, error) {
	if c.NetworkTool == "" {
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Network, err)
	}
	return []daemon{{filepath.Base(c.NetworkTool), []string{self, "network", configPath}}}, nil
}

// Network runs the daemon of the node's network as long as that runs. Every Node has its
// podCIDR when the daemon starts, as where a network is installed on a cluster that is there:
// kube-router looks for the other Nodes' only when they appear, and every five minutes.
func Network(configPath string) error {
	c, err := ReadConfig(configPath)
	if err != nil {
		return err
	}
	if err := awaitPodCIDRs(c); err != nil {
		return err
	}
	if c.Network == "kube-router" {
		return networkCommand(c, kubeRouterArgs(c)).Run()
	}
	if err := os.WriteFile(flannelNet, []byte(flannelNetwork(c)), 0o644); err != nil {
		return fmt.Errorf("configure flannel: %w", err)
	}
	cmd := networkCommand(c, []string{
		"--kube-subnet-mgr", "--kubeconfig-file=" + networkKubeconfig(c), "--iface=eth0", "--ip-masq",
		"--net-config-path=" + flannelNet, "--subnet-file=" + subnetEnv,
	})
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start flannel: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(networkWait); ; {
		err := writeFlannelConfig()
		if err == nil {
			return <-ended
		}
		if time.Now().After(end) {
			return errors.Join(err, cmd.Process.Kill(), <-ended)
		}
		select {
		case err := <-ended:
			return fmt.Errorf("flannel ended: %w", err)
		case <-time.After(networkTick):
		}
	}
}

// networkKubeconfig is the administrator's, which may do what the roles allow that come with
// each network.
func networkKubeconfig(c Config) string { return filepath.Join(c.PKI, "admin-lan.conf") }

// networkCommand is the network's daemon. It says what it does where this process does.
func networkCommand(c Config, args []string) *exec.Cmd {
	cmd := exec.Command(c.NetworkTool, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "NODE_NAME="+c.Name, "KUBE_ROUTER_CNI_CONF_FILE="+networkFile)
	return cmd
}

// kubeRouterArgs are those of its manifest for a cluster that has kube-proxy.
func kubeRouterArgs(c Config) []string {
	return []string{
		"--run-router=true", "--run-firewall=true", "--run-service-proxy=false", "--run-loadbalancer=false", "--bgp-graceful-restart=true",
		"--enable-cni=true", "--kubeconfig=" + networkKubeconfig(c), "--hostname-override=" + c.Name,
	}
}

// awaitPodCIDRs waits until every Node of the cluster has a podCIDR.
func awaitPodCIDRs(c Config) error {
	for end := time.Now().Add(networkWait); ; {
		out, err := exec.Command(filepath.Join(c.Tools, "kubectl"), "--kubeconfig="+networkKubeconfig(c), "get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}").Output()
		if err != nil {
			err = fmt.Errorf("list Nodes: %w", err)
		} else if have := len(strings.Fields(string(out))); have < c.Nodes {
			err = fmt.Errorf("%d of %d Nodes have a podCIDR", have, c.Nodes)
		}
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(networkTick)
	}
}

// flannelNetwork is flannel's own configuration.
func flannelNetwork(c Config) string {
	backend := "vxlan"
	if c.Network == "flannel-host-gw" {
		backend = "host-gw"
	}
	return fmt.Sprintf(`{"Network": %q, "EnableNFTables": %t, "Backend": {"Type": %q}}`, c.ClusterCIDRs, c.Network == "flannel-nftables", backend)
}

// writeFlannelConfig configures the plugin by what flannel wrote.
func writeFlannelConfig() error {
	text, err := os.ReadFile(subnetEnv)
	if err != nil {
		return fmt.Errorf("flannel has no subnet yet: %w", err)
	}
	env := map[string]string{}
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		env[name] = value
	}
	subnet, err := netip.ParsePrefix(env["FLANNEL_SUBNET"])
	if err != nil {
		return fmt.Errorf("read %s: %w", subnetEnv, err)
	}
	// Who masquerades is one of the two.
	config := fmt.Sprintf(flannelConfig, env["FLANNEL_IPMASQ"] != "true", env["FLANNEL_MTU"], subnet.Masked(), env["FLANNEL_NETWORK"])
	// containerd watches the directory, and must not read half a file.
	if err := os.WriteFile(networkFile+".new", []byte(config), 0o644); err != nil {
		return fmt.Errorf("configure flannel's plugin: %w", err)
	}
	return os.Rename(networkFile+".new", networkFile)
}
