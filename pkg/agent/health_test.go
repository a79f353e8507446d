package agent

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// TestServiceOfReport: what other hosts are told follows from the report of a pass. A host that
// takes its first egress IPs over, while their former host still has them, serves; one that
// cannot configure them for a reason of its own does not.
//
// Mutant killed: taken-are-not-counted.
func TestServiceOfReport(t *testing.T) {
	t.Parallel()
	there, taken, failed := dataplane.HostedReport{Configured: true}, dataplane.HostedReport{Taken: true, Error: "x"}, dataplane.HostedReport{Error: "x"}
	for name, c := range map[string]struct {
		hosted []dataplane.HostedReport
		want   bool
	}{
		"none":                          {nil, true},
		"all are there":                 {[]dataplane.HostedReport{there, there}, true},
		"all are still elsewhere":       {[]dataplane.HostedReport{taken, taken}, true},
		"one elsewhere, one that fails": {[]dataplane.HostedReport{taken, failed}, false},
		"one that fails":                {[]dataplane.HostedReport{failed}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := serviceOf(dataplane.Report{Overlay: true, Hosted: c.hosted}, false).Serves(); got != c.want {
				t.Errorf("serves: %t, want %t", got, c.want)
			}
		})
	}
}
