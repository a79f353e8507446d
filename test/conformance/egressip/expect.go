package egressip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Item is one of an EgressIP's status: an address, and the node that has it.
type Item struct{ Address, Node string }

func (i Item) String() string { return i.Address + " " + i.Node }

// ofIPv6 follows the name of a pod for what it sends by IPv6, if it has both families.
const ofIPv6 = " IPv6"

// Source is with what source packets of a pod leave.
type Source struct {
	// Word is node, dropped or refused; "" where Addresses are the sources.
	Word string
	// Addresses in order: connections are spread over them.
	Addresses []string
	// Node is the pod's, IPv6 the family.
	Node string
	IPv6 bool
}

func (s Source) String() string {
	if s.Word != "" {
		return s.Word
	}
	return strings.Join(s.Addresses, " ")
}

// The words of a source that are no addresses.
const (
	// FromNode: its node's own address.
	FromNode = "node"
	// Dropped: nothing leaves. Refused: nothing leaves, and the pod is told.
	Dropped = "dropped"
	Refused = "refused"
)

// State is what there is when everything is quiet.
type State struct {
	// Items by EgressIP, Sources by pod.
	Items   map[string][]Item
	Sources map[string]Source
	// Inside are, by pod, the networks that see no egress IP of it.
	Inside map[string][]netip.Prefix
	// Broken names what must hold always, and does not.
	Broken []string
}

// Check returns everything in which the state differs from what is expected. before is the state
// of the step before.
func (e Expect) Check(now, before State) []string {
	wrong := slices.Clone(now.Broken)
	for _, name := range slices.Sorted(maps.Keys(e.Items)) {
		if !matches(e.Items[name], now.Items[name]) {
			wrong = append(wrong, fmt.Sprintf("items of %s are %v, want %q", name, now.Items[name], e.Items[name]))
		}
	}
	for _, name := range e.Unmoved {
		if was := before.Items[name]; !slices.Equal(was, now.Items[name]) {
			wrong = append(wrong, fmt.Sprintf("items of %s are %v, and were %v", name, now.Items[name], was))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Sources)) {
		source, ok := now.Sources[name]
		if !ok || !now.isSource(e.Sources[name], source) {
			wrong = append(wrong, fmt.Sprintf("source of pod %s is %q, want %q; items are %v", name, source, e.Sources[name], now.Items))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Inside)) {
		for _, destination := range e.Inside[name] {
			ip, err := netip.ParseAddr(destination)
			if err != nil || !inside(now.Inside[name], ip) {
				wrong = append(wrong, fmt.Sprintf("%s may see an egress IP of pod %s", destination, name))
			}
		}
	}
	return wrong
}

func inside(networks []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// matches reports whether each item is one that is wanted, and the other way round. The lists are
// short: all orders are tried.
func matches(wanted []string, items []Item) bool {
	if len(wanted) != len(items) {
		return false
	}
	if len(wanted) == 0 {
		return true
	}
	for i := range items {
		if isItem(wanted[0], items[i]) && matches(wanted[1:], slices.Delete(slices.Clone(items), i, i+1)) {
			return true
		}
	}
	return false
}

func isItem(wanted string, item Item) bool {
	address, node, _ := strings.Cut(wanted, " ")
	return isOneOf(address, item.Address) && isOneOf(node, item.Node)
}

func isOneOf(wanted, word string) bool {
	return wanted == "*" || slices.Contains(strings.Split(wanted, "|"), word)
}

// isSource reports whether a source is one that is wanted. These are the words:
//
//	node, dropped, refused
//	all of EGRESSIP          connections are spread over all that are assigned, of the pod's family
//	one of EGRESSIP          all have one of these
//	the node's of EGRESSIP   all have the one that the pod's node has
//	ADDRESS ...              connections are spread over these
//	... or ...
func (s State) isSource(wanted string, source Source) bool {
	for alternative := range strings.SplitSeq(wanted, " or ") {
		if s.is(alternative, source) {
			return true
		}
	}
	return false
}

func (s State) is(wanted string, source Source) bool {
	assigned := func(name string) (addresses []string) {
		for _, item := range s.Items[name] {
			if strings.Contains(item.Address, ":") == source.IPv6 {
				addresses = append(addresses, item.Address)
			}
		}
		slices.Sort(addresses)
		return addresses
	}
	if name, ok := strings.CutPrefix(wanted, "all of "); ok {
		return len(source.Addresses) > 0 && slices.Equal(source.Addresses, assigned(name))
	}
	if name, ok := strings.CutPrefix(wanted, "one of "); ok {
		return len(source.Addresses) == 1 && slices.Contains(assigned(name), source.Addresses[0])
	}
	if name, ok := strings.CutPrefix(wanted, "the node's of "); ok {
		return len(source.Addresses) == 1 && slices.Contains(s.Items[name], Item{source.Addresses[0], source.Node})
	}
	return wanted == source.String()
}
