package address

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// labelSuffix ends the label of each of our addresses, after the name of the
// uplink: eth0:eip, as OpenShift SDN wrote it.
const labelSuffix = ":eip"

// maxLabel is the greatest length of a label: IFNAMSIZ less its final zero.
const maxLabel = unix.IFNAMSIZ - 1

// serviceDevice is where kube-proxy in mode ipvs, and kube-router, have the addresses of
// all services, on every node.
const serviceDevice = "kube-ipvs0"

// OfHost returns the addresses at which other machines can reach the host, in order:
// without ours, without those of loopback and link-local networks, and without those of
// services.
func OfHost(nl *netlink.Handle) ([]netip.Addr, error) {
	all, err := list(nl)
	if err != nil {
		return nil, err
	}
	services := 0
	switch link, err := nl.LinkByName(serviceDevice); {
	case err == nil:
		services = link.Attrs().Index
	case !nlutil.IsLinkNotFound(err):
		return nil, fmt.Errorf("look up %s: %w", serviceDevice, err)
	}
	var ips []netip.Addr
	for _, h := range all {
		ip := Prefix(h.addr).Addr()
		if h.ours || h.addr.Scope >= int(netlink.SCOPE_LINK) || h.addr.LinkIndex == services || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		ips = append(ips, ip)
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return slices.Compact(ips), nil
}

// Prefix returns an address with its prefix length.
func Prefix(a netlink.Addr) netip.Prefix {
	ip, _ := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

// Label returns the label of our addresses on a device. A device name that leaves
// no room for the suffix is cut: a label must be short enough, and the kernel asks
// for nothing else.
func Label(device string) string {
	return device[:min(len(device), maxLabel-len(labelSuffix))] + labelSuffix
}

// isOurs reports whether an address on a device is ours. When a device gets
// another name, the kernel takes the suffix off the label of its first address; one
// that is out of the host's choice is known by its scope then, which nobody else has
// a use for.
func isOurs(a netlink.Addr, device string) bool {
	return a.Label == Label(device) || isHidden(a) && a.Label == device
}

// holder is an address on an interface.
type holder struct {
	addr   netlink.Addr
	device string // known where the address may be ours
	ours   bool
	form   form6 // of an address of IPv6
}

// list returns the IPv4 addresses of all interfaces. Those of one interface are in
// the order in which the kernel considers them as source. It works in the network
// namespace of the calling thread, which must be that of the handle.
func list(nl *netlink.Handle) ([]holder, error) {
	addrs, err := nlutil.Whole(dump)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := make([]holder, 0, len(addrs))
	names := map[int]string{}
	for _, a := range addrs {
		h := holder{addr: a}
		if strings.HasSuffix(a.Label, labelSuffix) || isHidden(a) {
			name, known := names[a.LinkIndex]
			if !known {
				if name, err = deviceName(nl, a.LinkIndex); err != nil {
					return nil, err
				}
				names[a.LinkIndex] = name
			}
			h.device, h.ours = name, isOurs(a, name)
		}
		all = append(all, h)
	}
	return all, nil
}

// dump lists the addresses as the kernel has them. A host may have thousands, and they are
// listed several times in a pass: the library takes ten times as long.
func dump() ([]netlink.Addr, error) {
	var addrs []netlink.Addr
	err := nlutil.Dump(unix.NETLINK_ROUTE, unix.RTM_GETADDR, append([]byte{unix.AF_INET}, make([]byte, unix.SizeofIfAddrmsg-1)...), func(typ uint16, data []byte) error {
		if typ == unix.RTM_NEWADDR && len(data) >= unix.SizeofIfAddrmsg && data[0] == unix.AF_INET {
			addrs = append(addrs, parse(data))
		}
		return nil
	})
	return addrs, err
}

// parse reads an address from a message.
func parse(data []byte) netlink.Addr {
	a := netlink.Addr{Flags: int(data[2]), Scope: int(data[3]), LinkIndex: int(binary.NativeEndian.Uint32(data[4:]))}
	var address, local net.IP
	nlutil.EachAttr(data[unix.SizeofIfAddrmsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.IFA_LABEL:
			a.Label = unix.ByteSliceToString(value)
		case len(value) != 4:
		case typ == unix.IFA_FLAGS:
			a.Flags = int(binary.NativeEndian.Uint32(value))
		case typ == unix.IFA_ADDRESS:
			address = slices.Clone(value)
		case typ == unix.IFA_LOCAL:
			local = slices.Clone(value)
		case typ == unix.IFA_BROADCAST:
			a.Broadcast = slices.Clone(value)
		}
	})
	mask := net.CIDRMask(int(data[1]), 32)
	a.IPNet = &net.IPNet{IP: address, Mask: mask}
	if local != nil && !local.Equal(address) { // of two ends, address is the other one
		a.IPNet, a.Peer = &net.IPNet{IP: local, Mask: net.CIDRMask(32, 32)}, &net.IPNet{IP: address, Mask: mask}
	}
	return a
}

// deviceName returns the name of an interface; empty where it has gone.
func deviceName(nl *netlink.Handle, index int) (string, error) {
	link, err := nl.LinkByIndex(index)
	switch {
	case nlutil.IsLinkNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look up interface %d: %w", index, err)
	}
	return link.Attrs().Name, nil
}

// listBoth returns the addresses of both families.
func listBoth(nl *netlink.Handle) ([]holder, error) {
	four, err4 := list(nl)
	six, err6 := list6()
	return append(four, six...), errors.Join(err4, err6)
}

// Own lists our addresses, on all interfaces: an uplink that moved leaves some
// behind.
func Own(nl *netlink.Handle) (map[netip.Addr][]netlink.Addr, error) {
	all, err := listBoth(nl)
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr][]netlink.Addr{}
	for _, h := range all {
		if h.ours {
			ip := Prefix(h.addr).Addr()
			own[ip] = append(own[ip], h.addr)
		}
	}
	return own, nil
}

