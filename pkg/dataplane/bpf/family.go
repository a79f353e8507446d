package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// family is what programs and maps have of IPv4, and of IPv6 again: the same in both but
// for where the addresses are and how long they are.
type family struct {
	// suffix ends the names of its maps, and its labels in programs.
	suffix string
	// etherType is the number of its packets.
	etherType uint16
	// length is that of an address.
	length int32
	// source is the offset of the inner source in a frame; the destination follows it.
	source int32
	// atFlow is the place of a flow key on the outward program's stack, with the addresses
	// first. atInner is that of both addresses on the inward program's.
	atFlow, atInner int32
}

func ipv4() family {
	return family{etherType: unix.ETH_P_IP, length: 4, source: ethHeader + 12, atFlow: -24, atInner: -16}
}

func ipv6() family {
	return family{suffix: "6", etherType: unix.ETH_P_IPV6, length: 16, source: ethHeader + 8, atFlow: -184, atInner: -48}
}

// Places in a flow key, behind the addresses.
func (f family) atDest() int32  { return f.atFlow + f.length }
func (f family) atPorts() int32 { return f.atFlow + 2*f.length }
func (f family) atProto() int32 { return f.atPorts() + 4 }

// atFragKey is set in keys of fragments, whose ports are the number of their packet.
func (f family) atFragKey() int32 { return f.atProto() + 1 }

// flowKeySize is that of a flow key: addresses, ports, and the protocol in four bytes.
func (f family) flowKeySize() uint32 { return uint32(2*f.length + 8) } //nolint:gosec // 40 at most

// protocol is what struct __sk_buff says of its packets.
func (f family) protocol() int32 { return int32(nlutil.BigEndian16(f.etherType)) }

// label makes a label of a program the family's own.
func (f family) label(name string) string { return name + f.suffix }

// specs are the maps of a family. Their values name egress hosts by addresses of the outer
// packets, whatever the inner ones are.
func (f family) specs(o outer) []*ebpf.MapSpec {
	length := uint32(f.length) //nolint:gosec // 16 at most
	return []*ebpf.MapSpec{
		{Name: "egress_pods" + f.suffix, Type: ebpf.Hash, KeySize: length, ValueSize: f.podSize(o), MaxEntries: maxPods},
		{Name: "egress_hosted" + f.suffix, Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxHosted},
		{Name: "egress_returns" + f.suffix, Type: ebpf.LRUHash, KeySize: length, ValueSize: 4 + o.size(), MaxEntries: maxReturns},
		{Name: "egress_flows" + f.suffix, Type: ebpf.LRUHash, KeySize: f.flowKeySize(), ValueSize: o.size(), MaxEntries: maxFlows},
	}
}

// podSize is that of podValue.
func (f family) podSize(o outer) uint32 {
	return 8 + MaxVia*o.size() + MaxVia*uint32(f.length) //nolint:gosec // 264 at most
}

// familyMaps are the maps of one family; nil where they are not open.
type familyMaps struct {
	// pods: inner source -> network and egress hosts.
	pods *ebpf.Map
	// hosted: network -> mark of its egress IP here.
	hosted *ebpf.Map
	// returns: inner source as it came in -> network and the host it is on.
	returns *ebpf.Map
	// flows: connection -> egress host that it began with.
	flows *ebpf.Map
}

func (m *familyMaps) all() []**ebpf.Map {
	return []**ebpf.Map{&m.pods, &m.hosted, &m.returns, &m.flows}
}

// form is how maps have the addresses of a family: as A.
type form[A comparable] struct {
	of   func(netip.Addr) A
	addr func(A) netip.Addr
}

// number is an IPv4 address in host order, bytes4 and bytes6 are the bytes of addresses.
func number() form[uint32]   { return form[uint32]{of: hostOrder, addr: addrFromHost} }
func bytes4() form[[4]byte]  { return form[[4]byte]{of: netip.Addr.As4, addr: netip.AddrFrom4} }
func bytes6() form[[16]byte] { return form[[16]byte]{of: netip.Addr.As16, addr: netip.AddrFrom16} }

// has reports whether an address is of the form's family.
func (f form[A]) has(ip netip.Addr) bool {
	var a A
	return ip.IsValid() && f.addr(a).Is4() == ip.Is4()
}

// table is what user space has of one family's maps pods and hosted. They have addresses as
// keys K, as sources S and as hosts H.
type table[K, S, H comparable] struct {
	key    form[K]
	source form[S]
	host   form[H]
	ipv6   bool
	pods   entries[K, podValue[S, H]]
	hosted entries[uint32, uint32]
}

// tables are those of IPv4 and of IPv6, with hosts of the outer packets' family.
func tables(o outer) (four, six routeTable) {
	if o.six() {
		return &table[[4]byte, uint32, [16]byte]{key: bytes4(), source: number(), host: bytes6()},
			&table[[16]byte, [16]byte, [16]byte]{key: bytes6(), source: bytes6(), host: bytes6(), ipv6: true}
	}
	return &table[[4]byte, uint32, uint32]{key: bytes4(), source: number(), host: number()},
		&table[[16]byte, [16]byte, uint32]{key: bytes6(), source: bytes6(), host: number(), ipv6: true}
}

