package endpoint

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// tryAgainAfter is the pause before a port that was taken is tried again.
const tryAgainAfter = 5 * time.Second

// listener listens on an address as soon as it can. It is safe for concurrent use.
type listener struct {
	log           logr.Logger
	what, address string
	pause         time.Duration
	closed        chan struct{}

	mu   sync.Mutex
	real net.Listener // nil until the port was free
	over bool
}

func newListener(log logr.Logger, what, address string) *listener {
	return &listener{log: log, what: what, address: address, pause: tryAgainAfter, closed: make(chan struct{})}
}

// Accept waits for a connection, and before that for the port.
func (l *listener) Accept() (net.Conn, error) {
	for warned := false; ; {
		bound, err := l.bind()
		if err == nil {
			return bound.Accept()
		}
		if !warned && !l.isOver() {
			l.log.Error(err, "WARNING: a port is taken or cannot be used; everything else works, and the port is tried again",
				"serves", l.what, "address", l.address)
			warned = true
		}
		again := time.NewTimer(l.pause)
		select {
		case <-l.closed:
			again.Stop()
			return nil, net.ErrClosed
		case <-again.C:
		}
	}
}

func (l *listener) bind() (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, net.ErrClosed
	}
	if l.real == nil {
		bound, err := net.Listen("tcp", l.address)
		if err != nil {
			return nil, fmt.Errorf("listen for %s on %s: %w", l.what, l.address, err)
		}
		l.real = bound
	}
	return l.real, nil
}

func (l *listener) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// Close ends Accept.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	l.over = true
	close(l.closed)
	if l.real == nil {
		return nil
	}
	return l.real.Close()
}

// Addr is the address that was asked for.
func (l *listener) Addr() net.Addr { return address(l.address) }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
