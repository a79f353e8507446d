package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testSecondNetwork: nodes with a second interface publish its network; an egress IP there is
// refused until they have it, then leaves by that interface alone from whichever pod, and moves
// when the interface of its host goes down. Nothing leaves with another address meanwhile.
func (b *bed) testSecondNetwork(t *testing.T) {
	hosts := []string{egressHost, secondHost}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle)) // t.Context is over by now
		defer cancel()
		_, err := b.Kubectl(ctx, "patch", "netnamespace", egressNamespace, "--type=merge", "-p", list(nil))
		errs := []error{err}
		for _, h := range hosts {
			errs = append(errs, testbed.Poll(ctx, settle, func() error {
				claims, err := b.Kubectl(ctx, "get", "hostsubnet", h, "-o", "jsonpath={.egressIPs[*]}")
				if err == nil && claims != "" {
					err = fmt.Errorf("host %s still claims %s", h, claims)
				}
				return err
			}))
			_, err := b.Kubectl(ctx, "patch", "hostsubnet", h, "--type=merge", "-p", `{"egressCIDRs": null}`)
			errs = append(errs, err)
		}
		if err := errors.Join(append(errs, b.RemoveSecondNetwork(ctx))...); err != nil {
			t.Error(err)
		}
	})
	b.request(t, egressNamespace, testbed.SecondEgressIP)
	for _, h := range hosts {
		b.patch(t, "hostsubnet", h, fmt.Sprintf(`{"egressCIDRs": [%q]}`, testbed.SecondEgressRange))
	}
	b.eventually(t, func() error {
		return b.hasField(t, "netnamespace", egressNamespace, `{.status.conditions[?(@.type=="EgressReady")].status}`, "False")
	})
	if err := b.AddSecondNetwork(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, node := range b.Nodes() {
		b.eventually(t, func() error {
			return b.hasField(t, "hostsubnet", node, "{range .status.agent.otherNetworks[*]}{.interface} {.cidr} {.gateway}{end}",
				testbed.SecondInterface+" "+testbed.SecondNetwork+" 172.31.9.1")
		})
	}
	own := func(testbed.Pod) string { return testbed.SecondEgressIP }
	b.leaveWith(t, b.egress, own)
	b.leaveWith(t, b.plain, b.nodeAddress)
	wrong, err := b.Capture(t.Context(), testbed.Router, "eth0", func(p testbed.Packet) bool { return p.ARP == 0 && p.Source.Addr().String() == testbed.SecondEgressIP })
	if err != nil {
		t.Fatal(err)
	}
	verify := b.sending(t, testbed.SecondEgressIP)
	host := b.claimant(t, testbed.SecondEgressIP, hosts)
	if err := b.hasField(t, "hostsubnet", host, "{.status.egressIPs[0].interface}", testbed.SecondInterface); err != nil {
		t.Error(err)
	}
	if _, err := b.NodeExec(t.Context(), host, "ip", "link", "set", testbed.SecondInterface, "down"); err != nil {
		t.Fatal(err)
	}
	other := hosts[0]
	if host == other {
		other = hosts[1]
	}
	b.eventually(t, func() error { return b.hasField(t, "hostsubnet", other, "{.egressIPs[*]}", testbed.SecondEgressIP) })
	b.leaveWith(t, b.egress, own)
	verify()
	b.leaveWith(t, b.plain, b.nodeAddress)
	packets, err := wrong.Stop()
	if err != nil || len(packets) > 0 {
		t.Errorf("%d packets with the egress IP left by the uplink: %v", len(packets), err)
	}
}

// claimant returns which host claims an egress IP.
func (b *bed) claimant(t *testing.T, ip string, hosts []string) (host string) {
	t.Helper()
	b.eventually(t, func() error {
		for _, h := range hosts {
			claims, err := b.Kubectl(t.Context(), "get", "hostsubnet", h, "-o", "jsonpath={.egressIPs[*]}")
			if err != nil {
				return err
			}
			if strings.Contains(claims, ip) {
				host = h
				return nil
			}
		}
		return fmt.Errorf("no host claims %s", ip)
	})
	return host
}
