package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// Where the rules are in the benchmarks.
func benchBackends() map[string]Config {
	return map[string]Config{"nftables": {}, "iptables": {Backends: []Backend{NFT}}}
}

// bigHost is a host in a cluster of some nodes, whose CNI has a route to each one's pods,
// with as many egress IPs as asked for, each with a pod on the host, and half as many pods
// whose egress IP is elsewhere. All of it is in the kernel.
func bigHost(b *testing.B, cfg Config, nodes, hosted int) (*Dataplane, State) {
	b.Helper()
	h := netnstest.Enter(b)
	must(b, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far"}))
	far, err := h.LinkByName("far")
	must(b, err)
	must(b, h.LinkSetUp(far))
	uplink, err := h.LinkByName("eth0")
	must(b, err)
	must(b, h.LinkSetUp(uplink))
	must(b, h.AddrAdd(uplink, &netlink.Addr{IPNet: nlutil.IPNet(netip.MustParsePrefix("172.16.0.1/12"))}))
	must(b, h.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Gw: []byte{172, 31, 0, 1}}))
	s := State{HostIP: testenv.Addr("172.16.0.1"), Hosts: []netip.Addr{testenv.Addr("172.16.0.1")}}
	for i := 2; i <= nodes; i++ {
		host := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		pods := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24)
		s.Hosts, s.Inside = append(s.Hosts, host), append(s.Inside, pods)
		must(b, h.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: nlutil.IPNet(pods), Gw: host.AsSlice()}))
	}
	for i := range hosted {
		ip := netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})
		s.Hosted = append(s.Hosted, Hosted{IP: ip, NetID: uint32(100 + i)})
		s.Pods = append(s.Pods, benchPod(i, Pod{Kind: Local, NetID: uint32(100 + i), EgressIP: ip}))
	}
	for i := range hosted / 2 {
		s.Pods = append(s.Pods, benchPod(hosted+i, Pod{
			Kind: Remote, NetID: uint32(50_000 + i), Via: []netip.Addr{s.Hosts[len(s.Hosts)-1]}, Sources: make([]netip.Addr, 1),
		}))
	}
	cfg.PinDir, cfg.ARPProbe = netnstest.PinDir(b), ARPOff
	d, err := New(cfg)
	must(b, err)
	b.Cleanup(func() { must(b, d.Close()) })
	d.watched.Store(true)
	for range 2 {
		_, err = d.Apply(b.Context(), s)
		must(b, err)
	}
	return d, s
}

// benchPod gives the i-th pod of the host its address.
func benchPod(i int, p Pod) Pod {
	p.IP = netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})
	return p
}

// cpu returns the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured reports the processor time of each turn of a benchmark, too.
func measured(b *testing.B, turn func()) {
	b.Helper()
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		turn()
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// BenchmarkIdlePass is the pass that every agent makes each second, on a host with 100
// egress IPs and 150 pods: nothing has changed. In every tenth all is read again, and others
// are looked at.
func BenchmarkIdlePass(b *testing.B) {
	for name, cfg := range benchBackends() {
		for _, nodes := range []int{100, 1000, 5000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", name, nodes), func(b *testing.B) {
				d, s := bigHost(b, cfg, nodes, 100)
				passes := 0
				measured(b, func() {
					d.outlook.at = monotonic()
					if passes++; passes%10 == 0 {
						d.outlook.at, d.iptablesAt, d.links.at = 0, -iptablesRest, -lookEvery
						if d.steady != nil {
							d.steady.at, d.routed.at, d.routed.looked6 = -wholeEvery, -wholeEvery, 0
						}
					}
					if r, err := d.Apply(b.Context(), s); err != nil || r.Changes != 0 {
						b.Fatalf("an idle pass made %d changes: %v", r.Changes, err)
					}
				})
			})
		}
	}
}

// BenchmarkOnePodMore is the pass that makes one more pod known, or one less, on a host
// with 500 egress IPs.
func BenchmarkOnePodMore(b *testing.B) {
	for name, cfg := range benchBackends() {
		for _, nodes := range []int{100, 5000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", name, nodes), func(b *testing.B) {
				d, s := bigHost(b, cfg, nodes, 500)
				without, with := s, s
				first := s.Pods[0]
				with.Pods = slices.Concat(s.Pods, []Pod{benchPod(len(s.Pods), Pod{Kind: Local, NetID: first.NetID, EgressIP: first.EgressIP})})
				turns := 0
				measured(b, func() {
					d.outlook.at = monotonic()
					now := with
					if turns++; turns%2 == 0 {
						now = without
					}
					if r, err := d.Apply(b.Context(), now); err != nil || r.Changes == 0 {
						b.Fatalf("a pod more or less made %d changes: %v", r.Changes, err)
					}
				})
			})
		}
	}
}

