package main

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// A request ends when the server has ended its connection, and not before: its last packets
// would leave when a test has long begun to watch for wrong ones.
func TestTheServerEndsFirst(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() { served <- answerAndWait(listener) }()
	if err := get(t.Context(), "http://"+listener.Addr().String(), options{timeout: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client ended first: the server read %v", err)
	}
}

// answerAndWait answers one request, and returns how its connection ended within a moment,
// before the server ended it.
func answerAndWait(listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if _, err := http.ReadRequest(in); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	_, err = in.ReadByte()
	return err
}
