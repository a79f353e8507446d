package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// connectTimeout is below the second after which the kernel sends a SYN again:
// each connection that is not answered is one packet.
const connectTimeout = 900 * time.Millisecond

// chatter sends to servers of serve, such as one of each family, in three ways at once, until
// ctx ends. The more servers, the longer the intervals of each, so that it sends as much in all:
//
//	C  a TCP connection at each interval, which says its line and is reset
//	U  a datagram at each interval, all of one socket
//	S  a line at each fifth interval over one long TCP connection, which is
//	   opened again when it hears nothing for two seconds
//
// What it sends is "KIND ID NUMBER": each packet with a payload says whose it
// is. Whether it was answered, the other side sees: it gets the line of a
// connection only where its own answer to the SYN has arrived.
func chatter(ctx context.Context, addresses []string, o options) error {
	var chats []chat
	o.every *= time.Duration(max(1, len(addresses)))
	for _, address := range addresses {
		host, portText, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("chatter: %w", err)
		}
		port, err := strconv.Atoi(portText)
		if err != nil {
			return fmt.Errorf("chatter: %w", err)
		}
		chats = append(chats, chat{datagrams: address, lines: net.JoinHostPort(host, strconv.Itoa(port+1)), o: o})
	}
	if len(chats) == 0 {
		return errors.New("chatter: give the address of a server")
	}
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	var all sync.WaitGroup
	for _, c := range chats {
		all.Go(func() { c.connections(ctx) })
		all.Go(func() { c.udp(ctx) })
		all.Go(func() { c.stream(ctx) })
	}
	all.Wait()
	return nil
}

type chat struct {
	datagrams, lines string
	o                options
}

func (c chat) line(kind string, n int) string { return fmt.Sprintf("%s %s %d\n", kind, c.o.id, n) }

// connections opens one at each interval, whether or not earlier ones were
// answered.
func (c chat) connections(ctx context.Context) {
	tick := time.NewTicker(c.o.every)
	defer tick.Stop()
	for n := 1; ; n++ {
		go func() {
			conn, err := net.DialTimeout("tcp", c.lines, connectTimeout)
			if err != nil {
				return // that it is missing is what the other side sees
			}
			defer conn.Close()
			if tcp, ok := conn.(*net.TCPConn); ok {
				// A reset leaves nothing to wait for, here and on the way.
				_ = tcp.SetLinger(0)
			}
			_, _ = fmt.Fprint(conn, c.line("C", n))
		}()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// udp keeps its socket, and so its flow, for good.
func (c chat) udp(ctx context.Context) {
	tick := time.NewTicker(c.o.every)
	defer tick.Stop()
	var conn net.Conn
	for n := 1; ; n++ {
		if conn == nil {
			// Fails while the pod has no route yet.
			conn, _ = net.Dial("udp", c.datagrams)
		}
		if conn != nil {
			// Errors are about earlier datagrams.
			_, _ = fmt.Fprint(conn, c.line("U", n))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c chat) stream(ctx context.Context) {
	tick := time.NewTicker(5 * c.o.every)
	defer tick.Stop()
	var conn net.Conn
	var in *bufio.Reader
	for n := 1; ; n++ {
		if conn == nil {
			if opened, err := net.DialTimeout("tcp", c.lines, connectTimeout); err == nil {
				conn, in = opened, bufio.NewReader(opened)
			}
		}
		if conn != nil && c.ask(conn, in, n) != nil {
			conn.Close()
			conn = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask sends a line of the long connection and reads the answer.
func (c chat) ask(conn net.Conn, in *bufio.Reader, n int) error {
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(conn, c.line("S", n)); err != nil {
		return err
	}
	_, err := in.ReadString('\n')
	return err
}
