package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// frame6 is an IPv6 packet in an Ethernet frame. next is the number of its first header.
func frame6(source, dest netip.Addr, next byte, rest []byte) []byte {
	frame := make([]byte, ethHeader, ethHeader+ip6Header+len(rest))
	frame[12], frame[13] = 0x86, 0xdd
	frame = append(frame, 0x60, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(rest)))
	frame = append(append(append(frame, next, 64), source.AsSlice()...), dest.AsSlice()...)
	return append(frame, rest...)
}

// run runs a program once, for trial, with a packet that came by an interface unless it is
// the host's own. It skips the test where the kernel cannot.
func run(t *testing.T, p *ebpf.Program, frame []byte, mark uint32, own bool) int32 {
	t.Helper()
	skb := make([]byte, 192)
	binary.NativeEndian.PutUint32(skb[skbMark:], mark)
	if !own {
		binary.NativeEndian.PutUint32(skb[skbIngress:], 1)
	}
	verdict, err := p.Run(&ebpf.RunOptions{Data: frame, Context: skb})
	if err != nil && !HasTCX() {
		t.Skipf("the kernel does not run the program for trial: %v", err)
	}
	must(t, err)
	return int32(verdict)
}

// A restarted agent finds the routes and networks of both families, each in its own maps.
//
// Mutant killed: families-share-networks.
func TestMapsKeepTheFamiliesApart(t *testing.T) {
	h, dir := netnstest.Enter(t), netnstest.PinDir(t)
	m, err := OpenMaps(h, dir, device, Shape{IPv6: true})
	must(t, err)
	pod4, pod6 := testenv.Addr("10.0.0.5"), testenv.Addr("fd00::5")
	via := []netip.Addr{testenv.Addr("192.0.2.2"), testenv.Addr("192.0.2.3")}
	routes := map[netip.Addr]Route{
		pod4: {NetID: 77, Via: via, Sources: []netip.Addr{testenv.Addr("192.0.2.200"), {}}},
		pod6: {NetID: 77, Via: via[:1], Sources: []netip.Addr{testenv.Addr("2001:db8::200")}},
	}
	hosted := map[Network]uint32{{NetID: 77}: 0x101, {NetID: 77, IPv6: true}: 0x102}
	for ip, r := range routes {
		must(t, m.PutRoute(ip, r))
	}
	for n, mark := range hosted {
		must(t, m.PutHosted(n, mark))
	}
	must(t, m.Close())

	// Without IPv6 its entries are not seen, and nothing can be put there.
	m, err = OpenMaps(h, dir, device, Shape{})
	must(t, err)
	if got, err := m.Hosted(); err != nil || len(got) != 1 || m.HasIPv6() {
		t.Errorf("hosted without IPv6: %v, %v", got, err)
	}
	if m.PutRoute(pod6, routes[pod6]) == nil || m.PutHosted(Network{NetID: 1, IPv6: true}, 1) == nil {
		t.Error("something of IPv6 was put without its maps")
	}
	must(t, m.Close())

	m, err = OpenMaps(h, dir, device, Shape{IPv6: true})
	must(t, err)
	defer m.Close()
	found, err := m.Routes()
	must(t, err)
	if len(found) != 2 || !found[pod4].Equal(routes[pod4]) || !found[pod6].Equal(routes[pod6]) {
		t.Errorf("routes %v", found)
	}
	served, err := m.Hosted()
	must(t, err)
	if diff := cmp.Diff(hosted, served); diff != "" {
		t.Errorf("hosted (-want +got):\n%s", diff)
	}
	if !m.Hold(m.EntriesOf(routes, hosted)) {
		t.Error("the maps do not hold what they do")
	}
	must(t, m.DeleteHosted(Network{NetID: 77, IPv6: true}))
	if m.Hold(m.EntriesOf(routes, hosted)) {
		t.Error("the maps hold what they do not")
	}
	if served, err = m.Hosted(); err != nil || served[Network{NetID: 77}] != 0x101 || len(served) != 1 {
		t.Errorf("after one family's network was deleted: %v, %v", served, err)
	}
}

