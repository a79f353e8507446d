package egress

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
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
		text string
		want ClusterNetworks
	}{
		"of two families": {text, ClusterNetworks{
			Pods: testenv.Prefixes("10.244.0.0/16", "fd00:10:244::/56"), Services: testenv.Prefixes("10.96.0.0/12"),
		}},
		"without pods": {"networking: {serviceSubnet: 10.96.0.0/12}", ClusterNetworks{Services: testenv.Prefixes("10.96.0.0/12")}},
		"unreadable":   {"networking: [", ClusterNetworks{}},
		"no networks":  {"networking: {podSubnet: x, serviceSubnet: 10.96.0.0}", ClusterNetworks{}},
		"nothing":      {"", ClusterNetworks{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := KubeadmNetworks(test.text)
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
