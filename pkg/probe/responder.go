package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// DefaultSourceRate is how many questions a second one source may ask: an agent
// and the controller on one host ask ten by default.
const DefaultSourceRate = 100

// ResponderConfig says how a Responder works.
type ResponderConfig struct {
	// Host is the own host's name, as in its HostSubnet.
	Host string
	// Addr is the own host's address: the responder answers on no other, in
	// particular not on egress IPs.
	Addr netip.Addr
	// Port is the UDP port; 0 is Port.
	Port uint16
	// Ready reports whether the data plane of this host works. It is called for
	// each question and must not block; nil means always.
	Ready func() bool
	// SourceRate is how many questions a second are answered to one source, and
	// as many at once; 0 is DefaultSourceRate.
	SourceRate int
	// Now is the clock; nil is the system's.
	Now func() time.Time
}

// ResponderStats count datagrams since the responder was made.
type ResponderStats struct {
	Answered, NotReady uint64
	// Foreign came from an address that belongs to no host, Limited from one that
	// exceeded the rate, and Malformed were not questions: none was answered.
	Foreign, Limited, Malformed uint64
	// WriteErrors are answers that could not be sent.
	WriteErrors uint64
}

// Responder answers probes. All methods are safe for concurrent use. Make one
// with NewResponder.
type Responder struct {
	config   ResponderConfig
	instance uint64
	hash     uint64
	known    chan struct{} // closed at the first SetSources

	mu      sync.Mutex
	sources map[netip.Addr]*bucket
	stats   ResponderStats
}

// NewResponder makes a responder. It opens nothing.
func NewResponder(c ResponderConfig) (*Responder, error) {
	if c.Port == 0 {
		c.Port = Port
	}
	if c.Ready == nil {
		c.Ready = func() bool { return true }
	}
	if c.SourceRate == 0 {
		c.SourceRate = DefaultSourceRate
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of an injected clock
	}
	c.Addr = c.Addr.Unmap()
	if c.Host == "" || !c.Addr.IsValid() {
		return nil, fmt.Errorf("answer probes for host %q on %v: needs a name and an address", c.Host, c.Addr)
	}
	if c.SourceRate < 0 {
		return nil, fmt.Errorf("answer %d probes a second: must be more than 0", c.SourceRate)
	}
	random, err := newRandom()
	if err != nil {
		return nil, err
	}
	return &Responder{config: c, instance: random.Uint64(), hash: HostHash(c.Host), known: make(chan struct{})}, nil
}

// SetSources replaces the addresses that are answered: those of all hosts. The
// memory that a responder needs is bounded by their number.
func (r *Responder) SetSources(addrs []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sources := make(map[netip.Addr]*bucket, len(addrs))
	for _, a := range addrs {
		a = a.Unmap()
		if have := r.sources[a]; have != nil {
			sources[a] = have
		} else {
			sources[a] = &bucket{}
		}
	}
	if r.sources == nil {
		close(r.known)
	}
	r.sources = sources
}

// Stats returns the counters.
func (r *Responder) Stats() ResponderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Run answers until ctx ends, and then returns nil. It returns an error when it
// cannot open its socket or cannot read from it; it may be called again then.
//
// It listens from the first SetSources on: until then the kernel refuses the probes,
// which correctly means "a host without an agent". A responder that listened without
// sources would look like a dead host.
func (r *Responder) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.known:
	}
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.config.Addr, r.config.Port))
	conn, err := net.ListenUDP(network(r.config.Addr), addr)
	if err != nil {
		return fmt.Errorf("listen for probes on %v: %w", addr, err)
	}
	if r.config.Addr.Is6() {
		if err := takeWithoutChecksum(conn); err != nil {
			return errors.Join(fmt.Errorf("set up the socket of answers to probes: %w", err), conn.Close())
		}
	}
	// The end of ctx ends the read.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = r.answer(ctx, conn)
	if stop() {
		_ = conn.Close()
	}
	return err
}

func (r *Responder) answer(ctx context.Context, conn *net.UDPConn) error {
	b := make([]byte, maxDatagram)
	wire := make([]byte, 0, Size)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if ended(ctx) {
			return nil
		}
		switch {
		case err != nil && ofPeer(err):
			continue
		case err != nil:
			return fmt.Errorf("read probes: %w", err)
		}
		question, ok := r.admit(b[:n], from.Addr().Unmap())
		if !ok {
			continue
		}
		ready := r.config.Ready()
		wire = Message{
			Kind: Answer, Ready: ready, Sequence: question.Sequence, Token: question.Token,
			Instance: r.instance, Host: r.hash,
		}.Append(wire[:0])
		_, err = conn.WriteToUDPAddrPort(wire, from)
		r.count(ready, err)
	}
}

// admit reports whether a datagram is a question that is answered. The bytes of an
// unknown source are not parsed.
func (r *Responder) admit(b []byte, from netip.Addr) (Message, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	source := r.sources[from]
	if source == nil {
		r.stats.Foreign++
		return Message{}, false
	}
	if !source.take(r.config.Now(), r.config.SourceRate) {
		r.stats.Limited++
		return Message{}, false
	}
	m, err := Parse(b)
	if err != nil || m.Kind != Question {
		r.stats.Malformed++
		return Message{}, false
	}
	return m, true
}

func (r *Responder) count(ready bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.stats.WriteErrors++
	case ready:
		r.stats.Answered++
	default:
		r.stats.Answered++
		r.stats.NotReady++
	}
}

// bucket lets through rate questions a second, and as many at once after a
// pause. The zero value is full.
type bucket struct {
	// full is when the bucket will be full again: less than a second ahead
	// while there is something in it.
	full time.Time
}

func (b *bucket) take(now time.Time, rate int) bool {
	if b.full.Before(now) {
		b.full = now
	}
	next := b.full.Add(time.Second / time.Duration(rate))
	if next.Sub(now) > time.Second {
		return false
	}
	b.full = next
	return true
}
