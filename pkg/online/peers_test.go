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

// Mutants killed: the-silent-are-cut-from-the-ballot, unknown-peers-vote.
func TestBallotOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		peers           []online.PeerHealth
		watches, silent []string
	}{
		"none": {nil, nil, nil},
		"one of each": {
			slices.Concat(peers("u", 1, online.PeerUnknown), peers("s", 1, online.PeerSilent), peers("a", 1, online.PeerAnswers)),
			[]string{"a000", "s000"},
			[]string{"s000"},
		},
		"more than a ballot holds: silent ones first": {
			slices.Concat(peers("a", online.MaxBallot, online.PeerAnswers), peers("s", 10, online.PeerSilent)),
			slices.Concat(peerNames("a", online.MaxBallot-10), peerNames("s", 10)), peerNames("s", 10),
		},
		"more silent ones than a ballot holds": {
			slices.Concat(peers("a", 10, online.PeerAnswers), peers("s", online.MaxBallot+10, online.PeerSilent)),
			peerNames("s", online.MaxBallot), peerNames("s", online.MaxBallot),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reversed := slices.Clone(c.peers)
			slices.Reverse(reversed)
			for _, order := range [][]online.PeerHealth{c.peers, reversed} {
				b := online.BallotOf("self", order)
				if b.Host != "self" || !slices.Equal(b.Watches, c.watches) || !slices.Equal(b.Silent, c.silent) {
					t.Errorf("ballot of %q: watches %v, silent %v; want %v, %v", b.Host, b.Watches, b.Silent, c.watches, c.silent)
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

// Mutants killed: all-egress-ips-must-work, serves-without-overlay.
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
