package controllers

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

func markedHost(text string, cidrs ...string) *v1.HostSubnet {
	h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, EgressCIDRs: cidrs}
	if text != "" {
		h.Annotations = map[string]string{v1.AnnotationClaimsWriter: text}
	}
	return h
}

// TestCompareMarks: which hosts a controller of term 7 has to mark, and by which mark it
// learns that it is not the last.
//
// Mutant killed: equal-epoch-accepted.
func TestCompareMarks(t *testing.T) {
	const cidr = "192.168.7.0/24"
	mine := mark{epoch: 7, writer: "me"}
	for name, tc := range map[string]struct {
		host             *v1.HostSubnet
		lacking, deposed bool
	}{
		"manual, the only one":  {markedHost(""), true, false},
		"automatic":             {markedHost("", cidr), true, false},
		"mine":                  {markedHost("7 me", cidr), false, false},
		"earlier":               {markedHost("6 you", cidr), true, false},
		"earlier, now manual":   {markedHost("6 you"), true, false},
		"later":                 {markedHost("8 you", cidr), false, true},
		"later, now manual":     {markedHost("8 you"), false, true},
		"the same number":       {markedHost("7 you", cidr), false, true},
		"my name, another term": {markedHost("6 me", cidr), true, false},
		"no mark at all":        {markedHost("you", cidr), true, false},
		"beyond the last term":  {markedHost("18446744073709551615 you", cidr), true, false},
	} {
		lacking, err := compareMarks(mine, []*v1.HostSubnet{tc.host})
		if (len(lacking) > 0) != tc.lacking || errors.Is(err, errDeposed) != tc.deposed {
			t.Errorf("%s: lacking %d, %v", name, len(lacking), err)
		}
	}
	if lacking, err := compareMarks(mine, []*v1.HostSubnet{named("a", markedHost("")), named("b", markedHost("7 me"))}); err != nil || len(lacking) > 0 {
		t.Errorf("a manual host lacks a mark that another has: %d, %v", len(lacking), err)
	}
	lacking, err := compareMarks(mine, []*v1.HostSubnet{named("b", markedHost("")), named("a", markedHost("")), named("c", markedHost(""))})
	if err != nil || len(lacking) != 1 || lacking[0].Name != "a" {
		t.Errorf("of manual hosts alone %d lack a mark, want the first by name: %v", len(lacking), err)
	}
	if got := nextEpoch([]*v1.HostSubnet{markedHost("6 you"), markedHost("41 of a backup", cidr), markedHost("")}); got != 42 {
		t.Errorf("the next term is %d, want 42", got)
	}
	if got := latestMark([]*v1.HostSubnet{markedHost(""), markedHost("6 a/x/1"), markedHost("7 b/y/2"), markedHost("7 a/z/3"), markedHost("nonsense")}); markOf(got).namespace() != "b" {
		t.Errorf("the latest mark is %q, want that of namespace b", markOf(got))
	}
	for writer, want := range map[string]string{"a/node_pod/1": "a", "/node_pod/1": "", "of a backup": "", "../x/1": "", "": ""} {
		if got := (mark{epoch: 1, writer: writer}).namespace(); got != want {
			t.Errorf("the namespace of writer %q is %q, want %q", writer, got, want)
		}
	}
	if got := parseMark(mine.String()); got != mine {
		t.Errorf("mark %q is read as %q", mine, got)
	}
}
