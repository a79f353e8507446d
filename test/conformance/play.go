package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Driver is a cluster on which scenarios are played.
type Driver interface {
	// Do carries out one step. It returns ErrNotHere where the step means
	// nothing on this kind of cluster; its expectation is then passed over.
	Do(ctx context.Context, step Step) error
	// Until observes the cluster until done says that nothing is wrong, or it
	// has waited long enough, and returns the last of what was wrong.
	Until(ctx context.Context, done func(State) []string) (State, []string, error)
	// Instant tells whether the state right after a step can be seen.
	Instant() bool
}

// ErrNotHere is returned for a step that a driver passes over.
var ErrNotHere = errors.New("not on this kind of cluster")

// Play plays a scenario and returns the first step at which something is
// wrong, as sentences; none where all is well.
func Play(ctx context.Context, driver Driver, scenario Scenario) ([]string, error) {
	var before, placed State
	for i, step := range scenario.Steps {
		err := driver.Do(ctx, step)
		if errors.Is(err, ErrNotHere) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("step %d, %s %s: %w", i+1, step.Op, step.Name, err)
		}
		var expect Expect
		// What cannot be seen is passed over, but not the wait: the outcome
		// must not depend on how fast the steps follow each other.
		if len(step.Expect) > 0 && (step.When != Instant || driver.Instant()) {
			if err := strict(step.Expect, &expect); err != nil {
				return nil, fmt.Errorf("step %d, %s %s: read expectation: %w", i+1, step.Op, step.Name, err)
			}
		}
		state, wrong, err := driver.Until(ctx, func(now State) []string {
			found := expect.Check(now, before, placed)
			if step.When == Settled {
				found = append(found, settledInvariants(now)...)
			}
			return found
		})
		if err != nil {
			return nil, fmt.Errorf("step %d, %s %s: observe: %w", i+1, step.Op, step.Name, err)
		}
		if len(wrong) > 0 {
			for w := range wrong {
				wrong[w] = fmt.Sprintf("after step %d, %s %s (%s): %s", i+1, step.Op, step.Name, step.When, wrong[w])
			}
			return wrong, nil
		}
		before = state
		if step.Op == "settle" || step.Op == "reallocate" {
			placed = state
		}
	}
	return nil, nil
}

// settledInvariants are those of the corpus that can be told from a State.
func settledInvariants(s State) (wrong []string) {
	for name, active := range s.Active {
		used, _ := active.([]string)
		for _, assignment := range used {
			ip, _, _ := strings.Cut(assignment, "@")
			if !slices.Contains(s.Requests[name], ip) {
				wrong = append(wrong, fmt.Sprintf("invariant: %s uses %s, which it does not request", name, ip))
			}
		}
		if len(s.Requests[name]) > 0 && active == "none" {
			wrong = append(wrong, fmt.Sprintf("invariant: %s requests egress IPs and leaves with node addresses", name))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// Deviations are the scenarios that docs/compatibility.md lists under its
// heading Deviations, with the reasons: the names in backquotes in the first
// column of a table.
func Deviations(document string) map[string]string {
	deviations := make(map[string]string)
	_, section, found := strings.Cut(document, "\n## Deviations\n")
	if !found {
		return deviations
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 {
			continue
		}
		for i, name := range strings.Split(cells[1], "`") {
			if i%2 == 1 {
				deviations[name] = strings.TrimSpace(cells[2])
			}
		}
	}
	return deviations
}
