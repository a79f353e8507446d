package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Config describes one node. It travels as a JSON file from the test bed to
// the node's first process.
type Config struct {
	// Name of the node, and its host name.
	Name string
	// IPs are its addresses on the LAN, one or two with a comma between them, Prefix the
	// test bed's, which names its cgroup.
	IPs    string
	Prefix string
	// PodCIDRs are the node's own, one for each family in which pods have addresses.
	// ClusterCIDRs are all nodes', one or two with a comma between them.
	PodCIDRs     []string
	ClusterCIDRs string
	// PodAddresses bounds the addresses of the first of PodCIDRs that pods get; 0 for all.
	PodAddresses int
	// Dir is the node's own directory: its state, logs and private mounts.
	Dir string
	// Tools holds the Kubernetes binaries, CNI the CNI plugins.
	Tools string
	CNI   string
	// PKI holds ca.crt, the node's certificate and the kubeconfigs.
	PKI string
	// API is the URL of the API server.
	API string
	// Images are docker-archives to load; Sandbox is the pause image in them.
	Images  []string
	Sandbox string
	// Legacy chooses iptables-legacy for the node's own rules: kube-proxy,
	// CNI, masquerading. Else they are in iptables-nft.
	Legacy bool
	// MTU of the LAN, in bytes; of pods, the CNI may make it smaller.
	MTU int
	// Network is what connects pods: "bridge", "ptp", "flannel", "flannel-host-gw",
	// "flannel-nftables" or "kube-router". NetworkTool is the program that it runs, if any.
	Network     string
	NetworkTool string
	// Nodes is how many the cluster has.
	Nodes int
	// ProxyMode is kube-proxy's mode.
	ProxyMode string
}

// ipv6Only reports whether the node has addresses of IPv6 alone.
func (c Config) ipv6Only() bool {
	return !slices.ContainsFunc(strings.Split(c.IPs, ","), func(ip string) bool { return !strings.Contains(ip, ":") })
}

// PIDFile is where Enter writes the process id, in the machine's PID
// namespace, of the node's first process.
func (c Config) PIDFile() string { return filepath.Join(c.Dir, "pid") }

// ReadConfig reads what WriteConfig wrote.
func ReadConfig(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read node configuration: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read node configuration %s: %w", path, err)
	}
	return c, nil
}

// WriteConfig writes a node's configuration to a file.
func WriteConfig(path string, c Config) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write node configuration: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write node configuration: %w", err)
	}
	return nil
}
