package probe

import (
	"errors"
	"fmt"
	"net/netip"
)

// Target is a host to be probed.
type Target struct {
	// Name is the host's name, as in its HostSubnet.
	Name string
	// Addr is the host's own IPv4 address.
	Addr netip.Addr
	// Overlay: the host answers questions that come over the overlay, the way of the
	// packets that its answer vouches for. Others are asked directly.
	Overlay bool
}

// usableTargets returns the targets that can be probed. The error names the
// others: those without a name or an IPv4 address, and those whose name is
// already taken.
func usableTargets(targets []Target) ([]Target, error) {
	var errs []error
	seen := make(map[string]bool, len(targets))
	good := make([]Target, 0, len(targets))
	for _, t := range targets {
		t.Addr = t.Addr.Unmap()
		switch {
		case t.Name == "" || !t.Addr.Is4() || t.Addr.IsUnspecified():
			errs = append(errs, fmt.Errorf("probe host %q at %v: needs a name and an IPv4 address", t.Name, t.Addr))
		case seen[t.Name]:
			errs = append(errs, fmt.Errorf("probe host %q at %v: the host is there already", t.Name, t.Addr))
		default:
			seen[t.Name] = true
			good = append(good, t)
		}
	}
	return good, errors.Join(errs...)
}
