package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

func TestProblems(t *testing.T) {
	cloud := new(given).automatic("w0", "10.0.0.0/8")
	cloud.Networks = map[string][]netip.Prefix{"w0": testenv.Prefixes("192.168.7.0/24")}
	strangeMode := new(given).namespace("red")
	strangeMode.NetNamespaces[0].Annotations = map[string]string{v1.AnnotationMode: "random"}
	subnet := new(given).host("w0")
	subnet.edit("w0", func(h *v1.HostSubnet) { h.Subnet = "0.0.0.0/0" })
	for name, test := range map[string]struct {
		given        *given
		field, value string
		reason       egress.Reason
	}{
		"a request with a prefix length":      {new(given).namespace("red", "192.168.7.200/24"), "egressIPs", "192.168.7.200/24", egress.ReasonBadAddress},
		"a request of everything":             {new(given).namespace("red", "0.0.0.0"), "egressIPs", "0.0.0.0", egress.ReasonBadAddress},
		"a request with a leading zero":       {new(given).namespace("red", "192.168.07.200"), "egressIPs", "192.168.07.200", egress.ReasonBadAddress},
		"an unknown mode":                     {strangeMode, "annotation " + v1.AnnotationMode, "random", egress.ReasonBadMode},
		"a netid of 25 bits":                  {new(given).namespace("red").netID("red", 1<<24), "netid", "16777216", egress.ReasonBadNetID},
		"a claim that is no address":          {new(given).host("w0", "abcd"), "egressIPs", "abcd", egress.ReasonBadAddress},
		"a claim of a link-local address":     {new(given).host("w0", "fe80::1/64"), "egressIPs", "fe80::1/64", egress.ReasonBadAddress},
		"a claim of a mapped address":         {new(given).host("w0", "::ffff:192.168.7.200"), "egressIPs", "::ffff:192.168.7.200", egress.ReasonBadAddress},
		"a multicast claim":                   {new(given).host("w0", "224.0.0.1"), "egressIPs", "224.0.0.1", egress.ReasonBadAddress},
		"a hostIP that is a name":             {new(given).host("w0").hostIP("w0", "node1"), "hostIP", "node1", egress.ReasonBadHost},
		"a hostIP of two hosts":               {new(given).host("w0").host("w1").hostIP("w1", "192.168.7.10"), "hostIP", "192.168.7.10", egress.ReasonBadHost},
		"a range that is none":                {new(given).automatic("w0", "10.1.1/24"), "egressCIDRs", "10.1.1/24", egress.ReasonBadCIDR},
		"a range with host bits":              {new(given).automatic("w0", "192.168.7.1/24"), "egressCIDRs", "192.168.7.1/24", egress.ReasonBadCIDR},
		"a range outside the cloud's network": {cloud, "egressCIDRs", "10.0.0.0/8", egress.ReasonOutsideNetwork},
		"a subnet of everything":              {subnet, "subnet", "0.0.0.0/0", egress.ReasonBadCIDR},
		"an uplink that is no CIDR":           {new(given).host("w0").uplink("w0", "eth0"), "status.agent.uplinkCIDR", "eth0", egress.ReasonBadCIDR},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := egress.Snapshot(test.given.Objects)
			if len(problems) == 0 {
				t.Fatal("no problem is reported")
			}
			p := problems[0]
			if p.Field != test.field || p.Value != test.value || p.Reason != test.reason {
				t.Errorf("got %s %q %s", p.Field, p.Value, p.Reason)
			}
			for _, word := range []string{p.Kind, p.Name, p.Field, p.Value} {
				if !strings.Contains(p.Message, word) {
					t.Errorf("the message does not name %q: %s", word, p.Message)
				}
			}
		})
	}
}

func TestRangeWithHostBitsIsReadWithoutThem(t *testing.T) {
	cluster, _ := egress.Snapshot(new(given).automatic("w0", "192.168.7.1/24", "10.1.1/24").Objects)
	if d := diff([]netip.Prefix{testenv.Prefix("192.168.7.0/24")}, cluster.Hosts[0].Ranges); d != "" {
		t.Error(d)
	}
}

func TestHostIsOnlineUnlessSaidOtherwise(t *testing.T) {
	for status, want := range map[metav1.ConditionStatus][2]bool{
		"": {true, false}, metav1.ConditionTrue: {true, false}, metav1.ConditionUnknown: {false, true}, metav1.ConditionFalse: {false, false},
	} {
		g := new(given).host("w0")
		if status != "" {
			g.edit("w0", func(h *v1.HostSubnet) {
				h.Status.Conditions = []metav1.Condition{{Type: v1.ConditionOnline, Status: status}}
			})
		}
		cluster, _ := egress.Snapshot(g.Objects)
		if got := [2]bool{cluster.Hosts[0].Online, cluster.Hosts[0].Doubtful}; got != want {
			t.Errorf("condition %q: online and doubtful are %t, want %t", status, got, want)
		}
	}
}

