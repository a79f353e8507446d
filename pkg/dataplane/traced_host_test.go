package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/tracer"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// tracedHost is a host of the tracer whose kernel is a model.
type tracedHost struct {
	kernel
	tracer.Host
}

func newTracedHost(k kernel, m Marks) *tracedHost {
	h := &tracedHost{kernel: k, Host: tracer.Host{
		Addr: testenv.Addr(tracedHostIP), Pods: netip.MustParsePrefix("10.244.1.0/24"),
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
		setPods:    func(ip netip.Addr) bool { return has(h.pods, ip) },
		setLocked:  func(ip netip.Addr) bool { return has(h.locked, ip) },
		setHosts:   func(ip netip.Addr) bool { return has(h.hosts, ip) },
		setIPs:     func(ip netip.Addr) bool { return has(h.ips, ip) },
		setInside:  inside,
		setPresent: func(netip.Addr) bool { return true },
		setResets:  func(netip.Addr) bool { return false }, // no connection has ended
	}
	h.Pairs = map[string]func(src, dst netip.Addr) bool{setExcluded: func(src, dst netip.Addr) bool {
		return slices.ContainsFunc(h.excluded[src], func(n netip.Prefix) bool { return n.Contains(dst) })
	}}
	h.loadKernel()
	return h
}

// loadKernel shows the tracer what has changed in the model.
func (h *tracedHost) loadKernel() {
	h.Marks = map[string]map[netip.Addr]uint32{setPods: h.pods}
	h.Networks = make(map[uint32]uint32, len(h.served))
	for n, mark := range h.served {
		h.Networks[n.NetID] = mark
	}
	h.Routes = make(map[netip.Addr]tracer.Route, len(h.routes))
	for ip, r := range h.routes {
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

// tracedFlow is a connection to the outside that goes on through the changes.
type tracedFlow struct {
	netID uint32 // over the overlay; 0: of a pod here
	src   netip.Addr
	conn  *tracer.Conn
}

func (f *tracedFlow) packet() tracer.Packet {
	p := tracer.Packet{
		In: tracer.PodDevice, Src: f.src, Dst: testenv.Addr(tracedOutside), Proto: "udp", DestPort: 53,
		Dir: tracer.Original, State: tracer.Established, Conn: f.conn,
	}
	if !f.conn.Confirmed {
		p.State = tracer.New
	}
	return p
}

// sources are all that can send to the outside: addresses, each of a pod or not,
// and networks whose pods are on other hosts.
func sources() (pods []netip.Addr, networks []uint32) {
	for i := 2; i <= 7; i++ {
		pods = append(pods, testenv.Addr(fmt.Sprintf("10.244.1.%d", i)))
	}
	return pods, []uint32{1, 2, 3, 4}
}

// moment sends one packet of every connection, and of a new one from every
// source. Each must leave as one of the two States plans, or be dropped.
func (h *tracedHost) moment(flows *[]*tracedFlow, before, now State) error {
	pods, networks := sources()
	for _, ip := range pods {
		*flows = append(*flows, &tracedFlow{src: ip, conn: &tracer.Conn{}})
	}
	for _, id := range networks {
		*flows = append(*flows, &tracedFlow{netID: id, src: testenv.Addr(fmt.Sprintf("10.244.2.%d", id)), conn: &tracer.Conn{}})
	}
	for _, f := range *flows {
		may := []string{"dropped", before.plannedPod(f.src), now.plannedPod(f.src)}
		if f.netID != 0 {
			may = []string{"dropped", before.plannedNetwork(f.netID), now.plannedNetwork(f.netID)}
		}
		if err := h.check(f, may); err != nil {
			return err
		}
	}
	*flows = distinct(*flows)
	return nil
}

// distinct leaves one connection of each source and state.
func distinct(flows []*tracedFlow) []*tracedFlow {
	type key struct {
		netID uint32
		src   netip.Addr
		conn  tracer.Conn
	}
	seen := map[key]bool{}
	return slices.DeleteFunc(flows, func(f *tracedFlow) bool {
		k := key{f.netID, f.src, *f.conn}
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// check sends the next packet of a connection.
func (h *tracedHost) check(f *tracedFlow, may []string) error {
	got, err := h.send(f)
	if err != nil {
		return err
	}
	if !slices.Contains(may, got.String()) {
		return fmt.Errorf("packet of %v (network %d): %v, may be %q", f.src, f.netID, got, may)
	}
	if got.Out == tracer.Uplink && got.Src != h.Addr && !has(h.addresses, got.Src) {
		return fmt.Errorf("packet of %v left as %v, which is not on the uplink", f.src, got.Src)
	}
	// A packet that no NAT touches must not leave by any way of ours.
	for _, state := range []tracer.State{tracer.Invalid, tracer.Untracked} {
		p := f.packet()
		p.State, p.Conn = state, &tracer.Conn{}
		got, err := h.sendPacket(f.netID, p)
		switch {
		case err != nil:
			return err
		case got.Dropped != "":
		case f.netID != 0, !slices.Contains(may, "eth0 as "+tracedHostIP):
			return fmt.Errorf("%s packet of %v (network %d): %v", state, f.src, f.netID, got)
		}
	}
	return nil
}

func (h *tracedHost) send(f *tracedFlow) (tracer.Outcome, error) {
	return h.sendPacket(f.netID, f.packet())
}

func (h *tracedHost) sendPacket(netID uint32, p tracer.Packet) (tracer.Outcome, error) {
	if netID != 0 {
		return h.ForwardFromOverlay(netID, p)
	}
	return h.Forward(p)
}

// expect sends a packet of a pod, which must leave as wanted.
func (h *tracedHost) expect(want string, p tracer.Packet) error {
	got, err := h.Forward(p)
	if err == nil && got.String() != want {
		return fmt.Errorf("%v, wanted: %s", got, want)
	}
	return err
}

// settled expects new connections to leave as the State plans, and old ones to do
// so or be dropped. Answers and traffic inside must be as without us.
func (h *tracedHost) settled(flows *[]*tracedFlow, s State, idx indices) error {
	for _, f := range *flows {
		want := s.plannedPod(f.src)
		if f.netID != 0 {
			want = s.plannedNetwork(f.netID)
		}
		if err := h.check(f, []string{want, "dropped"}); err != nil {
			return fmt.Errorf("old connection: %w", err)
		}
		// A connection keeps the source that another host gave it.
		r, goes := h.Routes[f.src]
		if !goes || f.netID != 0 || !f.conn.RemoteSource.IsValid() {
			continue
		}
		if got, err := h.send(f); err != nil {
			return err
		} else if got.OverOverlay() && r.Source.IsValid() && r.Source != f.conn.RemoteSource {
			return fmt.Errorf("old connection of %v began as %v and goes on as %v", f.src, f.conn.RemoteSource, r.Source)
		}
	}
	pods, networks := sources()
	for _, ip := range pods {
		f := &tracedFlow{src: ip, conn: &tracer.Conn{}}
		for range 2 { // its first packet and its second
			if err := h.check(f, []string{s.plannedPod(ip)}); err != nil {
				return fmt.Errorf("new connection: %w", err)
			}
		}
		answer := tracer.Packet{
			In: tracer.PodDevice, Src: ip, Dst: testenv.Addr(tracedOutside), Proto: "tcp",
			Dir: tracer.Reply, State: tracer.Established, Conn: &tracer.Conn{Confirmed: true, Bound: true},
		}
		if err := h.expect("eth0 as "+ip.String(), answer); err != nil {
			return fmt.Errorf("answer of %v to a client outside: %w", ip, err)
		}
		inside := (&tracedFlow{src: ip, conn: &tracer.Conn{}}).packet()
		inside.Dst = testenv.Addr(tracedInside)
		if err := h.expect("eth0 as "+ip.String(), inside); err != nil {
			return fmt.Errorf("%v to another pod: %w", ip, err)
		}
		forged := (&tracedFlow{src: ip, conn: &tracer.Conn{}}).packet()
		forged.Dst, forged.DestPort = testenv.Addr("192.168.7.12"), 9789
		if err := h.expect("dropped", forged); err != nil {
			return fmt.Errorf("%v to the overlay's port of a host: %w", ip, err)
		}
	}
	for _, id := range networks {
		f := &tracedFlow{netID: id, src: testenv.Addr(fmt.Sprintf("10.244.2.%d", id)), conn: &tracer.Conn{}}
		for range 2 {
			if err := h.check(f, []string{s.plannedNetwork(id)}); err != nil {
				return fmt.Errorf("new connection: %w", err)
			}
		}
	}
	if len(idx) != len(s.Hosted)+len(s.Standby) {
		return fmt.Errorf("%d indices for %d egress IPs and %d on standby", len(idx), len(s.Hosted), len(s.Standby))
	}
	return nil
}

func damages() []string {
	return []string{"none", "no ip rule", "no overlay", "no overlay and no last route", "a set entry", "all set entries", "mangle PREROUTING flushed", "mangle flushed", "filter flushed"}
}

// damaged expects every packet, old or new, to leave as planned or be dropped
// while something of ours is missing.
func (h *tracedHost) damaged(damage string, flows []*tracedFlow, s State) error {
	h.kernel = h.copied()
	flush := func(stage rules.Stage, base string) {
		for b := range h.rules {
			t := h.rules[b][stage]
			t.Base = maps.Clone(t.Base)
			for name := range t.Base {
				if base == "" || name == base {
					delete(t.Base, name)
				}
			}
			h.rules[b][stage] = t
		}
	}
	switch damage {
	case "no ip rule":
		h.NoPolicyRule = true
	case "no overlay":
		h.NoOverlay = true
	case "no overlay and no last route":
		h.NoOverlay, h.NoLastRoute = true, true
	case "a set entry":
		delete(h.pods, testenv.Addr("10.244.1.2"))
	case "all set entries":
		clear(h.pods)
	case "mangle PREROUTING flushed":
		flush(rules.Mangle, "PREROUTING")
	case "mangle flushed":
		// The connections from other hosts' pods have no other lock.
		flush(rules.Mangle, "")
		flows = nil
	case "filter flushed":
		flush(rules.Filter, "")
	}
	h.loadKernel()
	pods, _ := sources()
	for _, ip := range pods {
		flows = append(flows, &tracedFlow{src: ip, conn: &tracer.Conn{}})
	}
	for _, f := range flows {
		want := s.plannedPod(f.src)
		if f.netID != 0 {
			want = s.plannedNetwork(f.netID)
		}
		if got, err := h.send(f); err != nil {
			return err
		} else if got.String() != want && got.Dropped == "" {
			return fmt.Errorf("damage %q: packet of %v (network %d): %v, planned: %s", damage, f.src, f.netID, got, want)
		}
	}
	return nil
}
