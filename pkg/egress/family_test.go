package egress_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// ipv6 is for the hosts so far: their agents serve IPv6, their uplinks are in fd00:7::/64.
func (g *given) ipv6() *given {
	for i := range g.HostSubnets {
		servesIPv6(&g.HostSubnets[i], i)
	}
	return g
}

// otherFamily annotates all namespaces.
func (g *given) otherFamily(becomes string) *given {
	for i := range g.NetNamespaces {
		metav1.SetMetaDataAnnotation(&g.NetNamespaces[i].ObjectMeta, v1.AnnotationOtherFamily, becomes)
	}
	return g
}

// edited changes all hosts.
func edited(g *given, change func(*v1.HostSubnet)) *given {
	for i := range g.HostSubnets {
		change(&g.HostSubnets[i])
	}
	return g
}

// Kills the mutants families-share-netid, any-host-serves-ipv6, unknown-network-serves-ipv6
// and address-of-all-routers.
func TestFamilies(t *testing.T) {
	const ipv4, ipv6 = "192.168.7.200", "fd00:7::200"
	both := func() *given {
		return new(given).namespace("red", ipv6, ipv4).host("w0", ipv4).host("w1", ipv6).ipv6()
	}
	one := func(request string, hosts ...string) *given {
		g := new(given).namespace("red", request).host("w0")
		for _, claim := range hosts {
			g.claims("w0", claim)
		}
		return g.ipv6()
	}
	for name, test := range map[string]struct {
		given *given
		// active, and what becomes of IPv4 and IPv6 traffic.
		active, ways string
		reason       egress.Reason
	}{
		"each family has its host":                 {both(), "192.168.7.200@w0 fd00:7::200@w1", "leaves leaves", egress.ReasonNotReported},
		"both on one host":                         {new(given).namespace("red", ipv6, ipv4).host("w0", ipv4, ipv6).ipv6(), "192.168.7.200@w0 fd00:7::200@w0", "leaves leaves", egress.ReasonNotReported},
		"one family's host is offline":             {both().offline("w1"), "192.168.7.200@w0", "leaves drops", egress.ReasonHostOffline},
		"a conflict of one family":                 {both().namespace("blue", ipv6), "192.168.7.200@w0", "leaves drops", egress.ReasonMultipleNamespaces},
		"a shared netid concerns both":             {both().namespace("blue", "fd00:7::201").netID("blue", 1001), "", "drops drops", egress.ReasonDuplicateNetID},
		"a shared netid with the other family":     {one(ipv6, ipv6).namespace("blue", ipv4).netID("blue", 1001), "", "refuses drops", egress.ReasonDuplicateNetID},
		"IPv6 only":                                {one(ipv6, ipv6), "fd00:7::200@w0", "refuses leaves", egress.ReasonNotReported},
		"IPv6 only, and IPv4 is left alone":        {one(ipv6, ipv6).otherFamily("node"), "fd00:7::200@w0", "node leaves", egress.ReasonNotReported},
		"IPv4 only":                                {one(ipv4, ipv4), "192.168.7.200@w0", "leaves refuses", egress.ReasonNotReported},
		"IPv4 only, and IPv6 is left alone":        {one(ipv4, ipv4).otherFamily("node"), "192.168.7.200@w0", "leaves node", egress.ReasonNotReported},
		"what is not known is the default":         {one(ipv4, ipv4).otherFamily("leave"), "192.168.7.200@w0", "leaves refuses", egress.ReasonNotReported},
		"what is left alone is not what is wanted": {one(ipv6, "fd00:7::201").otherFamily("node"), "", "node drops", egress.ReasonNotClaimed},
		"what is no address may be of any family":  {one("x").otherFamily("node"), "", "drops refuses", egress.ReasonBadAddress},
		"an unusable address of IPv6":              {one("fe80::1").otherFamily("node"), "", "node drops", egress.ReasonBadAddress},
		"upper case is the same":                   {one("FD00:7:0::200", ipv6), "fd00:7::200@w0", "refuses leaves", egress.ReasonNotReported},
		"an agent that serves IPv4 only": {edited(one(ipv6, ipv6), func(h *v1.HostSubnet) {
			h.Status.Agent.Families = []string{v1.FamilyIPv4}
		}), "", "refuses drops", egress.ReasonFamilyNotServed},
		"an agent that does not say": {edited(one(ipv6, ipv6), func(h *v1.HostSubnet) { h.Status.Agent.Families = nil }), "", "refuses drops", egress.ReasonFamilyNotServed},
		"an uplink that is not known to have it": {edited(one(ipv6, ipv6), func(h *v1.HostSubnet) {
			h.Status.Agent.UplinkNetworks = nil
		}), "", "refuses drops", egress.ReasonOutsideNetwork},
		"outside the uplink's networks": {one("fd00:9::1", "fd00:9::1"), "", "refuses drops", egress.ReasonOutsideNetwork},
		"the address of all routers":    {one("fd00:7::", "fd00:7::"), "", "refuses drops", egress.ReasonBadAddress},
		"a host's address":              {one("fd00:7::10", "fd00:7::10"), "", "refuses drops", egress.ReasonHostAddress},
		"a pod's address": {edited(one(ipv6, ipv6), func(h *v1.HostSubnet) {
			h.Status.IPv6Networks = []string{"fd00:7::200/120"}
		}), "", "refuses drops", egress.ReasonPodAddress},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			resolution := egress.Resolve(cluster)
			red, _ := resolution.Group("red")
			var active []string
			for _, a := range red.Active {
				active = append(active, a.IP.String()+"@"+a.Host)
			}
			plan, _ := egress.PlanFor(cluster, resolution, "w0", []egress.Pod{pod("red", "10.244.0.5"), pod("red", "fd00:244::5")}, nil)
			var ways []string
			for _, path := range plan.Pods {
				ways = append(ways, map[egress.PathKind]string{
					egress.PathNode: "node", egress.PathLocal: "leaves", egress.PathRemote: "leaves", egress.PathDrop: "drops", egress.PathRefuse: "refuses",
				}[path.Kind])
			}
			if got := strings.Join(active, " "); got != test.active || strings.Join(ways, " ") != test.ways || red.Reason != test.reason {
				t.Errorf("active %q, %q, %s: %s", got, ways, red.Reason, red.Message)
			}
		})
	}
}

