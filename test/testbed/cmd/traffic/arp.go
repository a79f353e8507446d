package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// whoHas asks the segment of the device eth0 by ARP, at each interval, who has
// each of some addresses, as any neighbour asks. It leaves the answers to
// a capture.
func whoHas(ctx context.Context, targets []string, o options) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return fmt.Errorf("arp: %w", err)
	}
	own, err := ownAddress(link)
	if err != nil {
		return fmt.Errorf("arp: %w", err)
	}
	var questions [][]byte
	for _, target := range targets {
		ip, err := netip.ParseAddr(target)
		if err != nil {
			return fmt.Errorf("arp: %w", err)
		}
		questions = append(questions, question(link.HardwareAddr, own, ip))
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("arp: %w", err)
	}
	defer unix.Close(fd)
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for {
		for _, q := range questions {
			if err := unix.Sendto(fd, q, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
				return fmt.Errorf("arp: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ownAddress is the first IPv4 address of a device.
func ownAddress(link *net.Interface) (netip.Addr, error) {
	addresses, err := link.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no IPv4 address", link.Name)
}

// question is the Ethernet frame of an ARP request, RFC 826.
func question(mac net.HardwareAddr, own, target netip.Addr) []byte {
	broadcast := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := append(append([]byte(nil), broadcast...), mac...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	// Ethernet and IPv4, addresses of 6 and 4 bytes, a request.
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, mac...), own.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}
