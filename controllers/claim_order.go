package controllers

import (
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// claimsAtOnce bounds the lists of claims that one round writes: a host that fails while
// thousands of egress IPs are placed does not wait for all of them.
const claimsAtOnce = claimWriters

// batches are the writes in the order in which rounds make them, one batch a round. Those that
// move an egress IP come first, and alone: they claim what was displaced, or release what is
// still requested, and what follows from them is decided in the next round.
func batches(writes []*claimWrite, displaced egress.Displaced, released map[string][]egress.Release) (moves, others [][]*claimWrite) {
	var moving, rest []*claimWrite
	for _, w := range writes {
		if displaced.Moves(w.wanted.all(), released[w.before.Name]) {
			moving = append(moving, w)
		} else {
			rest = append(rest, w)
		}
	}
	return slices.Collect(slices.Chunk(moving, claimsAtOnce)), slices.Collect(slices.Chunk(rest, claimsAtOnce))
}
