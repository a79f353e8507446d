package agent

import (
	"context"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// config is what valid options say to the dataplane.
func (o KernelOptions) config() dataplane.Config {
	c := dataplane.Config{
		Marks:       dataplane.Marks{Mask: o.MarkMask},
		OverlayPort: o.OverlayPort,
		PinDir:      o.PinDir,
	}
	switch o.Backend {
	case "auto": // the dataplane finds out
	case "nftables":
		c.Backends = []dataplane.Backend{dataplane.NFTables}
	case "iptables":
		c.IPTables = true
	case "iptables-nft":
		c.Backends = []dataplane.Backend{dataplane.NFT}
	case "iptables-legacy":
		c.Backends = []dataplane.Backend{dataplane.Legacy}
	case "iptables-both":
		c.Backends = []dataplane.Backend{dataplane.NFT, dataplane.Legacy}
	}
	return c
}

// Cleanup takes everything of the agent off the node, and nothing else. The
// agent must not be running.
func Cleanup(ctx context.Context, o KernelOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	return dataplane.Cleanup(ctx, o.config())
}

// Leftovers lists what Cleanup would take off the node, one object in each
// line. It changes nothing.
func Leftovers(ctx context.Context, o KernelOptions) ([]string, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return dataplane.Leftovers(ctx, o.config())
}
