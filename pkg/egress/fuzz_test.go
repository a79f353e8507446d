package egress_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// FuzzSnapshot feeds the reader what no schema would let through, and what
// comes of it to everything behind. Nothing may panic; the answer must not
// depend on the order; a namespace that requests anything at all must not
// leave with the node's address; and what is not used must be reported.
//
// Lists are fields separated by spaces.
func FuzzSnapshot(f *testing.F) {
	f.Add("192.168.7.200 192.168.7.201", "192.168.7.200/24", "192.168.7.0/24", "192.168.7.10", "10.244.0.0/24", "192.168.7.10/24", "ordered", uint32(1001), uint32(1002), "")
	f.Add("::ffff:192.168.7.200", "fe80::1%eth0 0.0.0.0", "0.0.0.0/0 192.168.7.1/24", "", "0.0.0.0/0", "192.168.7.10/32", "balanced", uint32(1<<24), uint32(0), `[{"capacity":{"ip":0}}]`)
	f.Add("192.168.7.10 a.b.c.d", "192.168.7.0 192.168.7.255 192.168.7.10", "10.1.1/24", "192.168.7.10", "x", "192.168.7.10/31", "?", uint32(7), uint32(7), `[{"ifaddr":{"ipv4":"10.0.0.0/18"}}]`)
	f.Fuzz(func(t *testing.T, requests, claims, ranges, hostIP, subnet, uplink, mode string, netID, otherID uint32, cloud string) {
		objects := egress.Objects{
			NetNamespaces: []v1.NetNamespace{
				{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{v1.AnnotationMode: mode}}, NetID: &netID, EgressIPs: strings.Fields(requests)},
				{ObjectMeta: metav1.ObjectMeta{Name: "b"}, NetID: &otherID, EgressIPs: strings.Fields(claims)},
			},
			HostSubnets: []v1.HostSubnet{
				{
					ObjectMeta: metav1.ObjectMeta{Name: "v"}, HostIP: hostIP, Subnet: subnet,
					EgressIPs: strings.Fields(claims), EgressCIDRs: strings.Fields(ranges),
					Status: v1.HostSubnetStatus{Agent: &v1.AgentStatus{UplinkCIDR: uplink}},
				},
				{ObjectMeta: metav1.ObjectMeta{Name: "w"}, HostIP: "192.168.7.11", EgressIPs: strings.Fields(requests)},
				{ObjectMeta: metav1.ObjectMeta{Name: "x"}, HostIP: "192.168.7.12", EgressCIDRs: strings.Fields(ranges)},
			},
		}
		if config, err := egress.ParseCloudConfig(cloud); err == nil {
			objects.Capacity = map[string]int{"v": config.Capacity}
		}
		cluster, problems := egress.Snapshot(objects)
		resolution := egress.Resolve(cluster)
		allocation := egress.Allocate(cluster)
		pods := []egress.Pod{{Namespace: "a", IP: testenv.Addr("10.244.0.1")}, {Namespace: "b", IP: testenv.Addr("10.244.0.2")}}
		for _, host := range objects.HostSubnets {
			plan, ok := egress.PlanFor(cluster, resolution, host.Name, pods, nil)
			if !ok {
				t.Fatalf("no plan for %s", host.Name)
			}
			for _, path := range plan.Pods {
				n := objects.NetNamespaces[0]
				if path.Namespace == "b" {
					n = objects.NetNamespaces[1]
				}
				if len(n.EgressIPs) > 0 && path.Kind == egress.PathNode {
					t.Fatalf("%s requests %q and leaves with the node's address", n.Name, n.EgressIPs)
				}
			}
		}
		for _, n := range objects.NetNamespaces {
			reported(t, problems, n.Name, n.EgressIPs)
		}
		reported(t, problems, "v", objects.HostSubnets[0].EgressIPs)

		egress.CanonicalClaims(objects.HostSubnets[0].EgressIPs)
		slices.Reverse(objects.NetNamespaces)
		slices.Reverse(objects.HostSubnets)
		again, _ := egress.Snapshot(objects)
		if a, b := written(t, resolution, allocation), written(t, egress.Resolve(again), egress.Allocate(again)); a != b {
			t.Fatalf("depends on the order:\n%s\n%s", a, b)
		}
	})
}

// reported wants a problem for each value that does not even look like an
// address.
func reported(t *testing.T, problems []egress.Problem, name string, values []string) {
	t.Helper()
	for _, value := range values {
		if strings.ContainsAny(value, "0123456789") {
			continue
		}
		if !slices.ContainsFunc(problems, func(p egress.Problem) bool { return p.Name == name && p.Value == value }) {
			t.Fatalf("%q of %s is not used, and no problem says so", value, name)
		}
	}
}

func written(t *testing.T, values ...any) string {
	t.Helper()
	data, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
