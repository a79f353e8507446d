package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Kills the mutant that reports what is about to be published.
func TestPodsOutsideAreReportedWhenItLasts(t *testing.T) {
	t.Parallel()
	var m missing
	now := time.Unix(1e9, 0)
	at := func(after time.Duration, d decision, want string) {
		t.Helper()
		now = now.Add(after)
		if got := m.lasting(&d, now); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("reported %q, want %q", got, want)
		}
	}
	outside := func(ip string) decision {
		return decision{outside: egress.Pod{Namespace: "red", Name: "a", IP: testenv.Addr(ip)}, podNetworks: testenv.Prefixes("10.9.0.0/24")}
	}
	at(0, decision{}, "")
	at(time.Hour, outside("10.9.0.7"), "")
	at(missingAfter-time.Second, outside("10.9.0.7"), "")
	at(time.Second, outside("10.9.0.7"), "Pod red/a has the address 10.9.0.7")
	at(0, outside("10.9.0.8"), "") // another one
	at(missingAfter, outside("10.9.0.8"), "API server has no Pod")
	no := outside("10.9.0.8")
	no.podNetworks = nil
	at(0, no, "no route to it")
	many := outside("10.9.0.8")
	many.podNetworksOmitted = 3
	at(0, many, "3 networks")
	at(0, decision{}, "")
	at(0, outside("10.9.0.8"), "")
}
