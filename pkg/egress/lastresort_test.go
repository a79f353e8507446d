package egress_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Mutants killed: each held host serves; none that claims an address does; none that
// could bear one does.
func TestLastResort(t *testing.T) {
	const all, ip, second = "192.168.7.0/24", "192.168.7.200", "192.168.7.201"
	for name, test := range map[string]struct {
		given *given
		held  string
		want  string
	}{
		"both automatic hosts were silent, one answers again": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all).offline("w1"),
			held:  "w0", want: "w0",
		},
		"it still has the claim": {
			given: new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).offline("w0"),
			held:  "w0", want: "w0",
		},
		"another can take it": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all),
			held:  "w0",
		},
		"another bears it": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all).claims("w1", ip),
			held:  "w0",
		},
		"another is online, and has other ranges": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", "10.0.0.0/8"),
			held:  "w0", want: "w0",
		},
		"it has other ranges itself": {
			given: new(given).namespace("red", ip).automatic("w0", "10.0.0.0/8").offline("w0"),
			held:  "w0",
		},
		"a manual host, and the namespace has no other": {
			given: new(given).namespace("red", ip).host("w0", ip).offline("w0"),
			held:  "w0", want: "w0",
		},
		"a manual host, and the namespace has another": {
			given: new(given).namespace("red", ip, second).host("w0", ip).offline("w0").host("w1", second),
			held:  "w0",
		},
		"nobody asks for anything": {
			given: new(given).namespace("red").automatic("w0", all).offline("w0"),
			held:  "w0",
		},
		"both are held": {
			given: new(given).namespace("red", ip).automatic("w0", all).offline("w0").automatic("w1", all).offline("w1"),
			held:  "w0 w1", want: "w0 w1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			held := map[string]bool{}
			for host := range strings.FieldsSeq(test.held) {
				held[host] = true
			}
			verdicts := egress.LastResort(cluster, held)
			if got := strings.Join(slices.Sorted(maps.Keys(verdicts)), " "); got != test.want {
				t.Errorf("%q serve, want %q", got, test.want)
			}
			for host, v := range verdicts {
				if !v.Online || v.Reason != egress.ReasonLastResort || v.Message == "" {
					t.Errorf("%s: %+v", host, v)
				}
			}
		})
	}
}
