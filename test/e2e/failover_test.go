package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// moveWithin is well above what it takes to move an automatic egress IP by
// probes, and well below what a Node takes to be NotReady.
const moveWithin = 4 * time.Second

// givenAutomatic makes two hosts automatic, requests an egress IP, and returns the
// host that got it and the other one.
func (b *bed) givenAutomatic(t *testing.T) (host, other string) {
	t.Helper()
	b.withdrawAfter(t)
	b.request(t, egressNamespace, b.egressIP)
	hosts := []string{egressHost, secondHost}
	for _, node := range hosts {
		b.patch(t, "hostsubnet", node, b.automatic())
	}
	b.eventually(t, func() error {
		host = ""
		for _, node := range hosts {
			claims, err := b.Kubectl(t.Context(), "get", "hostsubnet", node, "-o", "jsonpath={.egressIPs[*]}")
			if err != nil {
				return err
			}
			if claims == b.egressIP {
				host = node
			}
		}
		if host == "" {
			return errors.New("no host claims the egress IP yet")
		}
		return nil
	})
	other = hosts[1-slices.Index(hosts, host)]
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.witnessed(t, host)
	return host, other
}

// witnessed waits until all other nodes are the witnesses of a host: they decide about a
// move.
func (b *bed) witnessed(t *testing.T, host string) {
	t.Helper()
	b.eventually(t, func() error {
		out, err := b.Kubectl(t.Context(), "get", "hostsubnet", host, "-o", "jsonpath={.status.witnesses[*]}")
		if err != nil {
			return err
		}
		witnesses := strings.Fields(out)
		for _, node := range b.Nodes() {
			if node != host && !slices.Contains(witnesses, node) {
				return fmt.Errorf("the witnesses of %s are %q, and not %s", host, witnesses, node)
			}
		}
		return nil
	})
}

// leadElsewhere has a controller lead that does not run on the node.
func (b *bed) leadElsewhere(t *testing.T, node string) {
	t.Helper()
	b.eventually(t, func() error {
		holder, err := b.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "get", "lease", "egressip-controller", "-o", "jsonpath={.spec.holderIdentity}")
		if err != nil {
			return err
		}
		pods, err := b.Pods(t.Context(), testbed.OperatorNamespace, "app.kubernetes.io/component=controller")
		if err != nil {
			return err
		}
		// The Lease outlives an install, and names who led before.
		leads := func(p testbed.Pod) bool { return holder == p.Node+"_"+p.UID }
		if !strings.HasPrefix(holder, node+"_") && slices.ContainsFunc(pods, leads) {
			return nil
		}
		for _, p := range pods {
			if p.Node == node {
				if _, err := b.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "delete", "pod", p.Name); err != nil {
					return err
				}
			}
		}
		return fmt.Errorf("the leader, %q, is on %s", holder, node)
	})
}

// leadOn has the controller lead that runs on the node.
func (b *bed) leadOn(t *testing.T, node string) {
	t.Helper()
	kubectl := func(args ...string) (string, error) { return b.Kubectl(t.Context(), args...) }
	var others []string
	for _, n := range b.Nodes() {
		if n != node {
			others = append(others, n)
		}
	}
	uncordon := func(ctx context.Context) error {
		_, err := b.Kubectl(ctx, append([]string{"uncordon"}, others...)...)
		return err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle))
		defer cancel()
		if err := uncordon(ctx); err != nil {
			t.Error(err)
		}
	})
	if _, err := kubectl(append([]string{"cordon"}, others...)...); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() error { return b.moveLead(t.Context(), node) })
	if err := uncordon(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Another is there to take over, and none is about to end.
	b.eventually(t, func() error {
		ready, err := kubectl("-n", testbed.OperatorNamespace, "get", "deployment", "egressip-controller", "-o", "jsonpath={.status.readyReplicas}")
		if err == nil && ready != "2" {
			err = fmt.Errorf("%s controllers are ready", ready)
		}
		ending, errPods := kubectl("-n", testbed.OperatorNamespace, "get", "pods", "-l", "app.kubernetes.io/component=controller", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}")
		if errPods == nil && ending != "" {
			errPods = fmt.Errorf("controllers are ending since %s", ending)
		}
		return errors.Join(err, errPods)
	})
	if holder := b.leader(t); !strings.HasPrefix(holder, node+"_") {
		t.Fatalf("the leader is %q meanwhile, want one on %s", holder, node)
	}
}

