package bpf

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Hosts of IPv6, of which two differ in their first bytes alone, and two in their last.
func hosts6() []netip.Addr {
	return []netip.Addr{testenv.Addr("2001:db8::2"), testenv.Addr("2001:db8::3"), testenv.Addr("3fff:db8::2")}
}

// A restarted agent finds the routes to hosts of IPv6. A host of IPv4 is in none of them. Where
// hosts had addresses of IPv4 before, or have them again, it begins with empty maps: those of
// the other layout are replaced.
func TestMapsOverIPv6(t *testing.T) {
	h, dir := netnstest.Enter(t), netnstest.PinDir(t)
	m, err := OpenMaps(h, dir, device, Shape{OverIPv6: true})
	must(t, err)
	if !m.HasIPv6() || !m.OverIPv6() {
		t.Error("maps for one family only")
	}
	pod4, pod6, four := testenv.Addr("10.0.0.5"), testenv.Addr("fd00::5"), testenv.Addr("192.0.2.2")
	routes := map[netip.Addr]Route{
		pod4: {NetID: 77, Via: hosts6(), Sources: []netip.Addr{testenv.Addr("192.0.2.200"), {}, {}}},
		pod6: {NetID: 78, Via: hosts6()[1:2], Sources: []netip.Addr{testenv.Addr("2001:db8::200")}},
	}
	hosted := map[Network]uint32{{NetID: 77}: 0x101, {NetID: 77, IPv6: true}: 0x102}
	for ip, r := range routes {
		must(t, m.PutRoute(ip, r))
	}
	for n, mark := range hosted {
		must(t, m.PutHosted(n, mark))
	}
	if m.PutRoute(pod4, Route{NetID: 1, Via: []netip.Addr{hosts6()[0], four}}) == nil {
		t.Error("a route to a host of IPv4 was accepted")
	}
	must(t, m.Close())

	m, err = OpenMaps(h, dir, device, Shape{OverIPv6: true})
	must(t, err)
	found, err := m.Routes()
	must(t, err)
	if len(found) != 2 || !found[pod4].Equal(routes[pod4]) || !found[pod6].Equal(routes[pod6]) {
		t.Errorf("routes %v", found)
	}
	if !m.Hold(m.EntriesOf(routes, hosted)) {
		t.Error("the maps do not hold what they do")
	}
	routes[pod6] = Route{NetID: 78, Via: hosts6()[:1], Sources: routes[pod6].Sources}
	if m.Hold(m.EntriesOf(routes, hosted)) {
		t.Error("the maps hold what they do not")
	}
	must(t, m.Close())

	for _, shape := range []Shape{{IPv6: true}, {OverIPv6: true}} {
		m, err = OpenMaps(h, dir, device, shape)
		must(t, err)
		if found, err := m.Routes(); err != nil || len(found) > 0 {
			t.Errorf("with hosts of the other family: routes %v, %v", found, err)
		}
		if m.OverIPv6() == (m.PutRoute(pod4, Route{NetID: 1, Via: []netip.Addr{four}}) == nil) {
			t.Errorf("%+v: a host of the other family was accepted, or one of its own refused", shape)
		}
		must(t, m.Close())
	}
}

// The kernel's verifier takes the programs for hosts of IPv6, whatever bits the marks have.
func TestProgramsOverIPv6LoadWithAnyMarks(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{OverIPv6: true})
	must(t, err)
	defer maps.Close()
	sources := []netip.Addr{{}}
	sets, err := SetsSource()
	must(t, err)
	if sets {
		sources = append(sources, hosts6()[0])
	}
	for _, source := range sources {
		for i, m := range []mark.Marks{mark.Default(), {Mask: 0x7}, {Mask: 0x7fff0000}, {Mask: 0xffffffff}} {
			progs, err := LoadPrograms(m, maps, uint16(9788*(i%2)), source)
			if err != nil {
				t.Errorf("mask %#x, source %v: %v", m.Mask, source, err)
				continue
			}
			must(t, progs.Close())
		}
	}
}

// A connection keeps the host of IPv6 that it began with, as long as that is among those of its
// pod's route, whatever the kernel's hash says. It is compared whole.
//
// Mutant killed: hosts-differ-in-one-word.
func TestFlowsOverIPv6(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{OverIPv6: true})
	must(t, err)
	defer maps.Close()
	m := mark.Default()
	programs, err := LoadPrograms(m, maps, 0, netip.Addr{})
	must(t, err)
	defer programs.Close()
	udp := []byte{0x9c, 0x40, 0, 80, 0, 8, 0, 0}
	four := slices.Concat(make([]byte, ethHeader), []byte{0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 0, 0, 5, 203, 0, 113, 9}, udp)
	four[12] = 0x08
	pod4, pod6, to4, to6 := testenv.Addr("10.0.0.5"), testenv.Addr("fd00::5"), testenv.Addr("203.0.113.9"), testenv.Addr("2001:db8:1::9")
	for name, c := range map[string]struct {
		pod, to netip.Addr
		frame   []byte
	}{"IPv4": {pod4, to4, four}, "IPv6": {pod6, to6, frame6(pod6, to6, unix.IPPROTO_UDP, udp)}} {
		went := func() netip.Addr {
			t.Helper()
			if got := run(t, programs.outward, c.frame, m.Remote(), false); got != tcActOK {
				t.Errorf("%s: verdict %d", name, got)
			}
			a, err := maps.FlowAffinity(map[netip.Addr]bool{c.pod: true})
			must(t, err)
			host, known := a.Host(unix.IPPROTO_UDP, netip.AddrPortFrom(c.pod, 40000), netip.AddrPortFrom(c.to, 80))
			if !known {
				t.Errorf("%s: no host is noted: %+v", name, a)
			}
			return host
		}
		for _, host := range hosts6() { // alone, so that it begins there
			must(t, maps.PutRoute(c.pod, Route{NetID: 7, Via: []netip.Addr{host}}))
			if got := went(); got != host {
				t.Errorf("%s: to %v instead of %v", name, got, host)
			}
			must(t, maps.PutRoute(c.pod, Route{NetID: 7, Via: hosts6()}))
			if got := went(); got != host {
				t.Errorf("%s: began at %v, and went on to %v", name, host, got)
			}
		}
		if got := run(t, programs.outward, c.frame, 0, true); got != tcActShot {
			t.Errorf("%s without a mark: verdict %d", name, got)
		}
		if got := run(t, programs.outward, c.frame, m.Return(), false); got != tcActShot {
			t.Errorf("%s, a reply to nobody: verdict %d", name, got)
		}
	}
	must(t, maps.ip6.returns.Put(to6.As16(), &returnValue[[16]byte]{NetID: 7, Host: hosts6()[0].As16()}))
	if got := run(t, programs.outward, frame6(pod6, to6, unix.IPPROTO_UDP, udp), m.Return(), false); got != tcActOK {
		t.Errorf("a reply: verdict %d", got)
	}
}
