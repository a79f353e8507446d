package neigh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// claim is what a machine on a segment said: that it has an address.
type claim struct {
	ip  netip.Addr
	mac net.HardwareAddr
}

// lan is what machines on the segment of a device say to each other about addresses: by
// ARP, and about those of IPv6 by neighbour discovery.
type lan struct {
	arp arpSocket
	// nd is nil where nobody asked for IPv6.
	nd *ndSocket
}

// openLAN opens the segment of a device. One without link-layer addresses, such as a
// tunnel, has none: ok is false.
func openLAN(link netlink.Link, withIPv6 bool) (s lan, ok bool, err error) {
	s.arp, ok, err = openARP(link)
	if err != nil || !ok {
		return lan{}, false, err
	}
	if withIPv6 {
		if err := s.addIPv6(link); err != nil {
			return lan{}, false, errors.Join(err, s.close())
		}
	}
	return s, true, nil
}

// addIPv6 begins to hear neighbour discovery.
func (s *lan) addIPv6(link netlink.Link) error {
	if s.nd != nil {
		return nil
	}
	nd, err := openND(link)
	if err == nil {
		s.nd = &nd
	}
	return err
}

func (s lan) close() error {
	err := s.arp.close()
	if s.nd != nil {
		err = errors.Join(err, s.nd.close())
	}
	return err
}

func (s lan) sockets() []packetSocket {
	if s.nd == nil {
		return []packetSocket{s.arp.packetSocket}
	}
	return []packetSocket{s.arp.packetSocket, s.nd.packetSocket}
}

// hasIPv6 reports whether there is an address of IPv6 among some.
func hasIPv6(ips []netip.Addr) bool { return slices.ContainsFunc(ips, netip.Addr.Is6) }

// errNoND is the error of an address of IPv6 where that was not asked for.
var errNoND = errors.New("neighbour discovery is not open")

// ask asks who has an address, in a way that changes no one's cache.
func (s lan) ask(ip netip.Addr) error {
	switch {
	case ip.Is4():
		return s.arp.send(s.arp.probe(ip))
	case s.nd == nil:
		return errNoND
	default:
		return s.nd.sendFrame(s.nd.probe(ip))
	}
}

// announce says that an address is here.
func (s lan) announce(ip netip.Addr) error {
	switch {
	case ip.Is4():
		return s.arp.send(s.arp.request(ip))
	case s.nd == nil:
		return errNoND
	default:
		return s.nd.sendFrame(s.nd.announcement(ip))
	}
}

// parseClaim reads a frame of either kind.
func parseClaim(frame []byte) (claim, bool) {
	if len(frame) >= 14 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 {
		return parseND(frame)
	}
	m, ok := parseARP(frame)
	return claim{ip: m.senderIP, mac: m.senderMAC}, ok
}

// frameSize holds a frame of ARP or of neighbour discovery with its options.
const frameSize = 256

// hear waits until another machine says to have an address, or ctx ends: then it is false.
func (s lan) hear(ctx context.Context) (claim, bool, error) {
	buffer := make([]byte, frameSize)
	for {
		frame, ok, err := receiveAny(ctx, buffer, s.sockets()...)
		if err != nil || !ok {
			return claim{}, false, err
		}
		if c, ok := parseClaim(frame); ok {
			return c, true, nil
		}
	}
}

// heardOf takes what came in, without waiting, up to a number of frames.
func (s lan) heardOf(most int, take func(claim)) error {
	buffer := make([]byte, frameSize)
	for _, socket := range s.sockets() {
		for range most {
			n, _, err := unix.Recvfrom(socket.fd, buffer, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENETDOWN) {
				break
			}
			if err != nil {
				return fmt.Errorf("receive from neighbours on %s: %w", socket.name, err)
			}
			if c, ok := parseClaim(buffer[:n]); ok {
				take(claim{ip: c.ip, mac: slices.Clone(c.mac)})
			}
		}
	}
	return nil
}