// moveLead returns nil once the controller of the node leads; otherwise it deletes a
// controller that is in the way.
func (b *bed) moveLead(ctx context.Context, node string) error {
	holder, err := b.Kubectl(ctx, "-n", testbed.OperatorNamespace, "get", "lease", "egressip-controller", "-o", "jsonpath={.spec.holderIdentity}")
	if err != nil {
		return err
	}
	pods, err := b.Pods(ctx, testbed.OperatorNamespace, "app.kubernetes.io/component=controller")
	if err != nil {
		return err
	}
	leads := func(p testbed.Pod) bool { return strings.HasPrefix(holder, p.Node+"_") }
	remove := func(which func(testbed.Pod) bool) error {
		i := slices.IndexFunc(pods, which)
		if i < 0 {
			return nil
		}
		_, err := b.Kubectl(ctx, "-n", testbed.OperatorNamespace, "delete", "pod", pods[i].Name)
		return err
	}
	switch {
	case !slices.ContainsFunc(pods, func(p testbed.Pod) bool { return p.Node == node }):
		// A controller that does not lead is created again, where there is room.
		err := remove(func(p testbed.Pod) bool { return !leads(p) })
		return errors.Join(fmt.Errorf("no controller runs on %s yet", node), err)
	case strings.HasPrefix(holder, node+"_"):
		return nil
	}
	return errors.Join(fmt.Errorf("the leader, %q, is not on %s", holder, node), remove(leads))
}

// leader is who holds the Lease.
func (b *bed) leader(t *testing.T) (holder string) {
	t.Helper()
	b.eventually(t, func() error {
		var err error
		holder, err = b.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "get", "lease", "egressip-controller", "-o", "jsonpath={.spec.holderIdentity}")
		return err
	})
	return holder
}

