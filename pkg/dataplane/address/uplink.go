package address

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Uplink is the interface that has the host's own address.
type Uplink struct {
	Link netlink.Link
	Name string
	// CIDR is the host's address with its prefix length there.
	CIDR netip.Prefix
	MTU  int
	// form is how egress IPs stand there.
	form form
	// further: it is not the uplink but another interface that has egress IPs.
	further bool
}

// ErrNoUplink is the error of a host address that no interface has.
var ErrNoUplink = errors.New("no interface has this address: check that the node's InternalIP is an address of the node itself")

// FindUplink looks for the interface that has hostIP. It does so each time, as the
// address may move, for example to a bridge.
func FindUplink(nl *netlink.Handle, hostIP netip.Addr) (Uplink, error) {
	all, err := listOf(nl, hostIP)
	if err != nil {
		return Uplink{}, err
	}
	for _, h := range all {
		// Never take an egress IP for the host's own.
		if Prefix(h.addr).Addr() != hostIP || h.addr.LinkIndex == 0 || h.ours {
			continue
		}
		link, err := nl.LinkByIndex(h.addr.LinkIndex)
		if err != nil {
			return Uplink{}, fmt.Errorf("look up interface of host IP %v: %w", hostIP, err)
		}
		u := Uplink{Link: link, Name: link.Attrs().Name, CIDR: Prefix(h.addr), MTU: link.Attrs().MTU}
		u.form, err = formAt(nl, u)
		return u, err
	}
	return Uplink{}, fmt.Errorf("find uplink with host IP %v: %w", hostIP, ErrNoUplink)
}

// listOf returns the addresses of the family of one.
func listOf(nl *netlink.Handle, ip netip.Addr) ([]holder, error) {
	if ip.Is6() {
		return list6()
	}
	return list(nl)
}

// Source returns the host's own address that stands for a source which the kernel chose for
// packets by a device: that one, or if it is an egress IP of ours, as a machine may boot with,
// another one of the family there. It is invalid if there is none.
func Source(nl *netlink.Handle, link int, chosen netip.Addr) (netip.Addr, error) {
	all, err := listOf(nl, chosen)
	if err != nil {
		return netip.Addr{}, err
	}
	var other netip.Addr
	for _, h := range all {
		ip := Prefix(h.addr).Addr()
		switch {
		case ip == chosen && !h.ours:
			return ip, nil
		case h.addr.LinkIndex == link && !h.ours && ip.IsGlobalUnicast() && !other.IsValid():
			other = ip
		}
	}
	return other, nil
}
