package egress_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// How far an evacuation is, from the request to its end.
//
// Mutants killed: evacuation-ends-early, evacuation-trusts-claims.
func TestEvacuated(t *testing.T) {
	t.Parallel()
	told := func(o egress.Objects, host string) string {
		cluster, _ := egress.Snapshot(o)
		e := egress.Evacuated(cluster, host)
		lines := []string{fmt.Sprintf("asked %t, moving %t, waiting %v, done %t, in use %t", e.Asked, e.Moving, e.Waiting, e.Done(), e.InUse())}
		for _, s := range e.Stays {
			lines = append(lines, fmt.Sprintf("%s of %s, in use %t, managed %t", s.IP, s.Group, s.InUse, s.Managed))
		}
		return strings.Join(lines, "\n")
	}
	o := forecastObjects()
	expect := func(when, host, want string) {
		t.Helper()
		if got := told(o, host); got != want {
			t.Errorf("%s: %s\nwant %s", when, got, want)
		}
	}
	expect("before", "c", "asked false, moving false, waiting [], done false, in use true\n10.1.8.241 of auto, in use true, managed true")
	o.Evacuating = map[string]bool{"c": true}
	expect("asked for", "c", "asked true, moving true, waiting [], done false, in use true\n10.1.8.241 of auto, in use true, managed true")
	o.HostSubnets[2].EgressIPs = nil
	expect("released", "c", "asked true, moving true, waiting [], done false, in use false")
	o.HostSubnets[3].EgressIPs = []string{"10.1.8.241"}
	expect("claimed", "c", "asked true, moving false, waiting [10.1.8.241], done false, in use false")
	objects.AgentReports(&o.HostSubnets[3])
	expect("configured", "c", "asked true, moving false, waiting [], done true, in use false")
	o.Evacuating = map[string]bool{"a": true}
	expect("a manual host, one namespace of which has another egress IP", "a",
		"asked true, moving false, waiting [], done true, in use true\n10.1.8.200 of pair, in use false, managed false\n10.1.8.202 of single, in use true, managed false")
	o.Evacuating = map[string]bool{"c": true, "d": true}
	expect("no host is left", "d", "asked true, moving false, waiting [], done true, in use true\n10.1.8.241 of auto, in use true, managed true")
}
