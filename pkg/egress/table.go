package egress

import (
	"iter"
	"net/netip"
)

// addressTable finds what is known about an egress IP.
type addressTable struct {
	v4 map[uint32]*address
	v6 map[netip.Addr]*address
}

// newAddressTable returns a table with room for that many addresses of IPv4.
func newAddressTable(room int) addressTable {
	return addressTable{v4: make(map[uint32]*address, room), v6: make(map[netip.Addr]*address)}
}

// get returns nil for an address that is not there.
func (t *addressTable) get(ip netip.Addr) *address {
	if ip.Is4() {
		return t.v4[key(ip)]
	}
	return t.v6[ip]
}

func (t *addressTable) put(ip netip.Addr, a *address) {
	if ip.Is4() {
		t.v4[key(ip)] = a
	} else {
		t.v6[ip] = a
	}
}

func (t *addressTable) count() int { return len(t.v4) + len(t.v6) }

// all yields the addresses in no order.
func (t *addressTable) all() iter.Seq[*address] {
	return func(yield func(*address) bool) {
		for _, a := range t.v4 {
			if !yield(a) {
				return
			}
		}
		for _, a := range t.v6 {
			if !yield(a) {
				return
			}
		}
	}
}
