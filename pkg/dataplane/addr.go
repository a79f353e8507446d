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

// ownAddresses lists the addresses of ours on all interfaces, with the
// interface of each: an uplink that moved leaves some behind.
func ownAddresses(nl *netlink.Handle) (map[netip.Addr]netlink.Addr, error) {
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
	own := map[netip.Addr]netlink.Addr{}
	for _, a := range addrs {
		if isOurs(a, names[a.LinkIndex]) {
			ip, _ := addrOf(a)
			own[ip] = a
		}
	}
	return own, nil
}

// errForeignAddress is the error of an egress IP that the host bears already,
// and not from us.
var errForeignAddress = errors.New("the host has this address already, and not from here: remove it there, or do not use it as egress IP")

// addEgressAddress puts an egress IP on the uplink, with the host's own prefix
// length: so it is a secondary address, and goes without taking others along.
func addEgressAddress(nl *netlink.Handle, u uplink, ip netip.Addr) error {
	addr := &netlink.Addr{
		IPNet: ipNet(netip.PrefixFrom(ip, u.cidr.Bits())),
		Label: egressLabel(u.name),
		Scope: int(netlink.SCOPE_UNIVERSE),
	}
	err := nl.AddrAdd(u.link, addr)
	if !errors.Is(err, unix.EEXIST) {
		if err != nil {
			return fmt.Errorf("add egress IP %v to %s: %w", ip, u.name, err)
		}
		return nil
	}
	own, listErr := ownAddresses(nl)
	if listErr != nil {
		return fmt.Errorf("add egress IP %v to %s: %w", ip, u.name, listErr)
	}
	if a, ours := own[ip]; ours && a.LinkIndex == u.link.Attrs().Index {
		return nil
	}
	return fmt.Errorf("add egress IP %v to %s: %w", ip, u.name, errForeignAddress)
}

// deleteEgressAddress takes an egress IP of ours off its interface.
func deleteEgressAddress(nl *netlink.Handle, a netlink.Addr) error {
	link, err := nl.LinkByIndex(a.LinkIndex)
	if isLinkNotFound(err) {
		return nil
	}
	ip, _ := addrOf(a)
	if err == nil {
		err = nl.AddrDel(link, &a)
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete egress IP %v: %w", ip, err)
	}
	return nil
}
