package egress

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// egressIPPrefix begins the names of groups of EgressIPs. No namespace has a slash in its name.
const egressIPPrefix = kindEgressIP + "/"

// GroupOfEgressIP returns the name of the group that an EgressIP selects.
func GroupOfEgressIP(egressIP string) string { return egressIPPrefix + egressIP }

// NameOfEgressIP returns the EgressIP that selects a group; false for the group of a namespace.
func NameOfEgressIP(group string) (name string, ok bool) {
	return strings.CutPrefix(group, egressIPPrefix)
}

// ofEgressIP reports whether an EgressIP selects the group.
func (n *Group) ofEgressIP() bool { return strings.HasPrefix(n.Name, egressIPPrefix) }

// Title names a group in messages.
func Title(group string) string {
	if name, ok := NameOfEgressIP(group); ok {
		return kindEgressIP + " " + name
	}
	return "namespace " + group
}

// objectOf names the object that a user changes to change a group.
func objectOf(group string) (kind, name string) {
	if name, ok := NameOfEgressIP(group); ok {
		return kindEgressIP, name
	}
	return kindNetNamespace, group
}

// Selection are the pods with certain labels in the namespaces with certain labels.
type Selection struct {
	namespaces, pods labels.Selector
	// demands is a label that namespaces must have, the zero value for none: by it, selectors of
	// one namespace each, of which there may be thousands, are found without trying all.
	demands label
}

// label is a label with its value.
type label struct{ key, value string }

// demandedBy returns a label that everything has that a selector matches; the zero value for none.
func demandedBy(s labels.Selector) label {
	requirements, _ := s.Requirements()
	for _, r := range requirements {
		if values := r.Values(); r.Operator() == selection.Equals || r.Operator() == selection.DoubleEquals || r.Operator() == selection.In && values.Len() == 1 {
			value, _ := values.PopAny()
			return label{r.Key(), value}
		}
	}
	return label{}
}

// Equal reports whether two selections are of the same pods. The receiver may be nil.
func (s *Selection) Equal(other *Selection) bool {
	if s == nil || other == nil {
		return s == other
	}
	return s == other || s.namespaces.String() == other.namespaces.String() && s.pods.String() == other.pods.String()
}

// Overlap is a pod whose egress IPs two groups say. Used is the group that counts.
type Overlap struct{ Used, Ignored, Pod string }

// maxOverlaps is the greatest number of overlaps that a host reports, one for each two groups.
const maxOverlaps = 16

// grouped finds the groups of pods. An EgressIP that selects a pod comes before the NetNamespace
// of its namespace, and of several EgressIPs the first by name counts: for all that the pod
// sends, so that it never has two sources. overlaps are pods with several, in order.
//
// As long as the labels of a namespace are not known, while there are EgressIPs, the groups of its
// pods are not known: they are not in the answer.
func grouped(c Cluster, pods []Pod, namespaces map[string]labels.Set) (known []Pod, overlaps []Overlap) {
	selecting := c.selecting()
	if len(selecting) == 0 {
		return pods, nil
	}
	byLabel := make(map[label][]int, len(selecting))
	for i, g := range selecting {
		byLabel[g.Selects.demands] = append(byLabel[g.Selects.demands], i)
	}
	inNamespace := make(map[string][]*Group)
	known = make([]Pod, 0, len(pods))
	found := make(map[[2]string]string)
	for _, pod := range pods {
		of, present := namespaces[pod.Namespace]
		if !present {
			continue
		}
		candidates, seen := inNamespace[pod.Namespace]
		if !seen {
			possible := slices.Clone(byLabel[label{}])
			for key, value := range of {
				possible = append(possible, byLabel[label{key, value}]...)
			}
			slices.Sort(possible) // so they are in order of name
			for _, i := range possible {
				if selecting[i].Selects.namespaces.Matches(of) {
					candidates = append(candidates, selecting[i])
				}
			}
			inNamespace[pod.Namespace] = candidates
		}
		pod.Group, pod.Others = "", nil
		for _, g := range candidates {
			switch {
			case !g.Selects.pods.Matches(pod.Labels):
			case pod.Group == "":
				pod.Group = g.Name
			default:
				pod.overlaps(found, g.Name)
				pod.Others = append(pod.Others, g.Name)
			}
		}
		if n, ok := c.group(pod.Namespace); ok && pod.Group != "" && n.Requesting() {
			pod.overlaps(found, pod.Namespace)
			pod.Others = append(pod.Others, pod.Namespace)
		}
		known = append(known, pod)
	}
	for _, groups := range slices.SortedFunc(maps.Keys(found), func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	}) {
		overlaps = append(overlaps, Overlap{Used: groups[0], Ignored: groups[1], Pod: found[groups]})
	}
	return known, overlaps
}

// overlaps notes that another group than the one that counts says the pod's egress IPs. Of the
// pods with the same two groups the first by name is noted.
func (p *Pod) overlaps(found map[[2]string]string, ignored string) {
	name, key := p.Namespace+"/"+p.Name, [2]string{p.Group, ignored}
	if was, ok := found[key]; !ok || name < was {
		found[key] = name
	}
}

// selecting are the groups of EgressIPs that select pods, in order of name. One that requests
// nothing selects none: it must not take from pods what their NetNamespaces say.
func (c Cluster) selecting() []*Group {
	var groups []*Group
	for i := range c.Groups {
		if c.Groups[i].Selects != nil && c.Groups[i].Requesting() {
			groups = append(groups, &c.Groups[i])
		}
	}
	return groups
}

// group returns the group with that name.
func (c Cluster) group(name string) (*Group, bool) {
	i, ok := slices.BinarySearchFunc(c.Groups, name, func(g Group, name string) int { return strings.Compare(g.Name, name) })
	if !ok {
		return nil, false
	}
	return &c.Groups[i], true
}
