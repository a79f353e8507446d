package conformance_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The traffic cases are words. Each is played here on the plan of the pod's
// node, or proven by a test that sends packets, whose name is given then.

// trafficOnPlans are the cases that a plan answers: "" where it does so as the
// corpus says.
func trafficOnPlans() map[string]func(plan func(host string, red ...string) egress.Plan) string {
	pod := testenv.Addr("10.128.0.10")
	return map[string]func(func(string, ...string) egress.Plan) string{
		"traffic/pod-on-owner-to-outside": func(plan func(string, ...string) egress.Plan) string {
			p := plan("w0", "192.168.7.200").Pods[0]
			if p.Kind != egress.PathLocal || p.EgressIP.String() != "192.168.7.200" || p.IP != pod {
				return fmt.Sprintf("path %+v", p)
			}
			return ""
		},
		"traffic/pod-to-pod": func(plan func(string, ...string) egress.Plan) string {
			return inside(plan("w1", "192.168.7.200"), "10.130.4.7")
		},
		"traffic/pod-to-cluster-service": func(plan func(string, ...string) egress.Plan) string {
			return inside(plan("w1", "192.168.7.200"), "172.30.0.10")
		},
		"traffic/host-network-pod": func(plan func(string, ...string) egress.Plan) string {
			// Its address is the node's.
			for _, path := range plan("w1", "192.168.7.200").Pods {
				if path.IP != pod {
					return fmt.Sprintf("path %+v", path)
				}
			}
			return ""
		},
		"traffic/address-unhosted": func(plan func(string, ...string) egress.Plan) string {
			if p := plan("w0", "192.168.7.201").Pods[0]; p.Kind != egress.PathDrop {
				return fmt.Sprintf("path %+v", p)
			}
			return ""
		},
	}
}

func inside(plan egress.Plan, destination string) string {
	if slices.ContainsFunc(plan.Inside, func(p netip.Prefix) bool { return p.Contains(testenv.Addr(destination)) }) {
		return ""
	}
	return fmt.Sprintf("%s is not inside the cluster: %v", destination, plan.Inside)
}

// trafficByPackets are the cases that need packets and connections, with the
// tests that have them.
func trafficByPackets() map[string]string {
	return map[string]string{
		"traffic/reply-to-an-inbound-connection":            "pkg/dataplane: TestAnswersToOutsideClientsTakeTheOldWay",
		"traffic/established-connection-when-the-set-grows": "pkg/dataplane: TestConnectionsSpreadAndKeepTheirHost",
		"traffic/namespace-starts-to-ask-for-an-address":    "pkg/dataplane: TestNoPacketLeaksWhileAWayChanges",
	}
}

func TestTraffic(t *testing.T) {
	corpus, deviations := load(t)
	onPlans, byPackets := trafficOnPlans(), trafficByPackets()
	var count tally
	packets := 0
	for _, c := range corpus.TrafficCases {
		t.Run(c.Name, func(t *testing.T) {
			if len(c.Problems) > 0 {
				count.judge(t, c.Name, deviations, c.Problems)
				return
			}
			if test, ok := byPackets[c.Name]; ok {
				packets++
				t.Logf("by packets: %s", test)
				count.judge(t, c.Name, deviations, missingTest(t, test))
				return
			}
			check, ok := onPlans[c.Name]
			if !ok {
				count.judge(t, c.Name, deviations, []string{"nothing here plays it: " + c.Given})
				return
			}
			var wrong []string
			if w := check(trafficPlan(t)); w != "" {
				wrong = append(wrong, w)
			}
			count.judge(t, c.Name, deviations, wrong)
		})
	}
	count.report(t, "trafficCases", len(corpus.TrafficCases))
	t.Logf("CONFORMANCE trafficCases: %d of them by tests that send packets", packets)
}

