package conntrack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestSegmentIsAnACKWithAByte(t *testing.T) {
	from, to := netip.MustParseAddrPort("203.0.113.9:80"), netip.MustParseAddrPort("10.244.1.2:40000")
	b := oneByte(from, to, 0x80000001)
	if len(b) != 41 || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		t.Fatalf("%d bytes, which claim to be %d", len(b), binary.BigEndian.Uint16(b[2:]))
	}
	if got := netip.AddrFrom4([4]byte(b[12:16])); got != from.Addr() {
		t.Errorf("from %v", got)
	}
	if got := netip.AddrFrom4([4]byte(b[16:20])); got != to.Addr() {
		t.Errorf("to %v", got)
	}
	if p, q := binary.BigEndian.Uint16(b[20:]), binary.BigEndian.Uint16(b[22:]); p != from.Port() || q != to.Port() {
		t.Errorf("ports %d and %d", p, q)
	}
	if seq := binary.BigEndian.Uint32(b[24:]); seq != 0x80000001 || b[33] != 0x10 {
		t.Errorf("sequence %#x, flags %#x", seq, b[33])
	}
	// A sum over what has a right checksum is zero (RFC 1071).
	pseudo := append(append([]byte{}, b[12:20]...), 0, 6, 0, 21)
	if ip, tcp := internetChecksum(b[:20]), internetChecksum(pseudo, b[20:], []byte{0}); ip != 0 || tcp != 0 {
		t.Errorf("checksums are off by %#x and %#x", ip, tcp)
	}
}

func TestSegmentOfIPv6(t *testing.T) {
	from, to := netip.MustParseAddrPort("[2001:db8::9]:80"), netip.MustParseAddrPort("[fd00::2]:40000")
	b := oneByte(from, to, 7)
	if len(b) != 61 || b[0] != 0x60 || binary.BigEndian.Uint16(b[4:]) != 21 || b[6] != 6 {
		t.Fatalf("% x", b)
	}
	pseudo := append(append([]byte{}, b[8:40]...), 0, 0, 0, 21, 0, 0, 0, 6, 0)
	if sum := internetChecksum(pseudo, b[40:]); sum != 0 || netip.AddrFrom16([16]byte(b[8:24])) != from.Addr() {
		t.Errorf("the checksum is off by %#x: % x", sum, b)
	}
}

func TestPodWithoutANeighbourEntryGetsNothing(t *testing.T) {
	_, h, _ := netnstest.Host(t, "eth0")
	flow := Flow{Source: netip.MustParseAddr("192.0.2.77"), Dest: netip.MustParseAddr("203.0.113.9"), SourcePort: 40000, DestPort: 80}
	if err := ElicitACK(h, []Flow{flow}); err != nil {
		t.Error(err)
	}
	if err := ElicitACK(h, nil); err != nil {
		t.Error(err)
	}
}