// Where a connection of IPv6 goes is noted under its ports, also behind extension headers,
// and of a packet in fragments under the number of that, by the first for the others.
//
// Mutants killed: ports-behind-no-header, later-fragments-have-ports.
func TestFlowsOfIPv6(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{IPv6: true})
	must(t, err)
	defer maps.Close()
	m := mark.Default()
	programs, err := LoadPrograms(m, maps, 0, netip.Addr{})
	must(t, err)
	defer programs.Close()
	pod, other, to := testenv.Addr("fd00::5"), testenv.Addr("fd00::6"), testenv.Addr("2001:db8::9")
	must(t, maps.PutRoute(pod, Route{NetID: 7, Via: []netip.Addr{testenv.Addr("192.0.2.2"), testenv.Addr("192.0.2.3")}}))

	ports := []byte{0x9c, 0x40, 0, 80}
	udp := slices.Concat(ports, []byte{0, 8, 0, 0})
	key := func(last ...byte) [40]byte {
		return [40]byte(slices.Concat(pod.AsSlice(), to.AsSlice(), last))
	}
	extension := func(next byte, length int) []byte {
		b := make([]byte, length)
		b[0], b[1] = next, byte(length/8-1)
		return b
	}
	fragment := func(next, offset, more byte) []byte {
		return []byte{next, 0, offset >> 5, offset<<3 | more, 1, 2, 3, 4}
	}
	byNumber := key(1, 2, 3, 4, unix.IPPROTO_FRAGMENT, 1, 0, 0)
	for name, c := range map[string]struct {
		next byte
		rest []byte
		want [][40]byte
	}{
		"UDP":                          {17, udp, [][40]byte{key(0x9c, 0x40, 0, 80, 17, 0, 0, 0)}},
		"TCP":                          {6, slices.Concat(ports, make([]byte, 16)), [][40]byte{key(0x9c, 0x40, 0, 80, 6, 0, 0, 0)}},
		"ICMPv6":                       {58, make([]byte, 8), [][40]byte{key(0, 0, 0, 0, 58, 0, 0, 0)}},
		"UDP behind options":           {0, slices.Concat(extension(60, 8), extension(17, 24), udp), [][40]byte{key(0x9c, 0x40, 0, 80, 17, 0, 0, 0)}},
		"UDP behind too many headers":  {60, slices.Concat(slices.Repeat(extension(60, 8), maxExtensions), extension(17, 8), udp), [][40]byte{key(0, 0, 0, 0, 60, 0, 0, 0)}},
		"a first fragment of UDP":      {44, slices.Concat(fragment(17, 0, 1), udp), [][40]byte{key(0x9c, 0x40, 0, 80, 17, 0, 0, 0), byNumber}},
		"a later one":                  {44, slices.Concat(fragment(17, 10, 1), make([]byte, 16)), [][40]byte{byNumber}},
		"a whole packet as a fragment": {44, slices.Concat(fragment(17, 0, 0), udp), [][40]byte{key(0x9c, 0x40, 0, 80, 17, 0, 0, 0)}},
		"a first fragment behind options": {
			0, slices.Concat(extension(44, 8), fragment(58, 0, 1), make([]byte, 8)), [][40]byte{key(0, 0, 0, 0, 58, 0, 0, 0), byNumber},
		},
	} {
		if got := run(t, programs.outward, frame6(pod, to, c.next, c.rest), m.Remote(), false); got != tcActOK {
			t.Errorf("%s: verdict %d", name, got)
		}
		a, err := maps.FlowAffinity(map[netip.Addr]bool{pod: true})
		must(t, err)
		if len(a.six) != len(c.want) {
			t.Errorf("%s: noted %v", name, a.six)
		}
		hosts := map[netip.Addr]bool{}
		for _, k := range c.want {
			host, noted := a.six[k]
			if !noted {
				t.Errorf("%s: %v is not noted, but %v", name, k, a.six)
			}
			hosts[host] = true
			must(t, maps.ip6.flows.Delete(k))
		}
		if len(hosts) != 1 {
			t.Errorf("%s: several hosts: %v", name, a.six)
		}
		if len(c.want) == 1 && c.want[0][36] == 17 {
			if _, known := a.Host(17, netip.AddrPortFrom(pod, 40000), netip.AddrPortFrom(to, 80)); !known {
				t.Errorf("%s: the host is not found", name)
			}
		}
	}
	// A later fragment goes where the first went, whatever the kernel's hash says.
	for _, host := range []uint32{hostOrder(testenv.Addr("192.0.2.2")), hostOrder(testenv.Addr("192.0.2.3"))} {
		must(t, maps.ip6.flows.Put(key(0x9c, 0x40, 0, 80, 17, 0, 0, 0), host))
		run(t, programs.outward, frame6(pod, to, 44, slices.Concat(fragment(17, 0, 1), udp)), m.Remote(), false)
		run(t, programs.outward, frame6(pod, to, 44, slices.Concat(fragment(17, 10, 1), make([]byte, 16))), m.Remote(), false)
		var got uint32
		must(t, maps.ip6.flows.Lookup(byNumber, &got))
		if got != host {
			t.Errorf("fragments went to %v instead of %v", addrFromHost(got), addrFromHost(host))
		}
	}
	for name, c := range map[string]struct {
		frame []byte
		mark  uint32
	}{
		"of a pod without a route": {frame6(other, to, 17, udp), m.Remote()},
		"without a mark":           {frame6(pod, to, 17, udp), 0},
		"a reply to nobody":        {frame6(to, pod, 17, udp), m.Return()},
		"cut off":                  {frame6(pod, to, 0, nil), m.Remote()},
		"neighbour discovery of the device itself": {frame6(netip.IPv6Unspecified(), testenv.Addr("ff02::1"), 58, []byte{135, 0, 0, 0}), 0},
	} {
		if got := run(t, programs.outward, c.frame, c.mark, true); got != tcActShot {
			t.Errorf("%s: verdict %d", name, got)
		}
	}
	must(t, maps.ip6.returns.Put(pod.As16(), &returnValue[uint32]{NetID: 7, Host: 1}))
	if got := run(t, programs.outward, frame6(to, pod, 17, udp), m.Return(), false); got != tcActOK {
		t.Errorf("a reply: verdict %d", got)
	}
}

