package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestSeenPod: what is read of a pod. What follows from it is the brain's.
func TestSeenPod(t *testing.T) {
	t.Parallel()
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	ended := corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		ended  bool
	}{
		"runs":   {func(*corev1.Pod) {}, false},
		"failed": {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true},
		"failed, and a container runs": {func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{running}
		}, false},
		"deleted, without any container": {deleted, false},
		"deleted, all have ended":        {func(p *corev1.Pod) { deleted(p); p.Status.ContainerStatuses = []corev1.ContainerStatus{ended, ended} }, true},
		"deleted, one waits":             {func(p *corev1.Pod) { deleted(p); p.Status.ContainerStatuses = []corev1.ContainerStatus{ended, {}} }, false},
		"deleted, a sidecar runs": {func(p *corev1.Pod) {
			deleted(p)
			p.Status.ContainerStatuses, p.Status.InitContainerStatuses = []corev1.ContainerStatus{ended}, []corev1.ContainerStatus{running}
		}, false},
	} {
		pod := objects.Pod("shop", "p", "node1", "::ffff:10.244.1.5")
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: "fd00::5"}, corev1.PodIP{IP: "none"})
		c.change(&pod)
		got := seenPod(&pod)
		if got.Ended != c.ended || len(got.Addresses) != 2 || got.Addresses[0].String() != "10.244.1.5" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
