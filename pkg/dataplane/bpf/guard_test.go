package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	tcx "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// hooks are the ways in which kernels take the guard.
func hooks() map[string]func() Guard {
	return map[string]func() Guard{
		"TCX":    func() Guard { return Guard{} },
		"filter": func() Guard { return Guard{filterOnly: true} },
	}
}

// ensure calls Ensure inside the host, and expects success.
func (g *Guard) ensure(t *testing.T, host *netnstest.Machine, h *netlink.Handle, idx map[netip.Addr]int, links ...netlink.Link) (n int, before []Before) {
	t.Helper()
	host.Do(t, func() {
		var err error
		n, before, err = g.Ensure(h, links, mark.Default(), idx, nil)
		must(t, err)
	})
	return n, before
}

func listed(t *testing.T, host *netnstest.Machine, h *netlink.Handle) (at []string) {
	t.Helper()
	host.Do(t, func() {
		var err error
		at, err = ListGuards(h)
		must(t, err)
	})
	return at
}

func TestGuardIsAttachedListedAndRemoved(t *testing.T) {
	for hook, guard := range hooks() {
		for name, theirs := range map[string]string{
			"qdisc of ours":   "",
			"qdisc of others": "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress protocol ip prio 78 u32 match ip dst 198.51.100.1/32 flowid 1:1",
		} {
			t.Run(hook+", "+name, func(t *testing.T) {
				host, h, link := netnstest.Host(t, "eth0")
				host.Run(t, theirs)
				before := host.Run(t, "tc qdisc show dev eth0; tc filter show dev eth0 egress")
				m := mark.Default()
				g := guard()
				defer func() { must(t, g.Close()) }()
				one := map[netip.Addr]int{testenv.Addr("192.0.2.200"): m.FirstIndex()}
				for _, idx := range []map[netip.Addr]int{nil, one} {
					if n, _ := g.ensure(t, host, h, idx, link); n == 0 {
						t.Errorf("%d egress IPs: no change", len(idx))
					}
					if n, _ := g.ensure(t, host, h, idx, link); n != 0 {
						t.Errorf("%d egress IPs, again: %d changes", len(idx), n)
					}
				}
				// A restarted agent finds its own guard.
				next := guard()
				defer func() { must(t, next.Close()) }()
				if n, _ := next.ensure(t, host, h, one, link); n != 0 {
					t.Errorf("the next agent made %d changes", n)
				}
				if at := listed(t, host, h); !slices.Equal(at, []string{"eth0"}) {
					t.Errorf("guards at %v", at)
				}
				host.Do(t, func() {
					must(t, RemoveGuards(h))
					must(t, RemoveGuards(h))
				})
				if at := listed(t, host, h); len(at) > 0 {
					t.Errorf("after removal guards at %v", at)
				}
				if after := host.Run(t, "tc qdisc show dev eth0; tc filter show dev eth0 egress"); after != before {
					t.Errorf("changed from\n%s to\n%s", before, after)
				}
			})
		}
	}
}

// given: a guard at one interface; when the uplink is another one, for this agent or
// the next, then the guard is there alone.
//
// Kills the mutant that leaves a stale guard behind.
func TestGuardLeavesFormerInterfaces(t *testing.T) {
	for hook, guard := range hooks() {
		t.Run(hook, func(t *testing.T) {
			host, h, eth0 := netnstest.Host(t, "eth0")
			host.Run(t, "ip link add br0 type bridge; ip link add br1 type bridge")
			br0, err := h.LinkByName("br0")
			must(t, err)
			br1, err := h.LinkByName("br1")
			must(t, err)
			g, next := guard(), guard()
			defer func() { must(t, g.Close()) }()
			defer func() { must(t, next.Close()) }()
			g.ensure(t, host, h, nil, eth0, br1)
			g.ensure(t, host, h, nil, br0)
			if at := listed(t, host, h); !slices.Equal(at, []string{"br0"}) {
				t.Errorf("guards at %v", at)
			}
			next.ensure(t, host, h, nil, eth0)
			if at := listed(t, host, h); !slices.Equal(at, []string{"eth0"}) {
				t.Errorf("guards of the next agent at %v", at)
			}
		})
	}
}

// needsTCX skips a test of what only kernels with TCX can do.
func needsTCX(t *testing.T) {
	t.Helper()
	if !HasTCX() {
		t.Skip("the kernel has no TCX (Linux 6.6)")
	}
}

