package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of OpenShift SDN's network objects.
const GroupName = "network.openshift.io"

// GroupVersion returns the group and version that this package defines.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: "v1"}
}

// AddToScheme makes the kinds of this package known to scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(),
		&NetNamespace{}, &NetNamespaceList{},
		&HostSubnet{}, &HostSubnetList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
