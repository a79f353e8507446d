package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// sourceChecks is how many hosts one pass asks the kernel about. In a large cluster the
// next pass goes on with the next ones.
const sourceChecks = 16

// errSource is the error of overlay packets with a source that other hosts do not know.
var errSource = errors.New("other hosts drop what this host sends over the overlay: make the address that the kernel chooses the node's InternalIP " +
	"(--node-ip of the kubelet), or have the route there name the InternalIP as its source (ip route ... src)")

// overlaySources remembers to which hosts the kernel sends with another source than the
// host's address.
type overlaySources struct {
	next  int
	wrong map[netip.Addr]netip.Addr
}

// checkSources asks the kernel which source its packets to other hosts get: the overlay's
// outer packets get the same one, where the kernel is too old to be told. Hosts take
// packets from hosts' own addresses only.
func (r *round) checkSources() (err error) {
	if r.uplinkErr != nil {
		return nil // reported already
	}
	known := &r.d.sources
	if r.d.source.IsValid() {
		known.wrong = nil
		return nil
	}
	hosts := r.state.Hosts
	if known.wrong == nil {
		known.wrong = map[netip.Addr]netip.Addr{}
	}
	for ip := range known.wrong {
		if !slices.Contains(hosts, ip) {
			delete(known.wrong, ip)
		}
	}
	ways, err := nlutil.OpenWays()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer func() { err = errors.Join(err, ways.Close()) }()
	for range min(len(hosts), sourceChecks) {
		known.next = (known.next + 1) % len(hosts)
		other := hosts[known.next]
		if other.Is6() != r.state.overIPv6() || other == r.state.HostIP {
			continue
		}
		delete(known.wrong, other)
		way, err := ways.To(other)
		switch {
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
			continue // no packet goes there
		case err != nil:
			return fmt.Errorf("look up the source of packets to host %v: %w", other, err)
		}
		if way.Source.IsValid() && way.Source != r.state.HostIP {
			known.wrong[other] = way.Source
		}
	}
	for _, other := range sortedAddrs(known.wrong) {
		return fmt.Errorf("packets to host %v have the source %v instead of %v: %w", other, known.wrong[other], r.state.HostIP, errSource)
	}
	return nil
}
