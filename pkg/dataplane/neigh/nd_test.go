package neigh

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// segment6 is a host and another machine with IPv6, and the host's end of their link.
func segment6(t *testing.T) (host, other *netnstest.Machine, link netlink.Link) {
	t.Helper()
	host, other = netnstest.New(t, "host"), netnstest.New(t, "other")
	netnstest.Connect(t, host, "eth0", nil, other, "eth0", nil)
	host.Run(t, "sysctl -qw net.ipv6.conf.all.forwarding=1; ip address add fd00::1/64 dev eth0 nodad")
	other.Run(t, "ip address add fd00::9/64 dev eth0 nodad")
	link, err := host.Handle(t).LinkByName("eth0")
	must(t, err)
	return host, other, link
}

func macOf(t *testing.T, m *netnstest.Machine) string {
	t.Helper()
	return strings.TrimSpace(m.Run(t, "ip -o link show dev eth0 | sed 's/.*link.ether \\([^ ]*\\) .*/\\1/'"))
}

// given: another machine with an address of IPv6; then it is found, and one that is about to
// take the address itself fails; and the question leaves nothing in its cache.
//
// Mutant killed: solicitations-go-nowhere.
func TestNeighbourDiscoveryFindsAnotherOwner(t *testing.T) {
	host, other, link := segment6(t)
	ask := func(ips ...netip.Addr) (a Answers) {
		host.Do(t, func() {
			var err error
			a, err = Ask(t.Context(), link, ips, []netip.Addr{testenv.Addr("3fff::1"), testenv.Addr("203.0.113.1")})
			must(t, err)
		})
		return a
	}
	theirs, free := testenv.Addr("fd00::9"), testenv.Addr("fd00::200")
	// The machine's addresses need a moment until it answers.
	testenv.UntilWithin(t, patience, "the other machine answers", func() bool { return len(ask(theirs).Owners) > 0 })
	got := ask(theirs, free)
	if macs := got.Owners[theirs]; len(got.Owners) != 1 || len(macs) != 1 || macs[0].String() != macOf(t, other) || len(got.Everybody) > 0 {
		t.Errorf("found %+v", got)
	}
	if cache := other.Run(t, "ip -6 neigh show to fd00::200"); cache != "" {
		t.Errorf("a question left %q", cache)
	}
	host.Run(t, "ip address add fd00::200/128 dev eth0 nodad")
	if got := ask(free); len(got.Owners) > 0 {
		t.Errorf("the host's own answers count: %+v", got)
	}
	other.Run(t, "ip address add fd00::200/64 dev eth0")
	testenv.UntilWithin(t, patience, "the other machine finds that the address is taken", func() bool {
		return strings.Contains(other.Run(t, "ip -6 address show dev eth0 to fd00::200"), "dadfailed")
	})
}

// given: a neighbour that knows an egress IP at another machine; then an announcement has it
// send here.
//
// Mutant killed: announcements-do-not-override.
func TestNeighbourAdvertisementMovesAnAddress(t *testing.T) {
	host, other, link := segment6(t)
	other.Run(t, "ip -6 neigh replace fd00::200 lladdr 02:00:00:00:00:77 nud reachable dev eth0")
	testenv.UntilWithin(t, patience, "the neighbour sends here", func() bool {
		host.Do(t, func() { must(t, Announce(link, []netip.Addr{testenv.Addr("fd00::200")})) })
		return strings.Contains(other.Run(t, "ip -6 neigh show to fd00::200"), "lladdr "+macOf(t, host))
	})
}

// given: a watched address of IPv6; when another machine takes it, then that is found, and
// the address is defended; when the machine gives it up, that is forgotten.
//
// Mutant killed: solicitations-go-nowhere.
func TestWatchFindsAnotherOwnerOfIPv6(t *testing.T) {
	host, other, link := segment6(t)
	ip := testenv.Addr("fd00::200")
	var w Watch
	t.Cleanup(func() { must(t, w.Close()) })
	look := Look{Link: link, IPs: []netip.Addr{testenv.Addr("192.0.2.200")}, Every: time.Minute, Nobodys: []netip.Addr{testenv.Addr("3fff::1")}}
	after := func(d time.Duration) (s Sight) {
		look.Now += d
		host.Do(t, func() {
			var err error
			s, err = w.Look(look)
			must(t, err)
		})
		return s
	}
	after(0)
	look.IPs = append(look.IPs, ip)
	after(0)
	host.Run(t, "ip address add fd00::200/128 dev eth0 nodad")
	other.Run(t, "ip address add fd00::200/128 dev eth0 nodad")
	testenv.UntilWithin(t, patience, "the other owner is found", func() bool {
		s := after(30 * time.Second)
		return s.Owners[ip].String() == macOf(t, other) && len(s.Owners) == 1
	})
	var hearer ndSocket
	other.Do(t, func() {
		theirs, err := netlink.LinkByName("eth0")
		must(t, err)
		hearer, err = openND(theirs)
		must(t, err)
	})
	defer hearer.close()
	soon, cancel := context.WithTimeout(t.Context(), testenv.Stretch(patience))
	defer cancel()
	testenv.UntilWithin(t, patience, "the address is defended", func() bool {
		after(defendEvery)
		frame, ok, err := receiveAny(soon, make([]byte, frameSize), hearer.packetSocket)
		must(t, err)
		c, _ := parseND(frame)
		return ok && c.ip == ip && c.mac.String() == macOf(t, host)
	})
	other.Run(t, "ip address delete fd00::200/128 dev eth0")
	testenv.UntilWithin(t, patience, "it is forgotten", func() bool { return len(after(askAgainAfter).Owners) == 0 })
}

func TestNeighbourDiscoveryIsReadAsItWasWritten(t *testing.T) {
	s := ndSocket{packetSocket{mac: []byte{2, 0, 0, 0, 0, 1}}}
	ip := testenv.Addr("fd00::200")
	said := s.announcement(ip)
	if c, ok := parseND(said); !ok || c.ip != ip || c.mac.String() != "02:00:00:00:00:01" {
		t.Errorf("an announcement: %+v, %t", c, ok)
	}
	changed := func(at int, to byte) []byte {
		b := slices.Clone(said)
		b[at] = to
		return b
	}
	endless := append(slices.Clone(said), 1, 0, 0, 0, 0, 0, 0, 0)
	if _, ok := parseND(endless); !ok {
		t.Error("an option without a length ends nothing")
	}
	for name, frame := range map[string][]byte{
		"a question":         s.probe(ip),
		"cut off":            said[:ndOptions-1],
		"empty":              nil,
		"through a router":   changed(ndHops, 254),
		"not ICMPv6":         changed(ndNextHeader, 17),
		"a router's message": changed(ndType, 134),
		"IPv4":               changed(12, 8),
	} {
		if c, ok := parseND(frame); ok {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}
