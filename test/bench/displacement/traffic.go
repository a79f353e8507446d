package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sinkPort is the server's UDP port; sendEvery the pace of the pod.
const (
	sinkPort  = 9000
	sendEvery = time.Millisecond
)

// flow is what a packet is part of.
type flow byte

const (
	// fresh is the only packet of its connection, so that NAT is asked.
	fresh flow = iota
	// lasting is of one connection, whose source was chosen before.
	lasting
	flows
)

// payloadSize is that of a packet: its flow and its number.
const payloadSize = 1 + 8

// sender sends from the pod until ctx ends: of each flow a packet, with the same
// number.
type sender struct {
	// next is the number that is sent next.
	next atomic.Uint64
}

// Ports of the pod: that of the lasting connection, and those of new ones. These are
// used in turn: at one each sendEvery, none comes again before its connection is
// forgotten.
const (
	lastingPort = 1999
	firstPort   = 2000
	lastPort    = 60000
)

func (s *sender) run(ctx context.Context, pod *place) error {
	return pod.do(func() error {
		if err := hasten(); err != nil {
			return err
		}
		long, err := udpSocket(lastingPort)
		if err != nil {
			return err
		}
		defer unix.Close(long)
		tick := time.NewTicker(sendEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			n := s.next.Load()
			short, err := udpSocket(firstPort + int(n%(lastPort-firstPort)))
			if err != nil {
				return err
			}
			err = errors.Join(send(short, fresh, n), send(long, lasting, n), unix.Close(short))
			if err != nil {
				return err
			}
			s.next.Add(1)
		}
	})
}

// udpSocket opens a socket at a port.
func udpSocket(port int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fd, fmt.Errorf("open a UDP socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return fd, errors.Join(fmt.Errorf("bind to UDP port %d: %w", port, err), unix.Close(fd))
	}
	return fd, nil
}

func send(fd int, f flow, n uint64) error {
	payload := binary.BigEndian.AppendUint64([]byte{byte(f)}, n)
	if err := unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Port: sinkPort, Addr: netip.MustParseAddr(serverIP).As4()}); err != nil {
		return fmt.Errorf("send to the server: %w", err)
	}
	return nil
}

// sink notes what arrives at the server, whatever source it has: it stands before
// all that the server's kernel might do.
type sink struct {
	fd, swallow int

	mu sync.Mutex
	// arrived reports for each packet's number whether it came.
	arrived [flows][]bool
	from    map[netip.Addr]int
	// only is the source that is right from now on; while it is not valid, all are.
	only  netip.Addr
	wrong map[netip.Addr]int
}

func newSink(server *place) (*sink, error) {
	s := &sink{fd: -1, swallow: -1, from: map[netip.Addr]int{}, wrong: map[netip.Addr]int{}}
	err := server.do(func() (err error) {
		// Nobody reads it; without it the kernel would answer with ICMP.
		if s.swallow, err = udpSocket(sinkPort); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		patience := unix.NsecToTimeval(int64(50 * time.Millisecond))
		return errors.Join(
			unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: link.Attrs().Index}),
		)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the server: %w", err), s.close())
	}
	return s, nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (s *sink) close() error {
	var errs []error
	for _, fd := range []int{s.fd, s.swallow} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

func (s *sink) run(ctx context.Context) error {
	buffer := make([]byte, 256)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(s.fd, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("receive at the server: %w", err)
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype != unix.PACKET_OUTGOING {
			s.note(buffer[:n])
		}
	}
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("ask what the server lost: %w", err)
	}
	if stats.Drops != 0 {
		return fmt.Errorf("the server lost %d packets: what was dropped on the way is unknown", stats.Drops)
	}
	return nil
}

// note takes an IPv4 packet with its header.
func (s *sink) note(b []byte) {
	if len(b) < 20 || b[9] != unix.IPPROTO_UDP {
		return
	}
	header := int(b[0]&0x0f) * 4
	if len(b) < header+8+payloadSize || binary.BigEndian.Uint16(b[header+2:]) != sinkPort {
		return
	}
	source := netip.AddrFrom4([4]byte(b[12:16]))
	payload := b[header+8:]
	f, n := flow(payload[0]), binary.BigEndian.Uint64(payload[1:])
	if f >= flows {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for uint64(len(s.arrived[f])) <= n {
		s.arrived[f] = append(s.arrived[f], false)
	}
	s.arrived[f][n] = true
	s.from[source]++
	if s.only.IsValid() && source != s.only {
		s.wrong[source]++
	}
}

// judge says which source is right from now on.
func (s *sink) judge(only netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.only = only
}

func (s *sink) seen(source netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from[source]
}

// wrongs gives the number of packets with a wrong source.
func (s *sink) wrongs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := 0
	for _, n := range s.wrong {
		sum += n
	}
	return sum
}

// reached reports whether packets from a number on have arrived, of both flows.
func (s *sink) reached(n uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, arrived := range s.arrived {
		if uint64(len(arrived)) <= n {
			return false
		}
	}
	return true
}

// missed counts the packets of a flow that did not arrive, of the numbers from
// begin to end, end not included.
func (s *sink) missed(f flow, begin, end uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := 0
	for _, came := range s.arrived[f][begin:end] {
		if !came {
			sum++
		}
	}
	return sum
}
