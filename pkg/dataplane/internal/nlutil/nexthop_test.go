package nlutil

import (
	"net/netip"
	"slices"
	"testing"
)

// Next hops are read up to the first that is malformed, with gateways of either family.
func TestEachNextHop(t *testing.T) {
	hop := func(flags, link byte, attrs ...byte) []byte {
		return append([]byte{byte(8 + len(attrs)), 0, flags, 0, link, 0, 0, 0}, attrs...)
	}
	four := []byte{8, 0, 5, 0, 172, 16, 5, 1} // RTA_GATEWAY
	six := append([]byte{22, 0, 18, 0, 10, 0, 0xfe, 0x80}, make([]byte, 13)...)
	six = append(six, 1, 0, 0) // RTA_VIA, and what fills it up
	b := slices.Concat(hop(0, 2, four...), hop(1, 3, six...), hop(0, 4), []byte{99, 0, 0, 0, 5, 0, 0, 0})
	var got []NextHop
	EachNextHop(b, func(h NextHop) { got = append(got, h) })
	want := []NextHop{
		{Link: 2, Gateway: netip.MustParseAddr("172.16.5.1")},
		{Link: 3, Gateway: netip.MustParseAddr("fe80::1"), Flags: 1},
		{Link: 4},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for _, value := range [][]byte{nil, {1, 2, 3}, {10, 0}} {
		for _, typ := range []uint16{5, 18} {
			if gateway, ok := Gateway(typ, value); ok {
				t.Errorf("type %d, %v: %v", typ, value, gateway)
			}
		}
	}
}
