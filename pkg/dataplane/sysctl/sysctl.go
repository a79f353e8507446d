package sysctl

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// IPv4Forward is the path of the setting that lets the host forward packets.
const IPv4Forward = "/proc/sys/net/ipv4/ip_forward"

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

// Get reads a setting.
func Get(path string) (string, error) {
	got, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(got)), nil
}

// Ensure changes a setting of a device where it differs, and counts the changes. It does
// so by netlink: containers that are not privileged have /proc/sys read-only.
func Ensure(link netlink.Link, s Setting, want uint32) (changes int, err error) {
	device := link.Attrs().Name
	got, err := Get(OfDevice(device, s.name))
	if err != nil || got == fmt.Sprint(want) {
		return 0, err
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index) //nolint:gosec // the kernel's numbers fit
	req.AddData(msg)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	config := families.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil).AddRtAttr(inetConf|unix.NLA_F_NESTED, nil)
	config.AddRtAttr(s.number, binary.NativeEndian.AppendUint32(nil, want))
	req.AddData(families)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return 0, fmt.Errorf("set %s of %s: %w", s.name, device, err)
	}
	return 1, nil
}

// inetConf is IFLA_INET_CONF.
const inetConf = 1
