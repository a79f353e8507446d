package egress

import (
	"cmp"
	"hash/fnv"
	"math/bits"
	"slices"
)

// MaxPanel is the greatest number of witnesses of a host.
const MaxPanel = 7

// Witness is a host that can be a witness of others, or that has witnesses.
type Witness struct {
	Name string
	// Zone is what may fail at once, as the Node's label
	// topology.kubernetes.io/zone names it. Hosts without a label are considered
	// to be in one zone.
	Zone string
	// Family is that of its hostIP. Hosts of another one do not reach it.
	Family Family
}

// Panels picks the witnesses of each host: by name of the host, in order of name. They
// alone vote on whether the host is silent, so that the vote costs the same however
// many nodes use the host.
//
//   - There are as many as can be had, up to MaxPanel; of four or six one is left out,
//     because an even panel needs the majority of the next greater odd one.
//   - No zone has a majority, if there are enough witnesses elsewhere.
//   - Those outside the host's own zone come first: those inside may die with it.
//   - Otherwise a host takes the witnesses that a hash of both names puts first
//     (rendezvous hashing). So all witnesses have about the same number of hosts, and
//     a witness that comes or goes changes only panels that it is or was in.
//
// A host is never in its own panel, and only hosts that reach it are.
func Panels(hosts, witnesses []Witness) map[string][]string {
	e := newElectorate(witnesses)
	panels := make(map[string][]string, len(hosts))
	for _, host := range hosts {
		panels[host.Name] = e.panel(host)
	}
	return panels
}

// electorate is who can be a witness.
type electorate struct {
	voters []voter
	// zones are the positions of zones in first.
	zones map[string]int
	// first are, for the host at hand, the voters of each zone that come first.
	first [][]ranked
}

type voter struct {
	name   string
	hash   uint64
	zone   int
	family Family
}

type ranked struct {
	name   string
	weight uint64
}

func (a ranked) compare(b ranked) int {
	if a.weight != b.weight { // nearly always
		return cmp.Compare(a.weight, b.weight)
	}
	return cmp.Compare(a.name, b.name)
}

func newElectorate(witnesses []Witness) *electorate {
	e := &electorate{voters: make([]voter, 0, len(witnesses)), zones: make(map[string]int)}
	for _, w := range witnesses {
		zone, known := e.zones[w.Zone]
		if !known {
			zone = len(e.first)
			e.zones[w.Zone] = zone
			e.first = append(e.first, make([]ranked, 0, MaxPanel+1))
		}
		e.voters = append(e.voters, voter{name: w.Name, hash: nameHash(w.Name), zone: zone, family: w.Family})
	}
	return e
}

func (e *electorate) panel(host Witness) []string {
	size := panelSize(e.rank(host))
	own, known := e.zones[host.Zone]
	if !known {
		own = -1
	}
	panel := make([]string, 0, size)
	seats := make([]int, len(e.first))
	for most := max(1, (size-1)/2); len(panel) < size; {
		zone := e.next(seats, most, own)
		if zone < 0 {
			most++ // the other zones have no host left
			continue
		}
		panel = append(panel, e.first[zone][seats[zone]].name)
		seats[zone]++
	}
	slices.Sort(panel)
	return panel
}

// panelSize is the size of a panel where there are so many witnesses.
func panelSize(witnesses int) int {
	size := min(witnesses, MaxPanel)
	if size > 2 && size%2 == 0 {
		return size - 1
	}
	return size
}

// rank finds the first voters of each zone for a host, and returns how many voters
// there are apart from the host.
func (e *electorate) rank(host Witness) (others int) {
	for zone := range e.first {
		e.first[zone] = e.first[zone][:0]
	}
	hash := nameHash(host.Name)
	for i := range e.voters {
		v := &e.voters[i]
		if v.family != host.Family || v.hash == hash && v.name == host.Name {
			continue
		}
		others++
		first, r := e.first[v.zone], ranked{name: v.name, weight: pairHash(hash, v.hash)}
		if len(first) == MaxPanel {
			if last := &first[MaxPanel-1]; r.weight > last.weight || r.compare(*last) > 0 {
				continue
			}
			first = first[:MaxPanel-1]
		}
		at, _ := slices.BinarySearchFunc(first, r, ranked.compare)
		e.first[v.zone] = slices.Insert(first, at, r)
	}
	return others
}

// next is the zone of the next witness, of those with fewer seats than most; -1 if
// there is none. The host's own zone is the last choice.
func (e *electorate) next(seats []int, most, own int) int {
	best := -1
	for zone, first := range e.first {
		if seats[zone] >= min(most, len(first)) {
			continue
		}
		if best < 0 || best == own || zone != own && first[seats[zone]].compare(e.first[best][seats[best]]) < 0 {
			best = zone
		}
	}
	return best
}

func nameHash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	return h.Sum64()
}

// pairHash mixes the hashes of two names, of which the order matters (the finalizer of
// SplitMix64).
func pairHash(host, witness uint64) uint64 {
	x := host ^ bits.RotateLeft64(witness, 32)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