// routeTable is a table, whatever form it has addresses in.
type routeTable interface {
	routes(m familyMaps, to map[netip.Addr]Route) error
	networks(m familyMaps, to map[Network]uint32) error
	put(m familyMaps, ip netip.Addr, r Route) error
	del(m familyMaps, ip netip.Addr) error
	held(routes map[netip.Addr]Route, hosted map[Network]uint32) func(familyMaps) bool
}

// value is a route as the tc program reads it.
func (t *table[K, S, H]) value(r Route) podValue[S, H] {
	value := podValue[S, H]{NetID: r.NetID, Count: uint32(len(r.Via))}
	for i, h := range r.Via {
		value.Via[i] = t.host.of(h)
		if i < len(r.Sources) && r.Sources[i].IsValid() {
			value.Sources[i] = t.source.of(r.Sources[i])
		}
	}
	return value
}

// route is the reverse.
func (t *table[K, S, H]) route(v podValue[S, H]) Route {
	r := Route{NetID: v.NetID}
	var none S
	for i, h := range v.Via[:min(v.Count, MaxVia)] {
		r.Via = append(r.Via, t.host.addr(h))
		var source netip.Addr
		if v.Sources[i] != none {
			source = t.source.addr(v.Sources[i])
		}
		r.Sources = append(r.Sources, source)
	}
	return r
}

// routes adds all entries of map pods.
func (t *table[K, S, H]) routes(m familyMaps, to map[netip.Addr]Route) error {
	if m.pods == nil {
		return nil
	}
	if err := t.pods.read(m.pods); err != nil {
		return fmt.Errorf("list BPF map pods: %w", err)
	}
	for key, value := range t.pods.all() {
		to[t.key.addr(key)] = t.route(value)
	}
	return nil
}

// networks adds all entries of map hosted.
func (t *table[K, S, H]) networks(m familyMaps, to map[Network]uint32) error {
	if m.hosted == nil {
		return nil
	}
	if err := t.hosted.read(m.hosted); err != nil {
		return fmt.Errorf("list BPF map hosted: %w", err)
	}
	for id, mark := range t.hosted.all() {
		to[Network{NetID: id, IPv6: t.ipv6}] = mark
	}
	return nil
}

// put sets the route of a pod.
func (t *table[K, S, H]) put(m familyMaps, ip netip.Addr, r Route) error {
	if m.pods == nil {
		return errNoMaps
	}
	if !t.leads(r) {
		return errOtherFamily
	}
	value := t.value(r)
	return m.pods.Put(t.key.of(ip), &value)
}

// leads reports whether all egress hosts of a route are of the outer packets' family.
func (t *table[K, S, H]) leads(r Route) bool {
	return !slices.ContainsFunc(r.Via, func(ip netip.Addr) bool { return !t.host.has(ip) })
}

// del deletes the route of a pod.
func (t *table[K, S, H]) del(m familyMaps, ip netip.Addr) error {
	if m.pods == nil {
		return nil
	}
	return m.pods.Delete(t.key.of(ip))
}

// errNoMaps is the error of an address of IPv6 where the maps of that are not open;
// errOtherFamily is that of a host that is not of the outer packets' family.
var (
	errNoMaps      = errors.New("there are no maps for its family")
	errOtherFamily = errors.New("an egress host has an address of another family than the overlay's packets")
)

// held returns a function that reports whether maps hold these routes and networks and
// nothing else. Maps that are not open need not be looked at.
func (t *table[K, S, H]) held(routes map[netip.Addr]Route, hosted map[Network]uint32) func(familyMaps) bool {
	// In a form that is compared fast.
	pods, marks := make(map[K]podValue[S, H], len(routes)), make(map[uint32]uint32, len(hosted))
	for ip, r := range routes {
		switch {
		case ip.Is4() == t.ipv6:
		case !t.leads(r):
			return func(familyMaps) bool { return false }
		default:
			pods[t.key.of(ip)] = t.value(r)
		}
	}
	for n, mark := range hosted {
		if n.IPv6 == t.ipv6 {
			marks[n.NetID] = mark
		}
	}
	return func(m familyMaps) bool {
		if m.pods == nil {
			return len(pods)+len(marks) == 0
		}
		return t.pods.read(m.pods) == nil && same(t.pods, pods) && t.hosted.read(m.hosted) == nil && same(t.hosted, marks)
	}
}

// flowsOf are the entries of map flows of some pods, by a key F that is of the family's size.
// The map has hosts as H.
func flowsOf[F, H comparable](m *ebpf.Map, source func(F) netip.Addr, hosts form[H], pods map[netip.Addr]bool) (map[F]netip.Addr, error) {
	found := map[F]netip.Addr{}
	if m == nil {
		return found, nil
	}
	var key F
	var host H
	it := m.Iterate()
	for it.Next(&key, &host) {
		if pods[source(key)] {
			found[key] = hosts.addr(host)
		}
	}
	// Where so many connections come and go that the iteration aborts, the partial
	// result serves.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return found, fmt.Errorf("list BPF map flows: %w", err)
	}
	return found, nil
}

// Network is a namespace's network in one family: its egress IPs of the two are on hosts
// of their own.
type Network struct {
	NetID uint32
	IPv6  bool
}

// Compare orders networks by their number, IPv4 first.
func (n Network) Compare(o Network) int {
	switch {
	case n.NetID != o.NetID:
		return int(int64(n.NetID) - int64(o.NetID))
	case n.IPv6 == o.IPv6:
		return 0
	case n.IPv6:
		return 1
	default:
		return -1
	}
}
