package page

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// maxChanges is how many changes are listed.
const maxChanges = 100

// changes are since when things are as they are, the last first, as conditions say. Conditions
// remember one change each, so what was in between is not there.
func changes(m Model) []Change {
	all := []Change{}
	add := func(r Reported, c Change) {
		if r.Missing || r.Since.IsZero() {
			return
		}
		c.At, c.Reason, c.Text = timeText(r.Since), r.Reason, cmp.Or(r.Message, r.Type+" is "+r.Status)
		all = append(all, c)
	}
	for _, g := range m.Groups {
		if len(g.Requests) > 0 {
			add(g.Published, Change{Kind: g.Kind, Name: g.Name, Level: levelOf(g.Published, g.Level)})
		}
	}
	for _, h := range m.Hosts {
		for _, r := range h.Conditions {
			switch r.Type {
			case v1.ConditionOnline, v1.ConditionAgentReady, v1.ConditionAddressInUse, v1.ConditionEvacuating, v1.ConditionNodeGone:
				add(r, Change{Kind: kindHost, Name: h.Name, Level: levelOf(r, h.Level)})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Change) int {
		return cmp.Or(strings.Compare(b.At, a.At), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return all[:min(len(all), maxChanges)]
}

// levelOf is the level of a change: of one to the good, that all is in order, else that of what has changed.
func levelOf(r Reported, now Level) Level {
	good := metav1.ConditionTrue
	switch r.Type {
	case v1.ConditionAddressInUse, v1.ConditionEvacuating, v1.ConditionNodeGone:
		good = metav1.ConditionFalse
	}
	switch {
	case r.Status == string(good):
		return LevelOK
	case r.Type == v1.ConditionEvacuating:
		return LevelDegraded // it was asked for
	case r.Status == string(metav1.ConditionUnknown):
		return LevelUnknown
	case now.Bad():
		return now
	}
	return LevelFailed
}