// Placed reports whether our addresses for one egress IP are where they should be:
// there is one, on the uplink. See Mend for its form.
func (u Uplink) Placed(own []netlink.Addr) bool {
	return len(own) == 1 && own[0].LinkIndex == u.Link.Attrs().Index
}

// ErrForeign is the error of an egress IP that the host already has, not from us.
var ErrForeign = errors.New("the host has this address already, and not from here: remove it there, or do not use it as egress IP")

// ErrGateway is the error of an egress IP that routes of the host name as gateway.
var ErrGateway = errors.New("it is a gateway of this host: choose another egress IP")

// Add puts egress IPs on the uplink, in the form that is safe there. It returns
// those that are there now, and for each other one the reason.
//
// A gateway of the host is refused, also where nobody asks for other owners by ARP: with
// its address on the host, nothing would leave.
//
// An address that the host has from others is refused on any interface and
// with any prefix length: on the loopback, say, or from a VRRP daemon. The kernel
// would accept it, and its first owner would see it come and go.
func Add(nl *netlink.Handle, u Uplink, ips []netip.Addr) (added []netip.Addr, refused map[netip.Addr]error) {
	refused = map[netip.Addr]error{}
	all, listErr := listBoth(nl)
	present := map[netip.Addr][]holder{}
	for _, h := range all {
		present[Prefix(h.addr).Addr()] = append(present[Prefix(h.addr).Addr()], h)
	}
	var isGateway map[netip.Addr]bool // of new ones: a host may have thousands of routes
	if slices.ContainsFunc(ips, func(ip netip.Addr) bool { return len(present[ip]) == 0 }) {
		var err error
		isGateway, err = gateways(nl, u)
		listErr = errors.Join(listErr, err)
	}
	for _, ip := range ips {
		err := listErr
		if isGateway[ip] && len(present[ip]) == 0 {
			err = errors.Join(err, ErrGateway)
		}
		if err == nil {
			err = add(nl, u, ip, present[ip])
		}
		if err != nil {
			refused[ip] = fmt.Errorf("add egress IP %v to %s: %w", ip, u.Name, err)
			continue
		}
		added = append(added, ip)
	}
	return added, refused
}

// gateways are the gateways of the main table's routes over the uplink.
func gateways(nl *netlink.Handle, u Uplink) (map[netip.Addr]bool, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	routes, err := nlutil.Whole(func() ([]netlink.Route, error) {
		return nl.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	found := map[netip.Addr]bool{}
	note := func(link int, gateway net.IP) {
		if ip, ok := netip.AddrFromSlice(gateway); ok && link == u.Link.Attrs().Index {
			found[ip.Unmap()] = true
		}
	}
	for _, r := range routes {
		note(r.LinkIndex, r.Gw)
		for _, hop := range r.MultiPath {
			note(hop.LinkIndex, hop.Gw)
		}
	}
	return found, nil
}

// add adds one, and deletes it where it is left on a former uplink.
func add(nl *netlink.Handle, u Uplink, ip netip.Addr, present []holder) error {
	there := false
	var elsewhere []netlink.Addr
	for _, b := range present {
		switch {
		case !b.ours:
			device, err := deviceName(nl, b.addr.LinkIndex)
			return errors.Join(fmt.Errorf("%w (%s has it)", ErrForeign, device), err)
		case b.addr.LinkIndex == u.Link.Attrs().Index:
			there = true
		default:
			elsewhere = append(elsewhere, b.addr)
		}
	}
	if !there {
		var err error
		if ip.Is6() {
			err = add6(u.Link, ip, false)
		} else {
			err = u.form.add(nl, u.Link, ip, u.CIDR.Bits())
		}
		if errors.Is(err, unix.EEXIST) {
			return ErrForeign // added by others meanwhile
		}
		if err != nil {
			return err
		}
	}
	return Delete(nl, elsewhere)
}

// Delete deletes addresses of ours from their interfaces.
func Delete(nl *netlink.Handle, addrs []netlink.Addr) error {
	var errs []error
	for _, a := range addrs {
		ip := Prefix(a).Addr()
		if err := deleteOne(nl, a); err != nil {
			errs = append(errs, fmt.Errorf("delete egress IP %v: %w", ip, err))
		}
	}
	return errors.Join(errs...)
}

func deleteOne(nl *netlink.Handle, a netlink.Addr) error {
	link, err := nl.LinkByIndex(a.LinkIndex)
	if nlutil.IsLinkNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	restore := func() error { return nil }
	if a.Flags&unix.IFA_F_SECONDARY == 0 && Prefix(a).Addr().Is4() {
		// The first of its network, as after the host's own address went and
		// came back: the kernel would delete the others with it.
		if restore, err = promoteSecondaries(link); err != nil {
			return err
		}
	}
	err = nl.AddrDel(link, &a)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENXIO) {
		err = nil
	}
	return errors.Join(err, restore())
}

// promoteSecondaries makes a device keep the other addresses of a network when the
// first is deleted, until restore is called.
func promoteSecondaries(link netlink.Link) (restore func() error, err error) {
	changes, err := sysctl.Ensure(link, sysctl.PromoteSecondaries(), 1)
	return func() error {
		if changes == 0 {
			return nil
		}
		_, err := sysctl.Ensure(link, sysctl.PromoteSecondaries(), 0)
		return err
	}, err
}
