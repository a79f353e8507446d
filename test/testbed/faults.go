package testbed

import (
	"context"
	"errors"
	"fmt"
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
