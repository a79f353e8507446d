package controllers_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/egressip-operator/egressip-operator/controllers"
)

// TestControllerWithItsOwnRights: with the roles of config/rbac and nothing else, it
// leads, assigns, reports, writes events, and reads the Lease of another install.
func TestControllerWithItsOwnRights(t *testing.T) {
	a := startAPI(t)
	const namespace = "egressip-system"
	for _, name := range []string{namespace, "other"} {
		a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	if out, err := a.kubectl(t, "", "apply", "--server-side", "-k", "../config/rbac"); err != nil {
		t.Fatalf("kubectl apply -k config/rbac: %v\n%s", err, out)
	}
	restored := hostSubnet("node0")
	restored.Annotations = map[string]string{"egressip.network.openshift.io/claims-writer": "3 other/node0_pod/1"}
	a.create(t, restored)
	limited := *a
	limited.cfg = rest.CopyConfig(a.cfg)
	limited.cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":egressip-controller",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	limited.control(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: namespace, EgressIPs: true})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.ranges(t, "node1", "192.168.7.0/24")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	a.awaitEvent(t, "NetNamespace", "shop", "EgressIPAssigned", "192.168.7.200")
	a.assignable(t, "node1")
	a.egressIP(t, "prod", "192.168.7.201")
	a.awaitEgressIP(t, "prod", wantItems("192.168.7.201 node1"))
	a.awaitEvent(t, "EgressIP", "prod", "EgressIPAssigned", "192.168.7.201")
}
