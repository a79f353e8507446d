package cri

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errDeaf says that the kernel's messages have ended, as after too many of them.
var errDeaf = errors.New("the kernel's messages of links have ended")

// listen calls came for each link of this network namespace that is new or has
// changed, until ctx ends or the kernel cannot be heard.
func listen(ctx context.Context, came func()) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, // updates is closed after it
	}); err != nil {
		return fmt.Errorf("subscribe to the kernel's links: %w", err)
	}
	came() // what came before is not told
	for {
		select {
		case <-ctx.Done():
			go func() {
				for range updates { // its sender must not be left waiting
				}
			}()
			return ctx.Err()
		case update, open := <-updates:
			if !open {
				return errDeaf
			}
			if update.Header.Type == unix.RTM_NEWLINK {
				came()
			}
		}
	}
}
