package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// given: egress IPs of a VLAN above interface 1, and the kernel gives their packets tags, as its
// VLAN devices do before they hand them on; then they leave by interface 1 with the tag of their
// VLAN alone, and by the VLAN itself without one.
//
// Mutants killed: guard-takes-any-vlan, guard-takes-untagged-packets.
func TestGuardBelowAVLAN(t *testing.T) {
	netnstest.Enter(t)
	m := mark.Default()
	four, six, untagged := testenv.Addr("192.0.2.200"), testenv.Addr("2001:db8::200"), testenv.Addr("198.51.100.200")
	idx := map[netip.Addr]int{four: m.FirstIndex(), six: m.FirstIndex() + 1, untagged: m.FirstIndex() + 2}
	const vlan, lower, id = 2, 1, 5
	pins := Pins{four: {vlan: 0, lower: VLANTag(id)}, six: {vlan: 0, lower: VLANTag(id)}}
	var g Guard
	defer func() { must(t, g.Close()) }()
	load := func(link, tag int) *ebpf.Program {
		t.Helper()
		loaded, err := g.loadFor(link, m, idx, pins)
		must(t, err)
		maps := map[int]*ebpf.Map{}
		for _, f := range []family{ipv4(), ipv6()} {
			maps[int(f.length)], err = guardedMap(f, loaded.marks)
			must(t, err)
			t.Cleanup(func() { must(t, maps[int(f.length)].Close()) })
		}
		spec := guardProgram(m, maps[4], maps[16], true)
		if tag >= 0 {
			spec.Instructions = append(pushVLAN(tag), spec.Instructions...)
		}
		p, err := ebpf.NewProgram(spec)
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		return p
	}
	for _, c := range []struct {
		what      string
		link, tag int
		pass      map[netip.Addr]bool
	}{
		{"the lower device, its tag", lower, id, map[netip.Addr]bool{four: true, six: true, untagged: true}},
		{"the lower device, another tag", lower, id + 1, map[netip.Addr]bool{untagged: true}},
		{"the lower device, tag 0", lower, 0, map[netip.Addr]bool{untagged: true}},
		{"the lower device, no tag", lower, -1, map[netip.Addr]bool{untagged: true}},
		{"the VLAN", vlan, -1, map[netip.Addr]bool{four: true, six: true, untagged: true}},
		{"another device, its tag", 3, id, map[netip.Addr]bool{untagged: true}},
	} {
		p := load(c.link, c.tag)
		for ip, i := range idx {
			for mark, pass := range map[uint32]bool{m.Index(i): c.pass[ip], m.Index(m.FirstIndex() + 9): false, 0: false} {
				frame := frame6(ip, testenv.Addr("2001:db8:9::9"), unix.IPPROTO_UDP, make([]byte, 40))
				if ip.Is4() {
					frame = frame4(ip, unix.IPPROTO_UDP, make([]byte, 40))
				}
				if got := run(t, p, frame, mark, false) == tcActUnspec; got != pass {
					t.Errorf("%s: %v with mark %#x passes %t", c.what, ip, mark, got)
				}
			}
		}
	}
}

// pushVLAN gives a packet the tag of a VLAN.
func pushVLAN(id int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R2, int32(binary.NativeEndian.Uint16([]byte{0x81, 0}))), // ETH_P_8021Q
		asm.Mov.Imm(asm.R3, int32(id)),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
	}
}
