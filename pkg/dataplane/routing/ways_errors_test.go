package routing

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: a way by a gateway that the kernel refuses, as an address of the host; then the error
// is of that way, and the other is as it should be, without routes that it had before.
//
// Mutant killed: one-way-is-all-ways.
func TestErrorsOfOneWay(t *testing.T) {
	host, h, plan := twoWays(t)
	before := plan
	before.Ways = slices.Clone(plan.Ways)
	before.Ways[1].Gateway = testenv.Addr("172.16.6.3")
	_, err := ensure(t, host, h, before)
	must(t, err)
	plan.Ways = slices.Clone(plan.Ways)
	plan.Ways[0].Gateway = testenv.Addr("172.16.5.10")
	_, err = ensure(t, host, h, plan)
	of, rest := WayErrors(errors.Join(errors.New("other"), errors.Join(err)))
	if len(of) != 1 || of[WayTable(0)] == nil || rest == nil || rest.Error() != "other" {
		t.Errorf("errors of ways %v, and %v", of, rest)
	}
	if got := host.Run(t, "ip route show table 77001"); strings.Contains(got, "172.16.6.3") || !strings.Contains(got, "dev eth2") {
		t.Errorf("routes of the other way:\n%s", got)
	}
	if of, rest := WayErrors(nil); len(of) > 0 || rest != nil {
		t.Errorf("of no error: %v, %v", of, rest)
	}
}
