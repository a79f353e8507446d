package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Nodes without a podCIDR and an install without settings, as with a CNI that gives
// addresses out of pools of its own; then Nodes whose podCIDR is not where their pods are.
func TestPodNetworksThatNobodyNames(t *testing.T) {
	// What the other suites do not have, too: kube-proxy's rules in nftables.
	b := newBedOf(t, testbed.Options{Prefix: "e2ecid", Backend: testbed.NFT, NoPodCIDRs: true, ProxyMode: testbed.ProxyNFTables, DualStack: true})
	b.install(t)
	if !inOrder(
		t,
		step{"a namespace leaves with its egress IP without a podCIDR", b.testStory},
		step{"traffic inside the cluster is left alone without a podCIDR", b.testInside},
		step{"pods reach each other by IPv6 without a podCIDR", b.testInside6},
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
		step{"a pool that the CNI's objects name is inside", b.testPool},
	)
}

// testInside6: pods with egress IPs reach others by IPv6, whose networks no Node and no setting
// names, and with their own addresses.
func (b *bed) testInside6(t *testing.T) {
	b.givenEgressIP(t)
	for _, from := range b.egress {
		for _, to := range b.plain {
			b.sees(t, from, fmt.Sprintf("http://[%s]:8080/", to.IPv6), from.IPv6.String())
		}
	}
	b.drop6(t, b.egress)
}

// pooled is an address outside, in a network that a pool of Calico's kind names later.
const pooled = "10.251.0.1"

// testPool: a network that a pool names is inside from then on, and what is sent there leaves
// as without us. The kind is made here, after the operator's install, as a CNI does that is
// installed later.
func (b *bed) testPool(t *testing.T) {
	const crd = `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": {"name": "ippools.crd.projectcalico.org"},
		"spec": {"group": "crd.projectcalico.org", "scope": "Cluster", "names": {"kind": "IPPool", "plural": "ippools"},
			"versions": [{"name": "v1", "served": true, "storage": true,
				"schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}`
	const pool = `{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "elsewhere"}, "spec": {"cidr": "10.251.0.0/16"}}`
	b.afterwards(t, func(ctx context.Context) error {
		_, err := b.Kubectl(ctx, "delete", "--ignore-not-found", "crd/ippools.crd.projectcalico.org")
		_, addrErr := b.Exec(ctx, testbed.Bastion, "ip", "address", "delete", pooled+"/32", "dev", "eth0")
		_, routeErr := b.Exec(ctx, testbed.Router, "ip", "route", "delete", pooled)
		return errors.Join(err, addrErr, routeErr)
	})
	for place, command := range map[string]string{
		testbed.Bastion: "ip address add " + pooled + "/32 dev eth0",
		testbed.Router:  "ip route add " + pooled + " via " + b.bastion,
	} {
		if _, err := b.Exec(t.Context(), place, strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	b.givenEgressIP(t)
	b.pings(t, func(testbed.Pod) string { return b.egressIP })
	if _, err := b.Apply(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() error {
		_, err := b.Apply(t.Context(), pool)
		return err
	})
	b.pings(t, b.nodeAddress)
	b.eventually(t, func() error {
		for _, n := range b.Nodes() {
			if err := b.hasField(t, "hostsubnet", n, `{.status.foundNetworks[?(@.cidr=="10.251.0.0/16")].source}`, "IPPool elsewhere (crd.projectcalico.org)"); err != nil {
				return err
			}
		}
		return nil
	})
	// The rest leaves as before.
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
}

// pings waits until pooled is asked from the wanted address by each pod with an egress IP.
func (b *bed) pings(t *testing.T, want func(testbed.Pod) string) {
	t.Helper()
	for _, p := range b.egress {
		b.eventually(t, func() error {
			to := netip.MustParseAddr(pooled)
			k, err := b.Capture(t.Context(), testbed.Bastion, "eth0", func(p testbed.Packet) bool { return !p.Outgoing && p.Destination.Addr() == to })
			if err != nil {
				return err
			}
			_, err = b.Exec(t.Context(), p.Place(), "traffic", "ping", "-timeout", quick(), pooled)
			packets, stopErr := k.Stop()
			if len(packets) == 0 {
				err = errors.Join(err, errors.New("no packet was seen"))
			}
			for _, seen := range packets {
				if got := seen.Source.Addr().String(); got != want(p) {
					err = errors.Join(err, fmt.Errorf("seen as %s", got))
				}
			}
			if err := errors.Join(err, stopErr); err != nil {
				return fmt.Errorf("%s on %s to %s, wanted %s: %w", p.Name, p.Node, pooled, want(p), err)
			}
			return nil
		})
	}
}
