package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// watchBuffer is room, in bytes, for the messages of a burst of changes, such
// as a full sync of kube-proxy's.
const watchBuffer = 1 << 20

// watch calls drift whenever the kernel says that something changed which may
// be ours, until ctx ends. Passes of ours are heard too: the next one then finds
// nothing to do. Of ipsets, BPF maps and legacy iptables the kernel tells
// nothing.
func watch(ctx context.Context, drift func()) (err error) {
	routing, err := subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_TC)
	if err != nil {
		return err
	}
	defer routing.Close()
	rules, err := subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return err
	}
	defer rules.Close()

	// Poll cannot wait for ctx: an eventfd tells it.
	ended, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd to end the watch by: %w", err)
	}
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_, _ = unix.Write(ended, binary.NativeEndian.AppendUint64(nil, 1)) // fits: nobody else writes
	})
	defer func() {
		if !stop() {
			<-told
		}
		err = errors.Join(err, unix.Close(ended))
	}()

	fds := []unix.PollFd{
		{Fd: int32(ended), Events: unix.POLLIN},
		{Fd: int32(routing.GetFd()), Events: unix.POLLIN},
		{Fd: int32(rules.GetFd()), Events: unix.POLLIN},
	}
	for ctx.Err() == nil {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for netlink messages: %w", err)
		}
		routed, err := drain(routing, concernsRouting)
		if err != nil {
			return err
		}
		ruled, err := drain(rules, func(uint16, []byte) bool { return true })
		if err != nil {
			return err
		}
		if routed || ruled {
			drift()
		}
	}
	return nil
}

// subscribe joins multicast groups of a netlink protocol.
func subscribe(protocol int, groups ...uint) (*nl.NetlinkSocket, error) {
	s, err := nl.Subscribe(protocol, groups...)
	if err != nil {
		return nil, fmt.Errorf("subscribe to netlink protocol %d: %w", protocol, err)
	}
	// Without CAP_NET_ADMIN the buffer stays as it is, which is no harm: what
	// does not fit is noticed.
	_ = s.SetReceiveBufferSize(watchBuffer, true)
	return s, nil
}

// drain takes all messages that are there, and tells whether one concerns us.
func drain(s *nl.NetlinkSocket, concerns func(typ uint16, data []byte) bool) (bool, error) {
	found := false
	buffer := make([]byte, nl.RECEIVE_BUFFER_SIZE)
	for {
		n, _, err := unix.Recvfrom(s.GetFd(), buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return found, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			found = true // more happened than the socket could hold
			continue
		case err != nil:
			return found, fmt.Errorf("receive netlink messages: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buffer[:n])
		found = found || err != nil // cut off: what it said is unknown
		for _, m := range msgs {
			found = found || concerns(m.Header.Type, m.Data)
		}
	}
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
	return routing.IsOurTable(int(table))
}
