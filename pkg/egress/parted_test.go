package egress_test

import (
	"strings"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// In a cluster with hosts of both families, a namespace whose egress hosts are all of one does not
// say that all is well: from the others the overlay does not lead there. One with egress IPs on
// hosts of both does, and so do all where hosts are of one family.
//
// Mutants killed: hosts-out-of-reach-are-not-told, gone-hosts-are-out-of-reach,
// spare-is-out-of-reach, what-is-out-of-reach-is-remembered.
func TestNamespaceWhoseEgressHostsAreOutOfReach(t *testing.T) {
	const four, six, second = "192.168.7.200", "fd00:7::200", "fd00:7::201"
	mixed := func(egressIPs ...string) *given {
		g := new(given).namespace("shop", egressIPs...).host("w0", six, four).host("w1", second).host("w2").ipv6()
		for _, name := range []string{"w1", "w2"} {
			g.hostIP(name, "fd00:7::1"+name[1:])
		}
		return g.configured("w0", six, four).configured("w1", second)
	}
	for _, c := range []struct {
		name  string
		given *given
		ready egress.Readiness
		says  string
	}{
		{"on a host of IPv4", mixed(six), egress.ReadyUnknown, "does not lead there from host w1 and 1 more, with a hostIP of IPv6"},
		{"on a host of IPv6", mixed(second), egress.ReadyUnknown, "does not lead there from host w0, with a hostIP of IPv4"},
		{"on one of each", mixed(six, second), egress.ReadyTrue, ""},
		{"on one of each, of which one is offline", mixed(six, second).offline("w1"), egress.ReadyUnknown, "from host w1 and 1 more"},
		{"of IPv4", mixed(four), egress.ReadyTrue, ""},
		{"on a host of IPv4, the others are gone", mixed(six).gone("w1").gone("w2"), egress.ReadyTrue, ""},
		{"on a host of IPv4, the others are new", mixed(six).unreported("w1").unreported("w2"), egress.ReadyTrue, ""},
	} {
		cluster, _ := egress.Snapshot(c.given.Objects)
		n := egress.Resolve(cluster).Groups[0]
		if told := n.Reason == egress.ReasonHostsOutOfReach; n.Ready != c.ready || !strings.Contains(n.Message, c.says) || told != (c.says != "") {
			t.Errorf("%s: %s %s %s", c.name, n.Ready, n.Reason, n.Message)
		}
	}

	g := mixed(six)
	g.NetNamespaces[0].UID, g.NetNamespaces[0].ResourceVersion = "uid", "1"
	var memo egress.Memo
	g.gone("w1").gone("w2")
	if n := memo.Decide(g.Objects).Resolution.Groups[0]; n.Ready != egress.ReadyTrue {
		t.Fatalf("before: %+v", n)
	}
	g.edit("w2", func(h *v1.HostSubnet) { h.Status.Conditions = h.Status.Conditions[:1] })
	if n := memo.Decide(g.Objects).Resolution.Groups[0]; n.Reason != egress.ReasonHostsOutOfReach {
		t.Errorf("after w2 has come back: %+v", n)
	}
}

// configured has the host's agent report that it has its egress IPs.
func (g *given) configured(host string, ips ...string) *given {
	for _, ip := range ips {
		g.reports(host, ip, "")
	}
	return g
}
