package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of OVN-Kubernetes.
const GroupName = "k8s.ovn.org"

// CRDName is the name of the CustomResourceDefinition.
const CRDName = "egressips." + GroupName

// AnnotationServedBy on the CustomResourceDefinition, with ServedBy as value, says that it is
// ours. Without it, another software serves the kind.
const (
	AnnotationServedBy = "egressip.network.openshift.io/served-by"
	ServedBy           = "egressip-operator"
)

// GroupVersion returns the group and version that this package defines.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: "v1"}
}

// AddToScheme makes the kinds of this package known to scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &EgressIP{}, &EgressIPList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
