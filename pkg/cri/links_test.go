package cri

import (
	"context"
	"errors"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestNewLinksAreHeard: in a network namespace of its own, a new link is told, and
// the end of the context ends the listening.
func TestNewLinksAreHeard(t *testing.T) {
	t.Parallel()
	came := make(chan struct{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spaces, ended := make(chan netns.NsHandle, 1), make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the
		// namespace.
		goruntime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			ended <- err
			return
		}
		spaces <- ns
		ended <- watchLinks(ctx, func() { came <- struct{}{} })
	}()
	hears := func(what string) {
		t.Helper()
		select {
		case <-came:
		case err := <-ended:
			t.Fatalf("%s: %v", what, err)
		case <-time.After(10 * time.Second):
			t.Fatal("not heard: " + what)
		}
	}
	hears("what was there before")
	ns := <-spaces
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	if len(came) > 0 {
		t.Fatal("something is heard before there is a link")
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "inside"}
	veth.Name = "outside"
	if err := handle.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	hears("a new link")
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end with its context")
	}
}
