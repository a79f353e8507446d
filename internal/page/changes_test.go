package page

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestChanges: the last comes first, there are not too many, and what has no time is not there.
func TestChanges(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var namespaces []v1.NetNamespace
	for i := range maxChanges + 20 {
		n := objects.NetNamespace(fmt.Sprintf("n%03d", i), uint32(i+1), fmt.Sprintf("10.0.%d.9", i))
		n.Status.Conditions = []metav1.Condition{{
			Type: v1.ConditionEgressReady, Status: metav1.ConditionFalse, Reason: "NotClaimed", LastTransitionTime: metav1.NewTime(begin.Add(time.Duration(i*7%120) * time.Minute)),
		}}
		namespaces = append(namespaces, n)
	}
	namespaces = append(namespaces, objects.NetNamespace("silent", 999, "10.9.9.9"))
	h := host("node1", "192.168.7.11")
	says(&h, v1.ConditionEvacuating, metav1.ConditionTrue, "Annotated", "")
	for i := range h.Status.Conditions {
		h.Status.Conditions[i].LastTransitionTime = metav1.NewTime(begin.Add(300 * time.Minute))
	}
	m := modelOf(namespaces, []v1.HostSubnet{h})
	if len(m.Changes) != maxChanges || !slices.IsSortedFunc(m.Changes, func(a, b Change) int { return strings.Compare(b.At, a.At) }) {
		t.Errorf("%d changes, in order: %+v", len(m.Changes), m.Changes)
	}
	for _, c := range m.Changes {
		if c.Name == "silent" || c.Text == "" || c.At == "" {
			t.Errorf("there is %+v", c)
		}
		if want := map[string]Level{"Answers": LevelOK, "Ready": LevelOK, "Annotated": LevelDegraded, "NotClaimed": LevelFailed}[c.Reason]; c.Level != want {
			t.Errorf("%s is %s, want %s", c.Reason, c.Level, want)
		}
	}
}
