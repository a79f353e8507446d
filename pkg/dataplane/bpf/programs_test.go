package bpf

import (
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// The kernel's verifier takes the programs whatever bits the marks have.
func TestProgramsLoadWithAnyMarks(t *testing.T) {
	h := netnstest.Enter(t)
	maps, err := OpenMaps(h, netnstest.PinDir(t), device)
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
