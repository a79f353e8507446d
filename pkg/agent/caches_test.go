package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSamePod: a pod whose readiness changes is the same, one that gets an
// address is not.
func TestSamePod(t *testing.T) {
	t.Parallel()
	strip := func(p corev1.Pod) *corev1.Pod {
		s, err := stripPod(&p)
		if err != nil {
			t.Fatal(err)
		}
		return s.(*corev1.Pod)
	}
	before := strip(pod("a", "10.244.1.5"))
	ready := strip(pod("a", "10.244.1.5", func(p *corev1.Pod) {
		p.ResourceVersion = "7"
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, LastTransitionTime: metav1.NewTime(time.Unix(5, 0))}}
	}))
	if !samePod(before, ready) {
		t.Error("readiness made another pod of it")
	}
	if before.ResourceVersion != "" {
		t.Error("samePod changed the cached pod")
	}
	if samePod(before, strip(pod("a", "10.244.1.6"))) {
		t.Error("another address was not seen")
	}
}
