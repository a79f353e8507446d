package bpf

import (
	"errors"
	"fmt"
	"net/netip"

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

// specs are the maps of a family. Their values name egress hosts by IPv4 addresses, those
// of the outer packets, whatever the inner ones are.
func (f family) specs() []*ebpf.MapSpec {
	podSize := binarySize(podValue[uint32]{})
	if f.length == 16 {
		podSize = binarySize(podValue[[16]byte]{})
	}
	length := uint32(f.length) //nolint:gosec // 16 at most
	return []*ebpf.MapSpec{
		{Name: "egress_pods" + f.suffix, Type: ebpf.Hash, KeySize: length, ValueSize: podSize, MaxEntries: maxPods},
		{Name: "egress_hosted" + f.suffix, Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxHosted},
		{Name: "egress_returns" + f.suffix, Type: ebpf.LRUHash, KeySize: length, ValueSize: binarySize(returnValue{}), MaxEntries: maxReturns},
		{Name: "egress_flows" + f.suffix, Type: ebpf.LRUHash, KeySize: f.flowKeySize(), ValueSize: 4, MaxEntries: maxFlows},
	}
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

// form is how a family's maps have addresses: as keys K, and as sources S in map pods.
type form[K, S comparable] struct {
	key    func(netip.Addr) K
	addr   func(K) netip.Addr
	source func(netip.Addr) S
	origin func(S) netip.Addr
}

func form4() form[[4]byte, uint32] {
	return form[[4]byte, uint32]{key: netip.Addr.As4, addr: netip.AddrFrom4, source: hostOrder, origin: addrFromHost}
}

func form6() form[[16]byte, [16]byte] {
	return form[[16]byte, [16]byte]{key: netip.Addr.As16, addr: netip.AddrFrom16, source: netip.Addr.As16, origin: netip.AddrFrom16}
}

// value is a route as the tc program reads it.
func (f form[K, S]) value(r Route) podValue[S] {
	value := podValue[S]{NetID: r.NetID, Count: uint32(len(r.Via))}
	for i, h := range r.Via {
		value.Via[i] = hostOrder(h)
		if i < len(r.Sources) && r.Sources[i].IsValid() {
			value.Sources[i] = f.source(r.Sources[i])
		}
	}
	return value
}

// route is the reverse.
func (f form[K, S]) route(v podValue[S]) Route {
	r := Route{NetID: v.NetID}
	var none S
	for i, h := range v.Via[:min(v.Count, MaxVia)] {
		r.Via = append(r.Via, addrFromHost(h))
		var source netip.Addr
		if v.Sources[i] != none {
			source = f.origin(v.Sources[i])
		}
		r.Sources = append(r.Sources, source)
	}
	return r
}

// table is what user space has of one family's maps pods and hosted.
type table[K, S comparable] struct {
	form[K, S]
	ipv6   bool
	pods   entries[K, podValue[S]]
	hosted entries[uint32, uint32]
}

// routes adds all entries of map pods.
func (t *table[K, S]) routes(m familyMaps, to map[netip.Addr]Route) error {
	if m.pods == nil {
		return nil
	}
	if err := t.pods.read(m.pods); err != nil {
		return fmt.Errorf("list BPF map pods: %w", err)
	}
	for key, value := range t.pods.all() {
		to[t.addr(key)] = t.route(value)
	}
	return nil
}

// networks adds all entries of map hosted.
func (t *table[K, S]) networks(m familyMaps, to map[Network]uint32) error {
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
func (t *table[K, S]) put(m familyMaps, ip netip.Addr, r Route) error {
	if m.pods == nil {
		return errNoMaps
	}
	value := t.value(r)
	return m.pods.Put(t.key(ip), &value)
}

// del deletes the route of a pod.
func (t *table[K, S]) del(m familyMaps, ip netip.Addr) error {
	if m.pods == nil {
		return nil
	}
	return m.pods.Delete(t.key(ip))
}

// errNoMaps is the error of an address of IPv6 where the maps of that are not open.
var errNoMaps = errors.New("there are no maps for its family")

// held is what a family's maps should hold, in a form that is compared fast.
type held[K, S comparable] struct {
	pods   map[K]podValue[S]
	hosted map[uint32]uint32
}

func (t *table[K, S]) held(routes map[netip.Addr]Route, hosted map[Network]uint32) held[K, S] {
	h := held[K, S]{pods: make(map[K]podValue[S], len(routes)), hosted: make(map[uint32]uint32, len(hosted))}
	for ip, r := range routes {
		if ip.Is4() != t.ipv6 {
			h.pods[t.key(ip)] = t.value(r)
		}
	}
	for n, mark := range hosted {
		if n.IPv6 == t.ipv6 {
			h.hosted[n.NetID] = mark
		}
	}
	return h
}

// hold reports whether the maps hold that and nothing else. Maps that are not open need
// not be looked at.
func (t *table[K, S]) hold(m familyMaps, want held[K, S]) bool {
	if m.pods == nil {
		return len(want.pods)+len(want.hosted) == 0
	}
	return t.pods.read(m.pods) == nil && same(t.pods, want.pods) && t.hosted.read(m.hosted) == nil && same(t.hosted, want.hosted)
}

// flowsOf are the entries of map flows of some pods, by a key that is of the family's size.
func flowsOf[F comparable](m *ebpf.Map, source func(F) netip.Addr, pods map[netip.Addr]bool) (map[F]uint32, error) {
	found := map[F]uint32{}
	if m == nil {
		return found, nil
	}
	var key F
	var host uint32
	it := m.Iterate()
	for it.Next(&key, &host) {
		if pods[source(key)] {
			found[key] = host
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