// BenchmarkCountUsages counts 240,000 connections of an egress IP.
func BenchmarkCountUsages(b *testing.B) {
	h := netnstest.Enter(b)
	d := Dataplane{cfg: Config{Marks: DefaultMarks()}}
	mark := d.cfg.Marks.Index(d.cfg.Marks.FirstIndex())
	ip := testenv.Addr(eip1)
	for i := range 240_000 {
		dest, port := netip.AddrFrom4([4]byte{203, 0, 113, byte(i / 60_000)}), uint16(1024+i%60_000)
		must(b, h.ConntrackCreate(netlink.ConntrackTable, netlink.FAMILY_V4, &netlink.ConntrackFlow{
			FamilyType: netlink.FAMILY_V4,
			Forward:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: []byte{10, 244, 1, 2}, DstIP: dest.AsSlice(), SrcPort: port, DstPort: 53},
			Reverse:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: dest.AsSlice(), DstIP: ip.AsSlice(), SrcPort: 53, DstPort: port},
			Mark:       mark, TimeOut: 600,
		}))
	}
	measured(b, func() {
		if got, err := d.countUsages(); err != nil || got[ip].Connections != 240_000 || got[ip].Ports != 60_000 {
			b.Fatalf("counted %+v: %v", got[ip], err)
		}
	})
}

// One operation is a question of another host, which the kernel of a host in a cluster of 1,000
// answers, and one that it drops because its inner source is none of its outer one. The
// processor time is that of the kernel for all of it: the question comes by a veth, and the
// answer leaves by it.
func BenchmarkAnswer(b *testing.B) {
	const self, asker = "172.16.0.1", "172.16.0.2"
	d, _ := bigHost(b, Config{ProbePort: probePort}, 1000, 1)
	must(b, d.AnswerProbes(Answer{HostIP: testenv.Addr(self), Instance: 7, Host: probe.HostHash("host"), Ready: true, Valid: time.Hour}))
	h, err := netlink.NewHandle() // what is within b.Run has another thread, in another namespace
	must(b, err)
	b.Cleanup(h.Close)
	uplink, err := h.LinkByName("eth0")
	must(b, err)
	far, err := h.LinkByName("far")
	must(b, err)
	must(b, h.NeighSet(&netlink.Neigh{
		LinkIndex: uplink.Attrs().Index, IP: testenv.Addr(asker).AsSlice(), HardwareAddr: far.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT,
	}))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(b, err)
	b.Cleanup(func() { must(b, unix.Close(fd)) })
	for _, of := range []struct {
		name, inner string
		answers     int
	}{{"answered", asker, 1}, {"dropped", "172.16.0.3", 0}} {
		b.Run(of.name, func(b *testing.B) {
			o := between(testenv.Addr(asker), testenv.Addr(self), netip.AddrPortFrom(testenv.Addr(of.inner), 40000), netip.AddrPortFrom(testenv.Addr(self), probePort),
				probe.Message{Kind: probe.Question, Token: 1})
			frame := slices.Concat(uplink.Attrs().HardwareAddr, far.Attrs().HardwareAddr, []byte{0x08, 0},
				udpPacket(o.outer.from, o.outer.to, vxlan(probesVNI, o.inner.from, o.inner.to, o.message.Append(nil))))
			to := &unix.SockaddrLinklayer{Ifindex: far.Attrs().Index}
			send := func() { must(b, unix.Sendto(fd, frame, 0, to)) }
			for range 100 {
				send()
			}
			before, began := received(b, h, "far"), cpu(b)
			for b.Loop() {
				send()
			}
			b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
			if got := received(b, h, "far") - before; got < uint64(b.N*of.answers) || got > uint64(b.N*of.answers+10) {
				b.Errorf("%d answers to %d questions", got, b.N)
			}
		})
	}
}

// received counts the packets that came to a device.
func received(b *testing.B, h *netlink.Handle, device string) uint64 {
	b.Helper()
	link, err := h.LinkByName(device)
	must(b, err)
	return link.Attrs().Statistics.RxPackets
}
