package overlay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// The overlay device. Its addresses are link-local, the same on every host,
// and never leave it: tc programs decide where a packet goes.
const (
	// Name is the name of the device.
	Name = "egress0"
	// overhead4 is what VXLAN over IPv4 adds: outer IP, UDP and VXLAN headers and the inner
	// Ethernet header. overhead6 is the same over IPv6.
	overhead4, overhead6 = 50, 70
)

// Overhead is what the overlay adds to a packet, in bytes, between hosts with addresses of the
// family of hostIP.
func Overhead(hostIP netip.Addr) int {
	if hostIP.Is6() {
		return overhead6
	}
	return overhead4
}

func address() netip.Prefix { return netip.MustParsePrefix("169.254.77.1/32") }

// NextHop returns the gateway of all routes to the overlay.
func NextHop() netip.Addr { return netip.MustParseAddr("169.254.77.2") }

// NextHop6 returns that of IPv6.
func NextHop6() netip.Addr { return netip.MustParseAddr("fe80::4d:2") }

// MinIPv6MTU is the least MTU of a device with IPv6 (RFC 8200): the kernel has none on others.
const MinIPv6MTU = 1280

// hostMAC returns a host's own MAC address, locally administered: VXLAN drops frames
// whose source is its own device's MAC, so no two hosts may share one.
func hostMAC(hostIP netip.Addr) net.HardwareAddr {
	sum := sha256.Sum256([]byte("egress0 " + hostIP.String()))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// nextHopMAC is the destination of all frames; the receiving tc program ignores it.
func nextHopMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0, 0, 0x4d, 0x02} }

// Config is how the overlay device must be.
type Config struct {
	// HostIP is the host's own address.
	HostIP netip.Addr
	// Port is the UDP port of the overlay.
	Port uint16
	MTU  int
	// IPv6: the overlay also carries packets of IPv6. The device has no address of it.
	IPv6 bool
}

// ErrPortInUse is the error of an overlay port that something else on the host
// has, such as another VXLAN device: one with external metadata shares its port
// with no other.
var ErrPortInUse = errors.New("the overlay's UDP port is in use: choose another one with --overlay-port, the same on every host")

// ErrForeignDevice is the error of a device with the overlay's name that cannot
// be ours.
var ErrForeignDevice = errors.New("a device of this name is there, and not from here: rename it")

// Ensure makes or repairs the overlay device, and counts the changes. A device of
// ours with another port, say, is replaced; whoever routes to it must make sure
// that packets are dropped meanwhile. The device is not up before Raise.
func Ensure(nl *netlink.Handle, want Config) (link netlink.Link, changes int, err error) {
	link, err = nl.LinkByName(Name)
	switch {
	case nlutil.IsLinkNotFound(err):
		link = nil
	case err != nil:
		return nil, 0, fmt.Errorf("look up overlay device %s: %w", Name, err)
	case !isOwn(link):
		return nil, 0, fmt.Errorf("look up overlay device %s: %w", Name, ErrForeignDevice)
	case !isAsWanted(link, want):
		if err := nl.LinkDel(link); err != nil {
			return nil, 0, fmt.Errorf("replace overlay device %s, which has other settings: %w", Name, err)
		}
		changes++
		link = nil
	}
	if link == nil {
		if link, err = add(nl, want); err != nil {
			return nil, changes, err
		}
		changes++
	}
	mended, err := mend(nl, link, want)
	return link, changes + mended, err
}

// isOwn reports whether a device with the overlay's name is ours, even with other
// settings: a VXLAN device of that name with external metadata has no other maker.
func isOwn(link netlink.Link) bool {
	vxlan, ok := link.(*netlink.Vxlan)
	return ok && vxlan.FlowBased
}

func isAsWanted(link netlink.Link, want Config) bool {
	vxlan, ok := link.(*netlink.Vxlan)
	return ok && vxlan.FlowBased && !vxlan.Learning && vxlan.Port == int(want.Port) &&
		vxlan.HardwareAddr.String() == hostMAC(want.HostIP).String()
}

func add(nl *netlink.Handle, want Config) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = Name, want.MTU, hostMAC(want.HostIP)
	overlay := &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Learning: false, Port: int(want.Port)}
	err := nl.LinkAdd(overlay)
	if err != nil {
		return nil, portError("add overlay device "+Name, vxlanSharing(nl, overlay), err)
	}
	link, err := nl.LinkByName(Name)
	if err != nil {
		return nil, fmt.Errorf("look up overlay device %s just added: %w", Name, err)
	}
	return link, nil
}