func TestVerdictsAndEvacuatingReplacePublishedConditions(t *testing.T) {
	g := new(given).host("w0").host("w1").offline("w0")
	g.Verdicts = map[string]online.Verdict{"w0": {Online: true, Closed: true}}
	cluster, _ := egress.Snapshot(g.Objects)
	if h := cluster.Hosts[0]; !h.Online || !h.Closed {
		t.Errorf("w0 is published as offline, and its verdict is online and closed: %+v", h)
	}
	if h := cluster.Hosts[1]; !h.Online || h.Closed {
		t.Errorf("w1 has neither verdict nor condition: %+v", h)
	}

	g.edit("w1", func(h *v1.HostSubnet) {
		h.Status.Conditions = []metav1.Condition{{Type: v1.ConditionEvacuating, Status: metav1.ConditionTrue}}
	})
	if cluster, _ := egress.Snapshot(g.Objects); !cluster.Hosts[1].Evacuating {
		t.Error("w1 is published as evacuating, and is not")
	}
	g.Evacuating = map[string]bool{"w0": true}
	if cluster, _ := egress.Snapshot(g.Objects); !cluster.Hosts[0].Evacuating || cluster.Hosts[1].Evacuating {
		t.Error("the given hosts are not those that evacuate")
	}
}

func TestCanonicalClaims(t *testing.T) {
	for name, test := range map[string]struct {
		claims, want []string
		changed      bool
	}{
		"a prefix length goes":              {[]string{"192.168.7.200/24"}, []string{"192.168.7.200"}, true},
		"a bare address stays":              {[]string{"192.168.7.200"}, []string{"192.168.7.200"}, false},
		"the order stays":                   {[]string{"192.168.7.201", "192.168.7.200/24"}, []string{"192.168.7.201", "192.168.7.200"}, true},
		"one address twice is one":          {[]string{"192.168.7.200/24", "192.168.7.200"}, []string{"192.168.7.200"}, true},
		"what is no address stays":          {[]string{"abcd", "192.168.7.200/33", "fe80::1%eth0", "::ffff:10.0.0.1"}, []string{"abcd", "192.168.7.200/33", "fe80::1%eth0", "::ffff:10.0.0.1"}, false},
		"IPv6 is written in one way":        {[]string{"FD00:0::A/64", "fd00::a", "192.168.7.200"}, []string{"fd00::a", "192.168.7.200"}, true},
		"an unusable address is still told": {[]string{"0.0.0.0"}, []string{"0.0.0.0"}, false},
		"nothing stays nothing":             {nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed := egress.CanonicalClaims(test.claims)
			if d := diff(test.want, got); d != "" || changed != test.changed {
				t.Errorf("changed: %t\n%s", changed, d)
			}
		})
	}
}

func TestParseCloudConfig(t *testing.T) {
	for name, test := range map[string]struct {
		annotation string
		want       egress.CloudConfig
		fails      bool
	}{
		"nothing":                      {"", egress.CloudConfig{}, false},
		"capacity by family":           {`[{"interface":"nic0","ifaddr":{"ipv4":"10.0.0.0/18"},"capacity":{"ipv4":14,"ipv6":15}}]`, egress.CloudConfig{Capacity: 14, IPv6Capacity: 15, Networks: testenv.Prefixes("10.0.0.0/18")}, false},
		"ip capacity wins":             {`[{"capacity":{"ipv4":14,"ip":10}}]`, egress.CloudConfig{Capacity: 10}, false},
		"the first interface counts":   {`[{"capacity":{"ip":1}},{"capacity":{"ip":2}}]`, egress.CloudConfig{Capacity: 1}, false},
		"capacity 0 is none, not all":  {`[{"capacity":{"ipv4":0}}]`, egress.CloudConfig{Capacity: -1}, false},
		"no capacity is no limit":      {`[{"ifaddr":{"ipv4":"10.0.0.7/18"}}]`, egress.CloudConfig{Networks: testenv.Prefixes("10.0.0.0/18")}, false},
		"IPv6 alone says nothing of 4": {`[{"ifaddr":{"ipv6":"fd00::/64"},"capacity":{"ipv6":15}}]`, egress.CloudConfig{IPv6Capacity: 15, Networks: testenv.Prefixes("fd00::/64")}, false},
		"IPv4 alone says nothing of 6": {`[{"ifaddr":{"ipv4":"10.0.0.0/18","ipv6":"fd00::7/64"},"capacity":{"ipv4":14}}]`, egress.CloudConfig{Capacity: 14, IPv6Capacity: 512, Networks: testenv.Prefixes("10.0.0.0/18", "fd00::/64")}, false},
		"one capacity for both":        {`[{"capacity":{"ipv4":14,"ipv6":15,"ip":10}}]`, egress.CloudConfig{Capacity: 10}, false},
		"no capacity of IPv6":          {`[{"capacity":{"ipv4":14,"ipv6":0}}]`, egress.CloudConfig{Capacity: 14, IPv6Capacity: -1}, false},
		"IPv4 in place of IPv6":        {`[{"ifaddr":{"ipv6":"10.0.0.0/18"}}]`, egress.CloudConfig{}, true},
		"no JSON":                      {"x", egress.CloudConfig{}, true},
		"no interface":                 {"[]", egress.CloudConfig{}, true},
		"a bad network":                {`[{"ifaddr":{"ipv4":"10.0.0.0"}}]`, egress.CloudConfig{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := egress.ParseCloudConfig(test.annotation)
			if d := diff(test.want, got); d != "" || (err != nil) != test.fails {
				t.Errorf("got %v\n%s", err, d)
			}
		})
	}
}