// trafficPlan is the set-up of the cases: w0 owns 192.168.7.200, and red
// requests what is given.
func trafficPlan(t *testing.T) func(host string, red ...string) egress.Plan {
	t.Helper()
	return func(host string, red ...string) egress.Plan {
		cluster, _ := egress.Snapshot(egress.Objects{
			NetNamespaces: []v1.NetNamespace{objects.NetNamespace("red", 1001, red...)},
			HostSubnets:   []v1.HostSubnet{objects.ReportedHostSubnet("w0", "192.168.7.10", "192.168.7.200"), objects.ReportedHostSubnet("w1", "192.168.7.11")},
		})
		pods := []egress.Pod{
			{Namespace: "red", Name: "pod", UID: "1", IP: testenv.Addr("10.128.0.10")},
			{Namespace: "red", Name: "host-network", UID: "2", IP: cluster.Hosts[1].IP},
		}
		networks := testenv.Prefixes("10.128.0.0/14", "172.30.0.0/16")
		plan, ok := egress.PlanFor(cluster, egress.Resolve(cluster), host, pods, networks)
		if !ok {
			t.Fatalf("no plan for %s", host)
		}
		return plan
	}
}

// missingTest says that a test named "package: TestName" does not exist.
func missingTest(t *testing.T, named string) []string {
	t.Helper()
	match := regexp.MustCompile(`^([a-z0-9/]+): (Test\w+)$`).FindStringSubmatch(named)
	if match == nil {
		t.Fatalf("%q names no test", named)
	}
	files, err := filepath.Glob(filepath.Join("../..", match[1], "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^func ` + match[2] + `\(`).Match(source) {
			return nil
		}
	}
	return []string{"there is no test " + named}
}

// The values of the corpus that a schema would let through, and those that it
// would not, as the brain takes them.
func TestVectorsOnTheBrain(t *testing.T) {
	corpus, deviations := load(t)
	var count tally
	played := 0
	for _, v := range corpus.Vectors.Validation {
		value, isString := v.Value.(string)
		if !isString {
			continue
		}
		var given egress.Objects
		switch v.Field {
		case "netnamespace.egressIPs[]":
			given.NetNamespaces = []v1.NetNamespace{objects.NetNamespace("red", 1001, value)}
		case "hostsubnet.egressIPs[]":
			given.HostSubnets = []v1.HostSubnet{objects.ReportedHostSubnet("w0", "192.168.7.10", value)}
		case "hostsubnet.egressCIDRs[]":
			given.HostSubnets = []v1.HostSubnet{objects.ReportedHostSubnet("w0", "192.168.7.10")}
			given.HostSubnets[0].EgressCIDRs = []string{value}
		case "hostsubnet.hostIP":
			given.HostSubnets = []v1.HostSubnet{objects.ReportedHostSubnet("w0", value)}
		default:
			continue
		}
		played++
		t.Run(v.Field+"="+value, func(t *testing.T) {
			_, problems := egress.Snapshot(given)
			var wrong []string
			if !v.SchemaAccepts && len(problems) == 0 {
				wrong = append(wrong, "is taken without a word")
			}
			count.judge(t, "brain/"+v.Field+"="+value, deviations, wrong)
		})
	}
	for _, v := range corpus.Vectors.RangeInNodeNetwork {
		played++
		t.Run(v.Range+" in "+v.NodeNetwork, func(t *testing.T) {
			host := objects.ReportedHostSubnet("w0", "172.17.0.2")
			host.EgressCIDRs = []string{v.Range}
			network, err := netip.ParsePrefix(v.NodeNetwork)
			if err != nil {
				count.judge(t, "brain/range="+v.Range, deviations, []string{err.Error()})
				return
			}
			_, problems := egress.Snapshot(egress.Objects{
				HostSubnets: []v1.HostSubnet{host}, Networks: map[string][]netip.Prefix{"w0": {network}},
			})
			var wrong []string
			if accepted := len(problems) == 0; accepted != v.Accepted {
				wrong = append(wrong, fmt.Sprintf("accepted: %t", accepted))
			}
			count.judge(t, "brain/range="+v.Range, deviations, wrong)
		})
	}
	count.report(t, "vectors on the brain", played)
}
