package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// watchBuffer has room, in bytes, for the messages of a burst of changes, such
// as a full sync of kube-proxy's.
const watchBuffer = 1 << 20

// watch calls drift whenever the kernel reports a change of something that may be
// ours, until ctx ends: concerns decides about what is not of netfilter. Our own changes are reported too: the next pass then finds
// nothing to do. The kernel does not report changes of ipsets, BPF maps and legacy
// iptables rules.
func watch(ctx context.Context, concerns func(typ uint16, data []byte) bool, drift func()) (err error) {
	links, err := subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_TC,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return err
	}
	defer links.Close()
	rules, err := subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return err
	}
	defer rules.Close()

	// Poll cannot wait for ctx: an eventfd wakes it.
	ended, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd that ends the watch: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(ended, binary.NativeEndian.AppendUint64(nil, 1)) // always fits: this is the only write
	})
	defer func() {
		if !stop() {
			<-woken
		}
		err = errors.Join(err, unix.Close(ended))
	}()

	fds := []unix.PollFd{
		{Fd: int32(ended), Events: unix.POLLIN},
		{Fd: int32(links.GetFd()), Events: unix.POLLIN},
		{Fd: int32(rules.GetFd()), Events: unix.POLLIN},
	}
	buffer := make([]byte, nl.RECEIVE_BUFFER_SIZE)
	for ctx.Err() == nil {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for netlink messages: %w", err)
		}
		routed, err := drain(links, buffer, concerns)
		if err != nil {
			return err
		}
		ruled, err := drain(rules, buffer, func(uint16, []byte) bool { return true })
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
	// Without CAP_NET_ADMIN the buffer keeps its size. That does no harm: an
	// overflow is noticed.
	_ = s.SetReceiveBufferSize(watchBuffer, true)
	return s, nil
}

// drain reads all pending messages, and reports whether one concerns us. concerns is asked
// about each; where messages were lost, about one of type NLMSG_OVERRUN.
func drain(s *nl.NetlinkSocket, buffer []byte, concerns func(typ uint16, data []byte) bool) (bool, error) {
	found := false
	for {
		n, _, err := unix.Recvfrom(s.GetFd(), buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return found, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			concerns(unix.NLMSG_OVERRUN, nil)
			found = true // more happened than the socket could hold
			continue
		case err != nil:
			return found, fmt.Errorf("receive netlink messages: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil { // truncated: its content is unknown
			concerns(unix.NLMSG_OVERRUN, nil)
			found = true
		}
		for _, m := range msgs {
			found = concerns(m.Header.Type, m.Data) || found
		}
	}
}

// concernsRouting leaves out routes of other tables, which change often where a
// routing daemon or a CNI runs, but for the default route: the guard follows it.
// So it leaves out addresses of IPv6 that are not ours: each router advertisement is news
// of those that follow from it. Settings are left out as well. What of all this is of networks of
// other interfaces, elsewhere knows.
func concernsRouting(typ uint16, data []byte) bool {
	switch typ {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return address.MayConcern(data)
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		return false
	default:
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
	isDefault := data[1] == 0 // rtm_dst_len
	return routing.IsOurTable(int(table)) || isDefault && table == unix.RT_TABLE_MAIN
}
