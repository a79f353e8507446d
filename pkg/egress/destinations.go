package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

const (
	// MaxDestinations is the greatest number of networks that one list of destinations can have.
	MaxDestinations = 16
	// MaxExcluded is the greatest number of networks of which what is excluded by one group's lists
	// can consist: each pod of the group has them in a set in its node's kernel.
	MaxExcluded = 512
	// maxExcludedTogether is that number where several groups are asked, or with what is included for
	// all.
	maxExcludedTogether = 2 * MaxExcluded
)

// Destinations are the networks outside to which egress IPs apply. To an address in several of them
// the most specific one applies. To one that is in none of them egress IPs apply unless networks are
// included. The nil Destinations are all.
type Destinations struct {
	// Exclude are networks to which pods send as without egress IPs, Include are those to which
	// they send with them. No network is in both.
	Exclude, Include []netip.Prefix
	// All: a mistake is in the list of included networks, so that egress IPs apply to all
	// destinations, whatever else is written.
	All bool
}

// Equal reports whether two Destinations are the same.
func (d *Destinations) Equal(o *Destinations) bool {
	if d == nil || o == nil {
		return d == o
	}
	return d.All == o.All && slices.Equal(d.Exclude, o.Exclude) && slices.Equal(d.Include, o.Include)
}

// String says what they are, for messages.
func (d *Destinations) String() string {
	switch {
	case d == nil || d.All:
		return "all destinations"
	case len(d.Exclude) == 0:
		return listed(d.Include) + " only"
	case len(d.Include) == 0:
		return "all destinations but " + listed(d.Exclude)
	default:
		return listed(d.Include) + " only, and not to " + listed(d.Exclude) + "; the most specific network counts"
	}
}

// maxNamed is how many networks a message names.
const maxNamed = 8

func listed(networks []netip.Prefix) string {
	names := make([]string, 0, maxNamed)
	for _, n := range networks[:min(len(networks), maxNamed)] {
		names = append(names, n.String())
	}
	if more := len(networks) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}

// destinationsMessage says to which destinations egress IPs apply, if not to all.
func (n *Group) destinationsMessage(included []netip.Prefix) string {
	d := n.Destinations.with(included)
	if d == nil || d.All || !n.Requesting() {
		return ""
	}
	return fmt.Sprintf(" The egress IPs apply to %s. Pods reach the rest as without egress IPs.", d)
}

// with are the Destinations with those that are included for all groups.
func (d *Destinations) with(included []netip.Prefix) *Destinations {
	switch {
	case len(included) == 0 || d != nil && d.All:
		return d
	case d == nil:
		return &Destinations{Include: included}
	}
	all := &Destinations{Exclude: d.Exclude, Include: slices.Clone(d.Include)}
	for _, n := range included {
		if !slices.Contains(d.Exclude, n) && !slices.Contains(d.Include, n) {
			all.Include = append(all.Include, n)
		}
	}
	slices.SortFunc(all.Include, netip.Prefix.Compare)
	return all
}

// excluded is the set of addresses to which egress IPs do not apply. Of the same network in the
// lists of a group and in included, which is for all groups, that of the group counts.
func (d *Destinations) excluded(included []netip.Prefix) (*netipx.IPSet, error) {
	type entry struct {
		network netip.Prefix
		include bool
	}
	if d != nil && d.All {
		return new(netipx.IPSet), nil
	}
	var b netipx.IPSetBuilder
	entries := make([]entry, 0, len(included))
	for _, n := range included {
		entries = append(entries, entry{n, true})
	}
	if d != nil {
		for _, n := range d.Exclude {
			entries = append(entries, entry{n, false})
		}
		for _, n := range d.Include {
			entries = append(entries, entry{n, true})
		}
	}
	if len(included) > 0 || d != nil && len(d.Include) > 0 {
		b.AddPrefix(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
		b.AddPrefix(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	// From the least to the most specific, so that this has the last word; of one network the group's.
	slices.SortStableFunc(entries, func(a, b entry) int { return a.network.Bits() - b.network.Bits() })
	for _, e := range entries {
		if e.include {
			b.RemovePrefix(e.network)
		} else {
			b.AddPrefix(e.network)
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return nil, fmt.Errorf("make the set of excluded networks: %w", err)
	}
	return set, nil
}

// CheckIncluded returns an error if networks cannot be included for all groups: if all others are too
// many.
func CheckIncluded(networks []netip.Prefix) error {
	set, err := (*Destinations)(nil).excluded(networks)
	if err != nil {
		return err
	}
	if n := len(set.Prefixes()); n > MaxExcluded {
		return fmt.Errorf("all but these networks are %d, and there may be no more than %d networks: give fewer or larger ones", n, MaxExcluded)
	}
	return nil
}

// excluder finds the networks to which pods leave as without us.
type excluder struct {
	cluster Cluster
	// found has what was found already, by the names of a pod's groups.
	found map[string][2][]netip.Prefix
	// tooMany are the objects of which the lists together exclude too many networks, each
	// combination in one text.
	tooMany map[string]bool
}

func newExcluder(c Cluster) excluder {
	return excluder{cluster: c, found: make(map[string][2][]netip.Prefix), tooMany: make(map[string]bool)}
}

// of returns the networks of the family of a pod's address, none of which contains another, in order.
// Where several groups say the pod's egress IPs, a network is excluded if each of them excludes it:
// an egress IP that is asked for is never left out.
func (e *excluder) of(pod *Pod) []netip.Prefix {
	names := append([]string{pod.group()}, pod.Others...)
	key := strings.Join(names, " ") // no name has a space
	networks, known := e.found[key]
	if !known {
		networks = e.intersection(names)
		e.found[key] = networks
	}
	return networks[FamilyOf(pod.IP)]
}

func (e *excluder) intersection(names []string) (networks [2][]netip.Prefix) {
	var b netipx.IPSetBuilder
	for i, name := range names {
		var d *Destinations
		if g, ok := e.cluster.group(name); ok {
			d = g.Destinations
		}
		if d == nil && len(e.cluster.Included) == 0 {
			return networks
		}
		set, err := d.excluded(e.cluster.Included)
		if err != nil {
			return networks // egress IPs apply, which is the safe side
		}
		if i == 0 {
			b.AddSet(set)
		} else {
			b.Intersect(set)
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return networks
	}
	all := set.Prefixes()
	if len(all) > maxExcludedTogether {
		objects := make([]string, 0, len(names))
		for _, name := range names {
			kind, name := objectOf(name)
			objects = append(objects, kind+" "+name)
		}
		e.tooMany[strings.Join(objects, ", ")] = true
		return networks // as of mistakes
	}
	for _, p := range all {
		networks[FamilyOf(p.Addr())] = append(networks[FamilyOf(p.Addr())], p)
	}
	return networks
}
