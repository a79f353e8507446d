package dataplane

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The overlay device. Its addresses are link-local, the same on every host,
// and never leave it: the tc programs decide where a packet goes.
const (
	overlayName = "egress0"
	// vxlanOverhead is what VXLAN over IPv4 adds: outer IP, UDP and VXLAN
	// headers and the inner Ethernet header.
	vxlanOverhead = 50
)

func overlayAddress() netip.Prefix { return netip.MustParsePrefix("169.254.77.1/32") }
func overlayNextHop() netip.Addr   { return netip.MustParseAddr("169.254.77.2") }

// overlayMAC is a host's own, locally administered: VXLAN drops frames that
// bear its own device's MAC as source, so no two hosts may share one.
func overlayMAC(hostIP netip.Addr) net.HardwareAddr {
	sum := sha256.Sum256([]byte("egress0 " + hostIP.String()))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// nextHopMAC is what frames are sent to; the receiving program takes them
// whatever their destination is.
func nextHopMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0, 0, 0x4d, 0x02} }

// overlayConfig is how the overlay device must be.
type overlayConfig struct {
	hostIP netip.Addr
	port   uint16
	mtu    int
}

// errPortInUse is the error of an overlay port that something else on the host
// has, such as another VXLAN device: one that carries its metadata outside
// shares its port with none.
var errPortInUse = errors.New("the overlay's UDP port is in use: choose another one with --overlay-port, the same on every host")

// errForeignDevice is the error of a device with the overlay's name that cannot
// be ours.
var errForeignDevice = errors.New("a device of this name is there, and not from here: rename it")

// ensureOverlay makes the overlay device, or mends it, and counts the changes.
// One of ours that has another port, say, is replaced: while it is away the
// unreachable routes hold its traffic.
func ensureOverlay(nl *netlink.Handle, want overlayConfig) (link netlink.Link, changes int, err error) {
	link, err = nl.LinkByName(overlayName)
	switch {
	case isLinkNotFound(err):
		link = nil
	case err != nil:
		return nil, 0, fmt.Errorf("look up overlay device %s: %w", overlayName, err)
	case !isOwnOverlay(link):
		return nil, 0, fmt.Errorf("look up overlay device %s: %w", overlayName, errForeignDevice)
	case !isOverlay(link, want):
		if err := nl.LinkDel(link); err != nil {
			return nil, 0, fmt.Errorf("replace overlay device %s, which has other settings: %w", overlayName, err)
		}
		changes++
		link = nil
	}
	if link == nil {
		if link, err = addOverlay(nl, want); err != nil {
			return nil, changes, err
		}
		changes++
	}
	mended, err := mendOverlay(nl, link, want)
	return link, changes + mended, err
}

// isOwnOverlay tells whether a device with the overlay's name is of ours, be it
// with other settings: nobody else makes a VXLAN device of that name with its
// metadata outside.
func isOwnOverlay(link netlink.Link) bool {
	vxlan, ok := link.(*netlink.Vxlan)
	return ok && vxlan.FlowBased
}

func isOverlay(link netlink.Link, want overlayConfig) bool {
	vxlan, ok := link.(*netlink.Vxlan)
	return ok && vxlan.FlowBased && !vxlan.Learning && vxlan.Port == int(want.port) &&
		vxlan.HardwareAddr.String() == overlayMAC(want.hostIP).String()
}

func addOverlay(nl *netlink.Handle, want overlayConfig) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = overlayName, want.mtu, overlayMAC(want.hostIP)
	overlay := &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Learning: false, Port: int(want.port)}
	err := nl.LinkAdd(overlay)
	if err != nil {
		return nil, portError("add overlay device "+overlayName, vxlanSharing(nl, overlay), err)
	}
	link, err := nl.LinkByName(overlayName)
	if err != nil {
		return nil, fmt.Errorf("look up overlay device %s just added: %w", overlayName, err)
	}
	return link, nil
}

// portError says what failed, and more if that was because of the port. The
// kernel refuses a second device with the same outside metadata as soon as it
// is added (EEXIST), and anything else at the port when the device goes up
// (EADDRINUSE).
func portError(what, owner string, err error) error {
	switch {
	case !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: %w", what, err)
	case owner != "":
		return fmt.Errorf("%s: %w: device %s has it: %w", what, errPortInUse, owner, err)
	default:
		return fmt.Errorf("%s: %w: %w", what, errPortInUse, err)
	}
}

// vxlanSharing names another VXLAN device at the overlay's port; empty where
// there is none, or none that can be found.
func vxlanSharing(nl *netlink.Handle, overlay netlink.Link) string {
	links, err := nl.LinkList()
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

// mendOverlay sets what can change while the device lives. The device goes up
// last: no packet passes it before its programs are attached and its reverse
// path filter is loose.
func mendOverlay(nl *netlink.Handle, link netlink.Link, want overlayConfig) (changes int, err error) {
	var errs []error
	if link.Attrs().MTU != want.mtu {
		errs = append(errs, count(&changes, "set MTU of "+overlayName, nl.LinkSetMTU(link, want.mtu)))
	}
	n, err := ensureSysctl(ifaceSysctl(overlayName, "rp_filter"), "2")
	changes += n
	errs = append(errs, err)
	n, err = ensureOverlayAddress(nl, link)
	changes += n
	errs = append(errs, err)
	return changes, errors.Join(errs...)
}

// raiseOverlay sets the device up and gives it its neighbour, which the kernel
// forgets while it is down.
func raiseOverlay(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := nl.LinkSetUp(link); err != nil {
			return 0, portError("set up overlay device "+overlayName, vxlanSharing(nl, link), err)
		}
		changes++
	}
	n, err := ensureNextHop(nl, link)
	return changes + n, err
}

func ensureOverlayAddress(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	addrs, err := nl.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("list addresses of %s: %w", overlayName, err)
	}
	want := overlayAddress().String()
	for _, a := range addrs {
		if a.IPNet.String() == want {
			return 0, nil
		}
	}
	addr := &netlink.Addr{IPNet: ipNet(overlayAddress()), Scope: int(netlink.SCOPE_LINK)}
	return changes, count(&changes, "add address of "+overlayName, nl.AddrReplace(link, addr))
}

func ensureNextHop(nl *netlink.Handle, link netlink.Link) (changes int, err error) {
	neighs, err := nl.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("list neighbours of %s: %w", overlayName, err)
	}
	for _, n := range neighs {
		if a, _ := netip.AddrFromSlice(n.IP.To4()); a == overlayNextHop() && n.State&netlink.NUD_PERMANENT != 0 &&
			n.HardwareAddr.String() == nextHopMAC().String() {
			return 0, nil
		}
	}
	return changes, count(&changes, "set neighbour of "+overlayName, nl.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: overlayNextHop().AsSlice(), HardwareAddr: nextHopMAC(),
	}))
}

// removeOverlay deletes the overlay device, and with it its routes, addresses
// and programs.
func removeOverlay(nl *netlink.Handle) (removed bool, err error) {
	link, err := nl.LinkByName(overlayName)
	if isLinkNotFound(err) || (err == nil && !isOwnOverlay(link)) {
		return false, nil
	}
	if err == nil {
		err = nl.LinkDel(link)
	}
	if err != nil {
		return false, fmt.Errorf("delete overlay device %s: %w", overlayName, err)
	}
	return true, nil
}

// count adds 1 to changes where err is nil, else says what failed.
func count(changes *int, what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	*changes++
	return nil
}

func isLinkNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
