package bpf

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// The kernel's verifier takes the programs whatever bits the marks have.
func TestProgramsLoadWithAnyMarks(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{IPv6: true})
	must(t, err)
	defer maps.Close()
	sources := []netip.Addr{{}}
	sets, err := SetsSource()
	must(t, err)
	if sets {
		sources = append(sources, netip.MustParseAddr("192.168.7.11"), netip.MustParseAddr("10.0.0.1"))
	}
	for i, m := range []mark.Marks{mark.Default(), {Mask: 0x7}, {Mask: 0x7fff}, {Mask: 0x7fff0000}, {Mask: 0xffffffff}} {
		progs, err := LoadPrograms(m, maps, 0, sources[i%len(sources)])
		if err != nil {
			t.Errorf("mask %#x: %v", m.Mask, err)
			continue
		}
		must(t, progs.Close())
	}
}

// given: a kernel that refuses a program, as one before Linux 5.8 refuses the clock; then
// the other one is loaded, and it does not ask for what was refused.
func TestProgramsLoadWithoutAClock(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device, Shape{IPv6: true})
	must(t, err)
	defer maps.Close()
	const port = 9788
	refused := inward(maps, port, true)
	// Of a helper that is for programs under the GPL only, everywhere.
	refused.Instructions = append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8),
		asm.StoreImm(asm.RFP, -8, 0, asm.Word), asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.Mov.Imm(asm.R2, 8), asm.FnTracePrintk.Call(), asm.Mov.Reg(asm.R1, asm.R6),
	}, refused.Instructions...)
	without := inward(maps, port, false)
	if p, first, err := loadEither(refused, without); err != nil || first {
		t.Errorf("refused, then without a clock: the first: %t, %v", first, err)
	} else {
		must(t, p.Close())
	}
	// The kernel must have seen it: what cannot even be encoded shows nothing.
	if _, _, err := loadEither(refused, refused); !errors.Is(err, unix.EINVAL) {
		t.Errorf("refused by the kernel: %v", err)
	}
	unsound := inward(maps, port, true)
	unsound.Instructions = append(asm.Instructions{asm.StoreImm(asm.RFP, -8, 0, asm.DWord)}, unsound.Instructions...)
	if p, _, err := loadEither(unsound, without); err == nil {
		t.Error("one that no kernel refused was replaced")
		must(t, p.Close())
	}
	for name, c := range map[string]struct {
		spec *ebpf.ProgramSpec
		asks bool
	}{"with": {inward(maps, port, true), true}, "without": {without, false}} {
		asks := slices.ContainsFunc(c.spec.Instructions, func(i asm.Instruction) bool {
			return i.IsBuiltinCall() && i.Constant == int64(asm.FnKtimeGetNs)
		})
		if asks != c.asks {
			t.Errorf("%s a clock: asks for the time: %t", name, asks)
		}
	}
	programs, err := LoadPrograms(mark.Default(), maps, port, netip.Addr{})
	must(t, err)
	defer programs.Close()
	t.Logf("clock: %t, TCX: %t, batches: %t", programs.Clock(), HasTCX(), maps.Batches())
}