// given: a guard of a version that used a filter; then the program replaces it.
func TestProgramReplacesFilter(t *testing.T) {
	needsTCX(t)
	host, h, link := netnstest.Host(t, "eth0")
	old, g := Guard{filterOnly: true}, Guard{}
	defer func() { must(t, old.Close()) }()
	defer func() { must(t, g.Close()) }()
	old.ensure(t, host, h, nil, link)
	g.ensure(t, host, h, nil, link)
	if shown := host.Run(t, "tc qdisc show dev eth0; tc filter show dev eth0 egress"); strings.Contains(shown, "clsact") || strings.Contains(shown, GuardName) {
		t.Errorf("left behind: %s", shown)
	}
	if at := listed(t, host, h); !slices.Equal(at, []string{"eth0"}) {
		t.Errorf("guards at %v", at)
	}
	if n, _ := g.ensure(t, host, h, nil, link); n != 0 {
		t.Errorf("again: %d changes", n)
	}
}

// given: a guard that uses TCX, and then an agent that must use a filter, as before a downgrade;
// then the filter is there alone, and a guard of a version that knows filters takes it over. A
// program of others stays.
//
// Mutant killed: program-stays-beside-the-filter. It would drop all egress IPs that are new since.
func TestFilterReplacesProgram(t *testing.T) {
	needsTCX(t)
	host, h, link := netnstest.Host(t, "eth0")
	g, old, former := Guard{}, Guard{filterOnly: true}, Guard{filterOnly: true}
	for _, each := range []*Guard{&g, &old, &former} {
		defer func() { must(t, each.Close()) }()
	}
	g.ensure(t, host, h, nil, link)
	accepts, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "theirs", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	must(t, err)
	defer accepts.Close()
	theirs := tcx.RawAttachProgramOptions{Target: link.Attrs().Index, Program: accepts, Attach: ebpf.AttachTCXEgress, Anchor: tcx.Head()}
	host.Do(t, func() { must(t, tcx.RawAttachProgram(theirs)) })
	if n, _ := old.ensure(t, host, h, nil, link); n != 3 {
		t.Errorf("%d changes, want 3: the qdisc, the filter, the program", n)
	}
	host.Do(t, func() {
		all, err := programsAt(link.Attrs().Index)
		must(t, err)
		if len(all) != 1 || isGuardProgram(all[0].ID) {
			t.Errorf("programs %+v, want that of others", all)
		}
		must(t, tcx.RawDetachProgram(tcx.RawDetachProgramOptions{Target: link.Attrs().Index, Program: accepts, Attach: ebpf.AttachTCXEgress}))
	})
	if shown := host.Run(t, "tc filter show dev eth0 egress"); !strings.Contains(shown, GuardName) {
		t.Errorf("no filter: %s", shown)
	}
	if n, _ := old.ensure(t, host, h, nil, link); n != 0 {
		t.Errorf("again: %d changes", n)
	}
	one := map[netip.Addr]int{testenv.Addr("192.0.2.200"): mark.Default().FirstIndex()}
	former.ensure(t, host, h, one, link)
	if at := listed(t, host, h); !slices.Equal(at, []string{"eth0"}) {
		t.Errorf("guards at %v", at)
	}
}

// given: a program of others before the guard; when the agent looks, also for other
// egress IPs than before, then the guard is the first again, once, and theirs stays.
func TestGuardIsTheFirstProgram(t *testing.T) {
	needsTCX(t)
	host, h, link := netnstest.Host(t, "eth0")
	var g Guard
	defer func() { must(t, g.Close()) }()
	g.ensure(t, host, h, nil, link)
	accepts, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "theirs", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}})
	must(t, err)
	defer accepts.Close()
	one := map[netip.Addr]int{testenv.Addr("192.0.2.200"): mark.Default().FirstIndex()}
	for _, idx := range []map[netip.Addr]int{nil, one} {
		host.Do(t, func() {
			must(t, tcx.RawAttachProgram(tcx.RawAttachProgramOptions{
				Target: link.Attrs().Index, Program: accepts, Attach: ebpf.AttachTCXEgress, Anchor: tcx.Head(),
			}))
		})
		g.ensure(t, host, h, idx, link)
		host.Do(t, func() {
			all, err := programsAt(link.Attrs().Index)
			must(t, err)
			if len(all) != 2 || !g.shared.is(all[0].ID) || isGuardProgram(all[1].ID) {
				t.Errorf("programs %+v", all)
			}
			must(t, tcx.RawDetachProgram(tcx.RawDetachProgramOptions{
				Target: link.Attrs().Index, Program: accepts, Attach: ebpf.AttachTCXEgress,
			}))
		})
	}
}

