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
	// Addr is the host's own address, of IPv4 or IPv6.
	Addr netip.Addr
	// Overlay: the host answers questions that come over the overlay, the way of the
	// packets that its answer vouches for. Others are asked directly.
	Overlay bool
}

// usableTargets returns the targets that can be probed from a source, or from any of IPv4 if
// that is not known. The error names the others: those without a name or an address of the
// source's family, and those whose name is already taken.
func usableTargets(targets []Target, source netip.Addr) ([]Target, error) {
	family := "IPv4"
	if source.Is6() {
		family = "IPv6"
	}
	var errs []error
	seen := make(map[string]bool, len(targets))
	good := make([]Target, 0, len(targets))
	for _, t := range targets {
		t.Addr = t.Addr.Unmap()
		switch {
		case t.Name == "" || !t.Addr.IsValid() || t.Addr.Is6() != source.Is6() || t.Addr.IsUnspecified():
			errs = append(errs, fmt.Errorf("probe host %q at %v: needs a name and an address of %s", t.Name, t.Addr, family))
		case seen[t.Name]:
			errs = append(errs, fmt.Errorf("probe host %q at %v: the host is there already", t.Name, t.Addr))
		default:
			seen[t.Name] = true
			good = append(good, t)
		}
	}
	return good, errors.Join(errs...)
}
