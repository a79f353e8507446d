package address

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// An egress IP of IPv6 stands on the uplink as /128 without a route to a network, and with no
// preferred lifetime: the kernel prefers every other address as source (RFC 6724, rule 3),
// and what it sends from this one all the same, as where it has no other, the guard drops.
// The kernel does not look for duplicates of it, which would take a second; see package neigh.
const (
	flags6 = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_PERMANENT

	// Metric marks our addresses of IPv6, which have no labels. It is meant for the route to
	// an address's network, which ours do not have, so it does nothing. The kernel keeps it
	// with the address since Linux 4.18, also where somebody changes that without naming a
	// metric.
	Metric = 1_000_000_077
	// sizeofCacheInfo is that of struct ifa_cacheinfo: preferred and valid lifetime come
	// first.
	sizeofCacheInfo = 16
)

// form6 is what matters of an address of IPv6 besides where it is.
type form6 struct {
	flags, preferred, valid, metric uint32
}

// asWanted reports whether an address of ours has the form that it needs.
func (f form6) asWanted(a netlink.Addr) bool {
	bits, _ := a.Mask.Size()
	return bits == 128 && f.preferred == 0 && f.valid == math.MaxUint32 && f.flags&unix.IFA_F_DEPRECATED != 0 &&
		f.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}

// list6 returns the IPv6 addresses of all interfaces, as list does those of IPv4.
func list6() ([]holder, error) {
	all, err := nlutil.Whole(func() (all []holder, err error) {
		request := append([]byte{unix.AF_INET6}, make([]byte, unix.SizeofIfAddrmsg-1)...)
		err = nlutil.Dump(unix.NETLINK_ROUTE, unix.RTM_GETADDR, request, func(typ uint16, data []byte) error {
			if typ == unix.RTM_NEWADDR && len(data) >= unix.SizeofIfAddrmsg && data[0] == unix.AF_INET6 {
				all = append(all, parse6(data))
			}
			return nil
		})
		return all, err
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses of IPv6: %w", err)
	}
	return all, nil
}

// MayConcern reports whether a message about an address is about one of IPv4, or one of IPv6
// that is ours. So it is with a message about a device.
func MayConcern(data []byte) bool {
	return len(data) < unix.SizeofIfAddrmsg || data[0] != unix.AF_INET6 || parse6(data).ours
}

// OfMessage returns which address of IPv6 a message is about, and on which device; an invalid
// one if it is about one of IPv4, or about a device.
func OfMessage(data []byte) (ip netip.Addr, link int) {
	if len(data) < unix.SizeofIfAddrmsg || data[0] != unix.AF_INET6 {
		return netip.Addr{}, 0
	}
	h := parse6(data)
	return Prefix(h.addr).Addr(), h.addr.LinkIndex
}

// SeenNetwork is what a message says about an address of IPv6 of the host's own.
type SeenNetwork struct {
	Link int
	// CIDR is the address with its prefix length.
	CIDR netip.Prefix
	// Settled: the kernel does not look for duplicates of it any more.
	Settled bool
}

// NetworkOf returns what a message says about an address of IPv6. It is not ok for those that say
// nothing of a network with other machines, as Furthers lists them.
func NetworkOf(data []byte) (n SeenNetwork, ok bool) {
	if len(data) < unix.SizeofIfAddrmsg || data[0] != unix.AF_INET6 {
		return n, false
	}
	h := parse6(data)
	n = SeenNetwork{Link: h.addr.LinkIndex, CIDR: Prefix(h.addr), Settled: h.form.flags&unix.IFA_F_TENTATIVE == 0}
	return n, h.inNetwork()
}

// inNetwork reports whether an address is the host's own, in a network with other machines.
func (h holder) inNetwork() bool {
	p := Prefix(h.addr)
	return !h.ours && h.addr.Scope == int(netlink.SCOPE_UNIVERSE) && !p.IsSingleIP() && p.Bits() > 0 && p.Addr().IsGlobalUnicast()
}

// parse6 reads an address from a message.
func parse6(data []byte) holder {
	h := holder{addr: netlink.Addr{Scope: int(data[3]), LinkIndex: int(binary.NativeEndian.Uint32(data[4:]))}}
	h.form.flags = uint32(data[2])
	var address, local net.IP
	nlutil.EachAttr(data[unix.SizeofIfAddrmsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.IFA_FLAGS && len(value) == 4:
			h.form.flags = binary.NativeEndian.Uint32(value)
		case typ == unix.IFA_ADDRESS && len(value) == 16:
			address = slices.Clone(value)
		case typ == unix.IFA_LOCAL && len(value) == 16:
			local = slices.Clone(value)
		case typ == unix.IFA_CACHEINFO && len(value) >= sizeofCacheInfo:
			h.form.preferred, h.form.valid = binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[4:])
		case typ == unix.IFA_RT_PRIORITY && len(value) == 4:
			h.form.metric = binary.NativeEndian.Uint32(value)
		}
	})
	h.addr.Flags = int(h.form.flags)
	h.addr.IPNet = &net.IPNet{IP: address, Mask: net.CIDRMask(int(data[1]), 128)}
	if local != nil {
		h.addr.IP = local
	}
	h.ours = h.form.metric == Metric
	return h
}

