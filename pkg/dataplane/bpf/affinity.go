package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// FlowAffinity has the egress hosts that connections began with.
type FlowAffinity map[[16]byte]uint32

// FlowAffinity returns the hosts that the connections of some pods began with. The
// programs replace them as soon as the pods' routes have changed.
func (m *Maps) FlowAffinity(pods map[netip.Addr]bool) (FlowAffinity, error) {
	found := FlowAffinity{}
	var key [16]byte
	var host uint32
	it := m.flows.Iterate()
	for it.Next(&key, &host) {
		if pods[netip.AddrFrom4([4]byte(key[:4]))] {
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

// Host returns the egress host that a connection began with; false where it is not
// known. Ports are those of TCP and UDP, and ignored for other protocols.
func (a FlowAffinity) Host(protocol uint8, from, to netip.AddrPort) (netip.Addr, bool) {
	var key [16]byte // a flowKey, as the program writes it
	source, dest := from.Addr().As4(), to.Addr().As4()
	copy(key[0:], source[:])
	copy(key[4:], dest[:])
	if protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP {
		binary.BigEndian.PutUint16(key[8:], from.Port())
		binary.BigEndian.PutUint16(key[10:], to.Port())
	}
	key[12] = protocol
	host, known := a[key]
	if !known {
		return netip.Addr{}, false
	}
	return addrFromHost(host), true
}
