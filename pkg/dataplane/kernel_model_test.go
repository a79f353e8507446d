package dataplane

import (
	"maps"
	"net/netip"

	"github.com/egressip-operator/egressip-operator/internal/testenv/tracer"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
)

// do makes a change in the model; forget is called for forgetFlows.
func (k *kernel) do(c change, forget func()) {
	sets := map[string]map[netip.Addr]struct{}{setLocked: k.locked, setHosts: k.hosts, setIPs: k.ips}
	switch {
	case c.op == putMember && c.set == setPods:
		k.pods[c.ip] = c.mark
	case c.op == delMember && c.set == setPods:
		delete(k.pods, c.ip)
	case c.op == putMember && c.set == setInside:
		k.inside[c.prefix] = struct{}{}
	case c.op == delMember && c.set == setInside:
		delete(k.inside, c.prefix)
	case c.op == putMember:
		sets[c.set][c.ip] = struct{}{}
	case c.op == delMember:
		delete(sets[c.set], c.ip)
	case c.op == putRoute:
		k.routes[c.ip] = c.route
	case c.op == delRoute:
		delete(k.routes, c.ip)
	case c.op == putServed:
		k.served[c.netID] = c.mark
	case c.op == delServed:
		delete(k.served, c.netID)
	case c.op == putRules:
		k.rules[c.backend][c.transaction.Table] = c.transaction.After
	case c.op == addAddress:
		k.addresses[c.ip] = struct{}{}
	case c.op == delAddress:
		delete(k.addresses, c.ip)
	case c.op == forgetFlows:
		forget()
	}
}

// copied is a kernel that can be changed alone.
func (k kernel) copied() kernel {
	c := k
	c.pods, c.locked, c.hosts, c.ips = maps.Clone(k.pods), maps.Clone(k.locked), maps.Clone(k.hosts), maps.Clone(k.ips)
	c.inside, c.routes, c.served = maps.Clone(k.inside), maps.Clone(k.routes), maps.Clone(k.served)
	c.addresses = maps.Clone(k.addresses)
	c.rules = map[Backend]iptables.Tables{}
	for b, tables := range k.rules {
		c.rules[b] = maps.Clone(tables)
	}
	return c
}

// tracedHost is a host of the tracer whose kernel is a model.
type tracedHost struct {
	kernel
	tracer.Host
}

func newTracedHost(k kernel, m Marks) *tracedHost {
	h := &tracedHost{kernel: k, Host: tracer.Host{
		Addr: addr(tracedHostIP), Pods: netip.MustParsePrefix("10.244.1.0/24"),
		Overlay: overlayName, MarkMask: m.Mask, Remote: m.Remote(),
	}}
	inside := func(ip netip.Addr) (is bool) {
		for n := range h.inside {
			is = is || n.Contains(ip)
		}
		return is
	}
	h.Inside = inside
	h.Sets = map[string]tracer.Set{
		setPods:   func(ip netip.Addr) bool { return has(h.kernel.pods, ip) },
		setLocked: func(ip netip.Addr) bool { return has(h.locked, ip) },
		setHosts:  func(ip netip.Addr) bool { return has(h.hosts, ip) },
		setIPs:    func(ip netip.Addr) bool { return has(h.ips, ip) },
		setInside: inside,
		setResets: func(netip.Addr) bool { return false }, // no connection has ended
	}
	h.loadKernel()
	return h
}

// loadKernel gives the tracer what has changed in the model.
func (h *tracedHost) loadKernel() {
	h.Marks = map[string]map[netip.Addr]uint32{setPods: h.kernel.pods}
	h.Networks = h.served
	h.Routes = make(map[netip.Addr]tracer.Route, len(h.kernel.routes))
	for ip, r := range h.kernel.routes {
		h.Routes[ip] = tracer.Route{Network: r.NetID, Via: r.Via, Source: r.Sources[0]}
	}
	h.Backends = nil
	for _, b := range iptables.Backends() {
		tables := tracer.Tables{}
		for name, t := range h.rules[b] {
			tables[string(name)] = tracer.Table{Base: t.Base, Own: t.Own}
		}
		h.Backends = append(h.Backends, tables)
	}
}

func has[V any](m map[netip.Addr]V, ip netip.Addr) bool {
	_, ok := m[ip]
	return ok
}
