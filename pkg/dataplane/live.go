package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/podlink"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// meant is what the last round wanted of all that does not depend on pods: what is read back is
// compared with it. It does not change.
type meant struct {
	choice choice
	// use are the backends that hold the rules, use6 those of iptables that hold those for IPv6.
	use, use6 []Backend
	params    rules.Params
	tables    *routing.Tables
}

// keepMeant keeps what a round wants for Live.
func (r *round) keepMeant(use, use6 []Backend, params rules.Params) {
	if r.d.choice == nil || r.d.routed.tables == nil {
		return
	}
	params.Indices = maps.Clone(params.Indices)
	r.d.meant.Store(&meant{choice: *r.d.choice, use: slices.Clone(use), use6: slices.Clone(use6), params: params, tables: r.d.routed.tables})
}

// Live reads back what the kernel has for the packets of one pod. It takes nothing from what Apply
// has seen or meant, but for the rules and routes that are the same for all pods: of these it
// reports how they differ. It changes nothing, and neither waits for Apply nor holds it up. With
// rules in nftables it reads our tables whole, with iptables all rules of the backends in use. It
// works in the network namespace of the calling thread.
func (d *Dataplane) Live(ctx context.Context, q live.Query) (_ live.Host, err error) {
	was := d.meant.Load()
	if was == nil {
		return live.Host{}, ErrNotOpen
	}
	l, err := d.openLook(*was)
	if err != nil {
		return live.Host{}, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	l.read(ctx, q)
	if q.Sender {
		l.host.Sender = l.sender(q)
	}
	if q.EgressIP.IsValid() {
		l.host.Egress = l.egress(q)
	}
	l.compare()
	return l.host, ctx.Err()
}

// liveLook is one look at the kernel, by handles of its own.
type liveLook struct {
	meant
	// d has the handles, and nothing else.
	d     *Dataplane
	seen  bpf.Seen
	over  netlink.Link
	k     kernel
	facts podlink.Facts
	known indices
	host  live.Host
	// unseen: the sets could not be read.
	unseen bool
}

func (d *Dataplane) openLook(was meant) (*liveLook, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	nft, err := nftables.Open(false)
	if err != nil {
		nl.Close()
		return nil, err
	}
	reader := &Dataplane{cfg: d.cfg, nl: nl, nft: nft, noTables: nft.Absent, choice: &was.choice, ipv6: d.ipv6, iptablesUsed: was.use}
	l := &liveLook{meant: was, d: reader, host: live.Host{Backend: string(NFTables)}}
	if !was.choice.table {
		reader.iptables, reader.ip6tables, l.host.Backend = d.iptables, d.ip6tables, "iptables"
	}
	return l, nil
}

func (l *liveLook) close() error {
	l.d.nl.Close()
	return errors.Join(l.d.nft.Close(), l.seen.Close())
}

// unread notes what could not be read.
func (l *liveLook) unread(what string, err error) {
	if err != nil {
		l.host.Unread = append(l.host.Unread, what+": "+err.Error())
	}
}

// read reads everything that may concern the pod.
func (l *liveLook) read(ctx context.Context, q live.Query) {
	var err error
	if l.over, err = overlay.Find(l.d.nl); err != nil {
		l.unread("device "+overlayName, err)
	}
	if l.over != nil {
		l.seen, err = bpf.See(l.d.nl, l.over)
		l.unread("programs and maps of "+overlayName, err)
		l.d.maps = l.seen.Maps
	}
	if l.over != nil || err == nil {
		l.host.Overlay = l.device(q.Pod.Is6())
	}
	l.k = emptyKernel()
	v := view{d: l.d, table: l.choice.table, ip6tables: len(l.use6) > 0, serve6: l.params.Serve6}
	for _, kind := range inventory() {
		if kind.observe == nil {
			continue
		}
		if err := kind.observe(ctx, v, &l.k); err != nil {
			l.unread(kind.object, err)
			l.unseen = true
		}
	}
	l.unread("rules of iptables", l.k.problem)
	l.known, _ = knownIndices(l.d.cfg.Marks, l.k)
	l.facts, err = podlink.Read(l.d.nl, []netip.Addr{q.Pod})
	l.unread("links of pods", err)
}

// device is the overlay.
func (l *liveLook) device(ipv6 bool) *live.Overlay {
	if l.over == nil {
		return &live.Overlay{}
	}
	a := l.over.Attrs()
	o := &live.Overlay{Exists: true, Up: a.Flags&net.FlagUp != 0, MTU: a.MTU, Outward: l.seen.Outward, Inward: l.seen.Inward}
	var err error
	o.NextHop, err = overlay.HasNextHop(l.d.nl, l.over, ipv6)
	l.unread("neighbours of "+overlayName, err)
	o.Filter, err = sysctl.FilterInEffect(overlayName)
	l.unread("reverse path filter of "+overlayName, err)
	return o
}

// sender is what the host has as that of the pod; nil if that could not be read.
func (l *liveLook) sender(q live.Query) *live.Sender {
	if l.unseen {
		return nil
	}
	m, s := l.d.cfg.Marks, &live.Sender{}
	s.Mark, s.Known = l.k.pods[q.Pod]
	s.Way, s.Source = l.wayOf(s.Mark, s.Known)
	_, s.Locked = l.k.locked[q.Pod]
	s.Excluded = l.k.excluded[q.Pod]
	if r, ok := l.k.routes[q.Pod]; ok {
		s.Route = &live.Route{NetID: r.NetID, Via: r.Via}
	}
	in := l.facts.Routes[q.Pod]
	s.Interface = l.facts.Links[in].Name
	if link, bound := l.k.links.Bound()[q.Pod]; bound {
		s.BoundTo = l.facts.Links[link].Name
	}
	for _, via := range q.Via {
		_, listed := l.k.hosts[via]
		s.Via = append(s.Via, live.Neighbour{Host: via, Listed: listed, Out: l.ask(routing.Packet{Destination: via})})
	}
	s.Inside = l.inside(q.To)
	mark := s.Mark
	if !s.Known || s.Way == live.WayUnclear || slices.ContainsFunc(s.Excluded, func(p netip.Prefix) bool { return p.Contains(q.To) }) {
		mark = 0
	}
	if s.Out = l.ask(routing.Packet{Source: q.Pod, Destination: q.To, In: in, Mark: mark & m.Mask}); in == 0 {
		s.Out = live.Lookup{Error: "no interface leads to the pod"}
	}
	return s
}

// wayOf is what a mark in the sets means.
func (l *liveLook) wayOf(mark uint32, known bool) (live.Way, netip.Addr) {
	m := l.d.cfg.Marks
	switch {
	case !known:
		return "", netip.Addr{}
	case mark == 0:
		return live.WayNode, netip.Addr{}
	case mark == m.Refused():
		return live.WayRefused, netip.Addr{}
	case mark == m.Remote():
		return live.WayOverlay, netip.Addr{}
	case mark&^m.IndexMask() == 0:
		return live.WayHere, l.sourceOf(mark)
	}
	return live.WayUnclear, netip.Addr{}
}

// sourceOf is the egress IP that the rules give packets with a mark.
func (l *liveLook) sourceOf(mark uint32) netip.Addr {
	for ip, i := range l.known {
		if l.d.cfg.Marks.Index(i) == mark {
			return ip
		}
	}
	return netip.Addr{}
}

func (l *liveLook) inside(ip netip.Addr) bool {
	for p := range l.k.inside {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// ask asks the kernel where a packet goes.
func (l *liveLook) ask(p routing.Packet) live.Lookup {
	out, err := routing.Route(l.d.nl, p)
	if err != nil {
		l.unread("route", err)
		return live.Lookup{Error: err.Error()}
	}
	return live.Lookup{Interface: l.facts.Links[out.Device].Name, Gateway: out.Gateway, Table: out.Table, Local: out.Local, Error: out.Dropped, Filtered: out.Filtered}
}

// egress is what the host has for an egress IP; nil if that could not be read.
func (l *liveLook) egress(q live.Query) *live.Egress {
	if l.unseen {
		return nil
	}
	e := &live.Egress{}
	e.Mark, e.Served = l.k.served[bpf.Network{NetID: q.NetID, IPv6: q.EgressIP.Is6()}]
	if e.Served {
		e.Source = l.sourceOf(e.Mark)
	}
	if i, ok := l.known[q.EgressIP]; ok {
		e.Index, e.OwnMark = true, l.d.cfg.Marks.Index(i)
	}
	_, e.Listed = l.k.ips[q.EgressIP]
	_, e.Sender = l.k.hosts[q.From]
	places, err := address.Places(l.d.nl, q.EgressIP)
	l.unread("interfaces with the egress IP", err)
	for _, p := range places {
		e.Addresses = append(e.Addresses, live.Address{Interface: p.Link.Attrs().Name, Up: p.Up, Ours: p.Ours})
	}
	guards, err := bpf.GuardingOf(l.d.nl, q.EgressIP, l.d.cfg.Marks)
	l.unread("guards", err)
	for _, g := range guards {
		e.Guards = append(e.Guards, live.Guard{Interface: g.Device, Known: g.Known, Mark: g.Mark, Elsewhere: g.Elsewhere})
	}
	e.Inside = l.inside(q.To)
	in, mark := l.facts.Routes[q.Pod], e.OwnMark
	if q.From.IsValid() {
		in, mark = 0, e.Mark
		if l.over != nil {
			in = l.over.Attrs().Index
		}
		e.Returns = l.returns(q.Pod)
	}
	if in == 0 {
		e.Out = live.Lookup{Error: "the device that the packet comes in by is not there"}
		return e
	}
	e.Out = l.ask(routing.Packet{Source: q.Pod, Destination: q.To, In: in, Mark: mark})
	if link := l.linkNamed(e.Out.Interface); link != 0 && e.Out.Interface != overlayName {
		e.Back = l.ask(routing.Packet{Source: q.To, Destination: q.EgressIP, In: link})
	}
	return e
}

// linkNamed is the index of an interface; 0 for none.
func (l *liveLook) linkNamed(name string) int {
	for index, link := range l.facts.Links {
		if link.Name == name && name != "" {
			return index
		}
	}
	return 0
}

// returns is where answers to a pod go.
func (l *liveLook) returns(pod netip.Addr) *live.Route {
	if l.seen.Maps == nil {
		return nil
	}
	netID, host, ok, err := l.seen.ReturnTo(pod)
	l.unread("map egress_returns", err)
	if !ok {
		return nil
	}
	return &live.Route{NetID: netID, Via: []netip.Addr{host}}
}

// compare compares rules and routes with those that are meant.
func (l *liveLook) compare() {
	missing, foreign, stale, err := l.tables.Differences(l.d.nl, l.d.cfg.Marks, overlayName)
	l.unread("policy rules and routes", err)
	if l.choice.table {
		want, err := renderTable(l.params)
		l.unread("rules", err)
		m, s := nftables.Differences(l.k.table, want)
		missing, stale = append(missing, m...), append(stale, s...)
	}
	for _, f := range []struct {
		family  iptables.Family
		use     []Backend
		have    map[Backend]iptables.Tables
		content func(rules.Params) rules.Content
	}{{iptables.IPv4, l.use, l.k.rules, rules.Build}, {iptables.IPv6, l.use6, l.k.rules6, rules.Build6}} {
		if l.choice.table {
			break
		}
		want := iptables.Render(f.content(l.params))
		for _, b := range f.use {
			for _, stage := range rules.Stages() {
				m, o, s := iptables.Differences(b, f.family, stage, f.have[b][stage], want[stage])
				missing, foreign, stale = append(missing, m...), append(foreign, o...), append(stale, s...)
			}
		}
	}
	l.host.Rules = live.Differences{Missing: missing, Foreign: foreign, Stale: stale}
}