// add6 adds an egress IP of IPv6 to a device, or with replace gives one that is there the
// form that it needs.
func add6(link netlink.Link, ip netip.Addr, replace bool) error {
	flags := unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_ACK
	if replace {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE | unix.NLM_F_ACK
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, flags)
	msg := nl.NewIfAddrmsg(unix.AF_INET6)
	msg.Index, msg.Prefixlen = uint32(link.Attrs().Index), 128 //nolint:gosec // the kernel's numbers fit
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags6)))
	life := binary.NativeEndian.AppendUint32(nil, 0)
	life = binary.NativeEndian.AppendUint32(life, math.MaxUint32)
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, append(life, make([]byte, sizeofCacheInfo-len(life))...)))
	req.AddData(nl.NewRtAttr(unix.IFA_RT_PRIORITY, binary.NativeEndian.AppendUint32(nil, Metric)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// mend6 gives our addresses of IPv6 where they should be the form that they need, and counts them.
func (p places) mend6(nlh *netlink.Handle) (changes int, err error) {
	all, err := list6()
	if err != nil || len(p) == 0 {
		return 0, err
	}
	var errs []error
	for _, h := range all {
		u, found := p[h.addr.LinkIndex]
		if !h.ours || !found || h.form.asWanted(h.addr) {
			continue
		}
		ip := Prefix(h.addr).Addr()
		var err error
		if bits, _ := h.addr.Mask.Size(); bits != 128 {
			err = nlh.AddrDel(u.Link, &h.addr)
		}
		if err == nil {
			err = add6(u.Link, ip, true)
		}
		errs = append(errs, nlutil.Count(&changes, fmt.Sprintf("put egress IP %v into the form that it needs", ip), err))
	}
	return changes, errors.Join(errs...)
}

// Networks6 lists the networks of IPv6 that are on the uplink's link, in order: those of its
// addresses, and those to which routes lead without a gateway, as router advertisements
// have it for addresses of DHCP. Egress IPs belong in one of them.
func (u Uplink) Networks6(nlh *netlink.Handle) ([]netip.Prefix, error) {
	all, err := list6()
	if err != nil {
		return nil, err
	}
	var found []netip.Prefix
	note := func(p netip.Prefix) {
		if p.Bits() > 0 && p.Bits() < 128 && p.Addr().IsGlobalUnicast() {
			found = append(found, p.Masked())
		}
	}
	index := u.Link.Attrs().Index
	for _, h := range all {
		if h.addr.LinkIndex == index && !h.ours && h.form.flags&unix.IFA_F_NOPREFIXROUTE == 0 {
			note(Prefix(h.addr))
		}
	}
	filter := &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_MAIN}
	routes, err := nlutil.Whole(func() ([]netlink.Route, error) {
		return nlh.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes of IPv6 at %s: %w", u.Name, err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Gw != nil || r.Via != nil || len(r.MultiPath) > 0 || r.Type != unix.RTN_UNICAST {
			continue
		}
		ip, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		note(netip.PrefixFrom(ip, bits))
	}
	slices.SortFunc(found, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr())*256 + a.Bits() - b.Bits() })
	return slices.Compact(found), nil
}