// Mutants killed: guard-ignores-ipv6, nobody-finds-neighbours-by-egress-ip.
func TestGuardVerdictsOfIPv6(t *testing.T) {
	netnstest.Enter(t)
	m := mark.Default()
	one, four, host := testenv.Addr("2001:db8::200"), testenv.Addr("192.0.2.201"), testenv.Addr("2001:db8::1")
	idx := map[netip.Addr]int{one: m.FirstIndex(), four: m.FirstIndex() + 1}
	var g Guard
	defer func() { must(t, g.Close()) }()
	loaded, err := g.loadFor(1, m, idx, nil)
	must(t, err)
	about := func(kind byte, dest netip.Addr) []byte {
		b := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 24)...)
		return append(b, dest.AsSlice()...)
	}
	to := testenv.Addr("2001:db8:1::1")
	for name, c := range map[string]struct {
		mark   uint32
		next   byte
		source netip.Addr
		rest   []byte
		own    bool
		pass   bool
	}{
		"egress IP with its mark":              {m.Index(idx[one]), 17, one, nil, false, true},
		"egress IP with one of IPv4":           {m.Index(idx[four]), 17, one, nil, false, false},
		"mark without its egress IP":           {m.Index(idx[one]), 17, host, nil, false, false},
		"remote":                               {m.Remote(), 17, host, nil, false, false},
		"host's own":                           {0, 17, host, nil, true, true},
		"a pod's":                              {0, 17, host, nil, false, true},
		"egress IP without a mark":             {0, 6, one, make([]byte, 40), false, false},
		"host's own with an egress IP":         {m.Index(idx[one]), 6, one, make([]byte, 40), true, false},
		"packet too big, about one to it":      {0, 58, one, about(2, one), true, true},
		"unreachable, about one to it":         {0, 58, one, about(1, one), false, true},
		"packet too big, about one to another": {0, 58, one, about(2, host), true, false},
		"an error that is cut off":             {0, 58, one, about(2, one)[:40], true, false},
		"an echo request":                      {0, 58, one, about(128, one), true, false},
		"an error of no known type":            {0, 58, one, about(0, one), true, false},
		"a neighbour solicitation":             {0, 58, one, about(135, one), true, true},
		"a neighbour advertisement":            {0, 58, one, about(136, one), true, true},
		"a redirect":                           {0, 58, one, about(137, one), true, false},
		"a neighbour solicitation of a pod":    {0, 58, one, about(135, one), false, false},
	} {
		if got := run(t, loaded.program, frame6(c.source, to, c.next, c.rest), c.mark, c.own); (got == tcActUnspec) != c.pass {
			t.Errorf("%s: verdict %d", name, got)
		}
	}
}

