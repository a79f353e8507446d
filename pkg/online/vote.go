package online

import "slices"

// Vote counts what agents report about one host.
type Vote struct {
	// Watchers is how many agents watch the host and have a vote, Silent how many
	// of these get no answer from it.
	Watchers, Silent int
}

// majority reports whether more than half of the watchers get no answer. Without
// watchers there is no majority.
func (v Vote) majority() bool { return 2*v.Silent > v.Watchers }

// Ballot is what one host's agent reports about the hosts that it watches.
type Ballot struct {
	Host            string
	Watches, Silent []string
}

// Count counts the ballots by the host that they are about. Ballots of hosts in
// void do not count: a host that does not answer cannot have reported recently what
// it sees. What an agent reports about its own host does not count either.
func Count(ballots []Ballot, void map[string]bool) map[string]Vote {
	votes := make(map[string]Vote)
	for _, b := range ballots {
		if void[b.Host] {
			continue
		}
		for _, name := range b.Watches {
			if name == b.Host {
				continue
			}
			vote := votes[name]
			vote.Watchers++
			if slices.Contains(b.Silent, name) {
				vote.Silent++
			}
			votes[name] = vote
		}
	}
	return votes
}
