package online_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

func TestCount(t *testing.T) {
	got := online.Count([]online.Ballot{
		{Host: "a", Watches: []string{"a", "x", "y"}, Silent: []string{"a", "x"}},
		{Host: "b", Watches: []string{"x"}, Silent: []string{"x", "y"}},
		{Host: "c", Watches: []string{"x"}},
		{Host: "x", Watches: []string{"y"}, Silent: []string{"y"}},
	}, map[string]bool{"x": true})
	want := map[string]online.Vote{"x": {Watchers: 3, Silent: 2}, "y": {Watchers: 1}}
	if len(got) != len(want) || got["x"] != want["x"] || got["y"] != want["y"] {
		t.Errorf("votes %v, want %v", got, want)
	}
}
