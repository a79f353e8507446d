package controllers

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// transformNode keeps what the reconcilers read. A heartbeat of the kubelet changes
// only the resourceVersion of it, so that sameNode can ignore it.
func transformNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	kept := &corev1.Node{
		TypeMeta:   node.TypeMeta,
		ObjectMeta: transformMeta(node.ObjectMeta),
		Spec:       corev1.NodeSpec{PodCIDR: node.Spec.PodCIDR, PodCIDRs: node.Spec.PodCIDRs},
	}
	if value, ok := node.Annotations[egress.AnnotationCloudConfig]; ok {
		metav1.SetMetaDataAnnotation(&kept.ObjectMeta, egress.AnnotationCloudConfig, value)
	}
	for _, key := range append(egress.NodeNetworkAnnotations(), v1.AnnotationEvacuate) {
		if value, ok := node.Annotations[key]; ok {
			metav1.SetMetaDataAnnotation(&kept.ObjectMeta, key, value)
		}
	}
	kept.Labels = node.Labels // pools select Nodes by any
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP || address.Type == corev1.NodeExternalIP {
			kept.Status.Addresses = append(kept.Status.Addresses, address)
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			kept.Status.Conditions = append(kept.Status.Conditions, corev1.NodeCondition{
				Type: condition.Type, Status: condition.Status, Reason: condition.Reason,
			})
		}
	}
	return kept, nil
}

// transformNamespace keeps a Namespace's identity, and the labels by which pools select it.
func transformNamespace(object any) (any, error) {
	namespace, ok := object.(*corev1.Namespace)
	if !ok {
		return object, nil
	}
	kept := &corev1.Namespace{TypeMeta: namespace.TypeMeta, ObjectMeta: transformMeta(namespace.ObjectMeta)}
	kept.Labels = namespace.Labels
	return kept, nil
}

func transformMeta(meta metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
		CreationTimestamp: meta.CreationTimestamp, DeletionTimestamp: meta.DeletionTimestamp,
	}
}
