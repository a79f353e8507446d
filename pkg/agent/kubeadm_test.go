package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// What the cache keeps of the ConfigMap is enough to read it; others do not count.
func TestKeptConfigMap(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{egress.KubeadmConfigMap: 1, "coredns": 0} {
		config := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name},
			Data:       map[string]string{egress.KubeadmKey: "networking: {podSubnet: 10.244.0.0/16}", "other": "x"},
		}
		kept, err := stripConfigMap(config)
		if err != nil || len(kept.(*corev1.ConfigMap).Data) != 1 {
			t.Fatal(kept, err)
		}
		if got := kubeadmNetworks([]corev1.ConfigMap{*kept.(*corev1.ConfigMap)}); len(got.Pods) != want {
			t.Errorf("%s: %d networks of pods, want %d", name, len(got.Pods), want)
		}
	}
}

// testKubeadm: what kubeadm has noted is inside, as it is and as it changes; an agent that
// may not read it works without.
func testKubeadm(t *testing.T, a *api) {
	t.Helper()
	s := newScene(t, a, 31)
	note := func(subnet string) string { return "networking: {podSubnet: " + subnet + "}" }
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: egress.KubeadmConfigMap}, Data: map[string]string{egress.KubeadmKey: note("10.77.0.0/16")},
	}
	s.must(t, s.Create(t.Context(), config))
	t.Cleanup(func() { s.must(t, s.Delete(context.WithoutCancel(t.Context()), config)) })
	u := startAgent(t, a, s.node)
	inside := func(want string) {
		t.Helper()
		testenv.Eventually(t, func(context.Context) string {
			if u.kernel.count() == 0 || !slices.Contains(u.kernel.last().Inside, testenv.Prefix(want)) {
				return fmt.Sprintf("%s is not inside", want)
			}
			return ""
		})
	}
	inside("10.77.0.0/16")
	config.Data[egress.KubeadmKey] = note("10.78.0.0/16")
	s.must(t, s.Update(t.Context(), config))
	inside("10.78.0.0/16")

	other := newScene(t, a, 32)
	v := startAgent(t, a, other.node, func(v *agentUnderTest) {
		v.wire.breaks(func(r *http.Request) error {
			if strings.HasSuffix(r.URL.Path, "/configmaps") {
				return errors.New("refused")
			}
			return nil
		})
	})
	other.settled(t, v)
	if inside := v.kernel.last().Inside; slices.Contains(inside, testenv.Prefix("10.78.0.0/16")) {
		t.Errorf("inside without rights to read it: %v", inside)
	}
}