// portError says what failed, and names the port where that was the cause. The
// kernel refuses a second device with the same outside metadata as soon as it
// is added (EEXIST), and anything else at the port when the device goes up
// (EADDRINUSE).
func portError(what, owner string, err error) error {
	switch {
	case !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: %w", what, err)
	case owner != "":
		return fmt.Errorf("%s: %w: device %s has it: %w", what, ErrPortInUse, owner, err)
	default:
		return fmt.Errorf("%s: %w: %w", what, ErrPortInUse, err)
	}
}

// vxlanSharing returns the name of another VXLAN device at the overlay's port; empty
// where none is found.
func vxlanSharing(nl *netlink.Handle, overlay netlink.Link) string {
	links, err := nlutil.Whole(nl.LinkList)
	if err != nil {
		return ""
	}
	ours, ok := overlay.(*netlink.Vxlan)
	for _, l := range links {
		if v, vxlan := l.(*netlink.Vxlan); ok && vxlan && v.Name != ours.Name && v.Port == ours.Port {
			return v.Name
		}
	}
	return ""
}

// mend sets what can change while the device exists. The device goes up
// last: no packet passes it before its programs are attached and its reverse
// path filter is loose.
func mend(nl *netlink.Handle, link netlink.Link, want Config) (changes int, err error) {
	var errs []error
	if link.Attrs().MTU != want.MTU {
		errs = append(errs, nlutil.Count(&changes, "set MTU of "+Name, nl.LinkSetMTU(link, want.MTU)))
	}
	n, err := sysctl.Ensure(link, sysctl.ReversePathFilter(), 2)
	changes += n
	errs = append(errs, err)
	n, err = ensureForwarding(link)
	changes += n
	errs = append(errs, err)
	n, err = ensureAddress(nl, link)
	changes += n
	errs = append(errs, err)
	if want.IPv6 {
		n, err = sysctl.EnsureNoAutomaticAddress(link)
		changes += n
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

// ensureForwarding lets packets that come over the overlay be forwarded on a host that
// forwards, whatever new devices begin with there.
func ensureForwarding(link netlink.Link) (changes int, err error) {
	if forwards, err := sysctl.Get(sysctl.IPv4Forward); err != nil || forwards != "1" {
		return 0, err
	}
	return sysctl.Ensure(link, sysctl.Forwarding(), 1)
}

// Raise sets the device up and gives it its neighbours, which the kernel
// forgets while it is down.
func Raise(nl *netlink.Handle, link netlink.Link, withIPv6 bool) (changes int, err error) {
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := nl.LinkSetUp(link); err != nil {
			return 0, portError("set up overlay device "+Name, vxlanSharing(nl, link), err)
		}
		changes++
	}
	n, err := ensureNextHop(nl, link, netlink.FAMILY_V4, NextHop())
	changes += n
	if err != nil || !withIPv6 {
		return changes, err
	}
	n, err = ensureNextHop(nl, link, netlink.FAMILY_V6, NextHop6())
	return changes + n, err
}

func ensureAddress(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	addrs, err := nlutil.Whole(func() ([]netlink.Addr, error) { return nl.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return 0, fmt.Errorf("list addresses of %s: %w", Name, err)
	}
	want := address().String()
	for _, a := range addrs {
		if a.IPNet.String() == want {
			return 0, nil
		}
	}
	addr := &netlink.Addr{IPNet: nlutil.IPNet(address()), Scope: int(netlink.SCOPE_LINK)}
	return changes, nlutil.Count(&changes, "add address of "+Name, nl.AddrReplace(link, addr))
}

func ensureNextHop(nl *netlink.Handle, link netlink.Link, family int, nextHop netip.Addr) (changes int, err error) {
	neighs, err := nlutil.Whole(func() ([]netlink.Neigh, error) { return nl.NeighList(link.Attrs().Index, family) })
	if err != nil {
		return 0, fmt.Errorf("list neighbours of %s: %w", Name, err)
	}
	for _, n := range neighs {
		if isNextHop(n, nextHop) {
			return 0, nil
		}
	}
	return changes, nlutil.Count(&changes, "set neighbour of "+Name, nl.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT,
		IP: nextHop.AsSlice(), HardwareAddr: nextHopMAC(),
	}))
}

// Find returns the overlay device; nil where there is none of ours.
func Find(nl *netlink.Handle) (netlink.Link, error) {
	link, err := nl.LinkByName(Name)
	switch {
	case nlutil.IsLinkNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up overlay device %s: %w", Name, err)
	case !isOwn(link):
		return nil, nil
	}
	return link, nil
}

// Remove deletes the overlay device, and with it its routes, addresses and
// programs. It reports whether there was one.
func Remove(nl *netlink.Handle) (removed bool, err error) {
	link, err := Find(nl)
	if err != nil || link == nil {
		return false, err
	}
	if err := nl.LinkDel(link); err != nil {
		return false, fmt.Errorf("delete overlay device %s: %w", Name, err)
	}
	return true, nil
}