// BenchmarkPrograms is what the programs take for a packet of IPv4: to the overlay, and out
// of the uplink.
func BenchmarkPrograms(b *testing.B) {
	h := netnstest.Enter(b)
	m := mark.Default()
	open := func(withIPv6 bool) (*ebpf.Program, *ebpf.Program) {
		maps, err := OpenMaps(h, netnstest.PinDir(b), device, Shape{IPv6: withIPv6})
		netnstest.Must(b, err)
		b.Cleanup(func() { netnstest.Must(b, maps.Close()) })
		programs, err := LoadPrograms(m, maps, 9788, netip.Addr{})
		netnstest.Must(b, err)
		b.Cleanup(func() { netnstest.Must(b, programs.Close()) })
		netnstest.Must(b, maps.PutRoute(testenv.Addr("10.0.0.5"), Route{NetID: 7, Via: []netip.Addr{testenv.Addr("192.0.2.2")}}))
		idx := map[netip.Addr]int{testenv.Addr("192.0.2.200"): m.FirstIndex()}
		if withIPv6 {
			idx[testenv.Addr("2001:db8::200")] = m.FirstIndex() + 1
		}
		g := &Guard{}
		loaded, err := g.loadFor(1, m, idx, nil)
		netnstest.Must(b, err)
		b.Cleanup(func() { netnstest.Must(b, g.Close()) })
		return programs.outward, loaded.program
	}
	frame := make([]byte, ethHeader, 96)
	frame[12] = 0x08
	frame = append(frame, 0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0)
	frame = append(frame, 10, 0, 0, 5, 203, 0, 113, 9, 0x9c, 0x40, 0, 80)
	frame = append(frame, make([]byte, 36)...)
	skb := make([]byte, 192)
	binary.NativeEndian.PutUint32(skb[skbMark:], m.Remote())
	for _, withIPv6 := range []bool{false, true} {
		outward, guard := open(withIPv6)
		families := map[bool]string{false: "IPv4 alone", true: "both families"}[withIPv6]
		for _, c := range []struct {
			name    string
			program *ebpf.Program
			context []byte
		}{{"guard/", guard, nil}, {"outward/", outward, skb}} {
			b.Run(c.name+families, func(b *testing.B) {
				_, err := c.program.Run(&ebpf.RunOptions{Data: frame, Context: c.context, Repeat: uint32(b.N)})
				netnstest.Must(b, err)
			})
		}
	}
}
