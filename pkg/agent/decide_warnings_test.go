package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// warnsOnly expects one warning of a decision, with a reason, an object and a remedy, whose line
// has a part; none at all where the reason is empty.
func warnsOnly(t *testing.T, when string, in input, reason warning.Reason, object, part string) {
	t.Helper()
	d, _ := decide(in)
	switch {
	case reason == "" && len(d.warnings) == 0:
	case len(d.warnings) != 1 || d.warnings[0].Reason != reason || d.warnings[0].Object != object ||
		!strings.Contains(d.warnings[0].Problem, part) || d.warnings[0].Remedy == "":
		t.Errorf("%s: want %s (%s) with %q, and there are:\n%s", when, reason, object, part, warning.Lines(d.warnings))
	}
}

// TestStrictWithoutNetworksWarns: where nothing tells which addresses are pods',
// strict classification does nothing, and says so.
func TestStrictWithoutNetworksWarns(t *testing.T) {
	t.Parallel()
	in := given()
	in.strict = true
	warnsOnly(t, "with a podCIDR", in, "", "", "")
	in.hostSubnets[0].Subnet = ""
	warnsOnly(t, "without any network", in, warning.StrictWithoutEffect, "--cluster-cidrs", "no effect on this node")
	in.podNetworks = testenv.Prefixes("10.244.0.0/16")
	warnsOnly(t, "with a network of the cluster", in, "", "", "")
}

// TestPodOutsideEveryNetworkWarns: where a CNI gives addresses out of pools of its own,
// what says so names one of them and the setting.
func TestPodOutsideEveryNetworkWarns(t *testing.T) {
	t.Parallel()
	in := given()
	in.pods = localPods([]corev1.Pod{pod("cart", "10.244.1.5"), pod("pooled", "10.9.133.70")}, nil)
	warnsOnly(t, "outside", in, warning.AddressesOutside, "pod shop/pooled", "10.9.133.70")
	in.podNetworks = testenv.Prefixes("10.9.0.0/16")
	warnsOnly(t, "in clusterCIDRs", in, "", "", "")
}

// TestAddressesThatAreNotPublishedWarn: a node with more addresses than it can publish says how
// many are not, until they are fewer.
//
// Mutant killed: omitted-addresses-are-not-told.
func TestAddressesThatAreNotPublishedWarn(t *testing.T) {
	t.Parallel()
	in := given()
	next := testenv.Addr("172.17.0.1")
	for range egress.MaxAddresses + 2 {
		in.addresses = append(in.addresses, next)
		next = next.Next()
	}
	warnsOnly(t, "two too many", in, warning.AddressesOutside, "--exclude-cidrs", "this node has 2 addresses more than it can publish")
	in.addresses = in.addresses[2:]
	warnsOnly(t, "as many as can be published", in, "", "", "")
}

// TestHostsOutOfReachWarn: a node whose pods would use an egress host of the other family names
// it, until that has an address of the node's family.
//
// Mutant killed: hosts-of-the-other-family-are-not-told.
func TestHostsOutOfReachWarn(t *testing.T) {
	t.Parallel()
	in := given()
	in.netNamespaces[1].EgressIPs = []string{"2001:db8:8::200"}
	in.hostSubnets = slices.Clone(in.hostSubnets)
	in.hostSubnets[0].EgressIPs = nil
	host := func(ip string) {
		h := hostSubnet("node2", ip, "10.244.2.0/24", "2001:db8:8::200")
		h.Status.Agent.Families, h.Status.Agent.UplinkNetworks = []string{v1.FamilyIPv4, v1.FamilyIPv6}, []string{"2001:db8:8::/64"}
		in.hostSubnets[1] = h
	}
	host("2001:db8:8::12")
	warnsOnly(t, "of the other family", in, warning.HostUnreachable, "host node2", "10.1.8.11 of this node is one of IPv4")
	host("10.1.8.12")
	warnsOnly(t, "of one family", in, "", "", "")
}

// TestTooManyExcludedNetworksWarn: a node with a pod whose objects exclude too many networks together
// names these, and not where one of them excludes fewer.
func TestTooManyExcludedNetworksWarn(t *testing.T) {
	t.Parallel()
	in := given()
	in.namespaces = map[string]labels.Set{"shop": {}}
	for i := range 3 {
		var list []string
		for n := range egress.MaxDestinations {
			list = append(list, fmt.Sprintf("%d.%d.%d.%d", 1+13*n+4*i, 85, 171*(i%2), 1+2*n))
		}
		in.egressIPs = append(in.egressIPs, ovnv1.EgressIP{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("eip%d", i), Annotations: map[string]string{v1.AnnotationIncludeCIDRs: strings.Join(list, ",")}},
			Spec:       ovnv1.EgressIPSpec{EgressIPs: []string{fmt.Sprintf("10.1.8.21%d", i)}},
			Status:     ovnv1.EgressIPStatus{NetID: new(uint32(30 + i))},
		})
	}
	in.netNamespaces[1].EgressIPs = nil
	in.hostSubnets[0].EgressIPs = []string{"10.1.8.210"}
	warnsOnly(t, "too many together", in, warning.NotExcluded, "EgressIP eip0, EgressIP eip1, EgressIP eip2", "more than 1024 networks")
	in.egressIPs[2].Annotations = map[string]string{v1.AnnotationExcludeCIDRs: "10.0.0.0/8"}
	warnsOnly(t, "fewer", in, "", "", "")
}
