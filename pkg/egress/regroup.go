package egress

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Regrouping is how many pods another group decides about after a change.
type Regrouping struct {
	// From and To are the groups that decide before and after.
	From, To string
	Pods     int
	// Example is one of the pods, as NAMESPACE/NAME, the first by name.
	Example string
}

// Regroup compares which groups decide about pods before and after a change, in order of names.
// Pods of namespaces whose labels are not known are left out if there are EgressIPs.
func Regroup(before, after Cluster, pods []Pod, namespaces map[string]labels.Set) []Regrouping {
	type pair struct{ from, to string }
	type id struct{ namespace, name string }
	was, _ := grouped(before, pods, namespaces)
	is, _ := grouped(after, pods, namespaces)
	from := make(map[id]string, len(was))
	for i := range was {
		from[id{was[i].Namespace, was[i].Name}] = was[i].group()
	}
	found := make(map[pair]Regrouping)
	seen := make(map[id]bool, len(is))
	for i := range is {
		pod := id{is[i].Namespace, is[i].Name}
		old, known := from[pod]
		between := pair{old, is[i].group()}
		if !known || seen[pod] || between.from == between.to {
			continue
		}
		seen[pod] = true // one with addresses of both families is one pod
		name := pod.namespace + "/" + pod.name
		r, there := found[between]
		if !there || name < r.Example {
			r.Example = name
		}
		r.From, r.To, r.Pods = between.from, between.to, r.Pods+1
		found[between] = r
	}
	all := make([]Regrouping, 0, len(found))
	for _, r := range found {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Regrouping) int { return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To)) })
	return all
}
