package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// form is how an egress IP stands on an interface, so that the kernel never chooses
// it as the source of the host's own packets, or of those that a rule masquerades:
//
//	secondary  as OpenShift shows it: with the host's prefix length, behind the
//	           host's address. The kernel chooses no secondary address. But if the
//	           host's address goes and promote_secondaries is set, it makes the
//	           egress IP the first one.
//	hidden     /32, with scope nowhere. The kernel chooses for what leaves the host
//	           only addresses with the scope that the route needs, or a wider one.
//	last       /32, behind the host's address. For hosts on which neither of the
//	           others is safe; the order is lost when the host's address goes and
//	           comes back, and Mend restores it.
type form int

const (
	secondary form = iota
	hidden
	last
)

// situation is what the form depends on.
type situation struct {
	// prefix is the length of the host's own prefix.
	prefix int
	// promotes: the kernel promotes secondary addresses, or may. Further interfaces are taken
	// to be so: they may have several networks.
	promotes bool
	// localnet: 127.0.0.0/8 may leave the host. The kernel then treats scopes
	// narrower than link as link.
	localnet bool
	// bare: a route leads to neighbours on the uplink and gives no source, so that
	// the kernel looks for one of scope link.
	bare bool
	// muted: the kernel does not answer ARP requests for addresses of narrow scope.
	muted bool
}

func (s situation) form() form {
	switch {
	case !s.promotes && s.prefix < 32:
		return secondary
	case s.muted, s.localnet && s.bare:
		return last
	default:
		return hidden
	}
}

// formAt returns the form for a host's uplink. Settings that cannot be read are
// taken to be the kernel's defaults, and promote_secondaries to be set.
func formAt(nl *netlink.Handle, u Uplink) (form, error) {
	s := situation{
		prefix:   u.CIDR.Bits(),
		promotes: u.further || setting(u.Name, "promote_secondaries", 1) != 0,
		localnet: setting(u.Name, "route_localnet", 0) != 0,
		muted:    setting(u.Name, "arp_ignore", 0) == 3,
	}
	if s.form() == hidden && s.localnet {
		var err error
		if s.bare, err = hasBareRoute(nl, u); err != nil {
			return 0, err
		}
	}
	return s.form(), nil
}

// setting returns the value of an IPv4 setting that is in force for a device: the
// greater one of the device's own and that for all.
func setting(device, name string, unreadable int) int {
	value := 0
	for _, d := range []string{"all", device} {
		text, err := sysctl.Get(sysctl.OfDevice(d, name))
		if err != nil {
			return unreadable
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return unreadable
		}
		value = max(value, n)
	}
	return value
}

// hasBareRoute reports whether a route to neighbours on the uplink gives no source.
func hasBareRoute(nl *netlink.Handle, u Uplink) (bool, error) {
	filter := &netlink.Route{LinkIndex: u.Link.Attrs().Index, Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK}
	routes, err := nlutil.Whole(func() ([]netlink.Route, error) {
		return nl.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_SCOPE)
	})
	if err != nil {
		return false, fmt.Errorf("list routes of %s: %w", u.Name, err)
	}
	for _, r := range routes {
		if r.Src == nil && r.Gw == nil {
			return true, nil
		}
	}
	return false, nil
}

// isHidden reports whether an address has the form hidden.
func isHidden(a netlink.Addr) bool {
	return a.Scope == int(netlink.SCOPE_NOWHERE) && Prefix(a).Bits() == 32
}

// add adds an egress IP in this form.
func (f form) add(nl *netlink.Handle, link netlink.Link, ip netip.Addr, hostBits int) error {
	a := &netlink.Addr{Label: Label(link.Attrs().Name), Scope: int(netlink.SCOPE_UNIVERSE)}
	bits := 32
	switch f {
	case secondary:
		bits = hostBits
	case hidden:
		a.Scope = int(netlink.SCOPE_NOWHERE)
	case last:
	}
	a.IPNet = nlutil.IPNet(netip.PrefixFrom(ip, bits))
	return nl.AddrAdd(link, a)
}

