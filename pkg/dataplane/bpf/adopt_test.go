package bpf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// Kills the mutant that makes a new map where the pin is gone: traffic would
// stop until it is filled, and replies until their pods speak again.
func TestMapsOfRunningProgramsAreAdopted(t *testing.T) {
	for _, lost := range []string{"nothing", "pins", "file system"} {
		t.Run(lost, func(t *testing.T) {
			host, h, _ := netnstest.Host(t, "eth0")
			dir := netnstest.PinDir(t)
			first, _ := attachAll(t, host, h, dir)
			must(t, first.PutHosted(Network{NetID: 77}, 0x101))
			must(t, first.ip4.returns.Put(testenv.Addr("10.0.0.5").As4(), &returnValue[uint32]{NetID: 77, Host: 1}))
			switch lost {
			case "pins":
				_, err := RemoveMaps(dir)
				must(t, err)
			case "file system":
				dir = netnstest.PinDir(t)
			}

			second, changes := attachAll(t, host, h, dir)
			if changes != 0 {
				t.Errorf("programs that were as they should be were replaced: %d changes", changes)
			}
			var back returnValue[uint32]
			must(t, second.ip4.returns.Lookup(testenv.Addr("10.0.0.5").As4(), &back))
			hosted, err := second.Hosted()
			must(t, err)
			if hosted[Network{NetID: 77}] != 0x101 || back.NetID != 77 {
				t.Fatalf("hosted %v, returns %v: not the maps that run", hosted, back)
			}
			if _, err := os.Stat(filepath.Join(dir, "egress_hosted")); err != nil {
				t.Fatalf("not pinned again: %v", err)
			}
		})
	}
}
