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

// Answers are who answered for addresses.
type Answers struct {
	// Owners are the MAC addresses of those that answered for an address.
	Owners map[netip.Addr][]net.HardwareAddr
	// Everybody are those that answered for an address that nobody has too: they
	// answer for every address, and are not among the owners.
	Everybody []net.HardwareAddr
}

// Ask asks the segment of a device by ARP who else has the addresses, all at once, in
// about 0.2 s, and also who answers for addresses that nobody has. A device without ARP
// has no segment to ask.
func Ask(ctx context.Context, link netlink.Link, ips, nobodys []netip.Addr) (_ Answers, err error) {
	a := Answers{Owners: map[netip.Addr][]net.HardwareAddr{}}
	if len(ips) == 0 {
		return a, nil
	}
	s, ok, err := openARP(link)
	if err != nil || !ok {
		return a, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	all := slices.Concat(ips, nobodys)
	answers := make(map[netip.Addr][]net.HardwareAddr, len(all))
	for _, ip := range all {
		answers[ip] = nil
	}
	for round := range arpProbes {
		for _, ip := range all {
			if err := s.send(s.probe(ip)); err != nil {
				return a, fmt.Errorf("probe for another owner of %v on %s: %w", ip, link.Attrs().Name, err)
			}
		}
		wait := arpProbeEvery
		if round == arpProbes-1 {
			wait = arpProbeWait
		}
		if err := s.collect(ctx, wait, answers); err != nil {
			return a, err
		}
	}
	for _, ip := range nobodys {
		a.Everybody = append(a.Everybody, answers[ip]...)
	}
	for _, ip := range ips {
		for _, mac := range answers[ip] {
			if !has(a.Everybody, mac) {
				a.Owners[ip] = append(a.Owners[ip], mac)
			}
		}
	}
	return a, nil
}

// probe asks who has an address, with sender 0.0.0.0: it must not change anyone's cache.
func (s arpSocket) probe(ip netip.Addr) arpMessage {
	return arpMessage{
		op: arpRequest, senderMAC: s.mac, senderIP: netip.IPv4Unspecified(),
		targetMAC: make(net.HardwareAddr, 6), targetIP: ip,
	}
}

func has(macs []net.HardwareAddr, mac net.HardwareAddr) bool {
	return slices.ContainsFunc(macs, func(m net.HardwareAddr) bool { return bytes.Equal(m, mac) })
}

// collect notes for a while who answers for the addresses that are keys.
func (s arpSocket) collect(ctx context.Context, wait time.Duration, answers map[netip.Addr][]net.HardwareAddr) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		m, ok, err := s.receive(waiting)
		if err != nil {
			return err
		}
		if !ok {
			return ctx.Err()
		}
		macs, asked := answers[m.senderIP]
		if asked && !bytes.Equal(m.senderMAC, s.mac) && !has(macs, m.senderMAC) {
			answers[m.senderIP] = append(macs, slices.Clone(m.senderMAC))
		}
	}
}