// given: tc as others use it; then the guard works beside it where the kernel has TCX;
// elsewhere the error or what is returned names the object.
func TestGuardBesideFiltersOfOthers(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	first, old := Guard{}, Guard{filterOnly: true}
	defer func() { must(t, first.Close()) }()
	defer func() { must(t, old.Close()) }()
	with := HasTCX()
	host.Run(t, "tc qdisc add dev eth0 ingress")
	if with {
		if _, before := first.ensure(t, host, h, nil, link); len(before) > 0 {
			t.Errorf("beside an ingress qdisc: %v", before)
		}
	}
	host.Do(t, func() {
		must(t, RemoveGuards(h))
		if _, _, err := old.Ensure(h, []netlink.Link{link}, mark.Default(), nil, nil); !errors.Is(err, ErrIngressQdisc) || !strings.Contains(err.Error(), "eth0") {
			t.Errorf("a filter beside an ingress qdisc: %v", err)
		}
	})
	host.Run(t, `tc qdisc del dev eth0 ingress; tc qdisc add dev eth0 clsact
		tc filter add dev eth0 egress prio 1 protocol ip u32 match u32 0 0 flowid 1:1`)
	if _, before := old.ensure(t, host, h, nil, link); !slices.Equal(before, []Before{{Filter: "of kind u32", Device: "eth0", Preference: 1}}) {
		t.Errorf("a filter that accepts all before the guard: %v", before)
	}
	if with {
		if _, before := first.ensure(t, host, h, nil, link); len(before) > 0 {
			t.Errorf("a filter behind the guard: %v", before)
		}
	}
	host.Run(t, "tc filter del dev eth0 egress prio 1")
	if _, before := old.ensure(t, host, h, nil, link); len(before) != 0 {
		t.Errorf("after it has gone: %v", before)
	}
}

// Kills the mutant that replaces whatever filter has the guard's place.
func TestFilterOfOthersAtTheGuardsPlaceStays(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	theirs, g := Guard{filterOnly: true}, Guard{filterOnly: true}
	defer func() { must(t, theirs.Close()) }()
	defer func() { must(t, g.Close()) }()
	theirs.ensure(t, host, h, nil, link)
	filters, err := h.FilterList(link, netlink.HANDLE_MIN_EGRESS)
	must(t, err)
	f, ok := filters[0].(*netlink.BpfFilter)
	if !ok {
		t.Fatalf("filter %+v", filters[0])
	}
	must(t, h.FilterDel(f))
	f.Name, f.Fd = "theirs", theirs.shared.program.FD()
	must(t, h.FilterAdd(f))
	host.Do(t, func() {
		if n, _, err := g.Ensure(h, []netlink.Link{link}, mark.Default(), nil, nil); n != 0 || !errors.Is(err, ErrForeignFilter) {
			t.Errorf("%d changes, %v", n, err)
		}
		must(t, RemoveGuards(h))
	})
	if shown := host.Run(t, "tc filter show dev eth0 egress"); !strings.Contains(shown, "theirs") {
		t.Errorf("the filter of others has gone: %s", shown)
	}
}

// Kills the mutant that lets packets without a mark of ours pass with an egress IP.
// Mutant killed: host-is-a-pod.
func TestGuardVerdicts(t *testing.T) {
	netnstest.Enter(t)
	m := mark.Default()
	one, other, host := testenv.Addr("192.0.2.200"), testenv.Addr("192.0.2.201"), testenv.Addr("192.0.2.1")
	idx := map[netip.Addr]int{one: m.FirstIndex(), other: m.FirstIndex() + 1}
	var g Guard
	defer func() { must(t, g.Close()) }()
	loaded, err := g.loadFor(1, m, idx, nil)
	must(t, err)
	icmp := func(kind byte, about netip.Addr) []byte {
		inner := make([]byte, 8, 28)
		inner[0] = kind
		inner = append(inner, make([]byte, 16)...)
		return append(inner, about.AsSlice()...)
	}
	for name, c := range map[string]struct {
		mark     uint32
		protocol byte
		source   netip.Addr
		rest     []byte
		pass     bool
		// own: the host itself sends it.
		own bool
	}{
		"egress IP with its mark":                           {m.Index(idx[one]), 17, one, nil, true, false},
		"egress IP with its mark, other bits":               {m.Index(idx[one]) | 0x4000, 17, one, nil, true, false},
		"egress IP of another mark":                         {m.Index(idx[other]), 17, one, nil, false, false},
		"mark without its egress IP":                        {m.Index(idx[one]), 17, host, nil, false, false},
		"mark without egress IP":                            {m.Index(m.FirstIndex() + 9), 17, host, nil, false, false},
		"remote":                                            {m.Remote(), 17, host, nil, false, false},
		"remote with an egress IP":                          {m.Remote() | m.Index(idx[one]), 17, one, nil, false, false},
		"host's own":                                        {0, 17, host, nil, true, false},
		"host's own with a small mark":                      {1, 17, host, nil, true, false},
		"egress IP without a mark":                          {0, 17, one, make([]byte, 40), false, false},
		"egress IP with a small mark":                       {1, 6, one, make([]byte, 40), false, false},
		"ICMP error about a packet to it":                   {0, 1, one, icmp(3, one), true, false},
		"ICMP error about a packet to another":              {0, 1, one, icmp(3, host), false, false},
		"ICMP time exceeded":                                {0, 1, one, icmp(11, one), true, false},
		"ICMP parameter problem":                            {0, 1, one, icmp(12, one), true, false},
		"ICMP echo reply":                                   {0, 1, one, icmp(0, one), false, false},
		"ICMP redirect":                                     {0, 1, one, icmp(5, one), false, false},
		"ICMP error that is cut off":                        {0, 1, one, icmp(3, one)[:24], false, false},
		"ICMP error from the host":                          {0, 1, host, icmp(3, host), true, false},
		"host's own with a foreign mark like REMOTE":        {0x1bd00, 17, host, nil, true, true},
		"host's own with a foreign mark like an index":      {0xc00, 17, host, nil, true, true},
		"host's own with a foreign mark, from an egress IP": {m.Index(idx[one]), 6, one, make([]byte, 40), false, true},
		"host's own ICMP error with a foreign mark":         {0xc00, 1, one, icmp(3, one), true, true},
	} {
		frame := frame4(c.source, c.protocol, c.rest)
		skb := make([]byte, 192)
		binary.NativeEndian.PutUint32(skb[skbMark:], c.mark)
		if !c.own {
			binary.NativeEndian.PutUint32(skb[skbIngress:], 1)
		}
		verdict, err := loaded.program.Run(&ebpf.RunOptions{Data: frame, Context: skb})
		if errors.Is(err, unix.EINVAL) && !c.own && !HasTCX() {
			t.Skip("the kernel (5.10, for one) runs no program for trial with a packet that came by an interface")
		}
		must(t, err)
		if pass := int32(verdict) == tcActUnspec; pass != c.pass {
			t.Errorf("%s: verdict %d", name, int32(verdict))
		}
	}
}

