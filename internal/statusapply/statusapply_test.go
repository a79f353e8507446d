package statusapply

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Fields are found in the API server's words, and are left out wherever they are.
func TestUndeclaredFields(t *testing.T) {
	t.Parallel()
	const answer = "failed to create typed patch object (/shop; k8s.ovn.org/v1, Kind=EgressIP): errors:\n" +
		"  .status.selectors: field not declared in schema\n" +
		`  .status.egressIPs[ip="fd00:7::9"].gateway: field not declared in schema` + "\n" +
		`  .status.egressIPs[ip="10.1.8.9"].gateway: field not declared in schema`
	got := paths(answer)
	if want := []string{"status.selectors", "status.egressIPs.gateway"}; !slices.Equal(got, want) {
		t.Fatalf("paths %q, want %q", got, want)
	}
	object := map[string]any{"status": map[string]any{
		"selectors": map[string]any{}, "items": []any{},
		"egressIPs": []any{map[string]any{"ip": "10.1.8.9", "gateway": "x"}, map[string]any{"ip": "10.1.8.10"}},
	}}
	for _, path := range [][]string{{"status", "selectors"}, {"status", "egressIPs", "gateway"}} {
		if !remove(object, path) || remove(object, path) {
			t.Errorf("%v", path)
		}
	}
	want := map[string]any{"status": map[string]any{
		"items": []any{}, "egressIPs": []any{map[string]any{"ip": "10.1.8.9"}, map[string]any{"ip": "10.1.8.10"}},
	}}
	if diff := cmp.Diff(want, object); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, other := range []string{"", "conflict", ".spec.x: field not declared in schema"} {
		if list := paths(other); len(list) > 0 {
			t.Errorf("%q names %q", other, list)
		}
	}
	if remove(nil, []string{"status"}) || remove(map[string]any{}, []string{"status", "x"}) {
		t.Error("what is not there was removed")
	}
}
