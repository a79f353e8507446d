package controllers_test

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// failAmidst waits until a third of all requests is claimed, has a host fail, and logs how
// long it takes until others have claimed all that it had.
func (s *scale) failAmidst(name string) string {
	var had []string
	if wrong := s.await(func(hosts []v1.HostSubnet, _ []v1.NetNamespace) string {
		claimed := 0
		for i := range hosts {
			claimed += len(hosts[i].EgressIPs)
			if hosts[i].Name == name {
				had = hosts[i].EgressIPs
			}
		}
		if claimed < s.requests()/3 || len(had) == 0 {
			return fmt.Sprintf("%d egress IPs are claimed, %d by %s", claimed, len(had), name)
		}
		return ""
	}); wrong != "" {
		return wrong
	}
	ready := func(status corev1.ConditionStatus) error {
		patch := fmt.Sprintf(`{"status": {"conditions": [{"type": "Ready", "status": %q, "reason": "Test"}]}}`, status)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		return s.a.Status().Patch(s.t.Context(), node, client.RawPatch("application/strategic-merge-patch+json", []byte(patch)))
	}
	began := time.Now()
	if err := ready(corev1.ConditionFalse); err != nil {
		return err.Error()
	}
	wrong := s.await(func(hosts []v1.HostSubnet, _ []v1.NetNamespace) string {
		left := len(had)
		for i := range hosts {
			if hosts[i].Name == name {
				continue
			}
			for _, ip := range hosts[i].EgressIPs {
				if slices.Contains(had, ip) {
					left--
				}
			}
		}
		if left > 0 {
			return fmt.Sprintf("%d egress IPs of %s are not claimed by others yet", left, name)
		}
		return ""
	})
	if wrong == "" {
		s.t.Logf("a host fails while others get their first egress IPs: its own %d are claimed by others after %s", len(had), time.Since(began).Round(time.Millisecond))
		if err := ready(corev1.ConditionTrue); err != nil {
			return err.Error()
		}
	}
	return wrong
}
