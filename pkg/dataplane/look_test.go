package dataplane

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
)

// A rule of others may lead packets of a pod another way if it matches the pod's address, comes
// before the main table's rule, and looks in a table that is not every host's.
//
// Mutant killed: rules-for-the-main-table-lead-elsewhere.
func TestRulesOfOthersThatMatchAPod(t *testing.T) {
	pod := testenv.Addr("10.244.1.2")
	_, pods, _ := net.ParseCIDR("10.244.0.0/16")
	_, elsewhere, _ := net.ParseCIDR("10.77.0.0/16")
	rule := func(priority, table int, src *net.IPNet) netlink.Rule {
		return netlink.Rule{Priority: priority, Table: table, Src: src}
	}
	for _, c := range []struct {
		name   string
		others []netlink.Rule
		want   int
	}{
		{"none", nil, -1},
		{"from anywhere", []netlink.Rule{rule(100, 300, nil)}, -1},
		{"from elsewhere", []netlink.Rule{rule(100, 300, elsewhere)}, -1},
		{"from pods", []netlink.Rule{rule(100, 300, pods)}, 0},
		{"to the main table", []netlink.Rule{rule(100, unix.RT_TABLE_MAIN, pods)}, -1},
		{"to the local table", []netlink.Rule{rule(100, unix.RT_TABLE_LOCAL, pods)}, -1},
		{"behind the main table's", []netlink.Rule{rule(32766, 300, pods)}, -1},
		{"the first that matches", []netlink.Rule{rule(99, 300, elsewhere), rule(100, 301, pods), rule(101, 302, pods)}, 1},
	} {
		got := matching(c.others, pod)
		if c.want < 0 && got != nil || c.want >= 0 && got != &c.others[c.want] {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What chains of others are asked about: the other hosts, which send over the overlay, and one
// address of each network of IPv4 in which pods of others may be; and whether they come before
// our own source NAT, where that is.
func TestWhatChainsOfOthersAreAskedAbout(t *testing.T) {
	own, other := testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12")
	hosts := []netip.Addr{own, other}
	r := round{pass: &pass{state: State{
		HostIP: own, Hosts: hosts,
		Inside: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/48")},
	}}}
	if got := r.otherHosts(); !slices.Equal(got, []netip.Addr{other}) || hosts[0] != own {
		t.Errorf("other hosts are %v, and the State's %v", got, hosts)
	}
	if got := r.otherPods(); !slices.Equal(got, []netip.Addr{testenv.Addr("10.244.0.0")}) {
		t.Errorf("other pods are at %v", got)
	}
	if r.natPriority() != iptablesNAT {
		t.Errorf("with iptables, source NAT is at %d", r.natPriority())
	}
	r.members.table = true
	if r.natPriority() != nftables.NATPriority {
		t.Errorf("in a table of our own, source NAT is at %d", r.natPriority())
	}
}
