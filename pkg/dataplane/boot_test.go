package dataplane

import (
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
)

// given: a host that was restored with an egress IP of before; when its agent's
// process begins, then the address is gone before anything else is known. But what
// a former process left working stays.
func TestSweepAfterBoot(t *testing.T) {
	w := newWorld(t, 2, onlyNFT())
	n1, n2 := w.nodes[0], w.nodes[1]
	n1.Run(t, "ip addr add "+eip1+"/24 dev eth0 label "+address.Label("eth0"))
	has := func(n *node) bool { return strings.Contains(n.Run(t, "ip -o addr show dev eth0"), eip1+"/") }
	if swept, err := n1.sweep(t); err != nil || swept != 1 || has(n1) {
		t.Errorf("after a boot: %d swept, %v; the address is there: %t", swept, err, has(n1))
	}
	n2.host(eip1, 7)
	n2.apply(t)
	if swept, err := n2.sweep(t); err != nil || swept != 0 || !has(n2) {
		t.Errorf("after a restart of the agent: %d swept, %v; the address is there: %t", swept, err, has(n2))
	}
}

// sweep does what an agent does first.
func (n *node) sweep(t *testing.T) (swept int, err error) {
	t.Helper()
	n.act(t, func() { swept, err = n.dp.SweepAfterBoot() })
	return swept, err
}
