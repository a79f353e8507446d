package address

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Place is an interface that has an address.
type Place struct {
	Link netlink.Link
	// Up: the interface is up and has a carrier. Ours: the address has the mark
	// of ownership.
	Up, Ours bool
}

// Places returns the interfaces that have an address.
func Places(nl *netlink.Handle, ip netip.Addr) (places []Place, err error) {
	all, err := listOf(nl, ip)
	errs := []error{err}
	for _, h := range all {
		if Prefix(h.addr).Addr() != ip {
			continue
		}
		link, err := nl.LinkByIndex(h.addr.LinkIndex)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a := link.Attrs()
		places = append(places, Place{Link: link, Up: a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_RUNNING != 0, Ours: h.ours})
	}
	return places, errors.Join(errs...)
}
