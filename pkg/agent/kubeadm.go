package agent

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// kubeadmNetworks reads the networks that the cluster was made with.
func kubeadmNetworks(configs []corev1.ConfigMap) egress.ClusterNetworks {
	for i := range configs {
		if configs[i].Name == egress.KubeadmConfigMap {
			return egress.KubeadmNetworks(configs[i].Data[egress.KubeadmKey])
		}
	}
	return egress.ClusterNetworks{}
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
		Data: map[string]string{egress.KubeadmKey: config.Data[egress.KubeadmKey]},
	}, nil
}
