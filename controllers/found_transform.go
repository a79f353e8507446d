package controllers

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// namesNetworks is all that is kept of an object.
type namesNetworks struct {
	metav1.ObjectMeta
	networks []egress.NamedNetwork
}

// readTransform is a cache transform that reads objects. Most of what they have is of no
// use here, and a CiliumNode has much.
func readTransform(source egress.NetworkSource) toolscache.TransformFunc {
	return func(object any) (any, error) {
		u, ok := object.(*unstructured.Unstructured)
		if !ok {
			return object, nil
		}
		return &namesNetworks{ObjectMeta: metav1.ObjectMeta{
			Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
		}, networks: source.Read(u.Object)}, nil
	}
}

// stripMeta is a cache transform that keeps names.
func stripMeta(object any) (any, error) {
	m, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
	}}, nil
}
