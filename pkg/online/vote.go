package online

import "slices"

// fewWitnesses is the size of a panel below which one witness may be enough.
const fewWitnesses = 3

// Vote counts what the witnesses of one host report.
type Vote struct {
	// Panel is how many witnesses the host has.
	Panel int
	// Watchers is how many of these have a vote, Silent how many of those with a
	// vote get no answer from the host.
	Watchers, Silent int
}

// majority reports whether more than half of those that have a vote get no answer.
// Where there are three witnesses or more, one is not enough, whatever became of the
// others: it could be mistaken, or lie. Without votes there is no majority.
func (v Vote) majority() bool {
	return 2*v.Silent > v.Watchers && (v.Silent > 1 || v.Panel < fewWitnesses)
}

// Ballot is what one host's agent reports about the hosts whose witness it is.
type Ballot struct {
	// Silent are the hosts that it gets no answer from. It hears all others, or
	// does not know yet.
	Silent []string
	// Void: the report is probably old, because the host does not answer itself, or
	// its agent is gone.
	Void bool
}

// Count counts the votes on a host. Only its witnesses have one, one each, whatever
// else is on the ballots; these are by the name of the host that reports. A witness
// whose ballot is void or missing has no vote.
func Count(host string, witnesses []string, ballots map[string]Ballot) Vote {
	var v Vote
	for i, name := range witnesses {
		if name == host || slices.Contains(witnesses[:i], name) {
			continue
		}
		v.Panel++
		ballot, reports := ballots[name]
		if !reports || ballot.Void {
			continue
		}
		v.Watchers++
		if slices.Contains(ballot.Silent, host) {
			v.Silent++
		}
	}
	return v
}
