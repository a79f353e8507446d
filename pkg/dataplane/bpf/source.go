package bpf

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// SetsSource reports whether the kernel lets a program name the source of a tunnel's
// outer packets, as Linux does since 6.0. Before, it takes the source of the route.
func SetsSource() (sets bool, err error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "egress_try", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: slices.Concat(
			asm.Instructions{
				asm.Mov.Reg(regPacket, asm.R1),
				asm.StoreImm(asm.RFP, atScratch, 0, asm.Word),
				asm.Mov.Reg(regRoute, asm.RFP),
				asm.Add.Imm(regRoute, atScratch),
				asm.Mov.Imm(regHost, 0),
			},
			outer{ipv4()}.setTunnelKey(netip.IPv4Unspecified()),
			asm.Instructions{asm.Return()},
		),
	})
	if err != nil {
		return false, fmt.Errorf("load a program that tries to set the source of a tunnel: %w", err)
	}
	defer prog.Close()
	// The size of an Ethernet header with an IPv4 header; the kernel asks for the first.
	result, _, err := prog.Test(make([]byte, ethHeader+20))
	if err != nil {
		return false, fmt.Errorf("run a program that tries to set the source of a tunnel: %w", err)
	}
	return result == 0, nil
}
