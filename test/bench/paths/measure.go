package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// measurement is one figure about a way.
type measurement struct {
	name, unit   string
	lessIsBetter bool
	take         func(ctx context.Context, w *world, each time.Duration) (float64, error)
}

func measurements() []measurement {
	return []measurement{
		{name: "TCP, 1 stream", unit: "Gbit/s", take: throughput(1)},
		{name: "TCP, 8 streams", unit: "Gbit/s", take: throughput(8)},
		{name: "UDP packets of 64 bytes", unit: "packets/s", take: packets},
		{name: "request and answer, median", unit: "µs", lessIsBetter: true, take: latency(0.5)},
		{name: "request and answer, 99th percentile", unit: "µs", lessIsBetter: true, take: latency(0.99)},
		{name: "new connections", unit: "connections/s", take: connections},
	}
}

// serve starts the servers of a world. They end with their listeners, which end with the program.
func (w *world) serve(ctx context.Context) error {
	for port, handle := range map[int]func(net.Conn) error{
		streams: func(c net.Conn) error { _, err := io.Copy(io.Discard, onlyReader{c}); return err },
		asked:   echo,
		connected: func(c net.Conn) error {
			_, err := io.CopyN(c, c, 1)
			return err
		},
	} {
		l, err := w.listen(ctx, port)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				w.sees(c.RemoteAddr())
				go func() {
					_ = handle(c) // the client tells what went wrong
					_ = c.Close()
				}()
			}
		}()
	}
	return nil
}

// onlyReader hides that the kernel could move the bytes by itself.
type onlyReader struct{ io.Reader }

func echo(c net.Conn) error {
	var b [1]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return err
		}
		if _, err := c.Write(b[:]); err != nil {
			return err
		}
	}
}

// seen is what a server saw of the sources of connections.
type seen struct {
	mu     sync.Mutex
	count  int
	others string // a source that it saw and should not have
}

func (w *world) sees(from net.Addr) {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	w.seen.count++
	if tcp, ok := from.(*net.TCPAddr); !ok || tcp.IP.String() != w.expect {
		w.seen.others = from.String()
	}
}

// dial connects the pod with a port of the server. The caller is inside the pod.
func dial(ctx context.Context, port int) (*net.TCPConn, error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp4", fmt.Sprintf("%s:%d", serverIP, port))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func (w *world) dial(ctx context.Context, port int) (*net.TCPConn, error) {
	return within(w.pod, func() (*net.TCPConn, error) { return dial(ctx, port) })
}

// throughput sends by some connections at the same time. The first fifth of a turn does not count.
func throughput(count int) func(context.Context, *world, time.Duration) (float64, error) {
	return func(ctx context.Context, w *world, each time.Duration) (float64, error) {
		var g errgroup.Group
		sums := make([]float64, count)
		for i := range count {
			c, err := w.dial(ctx, streams)
			if err != nil {
				return 0, errors.Join(err, g.Wait())
			}
			g.Go(func() error {
				var err error
				sums[i], err = pour(c, each)
				return errors.Join(err, c.SetLinger(0), c.Close())
			})
		}
		err := g.Wait()
		var sum float64
		for _, s := range sums {
			sum += s
		}
		return sum / 1e9, err
	}
}

// pour writes for a turn, and returns the bits per second.
func pour(c net.Conn, each time.Duration) (float64, error) {
	buffer := make([]byte, 256<<10)
	began := time.Now()
	counted, bytes := began.Add(each/5), 0
	for now := began; now.Sub(began) < each; now = time.Now() {
		n, err := c.Write(buffer)
		if err != nil {
			return 0, err
		}
		if now.After(counted) {
			bytes += n
		}
	}
	return float64(bytes) * 8 / time.Since(counted).Seconds(), nil
}

// packets sends from one thread, and counts what the server's device received.
func packets(_ context.Context, w *world, each time.Duration) (float64, error) {
	received := func() (uint64, error) {
		return within(w.server, func() (uint64, error) {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return 0, err
			}
			return link.Attrs().Statistics.RxPackets, nil
		})
	}
	before, err := received()
	if err != nil {
		return 0, err
	}
	took, err := within(w.pod, func() (time.Duration, error) { return send(each) })
	if err != nil {
		return 0, err
	}
	after, err := received()
	return float64(after-before) / took.Seconds(), err
}

func send(each time.Duration) (_ time.Duration, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 168, 7, 72}, Port: sink}); err != nil {
		return 0, err
	}
	payload := make([]byte, 64)
	began := time.Now()
	for time.Since(began) < each {
		for range 64 {
			if _, err := unix.Write(fd, payload); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}

// latency asks over one connection, one byte at a time.
func latency(quantile float64) func(context.Context, *world, time.Duration) (float64, error) {
	return func(ctx context.Context, w *world, each time.Duration) (_ float64, err error) {
		c, err := w.dial(ctx, asked)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, c.SetLinger(0), c.Close()) }()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var took []time.Duration
		var b [1]byte
		for began := time.Now(); time.Since(began) < each; {
			asked := time.Now()
			if _, err := c.Write(b[:]); err != nil {
				return 0, err
			}
			if _, err := io.ReadFull(c, b[:]); err != nil {
				return 0, err
			}
			took = append(took, time.Since(asked))
		}
		slices.Sort(took)
		return float64(took[int(quantile*float64(len(took)-1))].Nanoseconds()) / 1e3, nil
	}
}

// askOnce opens a connection, has a byte answered, and resets it: nothing of it stays.
func askOnce(ctx context.Context, w *world) (struct{}, error) {
	return within(w.pod, func() (struct{}, error) { return struct{}{}, ask(ctx) })
}

func ask(ctx context.Context) (err error) {
	c, err := dial(ctx, connected)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.SetLinger(0), c.Close()) }()
	var b [1]byte
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	_, err = io.ReadFull(c, b[:])
	return err
}

// connections opens connections, four at a time.
func connections(ctx context.Context, w *world, each time.Duration) (float64, error) {
	const clients = 4
	var g errgroup.Group
	counts := make([]int, clients)
	began := time.Now()
	for i := range clients {
		g.Go(func() error {
			var err error
			counts[i], err = within(w.pod, func() (count int, err error) {
				for ; time.Since(began) < each && err == nil; count++ {
					err = ask(ctx)
				}
				return count, err
			})
			return err
		})
	}
	err := g.Wait()
	took, sum := time.Since(began), 0
	for _, c := range counts {
		sum += c
	}
	return float64(sum) / took.Seconds(), err
}
