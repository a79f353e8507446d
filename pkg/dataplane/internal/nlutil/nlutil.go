// Package nlutil holds what the drivers of pkg/dataplane share in their use of
// netlink. It keeps no state.
package nlutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Count adds 1 to changes where err is nil, else it says what failed.
func Count(changes *int, what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	*changes++
	return nil
}

// maxDumps bounds how often a list is asked for again.
const maxDumps = 10

// Whole asks for a list until no change in the kernel has interrupted the answer: a
// list that was interrupted may lack entries.
func Whole[T any](list func() (T, error)) (T, error) {
	all, err := list()
	for i := 1; i < maxDumps && errors.Is(err, netlink.ErrDumpInterrupted); i++ {
		all, err = list()
	}
	return all, err
}

// IsLinkNotFound reports whether err says that a device does not exist.
func IsLinkNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

// IPNet converts a prefix to the type that the netlink library takes.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// BigEndian16 returns the number whose bytes in memory are those of v in network
// byte order.
func BigEndian16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
