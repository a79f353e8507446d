package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of pools.
const GroupName = "egressip.network.openshift.io"

// GroupVersion returns the group and version that this package defines.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}
}

// AddToScheme makes the kinds of this package known to scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(),
		&EgressIPPool{}, &EgressIPPoolList{},
		&EgressIPRequest{}, &EgressIPRequestList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
