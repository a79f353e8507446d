package online

import "slices"

// PeerState is what a host's own probes say of a host that it watches.
type PeerState int

// The states.
const (
	// PeerUnknown: not judged yet, as after a start.
	PeerUnknown PeerState = iota
	// PeerAnswers: it answers as it must, if only until its hold-down is over.
	PeerAnswers
	// PeerSilent: it does not, or says that its data plane does not work.
	PeerSilent
)

// PeerHealth is what a host's own probes found out about a host that it watches.
type PeerHealth struct {
	Name  string
	State PeerState
	// Heard: it has given a sign of life at least once.
	Heard bool
	// Reached: the last probe got a sign of life. A host that is of no use at
	// present, as in its hold-down, is reached all the same.
	Reached bool
}

// MaxBallot bounds the hosts in a ballot. The schema of the API allows no more.
const MaxBallot = 256

// BallotOf names the hosts that get no answer to this host's probes, of those whose
// witness it is, in order of name. A host that is cut off reports to no one; where its
// ballot reaches the API server, it is one voice among others.
func BallotOf(witnessed []string, peers []PeerHealth) []string {
	var silent []string
	for _, p := range peers {
		if p.State == PeerSilent && slices.Contains(witnessed, p.Name) {
			silent = append(silent, p.Name)
		}
	}
	slices.Sort(silent)
	return silent[:min(len(silent), MaxBallot)]
}

// CountReached returns how many of the hosts have ever answered, and how many of
// those are reached now. Hosts that are of no use at present count too, as in their
// hold-down: a host is not cut off from a peer that answers it.
func CountReached(peers []PeerHealth) (watched, answering int) {
	for _, p := range peers {
		if !p.Heard {
			continue
		}
		watched++
		if p.Reached {
			answering++
		}
	}
	return watched, answering
}

// Service is what a host's data plane can do for others.
type Service struct {
	// Withdrawn: the host is cut off, and has given its egress IPs up.
	Withdrawn bool
	// Overlay: it can take packets from other hosts.
	Overlay bool
	// Hosted is how many egress IPs it must have, Configured for how many of them
	// the kernel is configured, and Taken how many are not because somebody else has them.
	Hosted, Configured, Taken int
}

// Serves reports whether other hosts may send their packets to the host: its
// overlay is there, and any of its egress IPs. That one of several could not be
// configured must not move all others away. One that somebody else has says nothing of this
// host: its former host may be alive, and need a moment to give it up.
func (s Service) Serves() bool {
	return !s.Withdrawn && s.Overlay && (s.Hosted == s.Taken || s.Configured > 0)
}
