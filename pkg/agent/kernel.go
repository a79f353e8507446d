package agent

import (
	"context"
	"fmt"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// KernelOptions say how the agent marks what is its own on the node.
type KernelOptions struct {
	// OverlayPort is the UDP port of the overlay, the same on all nodes.
	OverlayPort uint16
	// MarkMask holds the bits of the packet mark that are ours.
	MarkMask uint32
	// PinDir is a directory on a bpffs.
	PinDir string
	// IPTablesBackend is one of Backends().
	IPTablesBackend string
}

// DefaultKernelOptions are those that the flags start from.
func DefaultKernelOptions() KernelOptions {
	return KernelOptions{
		OverlayPort:     9789,
		MarkMask:        dataplane.DefaultMarks().Mask,
		PinDir:          "/sys/fs/bpf/egressip",
		IPTablesBackend: "auto",
	}
}

// Backends are the choices of an iptables backend; auto uses those in which
// the node's other rules are.
func Backends() []string { return []string{"auto", "nft", "legacy", "both"} }

// Validate tells what is wrong with the options, if anything.
func (o KernelOptions) Validate() error {
	_, err := o.config()
	return err
}

func (o KernelOptions) config() (dataplane.Config, error) {
	c := dataplane.Config{
		Marks:       dataplane.Marks{Mask: o.MarkMask},
		OverlayPort: o.OverlayPort,
		PinDir:      o.PinDir,
	}
	switch o.IPTablesBackend {
	case "auto":
	case "nft":
		c.Backends = []dataplane.Backend{dataplane.NFT}
	case "legacy":
		c.Backends = []dataplane.Backend{dataplane.Legacy}
	case "both":
		c.Backends = []dataplane.Backend{dataplane.NFT, dataplane.Legacy}
	default:
		return c, fmt.Errorf("iptables backend %q: use one of %v", o.IPTablesBackend, Backends())
	}
	if err := c.Marks.Validate(); err != nil {
		return c, err
	}
	return c, nil
}

// Cleanup takes everything of the agent off the node, and nothing else. The
// agent must not be running.
func Cleanup(ctx context.Context, o KernelOptions) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	return dataplane.Cleanup(ctx, c)
}

// Leftovers lists what Cleanup would take off the node, one object in each
// line. It changes nothing.
func Leftovers(ctx context.Context, o KernelOptions) ([]string, error) {
	c, err := o.config()
	if err != nil {
		return nil, err
	}
	return dataplane.Leftovers(ctx, c)
}
