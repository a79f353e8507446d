package tracer

import (
	"fmt"
	"net/netip"
)

// Host is one host. Its maps may be changed between packets.
type Host struct {
	// Addr is the address that MASQUERADE gives.
	Addr netip.Addr
	// Pods is the network behind device PodDevice.
	Pods netip.Prefix
	// Overlay is the name of the overlay device.
	Overlay string
	// MarkMask has the bits that SET --map-mark changes. Remote is the bit of
	// packets that the policy routes send to the overlay.
	MarkMask, Remote uint32
	// Inside are the networks that policy routes leave to the main table.
	Inside Set

	// Backends are the rules of each iptables backend, in the order in which the
	// kernel asks them for a source.
	Backends []Tables
	// Sets by name. Marks has, for those whose entries have marks, the marks.
	// Pairs are sets of pairs of a source and a destination.
	Sets  map[string]Set
	Pairs map[string]func(src, dst netip.Addr) bool
	Marks map[string]map[netip.Addr]uint32
	// Routes say where the overlay carries the packets of each pod.
	Routes map[netip.Addr]Route
	// Networks gives the mark of packets that come over the overlay, by network.
	Networks map[uint32]uint32

	// Damage that other software may have done: the ip rule of Remote, the
	// overlay with the routes over it, and the last route, which holds its
	// packets then, are gone.
	NoPolicyRule, NoOverlay, NoLastRoute bool

	// parsed are rules taken apart, by their text.
	parsed map[string]rule
}

// Devices other than the overlay.
const (
	PodDevice = "cni0"
	Uplink    = "eth0"
)

// Set reports whether it has an address.
type Set func(netip.Addr) bool

// Tables are the tables of an iptables backend, by name.
type Tables map[string]Table

// Table has the rules of base chains and others, by chain, without the leading
// "-A CHAIN ".
type Table struct{ Base, Own map[string][]string }

// Route is where the overlay carries a pod's packets.
type Route struct {
	Network uint32
	Via     []netip.Addr
	// Source is the source address that the first of Via gives, if known.
	Source netip.Addr
}

// Packet is a packet on its way through a host.
type Packet struct {
	In, Out  string
	Src, Dst netip.Addr
	Proto    string // as in rules: tcp, udp
	DestPort uint16
	Mark     uint32
	// Dir and State are what connection tracking makes of it.
	Dir   Direction
	State State
	Conn  *Conn
}

// Direction is that of a packet in its connection.
type Direction string

// The directions, as in rules.
const (
	Original Direction = "ORIGINAL"
	Reply    Direction = "REPLY"
)

// State is that of a packet's connection.
type State string

// The states, as in rules.
const (
	New         State = "NEW"
	Established State = "ESTABLISHED"
	Invalid     State = "INVALID"
	Untracked   State = "UNTRACKED"
)

// tracked reports whether the packet belongs to a connection.
func (p *Packet) tracked() bool { return p.State != Invalid && p.State != Untracked }

// Conn is a connection as one host tracks it. A new one is the zero value.
type Conn struct {
	// Confirmed: a packet of it has left.
	Confirmed bool
	// Bound: its source is decided.
	Bound bool
	Mark  uint32
	// Source is the address that source NAT gave, RemoteSource that which the
	// host at the other end of the overlay gives.
	Source, RemoteSource netip.Addr
}

// Outcome is what becomes of a packet at one host.
type Outcome struct {
	// Dropped says where, if it was.
	Dropped string
	// Out is the device that it left by, with source Src; over the overlay, as
	// a packet of Network to one of Via.
	Out     string
	Src     netip.Addr
	Network uint32
	Via     []netip.Addr
	overlay bool
}

// OverOverlay reports whether the packet left over the overlay.
func (o Outcome) OverOverlay() bool { return o.overlay }

func (o Outcome) String() string {
	switch {
	case o.Dropped != "":
		return "dropped"
	case o.overlay:
		return fmt.Sprintf("network %d over the overlay to %v", o.Network, o.Via)
	default:
		return fmt.Sprintf("%s as %v", o.Out, o.Src)
	}
}

// Forward takes a packet through a host that is not its destination. It changes
// the packet's connection as the kernel would.
func (h *Host) Forward(p Packet) (Outcome, error) {
	if v, err := h.Walk("mangle", "PREROUTING", &p); err != nil || v == Drop {
		return Outcome{Dropped: "mangle PREROUTING"}, err
	}
	if p.Out = h.route(p); p.Out == "" {
		return Outcome{Dropped: "unreachable"}, nil
	}
	for _, table := range []string{"mangle", "filter"} {
		if v, err := h.Walk(table, "FORWARD", &p); err != nil || v == Drop {
			return Outcome{Dropped: table + " FORWARD"}, err
		}
	}
	if v, err := h.Walk("mangle", "POSTROUTING", &p); err != nil || v == Drop {
		return Outcome{Dropped: "mangle POSTROUTING"}, err
	}
	if p.State == New && !p.Conn.Bound {
		if _, err := h.Walk("nat", "POSTROUTING", &p); err != nil {
			return Outcome{}, err
		}
		p.Conn.Bound = true // to no other source, if no rule gave one
	}
	p.Conn.Confirmed = p.Conn.Confirmed || p.State == New
	if p.Conn.Source.IsValid() && p.Dir == Original && p.tracked() {
		p.Src = p.Conn.Source
	}
	if p.Out != h.Overlay {
		return Outcome{Out: p.Out, Src: p.Src}, nil
	}
	r, ok := h.Routes[p.Src]
	if p.Mark&h.Remote == 0 || !ok {
		return Outcome{Dropped: "program at the overlay"}, nil
	}
	if !p.Conn.RemoteSource.IsValid() {
		p.Conn.RemoteSource = r.Source
	}
	return Outcome{Out: h.Overlay, Src: p.Src, Network: r.Network, Via: r.Via, overlay: true}, nil
}

// ForwardFromOverlay is Forward for a packet of a network that comes over the
// overlay.
func (h *Host) ForwardFromOverlay(network uint32, p Packet) (Outcome, error) {
	p.In, p.Mark = h.Overlay, h.Networks[network]
	return h.Forward(p)
}

// route returns the device that a packet leaves by; none, if the routes hold it.
func (h *Host) route(p Packet) string {
	if p.Mark&h.Remote != 0 && !h.NoPolicyRule && !h.Inside(p.Dst) {
		switch {
		case !h.NoOverlay:
			return h.Overlay
		case !h.NoLastRoute:
			return ""
		}
	}
	if h.Pods.Contains(p.Dst) {
		return PodDevice
	}
	return Uplink
}
