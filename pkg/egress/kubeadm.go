package egress

import (
	"net/netip"
	"strings"

	"sigs.k8s.io/yaml"
)

// Where kubeadm keeps the configuration of the cluster: the name of the ConfigMap in
// kube-system, and the key in it.
const (
	KubeadmConfigMap = "kubeadm-config"
	KubeadmKey       = "ClusterConfiguration"
)

// SourceKubeadm is the source of networks with which kubeadm made the cluster.
const SourceKubeadm Source = "ConfigMap kube-system/" + KubeadmConfigMap

// KubeadmNetworks reads the networks that kubeadm made the cluster with from its
// ClusterConfiguration, in YAML. What cannot be read does not count.
func KubeadmNetworks(text string) ClusterNetworks {
	var configuration struct {
		Networking struct{ PodSubnet, ServiceSubnet string }
	}
	if yaml.Unmarshal([]byte(text), &configuration) != nil {
		return ClusterNetworks{}
	}
	return ClusterNetworks{
		Pods:     listedPrefixes(configuration.Networking.PodSubnet),
		Services: listedPrefixes(configuration.Networking.ServiceSubnet),
	}
}

// listedPrefixes reads networks that commas separate, as kubeadm writes those of two
// families.
func listedPrefixes(list string) (networks []netip.Prefix) {
	for written := range strings.SplitSeq(list, ",") {
		if p, err := netip.ParsePrefix(strings.TrimSpace(written)); err == nil {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}

// NotedNetworks lists the networks that kubeadm noted, for reports.
func NotedNetworks(c Cluster, n ClusterNetworks) []Network {
	var all []Network
	unusable := whyUnusable(c)
	add := func(networks []netip.Prefix, services bool) {
		for _, p := range networks {
			why := unusable(p)
			all = append(all, Network{Network: p, Source: SourceKubeadm, Inside: why == "", Why: why, Services: services})
		}
	}
	add(n.Pods, false)
	add(n.Services, true)
	return all
}
