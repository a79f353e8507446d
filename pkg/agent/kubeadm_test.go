package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The text is as kubeadm writes it.
//
// Mutant killed: note-of-kubeadm-is-not-read.
func TestKubeadmNetworks(t *testing.T) {
	t.Parallel()
	const text = `apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
kind: ClusterConfiguration
kubernetesVersion: v1.33.1
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16,fd00:10:244::/56
  serviceSubnet: 10.96.0.0/12
`
	for name, test := range map[string]struct {
		name, text string
		want       egress.ClusterNetworks
	}{
		"of two families": {kubeadmConfig, text, egress.ClusterNetworks{
			Pods: testenv.Prefixes("10.244.0.0/16", "fd00:10:244::/56"), Services: testenv.Prefixes("10.96.0.0/12"),
		}},
		"without pods":      {kubeadmConfig, "networking: {serviceSubnet: 10.96.0.0/12}", egress.ClusterNetworks{Services: testenv.Prefixes("10.96.0.0/12")}},
		"unreadable":        {kubeadmConfig, "networking: [", egress.ClusterNetworks{}},
		"no networks":       {kubeadmConfig, "networking: {podSubnet: x, serviceSubnet: 10.96.0.0}", egress.ClusterNetworks{}},
		"another ConfigMap": {"coredns", text, egress.ClusterNetworks{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: test.name}, Data: map[string]string{kubeadmKey: test.text, "other": "x"},
			}
			kept, err := stripConfigMap(config)
			if err != nil || len(kept.(*corev1.ConfigMap).Data) != 1 {
				t.Fatal(kept, err)
			}
			got := kubeadmNetworks([]corev1.ConfigMap{*kept.(*corev1.ConfigMap)})
			if len(got.Pods) == 0 {
				got.Pods = nil
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// testKubeadm: what kubeadm has noted is inside, as it is and as it changes; an agent that
// may not read it works without.
func testKubeadm(t *testing.T, a *api) {
	t.Helper()
	s := newScene(t, a, 31)
	note := func(subnet string) string { return "networking: {podSubnet: " + subnet + "}" }
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: kubeadmConfig}, Data: map[string]string{kubeadmKey: note("10.77.0.0/16")},
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
	config.Data[kubeadmKey] = note("10.78.0.0/16")
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
