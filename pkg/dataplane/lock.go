package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
)

// ErrServed is the error of Lock on a host that has a State already.
var ErrServed = errors.New("an agent has served this host since it booted")

// Lock makes the kernel of a host that has just booted hold back its pods before
// there are any: s says what is inside and which networks are pods', with Strict,
// and names no pods and no egress IPs. The first Apply takes over from there
// without a gap. Addresses of ours that the host came up with are taken off.
//
// On a host that an agent has served since the boot it changes nothing, and
// returns ErrServed: the State of before would be lost. With an invalid HostIP,
// that of the default route is taken. Where the host has no network yet, all that
// holds packets back is put in place nevertheless; what is missing is among the
// warnings. Another error means that pods are not held back.
func (d *Dataplane) Lock(ctx context.Context, s State) (Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, set := range []string{setPods, setIPs} {
		entries, err := ipset.List(set)
		if err != nil {
			return Report{}, err
		}
		if len(entries) > 0 {
			return Report{}, ErrServed
		}
	}
	var problems []error
	if !s.HostIP.IsValid() {
		ip, err := defaultSource(d.nl)
		problems = append(problems, err)
		s.HostIP = ip
	}
	if s.HostIP.IsValid() {
		s.Hosts = append([]netip.Addr{s.HostIP}, s.Hosts...)
	}
	p := newPass(d, s)
	err := p.run(ctx)
	if p.rulesErr != nil || len(p.report.Backends) == 0 {
		return p.report, errors.Join(err, ctx.Err())
	}
	if err := errors.Join(append(problems, err)...); err != nil {
		p.report.Warnings = append(p.report.Warnings, err.Error())
	}
	return p.report, ctx.Err()
}

// defaultSource is the address with which the host itself leaves by its default
// route.
func defaultSource(nl *netlink.Handle) (netip.Addr, error) {
	// Of a network that is kept for documentation: only the default route leads
	// there.
	routes, err := nl.RouteGet(net.IPv4(192, 0, 2, 1))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the host's address by its default route: %w", err)
	}
	for _, r := range routes {
		if ip, ok := netip.AddrFromSlice(r.Src.To4()); ok {
			return ip, nil
		}
	}
	return netip.Addr{}, errors.New("find the host's address by its default route: the route has none")
}
