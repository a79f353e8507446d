package testbed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Cut stops every frame that goes from one place on the LAN to another; the
// other direction stays as it is.
func (c *Cluster) Cut(ctx context.Context, from, to string) error {
	for _, command := range [][]string{
		{"add", "table", "bridge", "cuts"},
		{"add", "chain", "bridge", "cuts", "forward", "{ type filter hook forward priority 0; }"},
		{"add", "rule", "bridge", "cuts", "forward", "iifname", portName(from), "oifname", portName(to), "drop"},
	} {
		if _, err := c.Exec(ctx, lan, append([]string{"nft"}, command...)...); err != nil {
			return fmt.Errorf("cut %s from %s: %w", to, from, err)
		}
	}
	return nil
}

// Partition cuts every connection, both ways, between a place of one group and
// one of the other.
func (c *Cluster) Partition(ctx context.Context, these, those []string) error {
	var errs []error
	for _, a := range these {
		for _, b := range those {
			errs = append(errs, c.Cut(ctx, a, b), c.Cut(ctx, b, a))
		}
	}
	return errors.Join(errs...)
}

// Mend undoes every Cut and Partition.
func (c *Cluster) Mend(ctx context.Context) error {
	// Adding the table first makes its deletion succeed without any cut.
	for _, verb := range []string{"add", "delete"} {
		if _, err := c.Exec(ctx, lan, "nft", verb, "table", "bridge", "cuts"); err != nil {
			return fmt.Errorf("mend: %w", err)
		}
	}
	return nil
}

// BlockUDP drops the datagrams that come to a node from outside with a port as their
// source or destination, as the node's own firewall does.
func (c *Cluster) BlockUDP(ctx context.Context, node string, port uint16) error {
	return c.blockUDP(ctx, node, port, "-I")
}

// UnblockUDP undoes BlockUDP.
func (c *Cluster) UnblockUDP(ctx context.Context, node string, port uint16) error {
	return c.blockUDP(ctx, node, port, "-D")
}

func (c *Cluster) blockUDP(ctx context.Context, node string, port uint16, verb string) error {
	var errs []error
	for _, program := range c.iptables() {
		for _, side := range []string{"--dport", "--sport"} {
			_, err := c.NodeExec(ctx, node, program, "-w", "-t", "raw", verb, "PREROUTING",
				"!", "-i", "lo", "-p", "udp", side, fmt.Sprint(port), "-j", "DROP")
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("block UDP port %d: %w", port, err)
	}
	return nil
}

// HideImage takes an image away from a node, until ShowImage. Containers that run are
// left alone, and no other can start from it.
func (c *Cluster) HideImage(ctx context.Context, node, image string) error {
	return c.renameImage(ctx, node, image, hidden(image))
}

// ShowImage undoes HideImage.
func (c *Cluster) ShowImage(ctx context.Context, node, image string) error {
	return c.renameImage(ctx, node, hidden(image), image)
}

func hidden(image string) string { return "hidden.local/" + image }

func (c *Cluster) renameImage(ctx context.Context, node, from, to string) error {
	ctr := []string{"ctr", "--namespace", "k8s.io", "images"}
	for _, args := range [][]string{{"tag", "--force", full(from), full(to)}, {"rm", full(from)}} {
		if _, err := c.NodeShell(ctx, node, slices.Concat(ctr, args)...); err != nil {
			return fmt.Errorf("rename image %s: %w", from, err)
		}
	}
	return nil
}

// full is an image's name as containerd has it.
func full(image string) string {
	if strings.Contains(image, "/") {
		return image
	}
	return "docker.io/library/" + image
}
