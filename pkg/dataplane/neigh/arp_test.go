package neigh

import (
	"bytes"
	"net"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

func TestARPMessageIsReadAsItWasWritten(t *testing.T) {
	want := arpMessage{
		op: arpReply, senderMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, senderIP: testenv.Addr("192.0.2.1"),
		targetMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, targetIP: testenv.Addr("192.0.2.2"),
	}
	got, ok := parseARP(want.frame())
	if !ok || got.op != want.op || got.senderIP != want.senderIP || got.targetIP != want.targetIP ||
		!bytes.Equal(got.senderMAC, want.senderMAC) || !bytes.Equal(got.targetMAC, want.targetMAC) {
		t.Errorf("got %+v, %t, want %+v", got, ok, want)
	}
	for name, frame := range map[string][]byte{
		"empty":    nil,
		"cut off":  want.frame()[:arpFrameLen-1],
		"not ARP":  make([]byte, arpFrameLen),
		"not IPv4": append(want.frame()[:16:16], make([]byte, arpFrameLen-16)...),
	} {
		if m, ok := parseARP(frame); ok {
			t.Errorf("%s: read as %+v", name, m)
		}
	}
}
