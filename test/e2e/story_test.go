package e2e

import (
	"fmt"
	"path"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testStory is the main job, step by step.
func (b *bed) testStory(t *testing.T) {
	// Without a request, pods leave with their node's address.
	b.leaveWith(t, b.plain, b.nodeAddress)
	b.leaveWith(t, b.egress, b.nodeAddress)

	// A request that no host claims: dropped, not leaked.
	b.request(t, egressNamespace, b.egressIP)
	b.dropped(t, b.egress)

	// A host claims it, in another form such as that with a prefix length, and shows the
	// canonical one.
	b.claim(t, b.egressIPAsWritten)
	b.eventually(t, func() error {
		return b.hasField(t, "hostsubnet", b.host, "{.egressIPs}", `["`+b.egressIP+`"]`)
	})
	b.eventually(t, func() error { return b.hasEgressIP(t, b.host, b.egressIP, true) })
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.leaveWith(t, b.plain, b.nodeAddress)
	for _, condition := range []string{"netnamespace/" + egressNamespace, "hostsubnet/" + b.host} {
		if _, err := b.Kubectl(t.Context(), "wait", "--for=condition=EgressReady", condition, "--timeout="+testenv.Stretch(10*time.Second).String()); err != nil {
			t.Error(err)
		}
	}
	for _, n := range b.Nodes() {
		if _, err := b.Kubectl(t.Context(), "wait", "--for=condition=Warnings=False", "hostsubnet/"+n, "--timeout="+testenv.Stretch(20*time.Second).String()); err != nil {
			found, _ := b.Kubectl(t.Context(), "get", "hostsubnet", n, "-o", `jsonpath={.status.conditions[?(@.type=="Warnings")].message}`)
			t.Errorf("%s warns: %v: %s", n, err, found)
		}
	}
	b.inLog(t)

	// The claim is withdrawn: the address goes, the namespace is dropped.
	b.claim(t)
	b.eventually(t, func() error { return b.hasEgressIP(t, b.host, b.egressIP, false) })
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
		if _, err := b.traffic(t, p, "get", b.bastionURL()+mark); err != nil {
			t.Error(err)
		}
		lines, err := b.AccessLog().Find(mark)
		if err != nil || len(lines) != 1 || lines[0].Source.String() != b.egressIP {
			t.Errorf("access log of %s: %v, %v; want one line from %s", p.Name, lines, err, b.egressIP)
		}
	}
}

// dropped waits until no pod gets through, and then demands that nothing at all
// of them reaches the bastion.
func (b *bed) dropped(t *testing.T, pods []testbed.Pod) {
	t.Helper()
	b.awaitDropped(t, pods, b.bastionURL())
	verify := b.watchBastion(t)
	b.unanswered(t, pods, "get "+b.bastionURL(), "udp "+b.server(), "ping "+b.bastion)
	verify()
}

// awaitDropped waits until no pod gets an answer of a server.
func (b *bed) awaitDropped(t *testing.T, pods []testbed.Pod, url string) {
	t.Helper()
	each(t, pods, func(p testbed.Pod) error {
		return testbed.Poll(t.Context(), settle, func() error {
			if got, err := b.traffic(t, p, "get", "-timeout", quick(), url); err == nil {
				return fmt.Errorf("%s on %s should be dropped, and is seen as %s", p.Name, p.Node, got)
			}
			return nil
		})
	})
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
	b.request(t, plainNamespace, b.egressIP)
	b.dropped(t, b.egress)
	b.dropped(t, b.plain)
	b.request(t, plainNamespace)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.leaveWith(t, b.plain, b.nodeAddress)
}
