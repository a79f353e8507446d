package egress

import (
	"net/netip"
	"slices"
	"strings"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// destinations reads the annotations about the destinations of a group. What cannot be used is left
// out in such a way that egress IPs apply to more destinations, not to fewer: a mistake must not
// let pods leave with another address.
func (r *reader) destinations(kind, name string, annotations map[string]string) *Destinations {
	exclude, _ := r.networkList(kind, name, v1.AnnotationExcludeCIDRs, annotations, "It is not excluded.")
	include, whole := r.networkList(kind, name, v1.AnnotationIncludeCIDRs, annotations,
		"Until that is corrected, the egress IPs apply to all destinations.")
	if !whole {
		return &Destinations{All: true}
	}
	exclude = slices.DeleteFunc(exclude, func(n netip.Prefix) bool {
		both := slices.Contains(include, n)
		if both {
			r.problem(kind, name, "annotation "+v1.AnnotationExcludeCIDRs, n.String(), ReasonBadDestinations,
				"%s is in annotation %s, too, and is included. Remove it from one of them.", n, v1.AnnotationIncludeCIDRs)
		}
		return both
	})
	if len(exclude)+len(include) == 0 {
		return nil
	}
	d := &Destinations{Exclude: exclude, Include: include}
	set, err := d.excluded(nil)
	if err == nil && len(set.Prefixes()) <= MaxExcluded {
		return d
	}
	r.problem(kind, name, "annotation "+v1.AnnotationIncludeCIDRs, annotations[v1.AnnotationIncludeCIDRs], ReasonBadDestinations,
		"to all but these destinations are more than %d networks. The egress IPs apply to all destinations until there are fewer or larger ones in the list.", MaxExcluded)
	return &Destinations{All: true}
}

// networkList reads an annotation with a list of networks, in order and without duplicates. It
// reports whether all of it can be used; otherwise is what becomes of what cannot.
func (r *reader) networkList(kind, name, annotation string, annotations map[string]string, otherwise string) (networks []netip.Prefix, whole bool) {
	whole = true
	for written := range strings.SplitSeq(annotations[annotation], ",") {
		if written = strings.TrimSpace(written); written == "" {
			continue
		}
		masked, exact, ok := parseRange(written)
		if ip, err := netip.ParseAddr(written); err == nil && ip.Zone() == "" {
			masked, exact, ok = netip.PrefixFrom(ip, ip.BitLen()), true, !ip.Is4In6()
		}
		switch {
		case !ok:
			whole = false
			r.problem(kind, name, "annotation "+annotation, written, ReasonBadDestinations,
				"%q is not a network of IPv4 or IPv6. %s Use a list such as 203.0.113.0/24, 2001:db8::/32.", written, otherwise)
			continue
		case !exact && annotation == v1.AnnotationExcludeCIDRs: // more would be excluded than one address
			r.problem(kind, name, "annotation "+annotation, written, ReasonBadDestinations,
				"%s has host bits. %s Write %s, or the address alone.", written, otherwise, masked)
			continue
		case !exact:
			r.problem(kind, name, "annotation "+annotation, written, ReasonBadDestinations,
				"%s has host bits: %s is used. Write that instead.", written, masked)
		}
		if len(networks) == MaxDestinations {
			r.problem(kind, name, "annotation "+annotation, written, ReasonBadDestinations,
				"there are more than %d networks. %s Use fewer, larger ones.", MaxDestinations, otherwise)
			return networks, false
		}
		networks = append(networks, masked)
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(networks), whole
}
