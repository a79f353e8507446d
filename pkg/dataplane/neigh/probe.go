package neigh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// Probing for another owner of an address follows RFC 5227 in kind, but waits for a
// shorter time: a failover must be quick.
const (
	arpProbes     = 3
	arpProbeEvery = 60 * time.Millisecond
	// arpProbeWait is how long the last one waits for its answer.
	arpProbeWait = 80 * time.Millisecond
)

// Owners asks the segment of a device by ARP who else has the addresses, all at
// once, in about 0.2 s. It returns the MAC address of each owner that answers. A
// device without ARP has no segment to ask: no owner is found.
func Owners(ctx context.Context, link netlink.Link, ips []netip.Addr) (_ map[netip.Addr]net.HardwareAddr, err error) {
	owners := map[netip.Addr]net.HardwareAddr{}
	if len(ips) == 0 {
		return owners, nil
	}
	s, ok, err := openARP(link)
	if err != nil || !ok {
		return owners, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	asked := make(map[netip.Addr]bool, len(ips))
	for _, ip := range ips {
		asked[ip] = true
	}
	for round := range arpProbes {
		for _, ip := range ips {
			// Sender 0.0.0.0: a probe must not change anyone's cache.
			probe := arpMessage{
				op: arpRequest, senderMAC: s.mac, senderIP: netip.IPv4Unspecified(),
				targetMAC: make(net.HardwareAddr, 6), targetIP: ip,
			}
			if err := s.send(probe); err != nil {
				return owners, fmt.Errorf("probe for another owner of %v on %s: %w", ip, link.Attrs().Name, err)
			}
		}
		wait := arpProbeEvery
		if round == arpProbes-1 {
			wait = arpProbeWait
		}
		if err := s.collect(ctx, wait, asked, owners); err != nil {
			return owners, err
		}
		if len(owners) == len(asked) {
			break
		}
	}
	return owners, nil
}

// collect notes for a while who answers for the asked addresses.
func (s arpSocket) collect(ctx context.Context, wait time.Duration, asked map[netip.Addr]bool, owners map[netip.Addr]net.HardwareAddr) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for len(owners) < len(asked) {
		m, ok, err := s.receive(waiting)
		if err != nil {
			return err
		}
		if !ok {
			return ctx.Err()
		}
		if asked[m.senderIP] && !bytes.Equal(m.senderMAC, s.mac) {
			owners[m.senderIP] = slices.Clone(m.senderMAC)
		}
	}
	return nil
}