// What an address is must not depend on how it is written, and no host can have some.
func TestUsableIPv6(t *testing.T) {
	for written, usable := range map[string]bool{
		"2001:db8::1": true, "fd00::1": true, "2001:DB8:0:0::A": true, "2002:c000:204::1": true, "2001:0:1::1": true,
		"::": false, "::1": false, "::ffff:192.0.2.1": false, "fe80::1": false, "ff02::1": false, "fd00::1%eth0": false,
		"64:ff9b::1": false, "::192.0.2.1": false, "fd00::1/64": false,
	} {
		cluster, problems := egress.Snapshot(new(given).namespace("red", written).Objects)
		if got := len(cluster.Groups[0].Requests) == 1; got != usable || got == (len(problems) > 0) {
			t.Errorf("%s is usable: %t, problems %v", written, got, problems)
		}
	}
}

// Of a capacity for both families together, neither takes a place that the other has.
func TestCapacityOfFamilies(t *testing.T) {
	v4 := []string{"192.168.7.200", "192.168.7.201", "192.168.7.202"}
	v6 := []string{"fd00:7::200", "fd00:7::201", "fd00:7::202"}
	cluster := func(capacity, ofIPv6 int, claims ...string) *given {
		g := new(given)
		for i := range v4 {
			g.namespace(fmt.Sprint("four", i), v4[i]).namespace(fmt.Sprint("six", i), v6[i])
		}
		g.automatic("w0", "192.168.7.0/24", "fd00:7::/64").claims("w0", claims...).ipv6()
		g.Capacity, g.IPv6Capacity = map[string]int{"w0": capacity}, map[string]int{"w0": ofIPv6}
		return g
	}
	for name, test := range map[string]struct {
		given *given
		want  []string
	}{
		"no limit":                            {cluster(0, 0), slices.Concat(v4, v6)},
		"for each":                            {cluster(1, 2), []string{v4[0], v6[0], v6[1]}},
		"none of IPv6":                        {cluster(2, -1), v4[:2]},
		"for both, and IPv4 comes first":      {cluster(4, 0), append(slices.Clone(v4), v6[0])},
		"IPv4 does not take what IPv6 has":    {cluster(3, 0, v6[1], v6[2]), []string{v4[0], v6[1], v6[2]}},
		"IPv6 does not take what IPv4 has":    {cluster(3, 0, v4[1], v4[2]), v4},
		"with more than that, IPv4 keeps its": {cluster(2, 0, v4[0], v4[1], v6[0]), v4[:2]},
		"none at all":                         {cluster(-1, 0, v4[0], v6[0]), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := egress.Snapshot(test.given.Objects)
			if d := diff(testenv.Addrs(test.want...), egress.Allocate(c).Hosts[0].Claims); d != "" {
				t.Error(d)
			}
		})
	}
}
