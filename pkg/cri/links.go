package cri

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errLinksEnded says that the kernel's messages have ended, as after an overflow.
var errLinksEnded = errors.New("the subscription to the kernel's links has ended")

// watchLinks calls linkUp for each link of this network namespace that is new or
// has changed, until ctx ends or the subscription fails.
func watchLinks(ctx context.Context, linkUp func()) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, // updates is closed after it
	}); err != nil {
		return fmt.Errorf("subscribe to the kernel's links: %w", err)
	}
	linkUp() // earlier links are not reported
	for {
		select {
		case <-ctx.Done():
			go func() {
				for range updates { // its sender must not be blocked forever
				}
			}()
			return ctx.Err()
		case update, open := <-updates:
			if !open {
				return errLinksEnded
			}
			if update.Header.Type == unix.RTM_NEWLINK {
				linkUp()
			}
		}
	}
}
