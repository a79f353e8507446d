package dataplane

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
)

// What the kernel reports is news of other interfaces if it is about their gateways, addresses or
// settings, and if it is not what is known: a router's advertisement, another default route of
// others, a setting of a pod's device.
//
// Mutants killed: lost-addresses-make-no-news, other-tables-make-no-news, settings-make-no-news.
func TestNewsOfOtherInterfaces(t *testing.T) {
	host, h, _ := netnstest.Host(t, "eth0")
	host.Stay(t)
	host.Run(t, `for i in 1 2; do ip link add eth$i type veth peer name far$i; ip link set eth$i up; ip link set far$i up; done
		ip address add 172.16.5.10/24 dev eth1; ip address add fd00:5::10/64 dev eth1 nodad; ip address add fd00:6::10/64 dev eth2 nodad
		ip address add fd00:7::10/64 dev eth0 nodad`)
	index := func(name string) int {
		link, err := h.LinkByName(name)
		must(t, err)
		return link.Attrs().Index
	}
	furthers, err := address.Furthers(h, index("eth0"))
	must(t, err)
	e := &elsewhere{uplink: index("eth0"), links: map[int]bool{index("eth1"): true}, furthers: furthers}
	s, err := subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_NETCONF)
	must(t, err)
	defer s.Close()
	for _, c := range []struct {
		do   string
		want bool
	}{
		{"ip route add default via 172.16.5.1 dev eth1 table 100", true},
		{"ip route replace default via 172.16.5.2 dev eth1 table 100", true},
		{"ip route replace default table 100 nexthop via 172.16.5.2 dev eth1 nexthop dev eth2", true},
		{"ip route del default table 100", true},
		{"ip route add default dev eth2 table 100", false},
		{"ip route add 10.0.0.0/8 via 172.16.5.1 dev eth1 table 100", false},
		{"ip -6 route add default via fd00:5::1 dev eth1 table 100", true},
		{"ip -6 route add default via fd00:6::1 dev eth2 table 101", false},
		{"ip address change fd00:5::10/64 dev eth1 valid_lft 900 preferred_lft 900", false},
		{"ip address add fd00:5::11/64 dev eth1 nodad", true},
		{"ip address add fd00:5::12/128 dev eth1 nodad", false},
		{"ip address add fe80::77/64 dev eth1 nodad", false},
		{"ip address del fd00:5::10/64 dev eth1", true},
		{"ip address del fd00:6::10/64 dev eth2", false},
		{"ip address del fd00:7::10/64 dev eth0", true},
		{"sysctl -qw net.ipv4.conf.eth1.rp_filter=1", true},
		{"sysctl -qw net.ipv4.conf.eth1.forwarding=1", true},
		{"sysctl -qw net.ipv4.conf.all.rp_filter=1", true},
		{"sysctl -qw net.ipv4.conf.default.rp_filter=1", false},
		{"sysctl -qw net.ipv4.conf.eth2.rp_filter=1", false},
	} {
		host.Run(t, c.do)
		got, err := drain(s, make([]byte, nl.RECEIVE_BUFFER_SIZE), e.concerned)
		must(t, err)
		if got != c.want {
			t.Errorf("%s: news is %t", c.do, got)
		}
	}
	for _, typ := range []uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF} {
		if (*elsewhere)(nil).concerned(typ, nil) || (&elsewhere{}).concerned(typ, nil) {
			t.Errorf("a host without other interfaces has news of type %d", typ)
		}
	}
}

// given: a host with an egress IP of its second interface, on which nothing changes, so that passes
// do not read everything; when the filter for all becomes strict, a gateway of another table
// changes, or an address of IPv6 goes or comes, then the kernel's report calls for a pass, and
// that pass finds it.
//
// Mutants killed: lost-addresses-make-no-news, other-tables-make-no-news, settings-make-no-news.
func TestSteadyPassFindsChangesElsewhere(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	w.second(t)
	n := w.nodes[0]
	n.Run(t, `sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0; ip address add fd00:5::11/64 dev eth1 nodad
		ip route del default dev eth1; ip route add default via 172.16.5.7 dev eth1 table 100`)
	n.hostFurther(further1, gateway2, 7)
	n.apply(t)
	var calls atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- netnstest.OnThread(func() error {
			if err := n.enter(); err != nil {
				return err
			}
			return n.dp.Run(ctx, func() { calls.Add(1) })
		})
	}()
	testenv.UntilWithin(t, patience, "the watch to begin", func() bool {
		n.Run(t, "ip link set lo alias mark-$(date +%N)")
		return calls.Load() > 0
	})
	four, six := testenv.Prefix("172.16.5.0/24"), testenv.Prefix("fd00:5::/64")
	gateway := func(r Report, cidr netip.Prefix) string {
		for _, network := range r.Networks {
			if network.CIDR == cidr {
				return network.Gateway.String()
			}
		}
		return "no network"
	}
	for _, c := range []struct {
		do      string
		cidr    netip.Prefix
		gateway string
	}{
		{"sysctl -qw net.ipv4.conf.all.rp_filter=1", four, "172.16.5.7"},
		{"ip route replace default via 172.16.5.8 dev eth1 table 100", four, "172.16.5.8"},
		{"ip -6 route add default via fd00:5::9 dev eth1 table 100", six, "fd00:5::9"},
		{"ip address del fd00:5::11/64 dev eth1", six, "no network"},
		{"ip address add fd00:5::12/64 dev eth1 nodad", six, "fd00:5::9"},
		{"sysctl -qw net.ipv4.conf.eth1.rp_filter=1", four, "172.16.5.8"},
	} {
		n.untilSteady(t)
		quiet(t, n.Machine, &calls)
		n.untilSteady(t)
		n.Run(t, c.do)
		testenv.UntilWithin(t, patience, "notice of: "+c.do, func() bool { return calls.Load() > 0 })
		r := n.apply(t)
		if got := gateway(r, c.cidr); got != c.gateway {
			t.Errorf("%s: gateway of %v: %s", c.do, c.cidr, got)
		}
		if got := n.Run(t, "sysctl -n net.ipv4.conf.eth1.rp_filter"); got != "2\n" {
			t.Errorf("%s: filter %s", c.do, got)
		}
	}
	stop()
	must(t, <-ended)
	if r := n.apply(t); !slices.ContainsFunc(r.Networks, func(network Network) bool { return network.CIDR == four }) {
		t.Errorf("networks: %v", r.Networks)
	}
}
