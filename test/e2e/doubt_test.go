package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	probePort = 9788
	// operatorImage is the operator's image as nodes have it.
	operatorImage = "egressip-operator:dev"
)

// testProbesBlocked: firewalls on all nodes drop probes. Nothing else is wrong, so no
// request is lost; the host's condition and an event say what to open.
//
// Mutants killed: silence-is-death.
func (b *bed) testProbesBlocked(t *testing.T) {
	// The controller hears the agent of its own node, whatever is blocked.
	b.leadElsewhere(t, egressHost)
	b.givenEgressIP(t)
	b.witnessed(t, egressHost)
	verify := b.watchBastion(t, b.egressIP)
	unblock := func(ctx context.Context) error {
		return onEach(b.Nodes(), func(node string) error { return b.UnblockUDP(ctx, node, probePort) })
	}
	blocked := false
	b.afterwards(t, func(ctx context.Context) error {
		if !blocked {
			return nil
		}
		return unblock(ctx)
	})
	b.lossless(t, b.egress, 16*time.Second, func() {
		blocked = true
		if err := onEach(b.Nodes(), func(node string) error { return b.BlockUDP(t.Context(), node, probePort) }); err != nil {
			t.Fatal(err)
		}
		b.eventually(t, func() error { return b.hasCondition(t, egressHost, "Online", "Unknown", "ControllerAlone") })
		b.eventually(t, func() error { return b.hasEvent(t, egressHost, "ControllerAlone", "allow UDP from all nodes") })
		if err := unblock(t.Context()); err != nil {
			t.Fatal(err)
		}
		blocked = false
		b.eventually(t, func() error { return b.hasCondition(t, egressHost, "Online", "True", "NodeReady") })
	})
	verify()
}

// testStaleNode: Nodes without a machine have the addresses of the egress host and of the
// egress IP itself. Neither takes anything away.
func (b *bed) testStaleNode(t *testing.T) {
	b.givenEgressIP(t)
	verify := b.watchBastion(t, b.egressIP)
	stale := map[string]string{"a-stale-host": b.nodeIP(egressHost), "a-stale-ip": b.egressIP}
	b.afterwards(t, func(ctx context.Context) error {
		var errs []error
		for name := range stale {
			// The HostSubnet would stay for an hour.
			_, errNode := b.Kubectl(ctx, "delete", "node", name, "--ignore-not-found")
			_, errHost := b.Kubectl(ctx, "delete", "hostsubnet", name, "--ignore-not-found")
			errs = append(errs, errNode, errHost)
		}
		return errors.Join(errs...)
	})
	b.lossless(t, b.egress, 8*time.Second, func() {
		for name, address := range stale {
			if _, err := b.Apply(t.Context(), fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n", name)); err != nil {
				t.Fatal(err)
			}
			patch := fmt.Sprintf(`{"status": {"addresses": [{"type": "InternalIP", "address": %q}], "conditions": [{"type": "Ready", "status": "False"}]}}`, address)
			if _, err := b.Kubectl(t.Context(), "patch", "node", name, "--subresource=status", "--type=merge", "-p", patch); err != nil {
				t.Fatal(err)
			}
		}
		for name, address := range stale {
			b.eventually(t, func() error { return b.hasEvent(t, name, "NodeAddressRefused", address+" as its first InternalIP") })
		}
		if err := b.hasField(t, "hostsubnet", egressHost, "{.hostIP}", b.nodeIP(egressHost)); err != nil {
			t.Error(err)
		}
		if err := b.hasCondition(t, egressHost, "Online", "True", "NodeReady"); err != nil {
			t.Error(err)
		}
	})
	verify()
}

// testNoAgent: a host becomes automatic whose agent has never started. It gets nothing,
// not even what no other host can take, and nothing moves; once its agent runs, it does.
func (b *bed) testNoAgent(t *testing.T) {
	const without = "node1"
	b.withdrawAfter(t)
	b.request(t, egressNamespace, b.egressIP, b.secondIP)
	b.patch(t, "hostsubnet", egressHost, b.automatic())
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	verify := b.watchBastion(t, b.egressIP, b.secondIP)
	show := b.breakAgent(t, without)
	var others []testbed.Pod // the host without an agent may send nothing to others
	for _, p := range b.egress {
		if p.Node != without {
			others = append(others, p)
		}
	}
	b.lossless(t, others, 8*time.Second, func() {
		if _, err := b.Kubectl(t.Context(), "delete", "hostsubnet", without); err != nil {
			t.Fatal(err)
		}
		b.eventually(t, func() error { return b.hasField(t, "hostsubnet", without, "{.hostIP}", b.nodeIP(without)) })
		b.patch(t, "hostsubnet", without, b.automatic())
		b.eventually(t, func() error {
			return errors.Join(
				b.hasCondition(t, without, "Online", "True", ""),
				b.hasField(t, "netnamespace", egressNamespace, "{.status.egressIPs[1].reason}", "NoEligibleHost"))
		})
	})
	for node, want := range map[string]string{egressHost: b.egressIP, without: ""} {
		if err := b.hasField(t, "hostsubnet", node, "{.egressIPs[*]}", want); err != nil {
			t.Error(err)
		}
	}
	show()
	b.within(t, time.Minute, func() error { return b.hasField(t, "hostsubnet", without, "{.egressIPs[*]}", b.secondIP) })
	b.inState(t, "Active", "Standby")
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	verify()
}

