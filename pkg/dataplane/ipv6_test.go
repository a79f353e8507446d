package dataplane

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

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
