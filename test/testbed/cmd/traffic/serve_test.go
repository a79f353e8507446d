package main

import (
	"net"
	"testing"
	"time"
)

// A server that does not get to read for seconds has lost nothing.
func TestDatagramsWaitForTheServer(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := widen(server); err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const sent = 2000
	for range sent {
		if _, err := client.Write([]byte("p-1234")); err != nil {
			t.Fatal(err)
		}
	}
	// What is sent over loopback has arrived when it has been sent.
	if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 16)
	for n := range sent {
		if _, _, err := server.ReadFrom(buffer); err != nil {
			t.Fatalf("after %d of %d datagrams: %v", n, sent, err)
		}
	}
}
