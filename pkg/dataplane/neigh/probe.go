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
	probes     = 3
	probeEvery = 60 * time.Millisecond
	// probeWait is how long the last one waits for its answer.
	probeWait = 80 * time.Millisecond
)

// Answers are who answered for addresses.
type Answers struct {
	// Owners are the MAC addresses of those that answered for an address.
	Owners map[netip.Addr][]net.HardwareAddr
	// Everybody are those that answered for an address that nobody has too: they
	// answer for every address, and are not among the owners.
	Everybody []net.HardwareAddr
}

// Ask asks the segment of a device who else has the addresses, by ARP or neighbour discovery,
// all at once, in about 0.2 s, and also who answers for addresses that nobody has. A device
// without either has no segment to ask.
func Ask(ctx context.Context, link netlink.Link, ips, nobodys []netip.Addr) (_ Answers, err error) {
	a := Answers{Owners: map[netip.Addr][]net.HardwareAddr{}}
	if len(ips) == 0 {
		return a, nil
	}
	s, ok, err := openLAN(link, hasIPv6(ips))
	if err != nil || !ok {
		return a, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	nobodys = slices.DeleteFunc(slices.Clone(nobodys), func(ip netip.Addr) bool { return ip.Is6() && !hasIPv6(ips) })
	all := slices.Concat(ips, nobodys)
	answers := make(map[netip.Addr][]net.HardwareAddr, len(all))
	for _, ip := range all {
		answers[ip] = nil
	}
	for round := range probes {
		for _, ip := range all {
			if err := s.ask(ip); err != nil {
				return a, fmt.Errorf("probe for another owner of %v on %s: %w", ip, link.Attrs().Name, err)
			}
		}
		wait := probeEvery
		if round == probes-1 {
			wait = probeWait
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

func has(macs []net.HardwareAddr, mac net.HardwareAddr) bool {
	return slices.ContainsFunc(macs, func(m net.HardwareAddr) bool { return bytes.Equal(m, mac) })
}

// collect notes for a while who answers for the addresses that are keys.
func (s lan) collect(ctx context.Context, wait time.Duration, answers map[netip.Addr][]net.HardwareAddr) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		c, ok, err := s.hear(waiting)
		if err != nil {
			return err
		}
		if !ok {
			return ctx.Err()
		}
		macs, asked := answers[c.ip]
		if asked && !bytes.Equal(c.mac, s.arp.mac) && !has(macs, c.mac) {
			answers[c.ip] = append(macs, slices.Clone(c.mac))
		}
	}
}
