// Command node starts a node of the test bed and is its first process. The
// test bed calls it; people do not.
//
//	node enter CONFIG    joins the node's cgroups, starts "node init", ends
//	node init CONFIG     sets the node up and keeps its daemons running
//	node network CONFIG  runs the daemon of the node's network
//	node relay ADDRESS   passes connections of the listening socket that is
//	                     file descriptor 3 on to ADDRESS
package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/egressip-operator/egressip-operator/test/testbed/internal/node"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	err := fmt.Errorf("usage: node enter|init|network CONFIG | relay ADDRESS")
	if len(args) == 2 {
		switch args[0] {
		case "enter":
			err = node.Enter(args[1])
		case "init":
			err = node.Init(args[1])
		case "network":
			err = node.Network(args[1])
		case "relay":
			err = relay(args[1])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// relay runs in the control plane's network namespace, but the socket that it
// accepts from was opened in the machine's.
func relay(address string) error {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	for {
		near, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		go pass(near, address)
	}
}

// pass copies both ways until both sides have closed.
func pass(near net.Conn, address string) {
	defer near.Close()
	far, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(far, near)
	}()
	copyHalf(near, far)
	<-done
}

// copyHalf copies one way and passes the end of the stream on.
func copyHalf(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if tcp, ok := to.(*net.TCPConn); ok && err == nil {
		err = tcp.CloseWrite()
	}
	if err != nil {
		// The other half must not wait for a peer that is gone.
		to.Close()
		from.Close()
	}
}
