package sysctl

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// IPv4Forward is the path of the setting that lets the host forward packets.
const IPv4Forward = "/proc/sys/net/ipv4/ip_forward"

// IPv6Forward is the path of the setting that lets the host forward packets of IPv6.
const IPv6Forward = "/proc/sys/net/ipv6/conf/all/forwarding"

// Setting is an IPv4 setting of a device.
type Setting struct {
	name string
	// number is that of the kernel's enumeration IPV4_DEVCONF_*.
	number int
}

// Forwarding is whether packets that come in by the device are forwarded.
func Forwarding() Setting { return Setting{"forwarding", 1} }

// ReversePathFilter is from where the device accepts packets; 2 is loose.
func ReversePathFilter() Setting { return Setting{"rp_filter", 8} }

// PromoteSecondaries is whether the device keeps the other addresses of a network when
// the first is deleted.
func PromoteSecondaries() Setting { return Setting{"promote_secondaries", 20} }

// OfDevice returns the path of an IPv4 setting of a device.
func OfDevice(device, name string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", device, name)
}

// OfDevice6 returns the path of an IPv6 setting of a device.
func OfDevice6(device, name string) string {
	return filepath.Join("/proc/sys/net/ipv6/conf", device, name)
}

// Get reads a setting.
func Get(path string) (string, error) {
	got, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(got)), nil
}

// FilterInEffect reads the reverse path filter of a device as it takes effect: the greater one of
// its own and that of all devices. 0 is none, 1 strict, 2 loose.
func FilterInEffect(device string) (int, error) {
	greatest := 0
	for _, of := range []string{"all", device} {
		written, err := Get(OfDevice(of, ReversePathFilter().name))
		if err != nil {
			return 0, err
		}
		value, err := strconv.Atoi(written)
		if err != nil {
			return 0, fmt.Errorf("read the reverse path filter of %s: %w", of, err)
		}
		greatest = max(greatest, value)
	}
	return greatest, nil
}

// Ensure changes a setting of a device where it differs, and counts the changes. It does
// so by netlink: containers that are not privileged have /proc/sys read-only.
func Ensure(link netlink.Link, s Setting, want uint32) (changes int, err error) {
	device := link.Attrs().Name
	got, err := Get(OfDevice(device, s.name))
	if err != nil || got == fmt.Sprint(want) {
		return 0, err
	}
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	config := families.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil).AddRtAttr(inetConf|unix.NLA_F_NESTED, nil)
	config.AddRtAttr(s.number, binary.NativeEndian.AppendUint32(nil, want))
	if err := setLink(link, families); err != nil {
		return 0, fmt.Errorf("set %s of %s: %w", s.name, device, err)
	}
	return 1, nil
}

// EnsureNoAutomaticAddress keeps the kernel from giving a device an IPv6 address by itself,
// and counts the changes. One that it has stays.
func EnsureNoAutomaticAddress(link netlink.Link) (changes int, err error) {
	const setting = "addr_gen_mode"
	device := link.Attrs().Name
	got, err := Get(OfDevice6(device, setting))
	if err != nil || got == fmt.Sprint(addrGenModeNone) {
		return 0, err
	}
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	families.AddRtAttr(unix.AF_INET6|unix.NLA_F_NESTED, nil).AddRtAttr(inet6AddrGenMode, []byte{addrGenModeNone})
	if err := setLink(link, families); err != nil {
		return 0, fmt.Errorf("set %s of %s: %w", setting, device, err)
	}
	return 1, nil
}

// setLink changes settings of a device.
func setLink(link netlink.Link, settings *nl.RtAttr) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index) //nolint:gosec // the kernel's numbers fit
	req.AddData(msg)
	req.AddData(settings)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE, and a value of the latter.
const (
	inetConf         = 1
	inet6AddrGenMode = 8
	addrGenModeNone  = 1
)