// given: an egress IP that belongs to interface 1, one that belongs to interface 2, and one that
// may leave by either; then each leaves where it may, with its index alone, and not even errors
// about it or neighbour discovery leave elsewhere.
//
// Mutants killed: guard-knows-no-interfaces, errors-leave-anywhere.
func TestGuardOfEgressIPsOfOneInterface(t *testing.T) {
	netnstest.Enter(t)
	m := mark.Default()
	first, second, either := testenv.Addr("192.0.2.200"), testenv.Addr("198.51.100.200"), testenv.Addr("203.0.113.200")
	six := testenv.Addr("2001:db8::200")
	idx := map[netip.Addr]int{first: m.FirstIndex(), second: m.FirstIndex() + 1, either: m.FirstIndex() + 2, six: m.FirstIndex() + 3}
	pinned := Pins{first: {1: 0}, second: {2: 0}, six: {2: 0}}
	var g Guard
	defer func() { must(t, g.Close()) }()
	to := testenv.Addr("2001:db8:9::9")
	for link := 1; link <= 2; link++ {
		loaded, err := g.loadFor(link, m, idx, pinned)
		must(t, err)
		for ip := range idx {
			at, pins := pinned[ip]
			_, here := at[link]
			may := !pins || here
			for _, c := range []struct {
				what string
				mark uint32
				pass bool
			}{
				{"with its index", m.Index(idx[ip]), may},
				{"with another index", m.Index(m.FirstIndex() + 9), false},
				{"without an index", 0, false},
				{"with REMOTE", m.Remote(), false},
			} {
				frame := frame6(ip, to, unix.IPPROTO_UDP, make([]byte, 40))
				if ip.Is4() {
					frame = frame4(ip, unix.IPPROTO_UDP, make([]byte, 40))
				}
				if got := run(t, loaded.program, frame, c.mark, false) == tcActUnspec; got != c.pass {
					t.Errorf("%v %s at interface %d: passes %t", ip, c.what, link, got)
				}
			}
			about := append(make([]byte, 24), ip.AsSlice()...)
			about[0] = 3
			frame := frame4(ip, unix.IPPROTO_ICMP, about)
			if ip.Is6() {
				frame = frame6(ip, to, unix.IPPROTO_ICMPV6, append([]byte{135}, make([]byte, 40)...)) // asks for a neighbour
			}
			if got := run(t, loaded.program, frame, 0, true) == tcActUnspec; got != may {
				t.Errorf("what the host says for %v at interface %d: passes %t", ip, link, got)
			}
		}
	}
}

// frame4 is a packet of IPv4.
func frame4(source netip.Addr, protocol byte, rest []byte) []byte {
	frame := make([]byte, 14, 96)
	frame[12] = 0x08
	frame = append(frame, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0)
	frame = append(append(frame, source.AsSlice()...), 198, 51, 100, 1)
	return append(frame, rest...)
}
