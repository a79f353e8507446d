package dataplane

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// The sets of the kernel get the hosts of one family, that of the own address, networks without
// host bits and each once, and all hosts as inside.
func TestDigestIsWhatSetsHold(t *testing.T) {
	d := digested(State{
		Hosts:  []netip.Addr{testenv.Addr("192.168.7.12"), testenv.Addr("fd00:7::12"), {}, testenv.Addr("192.168.7.11")},
		Inside: []netip.Prefix{netip.MustParsePrefix("10.244.1.1/16"), netip.MustParsePrefix("fd00::/48"), netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("0.0.0.0/0")},
	}, nil)
	hosts := slices.SortedFunc(maps.Keys(d.hostSet), netip.Addr.Compare)
	if want := []netip.Addr{testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12")}; !slices.Equal(hosts, want) {
		t.Errorf("hosts are %v", hosts)
	}
	if len(d.hosts) != 3 || len(d.networks) != 2 {
		t.Errorf("usable are hosts %v and networks %v", d.hosts, d.networks)
	}
	inside := masked(slices.Collect(maps.Keys(d.inside)))
	want := []netip.Prefix{
		netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("192.168.7.11/32"), netip.MustParsePrefix("192.168.7.12/32"), netip.MustParsePrefix("fd00::/48"),
		netip.MustParsePrefix("fd00:7::12/128"),
	}
	if !slices.Equal(inside, want) {
		t.Errorf("inside are %v", inside)
	}
}

// A digest holds for as long as hosts and networks are the same, whatever else changes, and
// although they are changed in place.
//
// Mutant killed: digest-of-former-networks.
func TestDigestIsMadeAgainForOthersOnly(t *testing.T) {
	s := State{
		Hosts:  []netip.Addr{testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12")},
		Inside: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
	}
	first := digested(s, nil)
	s.Pods, s.Hosted = []Pod{{IP: testenv.Addr("10.244.1.2")}}, []Hosted{{IP: testenv.Addr(eip1), NetID: 7}}
	if digested(s, first) != first {
		t.Error("it is made again for other pods")
	}
	s.Inside[0] = netip.MustParsePrefix("10.96.0.0/16")
	second := digested(s, first)
	if _, known := second.inside[s.Inside[0]]; !known {
		t.Errorf("another network is not in %v", second.inside)
	}
	s.Hosts[1] = testenv.Addr("192.168.7.13")
	third := digested(s, second)
	if _, known := third.hostSet[s.Hosts[1]]; !known || len(third.hostSet) != 2 {
		t.Errorf("another host is not in %v", third.hostSet)
	}
	s.HostIP = testenv.Addr("fd00:7::11")
	if fourth := digested(s, third); len(fourth.hostSet) != 0 || len(fourth.hosts) != 2 {
		t.Errorf("of a host with an address of IPv6, the overlay knows %v of %v", fourth.hostSet, fourth.hosts)
	}
}
