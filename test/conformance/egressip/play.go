package egressip

import (
	"context"
	"fmt"
)

// Player is a cluster on which cases are played.
type Player interface {
	// Do makes the cluster that of the step.
	Do(ctx context.Context, step Step, now Cluster) error
	// Until observes the cluster when it is quiet, and returns what done says about it.
	Until(ctx context.Context, done func(State) []string) (State, []string, error)
}

// Outcome is what became of a case.
type Outcome struct {
	// Wrong is in what the first step that is wrong is not as it must be.
	Wrong []string
	// Differs is in what the answer is not the peer's, where that is on purpose.
	Differs []string
}

// Play plays a case up to the first step at which something is wrong. Where we differ from the
// peer on purpose, and do not differ, that is wrong, too.
func Play(ctx context.Context, player Player, c Case) Outcome {
	var out Outcome
	var now Cluster
	var before State
	for i, step := range c.Steps {
		at := func(what any) string { return fmt.Sprintf("case %s, step %d: %v", c.Name, i+1, what) }
		var err error
		if now, err = now.After(step.Do); err == nil {
			err = player.Do(ctx, step, now)
		}
		if err != nil {
			out.Wrong = append(out.Wrong, at(err))
			return out
		}
		state, wrong, err := player.Until(ctx, func(s State) []string { return step.Expect().Check(s, before) })
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		for _, w := range wrong {
			out.Wrong = append(out.Wrong, at(w))
		}
		if len(wrong) > 0 {
			return out
		}
		if step.Ours != nil {
			differs := step.Then.Check(state, before)
			if len(differs) == 0 {
				out.Wrong = append(out.Wrong, at("we differ on purpose, and yet the answer is the peer's: take out what is ours"))
				return out
			}
			for _, d := range differs {
				out.Differs = append(out.Differs, at(d+": "+step.Ours.Why))
			}
		}
		before = state
	}
	return out
}
