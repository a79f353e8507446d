package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// ErrServed is the error of Lock on a host that has a State already.
var ErrServed = errors.New("an agent has served this host since it booted")

// Lock makes the kernel of a host that has just booted drop what pods send to the
// outside, before there are any pods: s says what is inside and which networks are
// pods', with Strict, and has no pods and no egress IPs. The first Apply takes over
// from there without a gap. Addresses of ours that the host booted with are deleted.
//
// On a host that an agent has served since the boot Lock changes nothing and returns
// ErrServed: the former State would be lost. An invalid HostIP stands for that of the
// default route. Where the host has no network yet, all that drops packets is put in
// place nevertheless; what is missing is reported in the warnings. Any other error
// means that the packets of pods are not dropped.
func (d *Dataplane) Lock(ctx context.Context, s State) (Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	served, err := d.served()
	if err != nil {
		return Report{}, err
	}
	if served {
		return Report{}, ErrServed
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
	p.locksBoot = true
	err = p.run(ctx)
	if p.rulesErr != nil || len(p.report.Backends) == 0 {
		return p.report, errors.Join(err, ctx.Err())
	}
	if err := errors.Join(append(problems, err)...); err != nil {
		p.report.Warnings = append(p.report.Warnings, warning.Missing(err))
	}
	return p.report, ctx.Err()
}

// served reports whether the kernel has pods or egress IPs of either family, in sets of any
// backend.
func (d *Dataplane) served() (bool, error) {
	content, err := d.nft.Observe()
	if err != nil {
		return false, err
	}
	members := 0
	for _, set := range []string{setPods, setIPs, setPods6, setIPs6} {
		entries, err := ipset.List(set)
		if err != nil {
			return false, err
		}
		members += len(content.Sets[set]) + len(entries)
	}
	return members > 0, nil
}

// defaultSource returns the source address of the host's own packets that take the
// default route: of IPv4, or of IPv6 where there is none of IPv4.
func defaultSource(nl *netlink.Handle) (netip.Addr, error) {
	route, err := defaultRoute(nl, false)
	if errors.Is(err, errNoDefaultRoute) {
		if route6, err6 := defaultRoute(nl, true); err6 == nil {
			route, err = route6, nil
		}
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the host's address by its default route: %w", err)
	}
	chosen, _ := netip.AddrFromSlice(route.Src)
	ip, err := address.Source(nl, route.LinkIndex, chosen.Unmap())
	if err == nil && !ip.IsValid() {
		err = errors.New("the route has none")
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the host's address by its default route: %w", err)
	}
	return ip, nil
}
