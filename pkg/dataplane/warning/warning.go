package warning

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Reason is the kind of a warning, as a word for programs.
type Reason string

// The reasons, the worst first: what stops traffic, then what may give it another
// source, then what may do either at some time, then what is not known.
const (
	// ForwardingOff: the host forwards no packets of pods.
	ForwardingOff Reason = "ForwardingOff"
	// NoDefaultRoute: nothing leads to the outside.
	NoDefaultRoute Reason = "NoDefaultRoute"
	// ForwardRejects: rules of others drop forwarded packets that they do not know.
	ForwardRejects Reason = "ForwardRejects"
	// RoutedElsewhere: packets of pods leave by another way than they must.
	RoutedElsewhere Reason = "RoutedElsewhere"
	// HostUnreachable: another host does not answer this one, and answers others.
	HostUnreachable Reason = "HostUnreachable"
	// IPv6NotServed: pods with egress IPs of IPv6 do not leave by IPv6.
	IPv6NotServed Reason = "IPv6NotServed"
	// OverlayPortClosed: rules of others may drop what other hosts send over the overlay.
	OverlayPortClosed Reason = "OverlayPortClosed"
	// OverlayPortShared: another device uses the overlay's port.
	OverlayPortShared Reason = "OverlayPortShared"
	// PortsRunOut: an egress IP has few source ports left for a destination.
	PortsRunOut Reason = "PortsRunOut"
	// DefaultRouteElsewhere: packets leave by another interface than that with the egress
	// IPs.
	DefaultRouteElsewhere Reason = "DefaultRouteElsewhere"
	// ReversePathFilter: a filter drops the answers to egress IPs.
	ReversePathFilter Reason = "ReversePathFilter"
	// ForeignNATFirst: source NAT of others may come before ours.
	ForeignNATFirst Reason = "ForeignNATFirst"
	// RulesFlushed: other software removes our rules from time to time.
	RulesFlushed Reason = "RulesFlushed"
	// FirstPlaceLost: others put their rules before ours again and again.
	FirstPlaceLost Reason = "FirstPlaceLost"
	// SetsRestored: other software may write back what our sets had before.
	SetsRestored Reason = "SetsRestored"
	// MarksOverlap: other software uses bits of our marks.
	MarksOverlap Reason = "MarksOverlap"
	// IPv6NotDropped: pods with egress IPs leave by IPv6.
	IPv6NotDropped Reason = "IPv6NotDropped"
	// SourcesUnchecked: pods can send with the addresses of others.
	SourcesUnchecked Reason = "SourcesUnchecked"
	// FilterFirst: a tc filter of others comes before the guard.
	FilterFirst Reason = "FilterFirst"
	// RulesUnreadable: rules of others cannot be read.
	RulesUnreadable Reason = "RulesUnreadable"
	// MTUDiffers: nodes differ in what their uplinks carry.
	MTUDiffers Reason = "MTUDiffers"
	// IPv6NetworksUnknown: pods that do not leave by IPv6 do not reach each other either.
	IPv6NetworksUnknown Reason = "IPv6NetworksUnknown"
	// StrictWithoutEffect: unknown addresses of pods are not known as such.
	StrictWithoutEffect Reason = "StrictWithoutEffect"
	// AddressesOutside: addresses of nodes or pods are not known to be inside the cluster.
	AddressesOutside Reason = "AddressesOutside"
	// AnsweredForAll: a machine on the segment answers for every address.
	AnsweredForAll Reason = "AnsweredForAll"
	// NotWatched: other owners of egress IPs may go unnoticed.
	NotWatched Reason = "NotWatched"
	// NotExcluded: pods use their egress IPs for networks that are excluded for them.
	NotExcluded Reason = "NotExcluded"
	// NotReset: connections that cannot go on get no reset.
	NotReset Reason = "NotReset"
	// Incomplete: a part could not be done yet, and nothing depends on it.
	Incomplete Reason = "Incomplete"
	// Unknown: something that may deserve a warning could not be looked at.
	Unknown Reason = "Unknown"
)

// Reasons lists all of them, in that order.
func Reasons() []Reason {
	return []Reason{
		ForwardingOff, NoDefaultRoute, ForwardRejects, RoutedElsewhere, HostUnreachable, IPv6NotServed, OverlayPortClosed, OverlayPortShared, PortsRunOut,
		DefaultRouteElsewhere, ReversePathFilter, ForeignNATFirst, RulesFlushed, FirstPlaceLost, SetsRestored, MarksOverlap, IPv6NotDropped, SourcesUnchecked, FilterFirst, RulesUnreadable, MTUDiffers,
		IPv6NetworksUnknown, StrictWithoutEffect, AddressesOutside, AnsweredForAll, NotWatched, NotExcluded, NotReset, Incomplete, Unknown,
	}
}

// severity is the place of a reason among all of them.
func severity(r Reason) int { return slices.Index(Reasons(), r) }

// Warning is something that the admin should know and that stops nothing of ours.
type Warning struct {
	Reason Reason
	// Object names what it is about, as the tools of the host do: a device, a rule, a
	// table, a setting.
	Object string
	// Problem says what is the matter, and Remedy what to do about it.
	Problem, Remedy string
}

// String returns the warning in one line.
func (w Warning) String() string {
	line := string(w.Reason)
	if w.Object != "" {
		line += " (" + w.Object + ")"
	}
	line += ": " + w.Problem
	if w.Remedy != "" {
		line += ". Remedy: " + w.Remedy
	}
	return line
}

// Bounds of a list: a condition has room for its message only.
const (
	maxWarnings = 16
	maxField    = 400
)

// Tidy returns warnings in order, the worst first, each once. They are bounded in number
// and in length: the last one says how many others there are.
func Tidy(list []Warning) []Warning {
	out := make([]Warning, 0, len(list))
	for _, w := range list {
		w.Object, w.Problem, w.Remedy = clip(w.Object), clip(w.Problem), clip(w.Remedy)
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Warning) int {
		return cmp.Or(severity(a.Reason)-severity(b.Reason), cmp.Compare(a.Object, b.Object),
			cmp.Compare(a.Problem, b.Problem), cmp.Compare(a.Remedy, b.Remedy))
	})
	out = slices.Compact(out)
	if more := len(out) - maxWarnings; more > 0 {
		rest := out[maxWarnings-1:]
		out = append(out[:maxWarnings-1:maxWarnings-1], Warning{
			Reason: rest[0].Reason, Problem: fmt.Sprintf("%d more warnings of this kind and of lesser ones", len(rest)),
			Remedy: "mend those above first",
		})
	}
	return out
}

// clip makes one line of a text, and bounds its length.
func clip(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if len(s) <= maxField {
		return s
	}
	return strings.ToValidUTF8(s[:maxField], "") + " ..."
}

// Lines returns the warnings, one a line.
func Lines(list []Warning) string {
	lines := make([]string, 0, len(list))
	for _, w := range list {
		lines = append(lines, w.String())
	}
	return strings.Join(lines, "\n")
}