// testPowerCutOfTheLeader: the leader dies with the host of an egress IP, and is
// followed at once rather than when its Lease expires.
//
// Mutant killed: a heir that never looks.
func (b *bed) testPowerCutOfTheLeader(t *testing.T) {
	host, other := b.givenAutomatic(t)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.leadOn(t, host)
	leader := b.leader(t)
	verify := b.watchBastion(t, b.egressIP)
	b.movesSoon(t, host, other, "lost power, and the leader with it", func() error { return b.PowerOff(t.Context(), host) })
	if now := b.leader(t); now == leader || !strings.HasPrefix(leader, host+"_") {
		t.Errorf("the leader was %q, is %q: want one on %s, and another", leader, now, host)
	}
	b.eventually(t, func() error { return b.hasField(t, "hostsubnet", other, "{.egressIPs[*]}", b.egressIP) })
	if err := b.PowerOn(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	b.trusted(t, host)
	verify()
}

// movesSoon breaks the host of an automatic egress IP, and expects pods that are
// elsewhere to be without new connections for a moment only.
func (b *bed) movesSoon(t *testing.T, host, other, what string, breaks func() error) {
	t.Helper()
	outage := b.outage(t, b.awayFrom(t, host, other), func() {
		if err := breaks(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the host of an automatic egress IP %s: no new connection for %s", what, outage)
	if limit := testenv.Stretch(moveWithin); outage > limit {
		t.Errorf("no new connection for %s after the host %s, want less than %s", outage, what, limit)
	}
}

// trusted waits until a host that was mended is as before, and all pods leave with the
// egress IP.
func (b *bed) trusted(t *testing.T, host string) {
	t.Helper()
	b.back(t, host)
	b.within(t, trustedWithin, func() error {
		return b.hasField(t, "hostsubnet", host, `{.status.conditions[?(@.type=="Online")].status}`, "True")
	})
	b.leaveWithin(t, trustedWithin, b.egress, func(testbed.Pod) string { return b.egressIP })
}

// awayFrom is a pod that is on none of the nodes.
func (b *bed) awayFrom(t *testing.T, nodes ...string) testbed.Pod {
	t.Helper()
	for _, p := range b.egress {
		if !slices.Contains(nodes, p.Node) {
			return p
		}
	}
	t.Fatalf("all pods are on %v", nodes)
	return testbed.Pod{}
}

// back waits until a node that was off is as before, and all pods with it.
func (b *bed) back(t *testing.T, node string) {
	t.Helper()
	if err := b.AwaitReady(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() (err error) {
		if b.egress, err = b.AwaitPods(t.Context(), egressNamespace, "app=client", len(b.Nodes())); err != nil {
			return err
		}
		if b.plain, err = b.AwaitPods(t.Context(), plainNamespace, "app=client", len(b.Nodes())); err != nil {
			return err
		}
		for _, p := range slices.Concat(b.egress, b.plain) {
			err = errors.Join(err, b.isAt(t, p))
		}
		return err
	})
}

// isAt asks the server of a pod for its name. Until the kubelet of a node that was booted again
// has reported, the API server has its pods' addresses of before, which others may have now.
func (b *bed) isAt(t *testing.T, p testbed.Pod) error {
	t.Helper()
	out, err := b.Exec(t.Context(), p.Place(), "traffic", "get", "-timeout", quick(), "http://"+netip.AddrPortFrom(p.IP, 8080).String())
	if err == nil && !strings.HasPrefix(out, p.Name+" saw ") {
		err = fmt.Errorf("%s on %s is not at %s yet: %s", p.Name, p.Node, p.IP, out)
	}
	return err
}

// testPowerCut: an automatic egress IP moves to the other host in about a second
// when its host loses power, and nothing leaves with another source.
func (b *bed) testPowerCut(t *testing.T) {
	host, other := b.givenAutomatic(t)
	b.leadElsewhere(t, host)
	verify := b.watchBastion(t, b.egressIP)
	b.movesSoon(t, host, other, "lost power", func() error { return b.PowerOff(t.Context(), host) })
	b.eventually(t, func() error { return b.hasField(t, "hostsubnet", other, "{.egressIPs[*]}", b.egressIP) })
	b.eventually(t, func() error {
		return b.hasField(t, "hostsubnet", host, `{.status.conditions[?(@.type=="Online")].reason}`, "Silent")
	})
	b.eventually(t, func() error {
		events, err := b.Kubectl(t.Context(), "get", "events", "-A", "-o", "jsonpath={.items[*].reason}")
		if err == nil && (!strings.Contains(events, "HostOffline") || !strings.Contains(events, "EgressIPMoved")) {
			err = fmt.Errorf("events report %s", events)
		}
		return err
	})
	if err := b.PowerOn(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	b.trusted(t, host)
	verify()
}

// testCutOff: a host that is alive and reaches neither the API server nor the
// other nodes gives its egress IP up before another takes it, and does not take
// it back when it is reached again.
func (b *bed) testCutOff(t *testing.T) {
	host, other := b.givenAutomatic(t)
	b.leadElsewhere(t, host)
	verify := b.watchBastion(t, b.egressIP)
	rest := []string{testbed.ControlPlane}
	for _, node := range b.Nodes() {
		if node != host {
			rest = append(rest, node)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle))
		defer cancel()
		if err := b.Mend(ctx); err != nil {
			t.Error(err)
		}
	})
	b.movesSoon(t, host, other, "was cut off", func() error { return b.Partition(t.Context(), []string{host}, rest) })
	if err := b.hasEgressIP(t, host, b.egressIP, false); err != nil {
		t.Errorf("a host that is cut off: %v", err)
	}
	if err := b.hasEgressIP(t, other, b.egressIP, true); err != nil {
		t.Error(err)
	}
	if err := b.Mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.trusted(t, host)
	verify()
}

// testEvacuation: the annotation on a Node moves its egress IP away without a
// wrong packet, and the Node gets it back no sooner than it is gone.
func (b *bed) testEvacuation(t *testing.T) {
	host, other := b.givenAutomatic(t)
	const annotation = "egressip.network.openshift.io/evacuate"
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle))
		defer cancel()
		if _, err := b.Kubectl(ctx, "annotate", "node", host, annotation+"-"); err != nil {
			t.Error(err)
		}
	})
	verify := b.watchBastion(t, b.egressIP)
	outage := b.outage(t, b.awayFrom(t, host, other), func() {
		if _, err := b.Kubectl(t.Context(), "annotate", "node", host, annotation+"=true"); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the host of an automatic egress IP was evacuated: no new connection for %s", outage)
	if limit := testenv.Stretch(moveWithin); outage > limit {
		t.Errorf("no new connection for %s while the host was evacuated, want less than %s", outage, limit)
	}
	b.eventually(t, func() error { return b.hasField(t, "hostsubnet", other, "{.egressIPs[*]}", b.egressIP) })
	b.eventually(t, func() error {
		return b.hasField(t, "hostsubnet", host, `{.status.conditions[?(@.type=="Evacuating")].status}`, "True")
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	verify()
}
