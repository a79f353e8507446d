package dataplane

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// SweepAfterBoot deletes egress IPs that a machine was restored or booted with:
// addresses with our label while nothing else of ours is in the kernel, neither the
// overlay nor a set. Nothing can serve them then, and another host may have them by
// now. It returns how many there were.
//
// It is for the start of the process, before the API server has said what the host
// must have. What a former process left working is not touched.
func (d *Dataplane) SweepAfterBoot() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	exists, err := deviceExists(d.nl, overlayName)
	if err != nil || exists {
		return 0, err
	}
	if sets, err := presentSets(); err != nil || len(sets) > 0 {
		return 0, err
	}
	if content, err := d.nft.Observe(); err != nil || content.Exists {
		return 0, err
	}
	own, err := address.Own(d.nl)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, addrs := range own {
		errs = append(errs, address.Delete(d.nl, addrs))
	}
	return len(own), errors.Join(errs...)
}

func deviceExists(nl *netlink.Handle, name string) (bool, error) {
	switch _, err := nl.LinkByName(name); {
	case err == nil:
		return true, nil
	case nlutil.IsLinkNotFound(err):
		return false, nil
	default:
		return false, fmt.Errorf("look up device %s: %w", name, err)
	}
}
