package agent

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Where kubeadm keeps the configuration of the cluster.
const (
	kubeadmConfig = "kubeadm-config"
	kubeadmKey    = "ClusterConfiguration"
)

// kubeadmNetworks reads the networks that the cluster was made with. What cannot be read
// does not count.
func kubeadmNetworks(configs []corev1.ConfigMap) egress.ClusterNetworks {
	var networks egress.ClusterNetworks
	for i := range configs {
		if configs[i].Name != kubeadmConfig {
			continue
		}
		var configuration struct {
			Networking struct{ PodSubnet, ServiceSubnet string }
		}
		if yaml.Unmarshal([]byte(configs[i].Data[kubeadmKey]), &configuration) == nil {
			networks.Pods = prefixes(configuration.Networking.PodSubnet)
			networks.Services = prefixes(configuration.Networking.ServiceSubnet)
		}
	}
	return networks
}

// prefixes reads networks that commas separate, as kubeadm writes those of two families.
func prefixes(list string) (networks []netip.Prefix) {
	for written := range strings.SplitSeq(list, ",") {
		if p, err := netip.ParsePrefix(strings.TrimSpace(written)); err == nil {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}

// stripConfigMap is a cache transform that keeps what kubeadmNetworks reads.
func stripConfigMap(obj any) (any, error) {
	config, ok := obj.(*corev1.ConfigMap)
	if !ok {
		return obj, nil
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: config.Namespace, Name: config.Name, UID: config.UID, ResourceVersion: config.ResourceVersion,
		},
		Data: map[string]string{kubeadmKey: config.Data[kubeadmKey]},
	}, nil
}
