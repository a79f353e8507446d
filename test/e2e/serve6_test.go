package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testServe6: a namespace has an egress IP of each family, each on its host. Its pods leave
// with these, whatever they send, and neither the host nor anyone else does.
func (b *bed) testServe6(t *testing.T) {
	b.withdrawAfter(t)
	for _, node := range b.Nodes() {
		b.eventually(t, func() error {
			return errors.Join(b.hasField(t, "hostsubnet", node, "{.status.agent.families}", `["IPv4","IPv6"]`),
				b.hasField(t, "hostsubnet", node, "{.status.agent.uplinkNetworks}", `["fd00:7::/64"]`))
		})
	}
	// A request that no host claims: dropped, not leaked.
	b.request(t, egressNamespace, egressIP4, egressIP6)
	b.claim(t, egressIP4)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP4 })
	b.drop6(t, b.egress)

	// In another form, of which the canonical one is shown.
	b.patch(t, "hostsubnet", secondHost, list([]string{ipv6().egressIPAsWritten}))
	b.eventually(t, func() error {
		return b.hasField(t, "hostsubnet", secondHost, "{.egressIPs}", `["`+egressIP6+`"]`)
	})
	b.leave6With(t, b.egress)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP4 })
	b.eventually(t, func() error {
		return b.hasField(t, "netnamespace", egressNamespace, "{.status.activeIPs[*].ip}", egressIP4+" "+egressIP6)
	})
	for _, object := range []string{"netnamespace/" + egressNamespace, "hostsubnet/" + egressHost, "hostsubnet/" + secondHost} {
		if _, err := b.Kubectl(t.Context(), "wait", "--for=condition=EgressReady", object, "--timeout=10s"); err != nil {
			t.Error(err)
		}
	}
	verify := b.watchBastion(t, egressIP4, egressIP6)
	b.packets6(t)
	verify()

	b.othersLeave6(t)
	// The request of one family is withdrawn: the other goes on.
	b.request(t, egressNamespace, egressIP4)
	b.drop6(t, b.egress)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP4 })
	b.eventually(t, func() error { return b.hasEgressIP(t, secondHost, egressIP6, false) })
}

// packets6 sends every kind of packet by IPv6, from the egress host and over the overlay.
func (b *bed) packets6(t *testing.T) {
	t.Helper()
	bastion := fmt.Sprintf("[%s]:%d", testbed.BastionIPv6, testbed.BastionPort)
	for _, p := range b.egress {
		for _, command := range []string{
			"get " + bastionURL6(),
			"post -timeout 20s -size " + megabytes + " " + bastionURL6() + "/?bytes=" + megabytes,
			"udp " + bastion,
			// A sender learns by its first datagram what the path carries.
			"udp -timeout " + quick() + " -size 4000 " + bastion,
		} {
			b.eventually(t, func() error {
				if saw, err := b.traffic(t, p, strings.Fields(command)...); err != nil || saw != egressIP6 {
					return fmt.Errorf("%s on %s: %s: seen as %q, %w", p.Name, p.Node, command, saw, err)
				}
				return nil
			})
		}
		for _, size := range []string{"56", "4000"} {
			b.eventually(t, func() error {
				_, err := b.Exec(t.Context(), p.Place(), "traffic", "ping", "-timeout", quick(), "-size", size, testbed.BastionIPv6)
				return err
			})
		}
		for _, to := range b.plain {
			b.sees(t, p, fmt.Sprintf("http://[%s]:8080/", to.IPv6), p.IPv6.String())
		}
	}
}

