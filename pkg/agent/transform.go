package agent

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stripPod is a cache transform that keeps only what podFromAPI reads of a Pod: a
// node has hundreds of pods, and most of what describes them is of no use here.
func stripPod(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil // a tombstone of the informer
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         pod.Namespace,
			Name:              pod.Name,
			UID:               pod.UID,
			ResourceVersion:   pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp,
			Labels:            pod.Labels,
			DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName:    pod.Spec.NodeName,
			HostNetwork: pod.Spec.HostNetwork,
		},
		Status: corev1.PodStatus{
			Phase:                      pod.Status.Phase,
			HostIP:                     pod.Status.HostIP,
			HostIPs:                    pod.Status.HostIPs,
			PodIP:                      pod.Status.PodIP,
			PodIPs:                     pod.Status.PodIPs,
			InitContainerStatuses:      stripContainers(pod.Status.InitContainerStatuses),
			ContainerStatuses:          stripContainers(pod.Status.ContainerStatuses),
			EphemeralContainerStatuses: stripContainers(pod.Status.EphemeralContainerStatuses),
		},
	}, nil
}

// stripNamespace keeps the labels of a Namespace.
func stripNamespace(obj any) (any, error) {
	namespace, ok := obj.(*corev1.Namespace)
	if !ok {
		return obj, nil
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion, Labels: namespace.Labels,
	}}, nil
}

// stripContainers keeps only whether each container runs or has ended.
func stripContainers(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, len(statuses))
	for i, s := range statuses {
		if s.State.Running != nil {
			kept[i].State.Running = &corev1.ContainerStateRunning{}
		}
		if s.State.Terminated != nil {
			kept[i].State.Terminated = &corev1.ContainerStateTerminated{}
		}
	}
	return kept
}
