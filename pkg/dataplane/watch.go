package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// watchWake bounds how long a listener takes to see that its ctx has ended.
const watchWake = 500 * time.Millisecond

// watch calls drift whenever the kernel says that something changed which may
// be ours, until ctx ends. Passes of ours are heard too: the next one then finds
// nothing to do. Of ipsets, BPF maps and legacy iptables the kernel tells
// nothing.
func watch(ctx context.Context, drift func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return listen(ctx, drift, unix.NETLINK_ROUTE, concernsRouting,
			unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_TC)
	})
	g.Go(func() error {
		return listen(ctx, drift, unix.NETLINK_NETFILTER, func(uint16, []byte) bool { return true }, unix.NFNLGRP_NFTABLES)
	})
	return g.Wait()
}

// listen receives the messages of some multicast groups.
func listen(ctx context.Context, drift func(), protocol int, concerns func(typ uint16, data []byte) bool, groups ...uint) (err error) {
	s, err := nl.Subscribe(protocol, groups...)
	if err != nil {
		return fmt.Errorf("subscribe to netlink protocol %d: %w", protocol, err)
	}
	defer s.Close()
	wake := unix.NsecToTimeval(watchWake.Nanoseconds())
	if err := s.SetReceiveTimeout(&wake); err != nil {
		return fmt.Errorf("set time-out of netlink socket: %w", err)
	}
	for ctx.Err() == nil {
		msgs, _, err := s.Receive()
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			drift() // more happened than the socket could hold
			continue
		case err != nil:
			return fmt.Errorf("receive from netlink protocol %d: %w", protocol, err)
		}
		for _, m := range msgs {
			if concerns(m.Header.Type, m.Data) {
				drift()
				break
			}
		}
	}
	return nil
}

// concernsRouting leaves out routes of other tables, which change often where a
// routing daemon or a CNI runs.
func concernsRouting(typ uint16, data []byte) bool {
	if typ != unix.RTM_NEWROUTE && typ != unix.RTM_DELROUTE {
		return true
	}
	if len(data) < unix.SizeofRtMsg {
		return false
	}
	table := uint32(data[4]) // rtm_table, where the number fits
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofRtMsg:])
	if err != nil {
		return true
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_TABLE && len(a.Value) == 4 {
			table = binary.NativeEndian.Uint32(a.Value)
		}
	}
	return table == tableRemote || table == tableReturn
}
