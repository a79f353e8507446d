package nftables

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
)

// LinksName is the name of our table of family inet that checks sources. The one of family
// bridge has the same name as the table of rules.
const LinksName = "egressip-links"

// Links says which links of the host may send with which addresses.
type Links struct {
	// Sources are the links of pods that may send with their own addresses only, and
	// these addresses.
	Sources map[int][]netip.Addr
	// Guarded are the addresses of Sources that no other pod may send with.
	Guarded []netip.Addr
	// Known are addresses of pods that belong to no link, but come by no new one: it may lead
	// to another pod, of which the agent does not know yet.
	Known []netip.Addr
	// Unbound are addresses of which it is not known which link has them.
	Unbound []netip.Addr
	// Pods are all links that lead to pods, Others all that do not.
	Pods, Others []int
}

// Sets of the tables of links.
const (
	setBoundLinks = "bound-links"
	setSources    = "sources"
	setSources6   = "sources6"
	setGuarded    = "guarded"
	setGuarded6   = "guarded6"
	setKnown      = "known"
	setKnown6     = "known6"
	setUnbound    = "unbound"
	setUnbound6   = "unbound6"
	setPodLinks   = "pod-links"
	setOtherLinks = "other-links"
	setAttended   = "attended"
)

func linkSets(t *nftables.Table) []*nftables.Set {
	index, ip, ip6 := nftables.TypeIFIndex, nftables.TypeIPAddr, nftables.TypeIP6Addr
	return []*nftables.Set{
		{Table: t, Name: setBoundLinks, KeyType: index},
		{Table: t, Name: setSources, KeyType: concat(index, ip)},
		{Table: t, Name: setSources6, KeyType: concat(index, ip6)},
		{Table: t, Name: setGuarded, KeyType: ip},
		{Table: t, Name: setGuarded6, KeyType: ip6},
		{Table: t, Name: setKnown, KeyType: ip},
		{Table: t, Name: setKnown6, KeyType: ip6},
		{Table: t, Name: setUnbound, KeyType: ip},
		{Table: t, Name: setUnbound6, KeyType: ip6},
		{Table: t, Name: setPodLinks, KeyType: index},
		{Table: t, Name: setOtherLinks, KeyType: index},
		{Table: t, Name: setAttended, KeyType: nftables.TypeNFProto, HasTimeout: true},
	}
}

func linkSet(t *nftables.Table, name string) *nftables.Set {
	all := linkSets(t)
	return all[slices.IndexFunc(all, func(s *nftables.Set) bool { return s.Name == name })]
}

// linkTables are the tables that check sources. Links are ports of bridges in the first,
// and what packets are routed from in the second.
func linkTables() []*nftables.Table {
	return []*nftables.Table{
		{Name: Name, Family: nftables.TableFamilyBridge},
		{Name: LinksName, Family: nftables.TableFamilyINet},
	}
}

// linkKey is a link as the kernel compares it.
func linkKey(index int) string { return string(native(uint32(index))) }

// sets are the members of all sets that depend on links.
func (l Links) sets() map[string]Elements {
	sets := map[string]Elements{}
	for _, s := range linkSets(nil) {
		if s.Name != setAttended {
			sets[s.Name] = Elements{}
		}
	}
	for index, addrs := range l.Sources {
		sets[setBoundLinks][linkKey(index)] = ""
		for _, ip := range addrs {
			sets[ofFamily(ip, setSources, setSources6)][linkKey(index)+addrKey(ip)] = ""
		}
	}
	for _, ip := range l.Guarded {
		sets[ofFamily(ip, setGuarded, setGuarded6)][addrKey(ip)] = ""
	}
	for _, ip := range l.Known {
		sets[ofFamily(ip, setKnown, setKnown6)][addrKey(ip)] = ""
	}
	for _, ip := range l.Unbound {
		sets[ofFamily(ip, setUnbound, setUnbound6)][addrKey(ip)] = ""
	}
	for name, links := range map[string][]int{setPodLinks: l.Pods, setOtherLinks: l.Others} {
		for _, index := range links {
			sets[name][linkKey(index)] = ""
		}
	}
	return sets
}

func ofFamily(ip netip.Addr, four, six string) string {
	if ip.Is4() {
		return four
	}
	return six
}

// LinkContent is what the tables of links hold.
type LinkContent struct {
	// exists are the tables that exist.
	exists map[*nftables.Table]bool
	// whole: both tables have the same sets and the rules that they should have. Sets has
	// their members then.
	whole bool
	sets  map[string]Elements
	// put is what was put there; nil where the tables were read.
	put *Links
}

// Exists reports whether there is any of the tables.
func (c LinkContent) Exists() bool { return len(c.exists) > 0 }

// Bound returns the link to which each address belongs.
func (c LinkContent) Bound() map[netip.Addr]int {
	bound := map[netip.Addr]int{}
	for _, set := range []string{setSources, setSources6} {
		for key := range c.sets[set] {
			bound[keyAddr(key[4:])] = int(binary.NativeEndian.Uint32([]byte(key)))
		}
	}
	return bound
}

// Guarded returns the addresses that belong to links, or have until now.
func (c LinkContent) Guarded() map[netip.Addr]struct{} {
	guarded := map[netip.Addr]struct{}{}
	for _, set := range []string{setGuarded, setGuarded6} {
		for key := range c.sets[set] {
			guarded[keyAddr(key)] = struct{}{}
		}
	}
	return guarded
}

// Is reports whether the tables hold what they should.
func (c LinkContent) Is(want Links) bool {
	if len(want.Sources) == 0 {
		return !c.Exists()
	}
	if c.put != nil {
		return reflect.DeepEqual(*c.put, want)
	}
	return c.whole && maps.EqualFunc(c.sets, want.sets(), maps.Equal[Elements, Elements])
}

// List describes the tables of links that exist.
func (c LinkContent) List() []string {
	var list []string
	for t := range c.exists {
		list = append(list, "nftables "+tableText(t))
	}
	slices.Sort(list)
	return list
}

func tableText(t *nftables.Table) string {
	if t.Family == nftables.TableFamilyBridge {
		return "table bridge " + t.Name
	}
	return "table inet " + t.Name
}