// othersLeave6: pods without egress IPs, and the nodes themselves, have their own addresses.
func (b *bed) othersLeave6(t *testing.T) {
	t.Helper()
	var allowed []string
	for _, node := range b.Nodes() {
		allowed = append(allowed, b.NodeIPv6(node).String())
	}
	verify := b.watchBastion(t, allowed...)
	b.leave6(t, b.plain)
	for _, node := range b.Nodes() {
		out, err := b.NodeExec(t.Context(), node, "traffic", "get", bastionURL6())
		if err != nil {
			t.Errorf("%s: %v", node, err)
			continue
		}
		if saw, err := sawIn(out); err != nil || saw != b.NodeIPv6(node).String() {
			t.Errorf("%s itself is seen as %q, %v", node, saw, err)
		}
	}
	verify()
}

// leave6With waits until the bastion sees each pod with the egress IP of IPv6.
func (b *bed) leave6With(t *testing.T, pods []testbed.Pod) {
	t.Helper()
	for _, p := range pods {
		b.eventually(t, func() error {
			saw, err := b.traffic(t, p, "get", "-timeout", quick(), bastionURL6())
			if err == nil && saw != egressIP6 {
				err = fmt.Errorf("seen as %s", saw)
			}
			if err != nil {
				return fmt.Errorf("%s on %s, wanted %s: %w", p.Name, p.Node, egressIP6, err)
			}
			return nil
		})
	}
}

// testPowerCut6: automatic hosts get the egress IPs of both families, and that of IPv6 moves
// when its host loses power, as that of IPv4 does. Connections of both families are opened
// all the time: none has another source.
func (b *bed) testPowerCut6(t *testing.T) {
	b.withdrawAfter(t)
	b.request(t, egressNamespace, egressIP4, egressIP6)
	hosts := []string{egressHost, secondHost}
	for _, node := range hosts {
		b.patch(t, "hostsubnet", node, `{"egressCIDRs": ["`+firstEight4+`", "`+firstEight6+`"]}`)
	}
	host := b.hostOf(t, egressIP6, hosts)
	other := hosts[1-slices.Index(hosts, host)]
	b.leave6With(t, b.egress)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP4 })
	b.witnessed(t, host)
	b.leadElsewhere(t, host)

	verify := b.watchBastion(t, egressIP4, egressIP6)
	away := b.awayFrom(t, host, other)
	beside, err := b.Background(t.Context(), away.Place(), "traffic", "watch",
		"-every", "50ms", "-for", "8s", "-timeout", "1s", fmt.Sprintf("tcp://%s:%d", testbed.BastionIP, testbed.BastionEchoPort))
	if err != nil {
		t.Fatal(err)
	}
	outage := b.outageTo(t, away, testbed.BastionIPv6, func() {
		if err := b.PowerOff(t.Context(), host); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the host of an automatic egress IP of IPv6 lost power: no new connection for %s", outage)
	if outage > moveWithin {
		t.Errorf("no new connection by IPv6 for %s after the host lost power, want less than %s", outage, moveWithin)
	}
	if out, err := beside(false); err != nil {
		t.Errorf("the prober of IPv4: %v", err)
	} else if answered, _ := ipv4().readResults(t, out); answered < 40 {
		t.Errorf("%d connections by IPv4 were answered to the egress IP meanwhile", answered)
	}
	if now := b.hostOf(t, egressIP6, hosts); now != other {
		t.Errorf("%s is on %s, want %s", egressIP6, now, other)
	}
	if err := b.hasEgressIP(t, other, egressIP6, true); err != nil {
		t.Error(err)
	}
	if err := b.PowerOn(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	b.trusted(t, host)
	b.leave6With(t, b.egress)
	verify()
}

// hostOf waits until one of the hosts lists an egress IP.
func (b *bed) hostOf(t *testing.T, ip string, hosts []string) (host string) {
	t.Helper()
	b.eventually(t, func() error {
		for _, node := range hosts {
			claims, err := b.Kubectl(t.Context(), "get", "hostsubnet", node, "-o", "jsonpath={.egressIPs[*]}")
			if err != nil {
				return err
			}
			if slices.Contains(strings.Fields(claims), ip) {
				host = node
				return nil
			}
		}
		return fmt.Errorf("no host claims %s", ip)
	})
	return host
}
