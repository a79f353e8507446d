package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sawHeader names the client's address, as the server saw it.
const sawHeader = "Saw"

// serve answers HTTP and UDP on an address and TCP lines on the next port,
// until ctx ends.
func serve(ctx context.Context, address string, o options) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	out := io.Discard
	if o.log != "" {
		file, err := os.OpenFile(o.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		defer file.Close()
		out = file
	}
	if o.name == "" {
		if o.name, err = os.Hostname(); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	s := &server{name: o.name, log: out}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	if err := widen(packets); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	lines, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port+1)))
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	web, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	failed := make(chan error, 3)
	go func() { failed <- s.packets(packets) }()
	go func() { failed <- s.lines(lines) }()
	go func() { failed <- (&http.Server{Handler: s}).Serve(web) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
}

// backlog is how many bytes of datagrams wait for a server that gets no processor time: those of
// some seconds from all pods. The kernel's default holds 277 small ones, and loses the rest
// without a word, which looks as if they had been lost on their way.
const backlog = 8 << 20

// widen gives a socket room for backlog, as far as the process may.
func widen(packets net.PacketConn) error {
	socket, ok := packets.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("%T is no UDP socket", packets)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	err = raw.Control(func(fd uintptr) { forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, backlog) })
	if errors.Is(forced, unix.EPERM) {
		forced = socket.SetReadBuffer(backlog) // up to the limit of the system
	}
	return errors.Join(err, forced)
}

// server answers with the client's address.
type server struct {
	name string
	mu   sync.Mutex // of log: one line at a time
	log  io.Writer
}

// ServeHTTP reads the whole request; ?bytes=N makes the answer N bytes long.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	received, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // the client has gone, or it will try again
	}
	w.Header().Set(sawHeader, r.RemoteAddr)
	body := fmt.Sprintf("%s saw %s, received %d bytes\n", s.name, r.RemoteAddr, received)
	if n, err := strconv.Atoi(r.URL.Query().Get("bytes")); err == nil && n >= 0 {
		body = strings.Repeat("x", n)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	// Before the answer: a client that has it finds its line in the log.
	s.record(start, r, len(body))
	// A client that has gone needs no answer.
	_, _ = io.WriteString(w, body)
}

// record writes a line in common log format.
func (s *server) record(start time.Time, r *http.Request, size int) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.log, "%s - - [%s] \"%s %s %s\" %d %d\n", host, start.Format("02/Jan/2006:15:04:05 -0700"),
		r.Method, r.URL.RequestURI(), r.Proto, http.StatusOK, size)
}

// packets answers each datagram with its source, its length and its first
// word.
func (s *server) packets(conn net.PacketConn) error {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		word, _, _ := strings.Cut(string(buffer[:min(n, 64)]), " ")
		if _, err := fmt.Fprintf(writerTo{conn, from}, "%s saw %s, %d bytes, %s\n", s.name, from, n, word); err != nil {
			continue // refused or unreachable: that client's affair
		}
	}
}

// writerTo writes datagrams to one address.
type writerTo struct {
	conn net.PacketConn
	to   net.Addr
}

func (w writerTo) Write(p []byte) (int, error) { return w.conn.WriteTo(p, w.to) }

// lines answers each line with the client's address and that line.
func (s *server) lines(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue
		}
		go func() {
			defer conn.Close()
			in := bufio.NewScanner(conn)
			for in.Scan() {
				if _, err := fmt.Fprintf(conn, "%s %s\n", conn.RemoteAddr(), in.Text()); err != nil {
					return
				}
			}
		}()
	}
}
