package address

import (
	"errors"
	"fmt"
	"net/netip"

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

// Uplink is the interface that has the host's own address.
type Uplink struct {
	Link netlink.Link
	Name string
	// CIDR is the host's address with its prefix length there.
	CIDR netip.Prefix
	MTU  int
}

// ErrNoUplink is the error of a host address that no interface has.
var ErrNoUplink = errors.New("no interface has this address: check that the node's InternalIP is an address of the node itself")

// FindUplink looks for the interface that has hostIP. It does so each time, as the
// address may move, for example to a bridge.
func FindUplink(nl *netlink.Handle, hostIP netip.Addr) (Uplink, error) {
	addrs, err := nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return Uplink{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		cidr := Prefix(a)
		if cidr.Addr() != hostIP || a.LinkIndex == 0 {
			continue
		}
		link, err := nl.LinkByIndex(a.LinkIndex)
		if err != nil {
			return Uplink{}, fmt.Errorf("look up interface of host IP %v: %w", hostIP, err)
		}
		if isOurs(a, link.Attrs().Name) {
			continue // never take an egress IP for the host's own
		}
		return Uplink{Link: link, Name: link.Attrs().Name, CIDR: cidr, MTU: link.Attrs().MTU}, nil
	}
	return Uplink{}, fmt.Errorf("find uplink with host IP %v: %w", hostIP, ErrNoUplink)
}

// Prefix returns an address with its prefix length.
func Prefix(a netlink.Addr) netip.Prefix {
	ip, _ := netip.AddrFromSlice(a.IP.To4())
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(ip, bits)
}

// Label returns the label of our addresses on a device. A device name that leaves
// no room for the suffix is cut: a label must be short enough, and the kernel asks
// for nothing else.
func Label(device string) string {
	return device[:min(len(device), maxLabel-len(labelSuffix))] + labelSuffix
}

func isOurs(a netlink.Addr, device string) bool { return a.Label == Label(device) }

// holder is an interface that has an address.
type holder struct {
	addr   netlink.Addr
	device string
	ours   bool
}

// list returns the IPv4 addresses of all interfaces.
func list(nl *netlink.Handle) (map[netip.Addr][]holder, error) {
	links, err := nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := make(map[netip.Addr][]holder, len(addrs))
	for _, a := range addrs {
		ip := Prefix(a).Addr()
		device := names[a.LinkIndex]
		all[ip] = append(all[ip], holder{addr: a, device: device, ours: isOurs(a, device)})
	}
	return all, nil
}

// Own lists our addresses, on all interfaces: an uplink that moved leaves some
// behind.
func Own(nl *netlink.Handle) (map[netip.Addr][]netlink.Addr, error) {
	all, err := list(nl)
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr][]netlink.Addr{}
	for ip, holders := range all {
		for _, b := range holders {
			if b.ours {
				own[ip] = append(own[ip], b.addr)
			}
		}
	}
	return own, nil
}

// Placed reports whether our addresses for one egress IP are as they should be:
// there is one, on the uplink.
func (u Uplink) Placed(own []netlink.Addr) bool {
	return len(own) == 1 && own[0].LinkIndex == u.Link.Attrs().Index
}

// ErrForeign is the error of an egress IP that the host already has, not from us.
var ErrForeign = errors.New("the host has this address already, and not from here: remove it there, or do not use it as egress IP")

// Add puts egress IPs on the uplink, with the host's own prefix length: as
// secondary addresses they can be deleted without taking others along. It returns
// those that are there now, and for each other one the reason.
//
// An address that the host has from others is refused on any interface and
// with any prefix length: on the loopback, say, or from a VRRP daemon. The kernel
// would accept it, and its first owner would see it come and go.
func Add(nl *netlink.Handle, u Uplink, ips []netip.Addr) (added []netip.Addr, refused map[netip.Addr]error) {
	refused = map[netip.Addr]error{}
	present, listErr := list(nl)
	for _, ip := range ips {
		err := listErr
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

// add adds one, and deletes it where it is left on a former uplink.
func add(nl *netlink.Handle, u Uplink, ip netip.Addr, present []holder) error {
	there := false
	var elsewhere []netlink.Addr
	for _, b := range present {
		switch {
		case !b.ours:
			return fmt.Errorf("%w (%s has it)", ErrForeign, b.device)
		case b.addr.LinkIndex == u.Link.Attrs().Index:
			there = true
		default:
			elsewhere = append(elsewhere, b.addr)
		}
	}
	if !there {
		err := nl.AddrAdd(u.Link, &netlink.Addr{
			IPNet: nlutil.IPNet(netip.PrefixFrom(ip, u.CIDR.Bits())),
			Label: Label(u.Name),
			Scope: int(netlink.SCOPE_UNIVERSE),
		})
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
	if a.Flags&unix.IFA_F_SECONDARY == 0 {
		// The first of its network, as after the host's own address went and
		// came back: the kernel would delete the others with it.
		if restore, err = promoteSecondaries(link.Attrs().Name); err != nil {
			return err
		}
	}
	err = nl.AddrDel(link, &a)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		err = nil
	}
	return errors.Join(err, restore())
}

// promoteSecondaries makes a device keep the other addresses of a network when the
// first is deleted, until restore is called.
func promoteSecondaries(device string) (restore func() error, err error) {
	path := sysctl.OfDevice(device, "promote_secondaries")
	changes, err := sysctl.Ensure(path, "1")
	return func() error {
		if changes == 0 {
			return nil
		}
		_, err := sysctl.Ensure(path, "0")
		return err
	}, err
}
