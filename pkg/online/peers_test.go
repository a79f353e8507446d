package online_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

func peers(prefix string, n int, state online.PeerState) []online.PeerHealth {
	var list []online.PeerHealth
	for i := range n {
		list = append(list, online.PeerHealth{Name: fmt.Sprintf("%s%03d", prefix, i), State: state, Heard: true, Reached: state == online.PeerAnswers})
	}
	return list
}

func peerNames(prefix string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("%s%03d", prefix, i))
	}
	return names
}

// Mutants killed: users-vote, unknown-peers-vote.
func TestBallotOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		witnessed []string
		peers     []online.PeerHealth
		want      []string
	}{
		"none": {nil, nil, nil},
		"one of each": {
			[]string{"a000", "s000", "u000"},
			slices.Concat(peers("u", 1, online.PeerUnknown), peers("s", 1, online.PeerSilent), peers("a", 1, online.PeerAnswers)),
			[]string{"s000"},
		},
		"only its own pods use the host": {[]string{"s001"}, peers("s", 2, online.PeerSilent), []string{"s001"}},
		"a witness of more than a ballot holds": {
			peerNames("s", online.MaxBallot+10), peers("s", online.MaxBallot+10, online.PeerSilent), peerNames("s", online.MaxBallot),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reversed := slices.Clone(c.peers)
			slices.Reverse(reversed)
			for _, order := range [][]online.PeerHealth{c.peers, reversed} {
				if got := online.BallotOf(c.witnessed, order); !slices.Equal(got, c.want) {
					t.Errorf("ballot %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestCountReached(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		peers              []online.PeerHealth
		watched, answering int
	}{
		"none":                               {nil, 0, 0},
		"never heard: a firewall, perhaps":   {[]online.PeerHealth{{State: online.PeerSilent}}, 0, 0},
		"answers":                            {[]online.PeerHealth{{State: online.PeerAnswers, Heard: true, Reached: true}}, 1, 1},
		"silent":                             {[]online.PeerHealth{{State: online.PeerSilent, Heard: true}}, 1, 0},
		"its data plane is broken":           {[]online.PeerHealth{{State: online.PeerSilent, Heard: true, Reached: true}}, 1, 1},
		"the last probe of many was missed":  {[]online.PeerHealth{{State: online.PeerAnswers, Heard: true}}, 1, 0},
		"two of three, one was never heard":  {[]online.PeerHealth{{Heard: true, Reached: true}, {Heard: true}, {}}, 2, 1},
		"reached without a sign of life: no": {[]online.PeerHealth{{Reached: true}}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if watched, answering := online.CountReached(c.peers); watched != c.watched || answering != c.answering {
				t.Errorf("%d of %d are reached, want %d of %d", answering, watched, c.answering, c.watched)
			}
		})
	}
}

// Mutants killed: all-egress-ips-must-work, serves-without-overlay, taken-egress-ips-must-work.
func TestServes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		service online.Service
		want    bool
	}{
		"hosts nothing":                      {online.Service{Overlay: true}, true},
		"all egress IPs are configured":      {online.Service{Overlay: true, Hosted: 2, Configured: 2}, true},
		"one of two could not be configured": {online.Service{Overlay: true, Hosted: 2, Configured: 1}, true},
		"none could be configured":           {online.Service{Overlay: true, Hosted: 2}, false},
		"others have all of them":            {online.Service{Overlay: true, Hosted: 2, Taken: 2}, true},
		"others have one, and one is not":    {online.Service{Overlay: true, Hosted: 2, Taken: 1}, false},
		"others have one, and one is":        {online.Service{Overlay: true, Hosted: 2, Configured: 1, Taken: 1}, true},
		"has no overlay":                     {online.Service{Hosted: 2, Configured: 2}, false},
		"is withdrawn":                       {online.Service{Withdrawn: true, Overlay: true}, false},
		"before the first pass":              {online.Service{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.service.Serves(); got != c.want {
				t.Errorf("serves: %t, want %t", got, c.want)
			}
		})
	}
}