// breakAgent ends the agent of a node, and keeps it from starting until the function that
// it returns is called.
func (b *bed) breakAgent(t *testing.T, node string) (mend func()) {
	t.Helper()
	isHidden := false
	show := func(ctx context.Context) error {
		if !isHidden {
			return nil
		}
		isHidden = false
		return b.ShowImage(ctx, node, operatorImage)
	}
	b.afterwards(t, show)
	isHidden = true
	if err := b.HideImage(t.Context(), node, operatorImage); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Kill(t.Context(), node, isAgent); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if pids, err := b.PIDs(node, isAgent); err != nil || len(pids) > 0 {
			t.Errorf("agents run on %s: %v, %v; want none", node, pids, err)
		}
		if err := show(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// testNodeAgain: the Nodes of a manual and of an automatic host are deleted, and registered
// again by their kubelets. What users wrote is there all the time, and serves again.
func (b *bed) testNodeAgain(t *testing.T) {
	const automaticIP = "192.168.7.209"
	b.withdrawAfter(t)
	b.afterwards(t, func(ctx context.Context) error {
		_, err := b.Kubectl(ctx, "patch", "netnamespace", plainNamespace, "--type=merge", "-p", list(nil))
		return err
	})
	b.request(t, egressNamespace, b.egressIP)
	b.claim(t, b.egressIP)
	b.request(t, plainNamespace, automaticIP)
	b.patch(t, "hostsubnet", secondHost, `{"egressCIDRs": ["192.168.7.208/29"]}`)
	leave := func() {
		t.Helper()
		b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
		b.leaveWith(t, b.plain, func(testbed.Pod) string { return automaticIP })
	}
	leave()
	nodes := []string{egressHost, secondHost}
	settings := func() error {
		return errors.Join(
			b.hasField(t, "hostsubnet", egressHost, "{.egressIPs[*]}", b.egressIP),
			b.hasField(t, "hostsubnet", secondHost, "{.egressCIDRs[*]}", "192.168.7.208/29"))
	}
	conditions := func(gone string, online string) {
		t.Helper()
		b.eventually(t, func() error {
			return onEach(nodes, func(node string) error {
				return errors.Join(b.hasCondition(t, node, "NodeGone", gone, ""), b.hasCondition(t, node, "Online", online, ""))
			})
		})
		if err := settings(); err != nil {
			t.Error(err)
		}
	}
	verify := b.watchBastion(t, b.egressIP, automaticIP)
	done := b.keepSending(t, slices.Concat(b.egress, b.plain))
	if _, err := b.Kubectl(t.Context(), append([]string{"delete", "node"}, nodes...)...); err != nil {
		t.Fatal(err)
	}
	conditions("True", "False")
	for _, node := range nodes {
		if n, err := b.Kill(t.Context(), node, isKubelet); err != nil || n != 1 {
			t.Fatalf("killed %d kubelets on %s, %v; want 1", n, node, err)
		}
	}
	for _, node := range nodes {
		b.back(t, node)
	}
	conditions("False", "True")
	leave()
	done()
	verify()
}

func isKubelet(args []string) bool { return filepath.Base(args[0]) == "kubelet" }

// keepSending has pods send for a while, answered or not. The function that it returns
// waits for their end: what is sent later would belong to another test.
func (b *bed) keepSending(t *testing.T, pods []testbed.Pod) (done func()) {
	t.Helper()
	var waits []func(bool) (string, error)
	for _, p := range pods {
		wait, err := b.Background(t.Context(), p.Place(), "traffic", "watch",
			"-every", "50ms", "-for", "15s", "-timeout", "1s", b.bastionURL())
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, wait)
	}
	return func() {
		for _, wait := range waits {
			// Whatever became of it: its packets were seen.
			_, _ = wait(false)
		}
	}
}

// testLeaderPaused: the leader is paused for longer than its Lease lasts, and an egress IP
// moves meanwhile. At no time do two hosts claim it, and the former leader ends.
func (b *bed) testLeaderPaused(t *testing.T) {
	// The host has no controller: one that takes over must be left.
	c := b.givenHostWithoutController(t)
	leader, host, other := c.leader, c.without, c.standby

	verify, oneOwner := b.watchBastion(t, b.egressIP), b.oneOwner(t)
	done := b.keepSending(t, b.egress)
	former, err := b.PIDs(leader, isController)
	if err != nil || len(former) != 1 {
		t.Fatalf("controllers on %s: %v, %v; want one", leader, former, err)
	}
	b.afterwards(t, func(ctx context.Context) error {
		_, err := b.Thaw(leader, isController)
		return errors.Join(err, b.LinkUp(ctx, host))
	})
	if _, err := b.Freeze(leader, isController); err != nil {
		t.Fatal(err)
	}
	if err := b.LinkDown(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() error { return b.hasField(t, "hostsubnet", other, "{.egressIPs[*]}", b.egressIP) })
	for _, p := range b.egress {
		if p.Node != host {
			b.leaveWith(t, []testbed.Pod{p}, func(testbed.Pod) string { return b.egressIP })
		}
	}
	if now := b.leader(t); strings.HasPrefix(now, leader+"_") {
		t.Errorf("the leader is %s, and was paused", now)
	}
	if _, err := b.Thaw(leader, isController); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() error {
		pids, err := b.PIDs(leader, isController)
		if err == nil && slices.Contains(pids, former[0]) {
			err = errors.New("the former leader still runs")
		}
		return err
	})
	if err := b.LinkUp(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	b.trusted(t, host)
	done()
	oneOwner()
	verify()
}

// isController recognises a controller by its command line.
func isController(args []string) bool {
	return filepath.Base(args[0]) == "egressip-operator" && len(args) > 1 && args[1] == "controller"
}
