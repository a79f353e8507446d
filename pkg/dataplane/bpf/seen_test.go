package bpf

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// TestAttachedProgramsAreSeen: the maps that the attached programs use are read, of inner packets
// of both families and hosts of both, whatever is pinned; without programs there are none.
func TestAttachedProgramsAreSeen(t *testing.T) {
	for name, c := range map[string]struct {
		shape Shape
		via   string
	}{"over IPv4": {Shape{IPv6: true}, "192.0.2.2"}, "over IPv6": {Shape{OverIPv6: true}, "2001:db8::2"}} {
		t.Run(name, func(t *testing.T) {
			host, h, link := netnstest.Host(t, device)
			host.Do(t, func() {
				if seen, err := See(h, link); err != nil || seen.Outward || seen.Inward || seen.Maps != nil {
					t.Fatalf("before all: %+v, %v", seen, err)
				}
				dir := netnstest.PinDir(t)
				maps, err := OpenMaps(h, dir, device, c.shape)
				must(t, err)
				defer maps.Close()
				programs, err := LoadPrograms(mark.Default(), maps, 0, netip.Addr{})
				must(t, err)
				defer programs.Close()
				_, err = programs.Attach(h, link)
				must(t, err)
				pod, via := testenv.Addr("10.0.0.5"), testenv.Addr(c.via)
				must(t, maps.PutRoute(pod, Route{NetID: 17, Via: []netip.Addr{via}, Sources: []netip.Addr{{}}}))
				_, err = RemoveMaps(dir)
				must(t, err)

				seen, err := See(h, link)
				must(t, err)
				defer seen.Close()
				if !seen.Outward || !seen.Inward || seen.OverIPv6() != c.shape.OverIPv6 || !seen.HasIPv6() {
					t.Errorf("outward %t, inward %t, over IPv6 %t, for IPv6 %t", seen.Outward, seen.Inward, seen.OverIPv6(), seen.HasIPv6())
				}
				routes, err := seen.Routes()
				must(t, err)
				if r := routes[pod]; r.NetID != 17 || len(r.Via) != 1 || r.Via[0] != via {
					t.Errorf("the pod's route is %+v", r)
				}
				if _, _, ok, err := seen.ReturnTo(pod); ok || err != nil {
					t.Errorf("answers to a pod that has sent nothing: %t, %v", ok, err)
				}
				value := []byte{17, 0, 0, 0, 2, 2, 0, 192}
				if c.shape.OverIPv6 {
					value = append([]byte{17, 0, 0, 0}, via.AsSlice()...)
				}
				must(t, maps.ip4.returns.Put(pod.AsSlice(), value))
				if id, to, ok, err := seen.ReturnTo(pod); !ok || err != nil || id != 17 || to.Is6() != c.shape.OverIPv6 {
					t.Errorf("answers go to network %d at %v: %t, %v", id, to, ok, err)
				}
			})
		})
	}
}

// TestGuardIsSeen: what each guard does with an egress IP is read from its own map.
func TestGuardIsSeen(t *testing.T) {
	for hook, guard := range hooks() {
		t.Run(hook, func(t *testing.T) {
			host, h, link := netnstest.Host(t, "eth0")
			g, m := guard(), mark.Default()
			four, six, elsewhereIP, other := testenv.Addr("192.0.2.200"), testenv.Addr("2001:db8::200"), testenv.Addr("192.0.2.201"), testenv.Addr("192.0.2.202")
			host.Do(t, func() {
				_, _, err := g.Ensure(h, []netlink.Link{link}, m, map[netip.Addr]int{four: m.FirstIndex(), six: m.FirstIndex() + 1, elsewhereIP: m.FirstIndex() + 2}, Pins{elsewhereIP: {1: 0}})
				must(t, err)
				defer g.Close()
				for ip, want := range map[netip.Addr]Guarding{
					four:        {Device: "eth0", Known: true, Mark: m.Index(m.FirstIndex())},
					six:         {Device: "eth0", Known: true, Mark: m.Index(m.FirstIndex() + 1)},
					elsewhereIP: {Device: "eth0", Known: true, Mark: elsewhere(m), Elsewhere: true},
					other:       {Device: "eth0"},
				} {
					got, err := GuardingOf(h, ip, m)
					must(t, err)
					if len(got) != 1 || got[0] != want {
						t.Errorf("%v: %+v, want %+v", ip, got, want)
					}
				}
				must(t, RemoveGuards(h))
				if got, err := GuardingOf(h, four, m); err != nil || len(got) > 0 {
					t.Errorf("without a guard: %+v, %v", got, err)
				}
			})
		})
	}
}
