package dataplane

import (
	"slices"
	"strings"
	"testing"
)

// ip_forward is not ours to set: whoever turned it off shall hear of it.
func TestHostThatDoesNotForwardIsReported(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	reports := func(warning string) bool { return strings.Contains(warning, "ip_forward") }
	if r := n.apply(t); slices.ContainsFunc(r.Warnings, reports) {
		t.Errorf("warnings of a host that forwards: %q", r.Warnings)
	}
	n.Run(t, "sysctl -qw net.ipv4.ip_forward=0")
	if r := n.apply(t); !slices.ContainsFunc(r.Warnings, reports) {
		t.Errorf("warnings of a host that does not forward: %q", r.Warnings)
	}
	if got := n.Run(t, "cat /proc/sys/net/ipv4/ip_forward"); got != "0\n" {
		t.Errorf("ip_forward was changed to %q", got)
	}
}
