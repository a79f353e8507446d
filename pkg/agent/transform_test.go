package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestStripPodKeepsWhatIsRead: the cache's transform changes no answer, is
// idempotent, and throws away the rest.
func TestStripPodKeepsWhatIsRead(t *testing.T) {
	t.Parallel()
	d := at(3)
	full := pod("a", "10.244.1.5", func(p *corev1.Pod) {
		p.DeletionTimestamp = &d
		p.Annotations = map[string]string{"long": "text"}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		p.Status.ContainerStatuses = containers(1, 1)
		p.Status.InitContainerStatuses = terminated(1)
		p.Status.EphemeralContainerStatuses = running()
	})
	stripped, err := stripPod(full.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	slim := stripped.(*corev1.Pod)
	if slim.Annotations != nil || slim.Spec.Containers != nil {
		t.Errorf("the transform kept %v, %v", slim.Annotations, slim.Spec.Containers)
	}
	again, err := stripPod(slim)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slim, again); diff != "" {
		t.Errorf("stripped twice (-once +twice):\n%s", diff)
	}
	for _, change := range []func(*corev1.Pod){
		func(*corev1.Pod) {},
		func(p *corev1.Pod) { p.Status.EphemeralContainerStatuses = nil },
		func(p *corev1.Pod) {
			p.Status.EphemeralContainerStatuses, p.Status.ContainerStatuses = nil, terminated(2)
		},
		func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
	} {
		whole := full.DeepCopy()
		change(whole)
		part, err := stripPod(whole.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		want, got := podsOf(localPods([]corev1.Pod{*whole}, nil)), podsOf(localPods([]corev1.Pod{*part.(*corev1.Pod)}, nil))
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("podsOf the stripped pod (-whole +stripped):\n%s", diff)
		}
	}
	if tombstone, err := stripPod("else"); err != nil || tombstone != "else" {
		t.Errorf("stripPod of what is no pod = %v, %v", tombstone, err)
	}
}
