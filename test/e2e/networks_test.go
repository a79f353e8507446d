package e2e

import (
	"fmt"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Nodes without a podCIDR and an install without settings, as with a CNI that gives
// addresses out of pools of its own; then Nodes whose podCIDR is not where their pods are.
func TestPodNetworksThatNobodyNames(t *testing.T) {
	b := newBedOf(t, testbed.Options{Prefix: "e2ecid", Backend: testbed.NFT, NoPodCIDRs: true})
	b.install(t)
	if !inOrder(
		t,
		step{"a namespace leaves with its egress IP without a podCIDR", b.testStory},
		step{"traffic inside the cluster is left alone without a podCIDR", b.testInside},
	) {
		return
	}
	for i, n := range b.Nodes() {
		// No pod has an address there.
		cidr := fmt.Sprintf("10.250.%d.0/24", i+1)
		b.patch(t, "node", n, fmt.Sprintf(`{"spec":{"podCIDR":%[1]q,"podCIDRs":[%[1]q]}}`, cidr))
		b.eventually(t, func() error { return b.hasField(t, "hostsubnet", n, "{.subnet}", cidr) })
	}
	inOrder(
		t,
		step{"a namespace leaves with its egress IP with pods outside the podCIDR", b.testStory},
		step{"traffic inside the cluster is left alone with pods outside the podCIDR", b.testInside},
	)
}
