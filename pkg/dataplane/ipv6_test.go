package dataplane

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// Hosts are told apart by family; where all are of IPv4, as thousands may be, none is copied.
func TestHostsOfEitherFamily(t *testing.T) {
	one, two, six := testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12"), testenv.Addr("fd00:7::12")
	if four, others := splitHosts([]netip.Addr{one, six, two}); !slices.Equal(four, []netip.Addr{one, two}) || !slices.Equal(others, []netip.Addr{six}) {
		t.Errorf("%v and %v", four, others)
	}
	all := []netip.Addr{one, two}
	if four, others := splitHosts(all); &four[0] != &all[0] || len(four) != 2 || len(others) != 0 {
		t.Errorf("%v and %v", four, others)
	}
}

// given: a setting that says no, or that cannot be read; then the host does not serve egress
// IPs of IPv6, and says why. Mutant killed: unreadable-forwards.
func TestSettingsAgainstIPv6(t *testing.T) {
	disabled := sysctl.OfDevice6(overlayName, "disable_ipv6")
	for name, c := range map[string]struct {
		forward, disabled       string
		forwardErr, disabledErr error
		want                    error
	}{
		"all is well":              {forward: "1", disabled: "0"},
		"another value":            {forward: "2", disabled: "0"},
		"no overlay yet":           {forward: "1", disabledErr: fs.ErrNotExist},
		"no forwarding":            {forward: "0", disabled: "0", want: errNoIPv6Forward},
		"unreadable forwarding":    {forwardErr: fs.ErrPermission, disabled: "0", want: fs.ErrPermission},
		"no setting of forwarding": {forwardErr: fs.ErrNotExist, disabled: "0", want: fs.ErrNotExist},
		"disabled":                 {forward: "1", disabled: "1", want: errNoOverlayIPv6},
		"unreadable disable_ipv6":  {forward: "1", disabledErr: fs.ErrPermission, want: fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			got := settingsAgainstIPv6(func(path string) (string, error) {
				switch path {
				case sysctl.IPv6Forward:
					return c.forward, c.forwardErr
				case disabled:
					return c.disabled, c.disabledErr
				}
				t.Errorf("setting %s was read", path)
				return "", nil
			})
			if !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
