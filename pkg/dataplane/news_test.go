package dataplane

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// Which messages of the kernel mean that something may have changed that is ours, and which of
// them that our routes may have.
//
// Mutant killed: on-link-routes-make-no-news.
func TestWhatIsNews(t *testing.T) {
	const overlay, uplink, other = 5, 2, 9
	of := func(family byte, device uint32) []byte {
		return binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, device)
	}
	link := func(device uint32) []byte { return append(of(unix.AF_UNSPEC, device), make([]byte, 8)...) }
	route := func(family, table byte, device uint32, gateway bool) []byte {
		msg := make([]byte, unix.SizeofRtMsg)
		msg[0], msg[1], msg[4] = family, 24, table
		msg = append(msg, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(device)).Serialize()...)
		if gateway {
			msg = append(msg, nl.NewRtAttr(unix.RTA_GATEWAY, []byte{192, 168, 7, 1}).Serialize()...)
		}
		return msg
	}
	ours := append(route(unix.AF_INET, unix.RT_TABLE_COMPAT, overlay, true), nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(2000)).Serialize()...)
	for _, c := range []struct {
		name         string
		typ          uint16
		data         []byte
		news, routes bool
	}{
		{"neighbour at the overlay", unix.RTM_DELNEIGH, of(unix.AF_INET, overlay), true, false},
		{"neighbour elsewhere", unix.RTM_NEWNEIGH, of(unix.AF_INET, uplink), false, false},
		{"our route", unix.RTM_DELROUTE, ours, true, true},
		{"route of others", unix.RTM_NEWROUTE, route(unix.AF_INET, unix.RT_TABLE_MAIN, uplink, true), false, false},
		{"route to neighbours at the uplink", unix.RTM_NEWROUTE, route(unix.AF_INET, unix.RT_TABLE_MAIN, uplink, false), true, false},
		{"route to neighbours elsewhere", unix.RTM_NEWROUTE, route(unix.AF_INET, unix.RT_TABLE_MAIN, other, false), false, false},
		{"route of IPv6 to neighbours at the uplink", unix.RTM_NEWROUTE, route(unix.AF_INET6, unix.RT_TABLE_MAIN, uplink, false), false, false},
		{"route that is cut short", unix.RTM_NEWROUTE, []byte{unix.AF_INET}, true, false},
		{"overlay", unix.RTM_NEWLINK, link(overlay), true, true},
		{"another device", unix.RTM_NEWLINK, link(other), true, false},
		{"address of IPv4", unix.RTM_DELADDR, of(unix.AF_INET, other), true, false},
		{"address of the overlay", unix.RTM_DELADDR, of(unix.AF_INET, overlay), true, true},
		{"address of IPv6 that is not ours", unix.RTM_NEWADDR, of(unix.AF_INET6, other), false, false},
		{"tc", unix.RTM_DELQDISC, link(other), true, false},
		{"policy rule", unix.RTM_DELRULE, link(0), true, true},
		{"more than the socket could hold", unix.NLMSG_OVERRUN, nil, true, true},
	} {
		n := news{overlay: overlay, uplink: uplink, socket: &nl.NetlinkSocket{}}
		got := n.concerns(c.typ, c.data)
		if routes := n.takeRoutes(); got != c.news || routes != c.routes {
			t.Errorf("%s: news %t, of routes %t", c.name, got, routes)
		}
		if n.takeRoutes() {
			t.Errorf("%s: news of routes are taken twice", c.name)
		}
	}
}

// All counts as changed until the kernel is listened to; then what it reports does, once.
func TestNothingIsKnownBeforeTheKernelIsHeard(t *testing.T) {
	host, _, _ := netnstest.Host(t, "eth0")
	host.Stay(t)
	var n news
	t.Cleanup(n.close)
	heard := func() []bool { return []bool{n.concern(), n.takeRoutes()} }
	if !n.takeRoutes() {
		t.Error("routes are known before anything was heard")
	}
	if got := heard(); !slices.Equal(got, []bool{true, true}) {
		t.Errorf("at first: news, of routes: %v", got)
	}
	if got := heard(); !slices.Equal(got, []bool{false, false}) {
		t.Errorf("nothing has happened, and: %v", got)
	}
	host.Run(t, "ip rule add fwmark 0x1000/0x1000 lookup 2000 priority 90")
	if got := heard(); !slices.Equal(got, []bool{true, true}) {
		t.Errorf("after a policy rule: %v", got)
	}
	if got := heard(); !slices.Equal(got, []bool{false, false}) {
		t.Errorf("nothing has happened since, and: %v", got)
	}
}
