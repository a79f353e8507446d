package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// labelSuffix ends the label of an address of ours, after the name of the
// uplink: eth0:eip, as OpenShift SDN wrote it.
const labelSuffix = ":eip"

// maxLabel is the greatest length of a label: IFNAMSIZ less its final zero.
const maxLabel = unix.IFNAMSIZ - 1

// uplink is the interface that bears the host's own address.
type uplink struct {
	link netlink.Link
	name string
	// cidr is the host's address with its prefix length there.
	cidr netip.Prefix
	mtu  int
}

// errNoUplink is the error of a host address that no interface bears.
var errNoUplink = errors.New("no interface has this address: check that the node's InternalIP is an address of the node itself")

// findUplink looks for the interface that bears hostIP, anew each time: it may
// move, as to a bridge.
func findUplink(nl *netlink.Handle, hostIP netip.Addr) (uplink, error) {
	addrs, err := nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return uplink{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, bits := addrOf(a)
		if ip != hostIP || a.LinkIndex == 0 {
			continue
		}
		link, err := nl.LinkByIndex(a.LinkIndex)
		if err != nil {
			return uplink{}, fmt.Errorf("look up interface of host IP %v: %w", hostIP, err)
		}
		if isOurs(a, link.Attrs().Name) {
			continue // never take an egress IP for the host's own
		}
		return uplink{link: link, name: link.Attrs().Name, cidr: netip.PrefixFrom(ip, bits), mtu: link.Attrs().MTU}, nil
	}
	return uplink{}, fmt.Errorf("find uplink with host IP %v: %w", hostIP, errNoUplink)
}

func addrOf(a netlink.Addr) (netip.Addr, int) {
	ip, _ := netip.AddrFromSlice(a.IP.To4())
	bits, _ := a.Mask.Size()
	return ip, bits
}

// egressLabel is the label of our addresses on a device. A device name that
// leaves no room for the suffix is cut: the kernel wants no more of a label
// than that it is short enough.
func egressLabel(device string) string {
	return device[:min(len(device), maxLabel-len(labelSuffix))] + labelSuffix
}

func isOurs(a netlink.Addr, device string) bool { return a.Label == egressLabel(device) }

// bearer is an interface that has an address.
type bearer struct {
	addr   netlink.Addr
	device string
	ours   bool
}

// allAddresses lists the IPv4 addresses of all interfaces.
func allAddresses(nl *netlink.Handle) (map[netip.Addr][]bearer, error) {
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
	all := make(map[netip.Addr][]bearer, len(addrs))
	for _, a := range addrs {
		ip, _ := addrOf(a)
		device := names[a.LinkIndex]
		all[ip] = append(all[ip], bearer{addr: a, device: device, ours: isOurs(a, device)})
	}
	return all, nil
}

// ownAddresses lists the addresses of ours, with each interface that has one:
// an uplink that moved leaves some behind.
func ownAddresses(nl *netlink.Handle) (map[netip.Addr][]netlink.Addr, error) {
	all, err := allAddresses(nl)
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr][]netlink.Addr{}
	for ip, bearers := range all {
		for _, b := range bearers {
			if b.ours {
				own[ip] = append(own[ip], b.addr)
			}
		}
	}
	return own, nil
}

// placed tells whether the addresses of ours that are one egress IP are as they
// should be: one, and that on the uplink.
func placed(u uplink, own []netlink.Addr) bool {
	return len(own) == 1 && own[0].LinkIndex == u.link.Attrs().Index
}

// errForeignAddress is the error of an egress IP that the host bears already,
// and not from us.
var errForeignAddress = errors.New("the host has this address already, and not from here: remove it there, or do not use it as egress IP")

// addEgressAddresses puts egress IPs on the uplink, with the host's own prefix
// length: so they are secondary addresses, and go without taking others along.
// It returns those that are there now, and for each other one why it is not.
//
// An address that the host has from somebody else is refused wherever that is,
// and with whatever prefix length: on the loopback, say, or from a VRRP daemon.
// The kernel would take it, and its first owner would see it come and go.
func addEgressAddresses(nl *netlink.Handle, u uplink, ips []netip.Addr) (added []netip.Addr, refused map[netip.Addr]error) {
	refused = map[netip.Addr]error{}
	present, listErr := allAddresses(nl)
	for _, ip := range ips {
		err := listErr
		if err == nil {
			err = addEgressAddress(nl, u, ip, present[ip])
		}
		if err != nil {
			refused[ip] = fmt.Errorf("add egress IP %v to %s: %w", ip, u.name, err)
			continue
		}
		added = append(added, ip)
	}
	return added, refused
}

// addEgressAddress adds one, and takes it off where it is left from an uplink
// of before.
func addEgressAddress(nl *netlink.Handle, u uplink, ip netip.Addr, present []bearer) error {
	there := false
	var elsewhere []netlink.Addr
	for _, b := range present {
		switch {
		case !b.ours:
			return fmt.Errorf("%w (%s has it)", errForeignAddress, b.device)
		case b.addr.LinkIndex == u.link.Attrs().Index:
			there = true
		default:
			elsewhere = append(elsewhere, b.addr)
		}
	}
	if !there {
		err := nl.AddrAdd(u.link, &netlink.Addr{
			IPNet: ipNet(netip.PrefixFrom(ip, u.cidr.Bits())),
			Label: egressLabel(u.name),
			Scope: int(netlink.SCOPE_UNIVERSE),
		})
		if errors.Is(err, unix.EEXIST) {
			return errForeignAddress // added by somebody since we looked
		}
		if err != nil {
			return err
		}
	}
	return deleteEgressAddresses(nl, elsewhere)
}

// deleteEgressAddresses takes addresses of ours off their interfaces.
func deleteEgressAddresses(nl *netlink.Handle, addrs []netlink.Addr) error {
	var errs []error
	for _, a := range addrs {
		ip, _ := addrOf(a)
		if err := deleteEgressAddress(nl, a); err != nil {
			errs = append(errs, fmt.Errorf("delete egress IP %v: %w", ip, err))
		}
	}
	return errors.Join(errs...)
}

func deleteEgressAddress(nl *netlink.Handle, a netlink.Addr) error {
	link, err := nl.LinkByIndex(a.LinkIndex)
	if isLinkNotFound(err) {
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

// promoteSecondaries has a device keep the other addresses of a network when
// the first is deleted, until restore is called.
func promoteSecondaries(device string) (restore func() error, err error) {
	path := ifaceSysctl(device, "promote_secondaries")
	changes, err := ensureSysctl(path, "1")
	return func() error {
		if changes == 0 {
			return nil
		}
		_, err := ensureSysctl(path, "0")
		return err
	}, err
}

// SweepAfterBoot takes egress IPs off that a machine was restored or booted with:
// those that bear our label while nothing else of ours is in the kernel, neither
// the overlay nor a set. Nothing can serve them then, and another host may bear
// them by now. It returns how many there were.
//
// It is for the start of the process, when the API server has not told yet what the
// host shall bear. What a former process left working is not touched.
func (d *Dataplane) SweepAfterBoot() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch _, err := d.nl.LinkByName(overlayName); {
	case err == nil:
		return 0, nil
	case !isLinkNotFound(err):
		return 0, fmt.Errorf("look up overlay device %s: %w", overlayName, err)
	}
	if sets, err := ownSets(); err != nil || len(sets) > 0 {
		return 0, err
	}
	own, err := ownAddresses(d.nl)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, addrs := range own {
		errs = append(errs, deleteEgressAddresses(d.nl, addrs))
	}
	return len(own), errors.Join(errs...)
}
