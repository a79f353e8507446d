package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// receiveBuffer, in bytes, holds the answers of a thousand hosts while the
// prober does not run. The kernel grants less where net.core.rmem_max says so.
const receiveBuffer = 1 << 20

func (p *Prober) open() (*net.UDPConn, error) {
	source := net.UDPAddr{}
	if p.config.Source.IsValid() {
		source.IP = p.config.Source.AsSlice()
	}
	conn, err := net.ListenUDP(network(p.config.Source), &source)
	if err != nil {
		return nil, fmt.Errorf("open the prober's socket: %w", err)
	}
	if err := errors.Join(conn.SetReadBuffer(receiveBuffer), setOptions(conn, p.config.Source.Is6())); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the prober's socket: %w", err), conn.Close())
	}
	return conn, nil
}

// network is the name of UDP over the family of an address, as package net has it. Without an
// address it is IPv4.
func network(ip netip.Addr) string {
	if ip.Is6() {
		return "udp6"
	}
	return "udp4"
}

// ask sends the questions.
func (p *Prober) ask(ctx context.Context, conn *net.UDPConn) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var questions []datagram
	var wire []byte
	way := newOverlayWay(p.config.Device, p.config.Source)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.targets:
		case <-timer.C:
		}
		var wait time.Duration
		var failed uint64
		questions, wait = p.step(questions[:0])
		way.look(conn)
		for _, q := range questions {
			wire = q.message.Append(wire[:0])
			control := way.to(q)
			err := way.prepare(conn, control)
			if err == nil {
				err = p.send(conn, wire, control, netip.AddrPortFrom(q.addr, p.config.Port))
			}
			if err != nil {
				// No route or no buffer: the probe is missed at its timeout, as
				// any other.
				failed++
			}
		}
		if failed > 0 {
			p.mu.Lock()
			p.stats.SendErrors += failed
			p.mu.Unlock()
		}
		if wait < 0 {
			timer.Stop()
		} else {
			timer.Reset(wait)
		}
	}
}

// step returns the questions that are due, and the time until the next step, which
// is negative if there is none.
func (p *Prober) step(questions []datagram) ([]datagram, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.config.Now()
	questions, missed := p.schedule.step(now, questions)
	p.stats.Sent += uint64(len(questions))
	p.observe(now, missed...)
	if p.view.Isolated {
		p.publish(now) // isolation can end by time alone
	}
	next, ok := p.schedule.wake(now)
	if !ok {
		return questions, -1
	}
	return questions, next.Sub(now)
}

// send tries again if the error belongs to an earlier datagram: the kernel reports a
// refusal to the next call on the socket.
func (p *Prober) send(conn *net.UDPConn, b, control []byte, to netip.AddrPort) error {
	_, _, err := conn.WriteMsgUDPAddrPort(b, control, to)
	if err == nil {
		return nil
	}
	p.takeRefusals(conn)
	_, _, err = conn.WriteMsgUDPAddrPort(b, control, to)
	return err
}

// receive reads the answers.
func (p *Prober) receive(ctx context.Context, conn *net.UDPConn) error {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if ended(ctx) {
			return nil
		}
		switch {
		case err == nil:
			p.take(b[:n], from)
		case ofPeer(err):
			p.takeRefusals(conn)
		default:
			return fmt.Errorf("read answers to probes: %w", err)
		}
	}
}

// ofPeer reports whether an error is about the path of a datagram rather than about
// the socket.
func ofPeer(err error) bool {
	for _, e := range []unix.Errno{
		unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EPROTO, unix.EOPNOTSUPP, unix.EMSGSIZE, unix.EACCES, unix.EPERM, unix.ENOBUFS,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// take handles one datagram.
func (p *Prober) take(b []byte, from netip.AddrPort) {
	m, err := Parse(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.config.Now()
	if err == nil && from.Port() == p.config.Port {
		if r, ok := p.schedule.answer(m, from.Addr().Unmap(), now); ok {
			p.observe(now, r)
			return
		}
	}
	p.stats.Stray++
}

func (p *Prober) takeRefusals(conn *net.UDPConn) {
	for _, r := range refusals(conn) {
		m, err := Parse(r.question)
		p.mu.Lock()
		now := p.config.Now()
		report, ok := report{}, false
		if err == nil {
			report, ok = p.schedule.refused(m, r.by)
		}
		if ok {
			p.observe(now, report)
		} else {
			p.stats.Stray++
		}
		p.mu.Unlock()
	}
}

func ended(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}
