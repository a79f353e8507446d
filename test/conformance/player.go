package conformance

import (
	"encoding/json"
	"fmt"
)

// Player is a way to play scenarios. Not every word of the format applies to
// each; what does not is reported with a reason, never passed over in silence.
type Player string

// The players.
const (
	// OnBrain is pkg/egress as pure functions, for the whole cluster.
	OnBrain Player = "the brain"
	// OnAPIServer is a real API server with the controller running.
	OnAPIServer Player = "an API server"
	// OnPlans is pkg/egress as pure functions, for one node.
	OnPlans Player = "plans"
	// OnKernel is one node's real kernel.
	OnKernel Player = "the kernel"
)

// seesInstants reports whether the state right after a step can be seen.
func (p Player) seesInstants() bool { return p == OnBrain }

// PassesOver reports whether a step has no meaning for the player. Its
// expectation may have one for a node's plan all the same.
func (p Player) PassesOver(step Step) bool {
	_, over := p.inapplicable()["op "+step.Op]
	return over || p.unpatchable(step)
}

// unpatchable: the UID of a Node belongs to the API server.
func (p Player) unpatchable(step Step) bool {
	return p == OnAPIServer && step.Op == "patch-node" && step.UID != ""
}

// inapplicable are the words that do not apply to the player, with the reasons.
// A word is that of an operation, a field of a step, a moment, or a field of what
// is expected.
func (p Player) inapplicable() map[string]string {
	const kernel = "it is a matter of the kernel, on which no plan depends"
	switch p {
	case OnAPIServer:
		return map[string]string{
			"op reallocate": "the controller places requests by itself, not in rounds",
			"field order":   "the controller reads both kinds before it decides",
			"field ip":      "the address of a Node comes with its HostSubnet",
			"field uid":     "a Node keeps the UID that the API server gave it",
			"when instant":  "the controller does not wait to be observed",
		}
	case OnPlans:
		return map[string]string{
			"op interface":               kernel,
			"op agent-start":             kernel,
			"op external-address-delete": kernel,
			"op external-rules-flush":    kernel,
			"expect announcements":       "only that the address is hosted: " + kernel,
			"expect inboundNew":          "only that the address is hosted: " + kernel,
			"expect inboundReply":        "only that the address is hosted: " + kernel,
			"expect withinSeconds":       "a plan takes no time",
		}
	case OnKernel:
		return map[string]string{
			"op create-node": "an agent does not read the capacity of its node",
			"expect paths":   "the node has no pods here: plans show the paths, the packet tests of pkg/dataplane the packets",
		}
	case OnBrain:
		return map[string]string{"field ip": "the address of a node is that of its HostSubnet"}
	}
	return nil
}

// notHere returns what of the nth step does not apply, as sentences.
func (p Player) notHere(n int, step Step) (sentences []string) {
	reasons := p.inapplicable()
	note := func(what, word string) {
		if reason := reasons[word]; reason != "" {
			sentences = append(sentences, fmt.Sprintf("step %d: %s is not applicable on %s: %s", n+1, what, p, reason))
		}
	}
	note(step.Op, "op "+step.Op)
	if p.unpatchable(step) {
		note(step.Op+" with a uid", "field uid")
	}
	if step.Op == "create-node" && step.IP != "" {
		note("the field ip of "+step.Op, "field ip")
	}
	if step.Order != "" {
		note("the field order of "+step.Op, "field order")
	}
	var expected map[string]json.RawMessage
	if len(step.Expect) == 0 || json.Unmarshal(step.Expect, &expected) != nil {
		return sentences
	}
	if step.When == Instant {
		note("an instant expectation", "when "+Instant)
	}
	for field := range sorted(expected) {
		note("the expectation "+field, "expect "+field)
	}
	return sentences
}

// NotHere returns what of a scenario does not apply to the player.
func (p Player) NotHere(scenario Scenario) (sentences []string) {
	for i, step := range scenario.Steps {
		sentences = append(sentences, p.notHere(i, step)...)
	}
	return sentences
}
