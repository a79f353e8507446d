package kernel

import (
	"os"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/isolated"
)

// TestMain keeps pinned maps from the machine, too.
func TestMain(m *testing.M) {
	os.Exit(isolated.Run(m, func() error { return isolated.Mount("bpf", "/sys/fs/bpf") }))
}