// has reports whether an address of ours has this form. behind reports whether it
// stands behind the host's own address.
func (f form) has(a netlink.Addr, device string, hostBits int, behind bool) bool {
	if a.Label != Label(device) {
		return false
	}
	wide := a.Scope == int(netlink.SCOPE_UNIVERSE)
	isSecondary := a.Flags&unix.IFA_F_SECONDARY != 0
	switch f {
	case secondary:
		return wide && isSecondary && Prefix(a).Bits() == hostBits
	case hidden:
		return isHidden(a)
	default:
		return wide && Prefix(a).Bits() == 32 && behind
	}
}

// Mend gives those of our addresses that have another form than the host now needs
// the right one, and counts them. There is a moment in which the kernel does not have
// such an address; packets do not need it. uplink is nil while no interface has the
// host's own address; nor does the kernel choose an egress IP then. further are the other
// interfaces that have egress IPs.
func Mend(nl *netlink.Handle, uplink *Uplink, further ...Uplink) (changes int, err error) {
	at := places{}
	if uplink != nil {
		at[uplink.Link.Attrs().Index] = *uplink
	}
	for _, u := range further {
		at[u.Link.Attrs().Index] = u
	}
	return at.mend(nl)
}

// places are the interfaces with egress IPs, by index.
type places map[int]Uplink

func (p places) mend(nl *netlink.Handle) (changes int, err error) {
	changes, err6 := p.mend6(nl)
	all, err := list(nl)
	if err != nil {
		return changes, errors.Join(err6, err)
	}
	type place struct {
		ip   netip.Addr
		link int
	}
	right, wrong := map[place]bool{}, map[place][]holder{}
	var order []place
	behind := map[int]bool{} // by interface: the host's own address has come
	for _, h := range all {
		at := place{Prefix(h.addr).Addr(), h.addr.LinkIndex}
		f, bits := p.formOn(h.addr.LinkIndex)
		switch {
		case !h.ours:
			behind[at.link] = behind[at.link] || p.isHost(h.addr)
		case !right[at] && f.has(h.addr, h.device, bits, behind[at.link]):
			right[at] = true
		default:
			if len(wrong[at]) == 0 {
				order = append(order, at)
			}
			wrong[at] = append(wrong[at], h)
		}
	}
	errs := []error{err6}
	for _, at := range order {
		err := p.reform(nl, wrong[at], right[at])
		errs = append(errs, nlutil.Count(&changes, fmt.Sprintf("put egress IP %v into the form that it needs", at.ip), err))
	}
	return changes, errors.Join(errs...)
}

// formOn returns the form of our addresses on an interface, and the prefix length of
// the host's own address there. An interface that should have none, or not any more,
// has them for a moment only.
func (p places) formOn(link int) (form, int) {
	u, found := p[link]
	if !found {
		return hidden, 32
	}
	return u.form, u.CIDR.Bits()
}

// isHost reports whether an address is the host's own.
func (p places) isHost(a netlink.Addr) bool {
	u, found := p[a.LinkIndex]
	return found && Prefix(a) == u.CIDR
}

// reform replaces addresses of ours, all of one egress IP on one interface, by one in
// the right form, or deletes them if that is there already. The kernel refuses to
// have two with the same prefix length, so that one of them goes before the new one
// comes; others stay until then.
func (p places) reform(nl *netlink.Handle, wrong []holder, there bool) error {
	link, err := nl.LinkByIndex(wrong[0].addr.LinkIndex)
	if nlutil.IsLinkNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	f, bits := p.formOn(link.Attrs().Index)
	if f != secondary {
		bits = 32
	}
	var errs []error
	for _, before := range []bool{true, false} {
		for _, h := range wrong {
			if (Prefix(h.addr).Bits() == bits) == before {
				errs = append(errs, deleteOne(nl, h.addr))
			}
		}
		if before && !there {
			err := f.add(nl, link, Prefix(wrong[0].addr).Addr(), bits)
			if err != nil {
				// What is left of the former form serves on.
				return errors.Join(append(errs, err)...)
			}
		}
	}
	return errors.Join(errs...)
}
