package e2e

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testStory is the main job, step by step.
func (b *bed) testStory(t *testing.T) {
	// Without a request, pods leave with their node's address.
	b.leaveWith(t, b.plain, b.nodeAddress)
	b.leaveWith(t, b.egress, b.nodeAddress)

	// A request that no host claims: dropped, not leaked.
	b.request(t, egressNamespace, egressIP)
	b.dropped(t, b.egress)

	// A host claims it, in the notation with a prefix length, and shows the
	// canonical one.
	b.claim(t, egressIP+"/24")
	b.eventually(t, func() error {
		return b.hasField(t, "hostsubnet", egressHost, "{.egressIPs}", `["`+egressIP+`"]`)
	})
	b.eventually(t, func() error { return b.hasAddress(t, true) })
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP })
	b.leaveWith(t, b.plain, b.nodeAddress)
	for _, condition := range []string{"netnamespace/" + egressNamespace, "hostsubnet/" + egressHost} {
		if _, err := b.Kubectl(t.Context(), "wait", "--for=condition=EgressReady", condition, "--timeout=10s"); err != nil {
			t.Error(err)
		}
	}
	for _, n := range b.Nodes() {
		if _, err := b.Kubectl(t.Context(), "wait", "--for=condition=Warnings=False", "hostsubnet/"+n, "--timeout=20s"); err != nil {
			found, _ := b.Kubectl(t.Context(), "get", "hostsubnet", n, "-o", `jsonpath={.status.conditions[?(@.type=="Warnings")].message}`)
			t.Errorf("%s warns: %v: %s", n, err, found)
		}
	}
	b.inLog(t)

	// The claim is withdrawn: the address goes, the namespace is dropped.
	b.claim(t)
	b.eventually(t, func() error { return b.hasAddress(t, false) })
	b.dropped(t, b.egress)

	// So is the request: as if nothing had been.
	b.request(t, egressNamespace)
	b.leaveWith(t, b.egress, b.nodeAddress)
}

// inLog has each pod make a request, and looks for its line in the access log.
func (b *bed) inLog(t *testing.T) {
	t.Helper()
	for _, p := range b.egress {
		mark := "/story/" + path.Base(t.Name()) + "/" + p.Name
		if _, err := b.traffic(t, p, "get", bastionURL()+mark); err != nil {
			t.Error(err)
		}
		lines, err := b.AccessLog().Find(mark)
		if err != nil || len(lines) != 1 || lines[0].Source.String() != egressIP {
			t.Errorf("access log of %s: %v, %v; want one line from %s", p.Name, lines, err, egressIP)
		}
	}
}

// dropped waits until no pod gets through, and then demands that nothing at all
// of them reaches the bastion.
func (b *bed) dropped(t *testing.T, pods []testbed.Pod) {
	t.Helper()
	b.awaitDropped(t, pods, bastionURL())
	verify := b.watchBastion(t)
	b.unanswered(t, pods, "get "+bastionURL(), "udp "+testbed.BastionIP+":8080", "ping "+testbed.BastionIP)
	verify()
}

// awaitDropped waits until no pod gets an answer of a server.
func (b *bed) awaitDropped(t *testing.T, pods []testbed.Pod, url string) {
	t.Helper()
	each(t, pods, func(p testbed.Pod) error {
		return testbed.Poll(t.Context(), settle, func() error {
			if got, err := b.traffic(t, p, "get", "-timeout", quick, url); err == nil {
				return fmt.Errorf("%s on %s should be dropped, and is seen as %s", p.Name, p.Node, got)
			}
			return nil
		})
	})
}

// hasAddress reports whether the egress host has the address, the way that
// OpenShift has it.
func (b *bed) hasAddress(t *testing.T, want bool) error {
	t.Helper()
	out, err := b.NodeExec(t.Context(), egressHost, "ip", "address", "show", "dev", "eth0")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "inet "+egressIP+"/") {
			continue
		}
		if !want {
			return fmt.Errorf("%s still has %s", egressHost, line)
		}
		if !strings.Contains(line, "inet "+egressIP+"/24") || !strings.Contains(line, "scope global secondary eth0:eip") {
			t.Errorf("the address is there, but otherwise than it should: %s", line)
		}
		return nil
	}
	if want {
		return fmt.Errorf("%s has no %s:\n%s", egressHost, egressIP, out)
	}
	return nil
}

// hasField compares a field of an object, in jsonpath.
func (b *bed) hasField(t *testing.T, kind, name, field, want string) error {
	t.Helper()
	got, err := b.Kubectl(t.Context(), "get", kind, name, "-o", "jsonpath="+field)
	if err == nil && got != want {
		err = fmt.Errorf("%s %s: %s is %s, want %s", kind, name, field, got, want)
	}
	return err
}

// testConflict: neither namespace gets the address, and neither leaks.
func (b *bed) testConflict(t *testing.T) {
	b.givenEgressIP(t)
	b.request(t, plainNamespace, egressIP)
	b.dropped(t, b.egress)
	b.dropped(t, b.plain)
	b.request(t, plainNamespace)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP })
	b.leaveWith(t, b.plain, b.nodeAddress)
}
