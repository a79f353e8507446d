package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Driver is a cluster on which scenarios are played.
type Driver interface {
	// Player says what kind of cluster it is.
	Player() Player
	// Do carries out one step that the player does not pass over.
	Do(ctx context.Context, step Step) error
	// Until observes the cluster until done reports that nothing is wrong, or it
	// has waited long enough, and returns the last of what was wrong.
	Until(ctx context.Context, done func(State) []string) (State, []string, error)
}

// Outcome is what became of a scenario.
type Outcome struct {
	// Wrong are the sentences about the first step at which something differs, or
	// about all words that are not understood; none where all is well.
	Wrong []string
	// NotHere is what the player passed over, with the reasons.
	NotHere []string
}

// At returns the outcome with what is wrong at a step, if anything is. The step
// counts from 0.
func (o Outcome) At(scenario Scenario, n int, wrong ...string) Outcome {
	step := scenario.Steps[n]
	for _, w := range wrong {
		words := strings.Join(strings.Fields(step.Op+" "+step.Name), " ")
		o.Wrong = append(o.Wrong, fmt.Sprintf("scenario %s, step %d, %s: %s", scenario.Name, n+1, words, w))
	}
	return o
}

// Play plays a scenario up to the first step at which something is wrong.
func Play(ctx context.Context, driver Driver, scenario Scenario) Outcome {
	out := Outcome{Wrong: scenario.Problems}
	if len(out.Wrong) > 0 {
		return out
	}
	player := driver.Player()
	before, placed := NewState(), NewState()
	for i, step := range scenario.Steps {
		out.NotHere = append(out.NotHere, player.notHere(i, step)...)
		if player.PassesOver(step) {
			continue
		}
		if err := driver.Do(ctx, step); err != nil {
			return out.At(scenario, i, err.Error())
		}
		expect, err := Expected[Expect](step)
		if err != nil {
			return out.At(scenario, i, err.Error())
		}
		// What cannot be seen is passed over, but not the wait: the outcome
		// must not depend on how fast the steps follow each other.
		if step.When == Instant && !player.seesInstants() {
			expect = Expect{}
		}
		state, wrong, err := driver.Until(ctx, func(now State) []string {
			found := expect.Check(now, before, placed)
			if step.When == Settled {
				found = append(found, settledInvariants(now)...)
			}
			return found
		})
		if err != nil {
			return out.At(scenario, i, fmt.Sprintf("observe: %v", err))
		}
		if len(wrong) > 0 {
			return out.At(scenario, i, wrong...)
		}
		before = state
		if step.Op == "settle" || step.Op == "reallocate" {
			placed = state
		}
	}
	return out
}

// settledInvariants are those of the corpus that a State shows.
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
func Deviations(document string) map[string]string { return DeviationsUnder("Deviations", document) }

// DeviationsUnder are those that a document lists under another heading.
func DeviationsUnder(heading, document string) map[string]string {
	deviations := make(map[string]string)
	_, section, found := strings.Cut(document, "\n## "+heading+"\n")
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
