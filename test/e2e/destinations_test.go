package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testDestinations: annotations say to which destinations the egress IP applies. While they change, each
// pod is answered to its node's address or to the egress IP, and to no other; what is written wrongly
// keeps the egress IP, and the status says so.
func (b *bed) testDestinations(t *testing.T) {
	if !b.ownTable() {
		t.Skip("with rules in iptables it depends on the kernel, as packet tests show: see TestExcludedNetworksAreReachedAsWithoutUs")
	}
	b.givenEgressIP(t)
	object := "netnamespace/" + egressNamespace
	annotate := func(exclude, include string) {
		t.Helper()
		b.must(t, "annotate", "--overwrite", object, v1.AnnotationExcludeCIDRs+"="+exclude, v1.AnnotationIncludeCIDRs+"="+include)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle)) // t.Context is over by now
		defer cancel()
		if _, err := b.Kubectl(ctx, "annotate", object, v1.AnnotationExcludeCIDRs+"-", v1.AnnotationIncludeCIDRs+"-"); err != nil {
			t.Error(err)
		}
	})
	says := func(want string) {
		t.Helper()
		b.eventually(t, func() error {
			got, err := b.Kubectl(t.Context(), "get", object, "-o", `jsonpath={.status.conditions[?(@.type=="EgressReady")].message}`)
			if err == nil && !strings.Contains(got, want) {
				err = fmt.Errorf("EgressReady says %q, want %q", got, want)
			}
			return err
		})
	}
	own := func(testbed.Pod) string { return b.egressIP }
	allowed := []string{b.egressIP}
	for _, p := range b.egress {
		allowed = append(allowed, b.nodeAddress(p))
	}
	verify := b.sendingOwn(t, func(p testbed.Pod) []string { return []string{b.egressIP, b.nodeAddress(p)} }, allowed...)
	bastion := fmt.Sprintf("%s/%d", b.bastion, b.bits)
	for _, step := range []struct {
		exclude, include, says string
		want                   func(testbed.Pod) string
	}{
		{bastion, "", "apply to all destinations but " + bastion, b.nodeAddress},
		{"0.0.0.0/0,::/0", bastion, "apply to " + bastion + " only", own},
		{"", "203.0.113.0/24", "apply to 203.0.113.0/24 only", b.nodeAddress},
		{"", "203.0.113.0/24 and more", "is not a network of IPv4 or IPv6", own},
		{bastion, "0.0.0.0/0,::/0", "the most specific network counts", b.nodeAddress},
		{"", "", "", own},
	} {
		annotate(step.exclude, step.include)
		b.leaveWith(t, b.egress, step.want)
		b.leaveWith(t, b.plain, b.nodeAddress)
		if step.says != "" {
			says(step.says)
		}
	}
	verify()
}
