package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// assignableLabel is the label of Nodes for EgressIPs.
const assignableLabel = "k8s.ovn.org/egress-assignable"

// testEgressIP: a namespace moves from its NetNamespace to an EgressIP with the same address; then
// pods are chosen by labels, which come and go, beside a NetNamespace with another egress IP; then
// two EgressIPs say both what a pod has. Pods and the host send all the time, and nothing
// leaves with an address that it must not have.
func (b *bed) testEgressIP(t *testing.T) {
	b.withdrawAfter(t)
	b.afterwards(t, b.withoutEgressIPs)
	b.request(t, egressNamespace, b.egressIP)
	b.claim(t, b.egressIP)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.must(t, "label", "namespace", egressNamespace, "team=shop")
	for _, node := range []string{egressHost, secondHost} {
		b.must(t, "label", "node", node, assignableLabel+"=")
	}
	if !t.Run("a namespace migrates", b.testMigration) {
		return
	}
	t.Run("pods are chosen by labels", b.testSelectors)
	t.Run("two EgressIPs choose a pod", b.testOverlap)
	t.Run("a team asks a pool", b.testEgressIPPool)
}

// withoutEgressIPs removes what testEgressIP makes.
func (b *bed) withoutEgressIPs(ctx context.Context) error {
	commands := []string{
		"delete egressiprequests --all -n " + egressNamespace, "delete egressippools --all",
		"delete egressip --all --wait", "label namespace " + egressNamespace + " team-",
		"label pod -n " + egressNamespace + " --all tier-",
	}
	for _, node := range []string{egressHost, secondHost} {
		commands = append(commands, "label node "+node+" "+assignableLabel+"-")
	}
	var errs []error
	for _, command := range commands {
		_, err := b.Kubectl(ctx, strings.Fields(command)...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *bed) must(t *testing.T, args ...string) {
	t.Helper()
	if _, err := b.Kubectl(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// egressIPObject makes or changes an EgressIP for the pods of egressNamespace with some labels.
func (b *bed) egressIPObject(t *testing.T, name, podLabels string, ips ...string) {
	t.Helper()
	if _, err := b.Apply(t.Context(), fmt.Sprintf(`
apiVersion: k8s.ovn.org/v1
kind: EgressIP
metadata: {name: %s}
spec:
  egressIPs: ["%s"]
  namespaceSelector: {matchLabels: {team: shop}}
  podSelector: {matchLabels: {%s}}
`, name, strings.Join(ips, `", "`), podLabels)); err != nil {
		t.Fatal(err)
	}
}

// sending has each pod of egressNamespace open connections to the bastion all the time, until the
// function that it returns is called: that fails the test if any packet has reached the bastion from
// another address than these, if hardly anything was answered, or if a sender had ended before.
func (b *bed) sending(t *testing.T, allowed ...string) (verify func()) {
	t.Helper()
	return b.sendingOwn(t, func(testbed.Pod) []string { return allowed }, allowed...)
}

// sendingOwn is sending, and fails the test too if a connection of a pod was answered to an address that
// is not the pod's own: a capture does not tell whose pod a packet is.
func (b *bed) sendingOwn(t *testing.T, own func(testbed.Pod) []string, allowed ...string) (verify func()) {
	t.Helper()
	check := b.watchBastion(t, allowed...)
	seen := b.watchEcho(t, b.bastion)
	waits := make([]func(bool) (string, error), len(b.egress))
	for i, p := range b.egress {
		// It goes on until it is ended: one that ends by itself has failed.
		wait, err := b.Background(t.Context(), p.Place(), "traffic", "watch", "-every", "50ms", "-timeout", "2s", "tcp://"+b.echo())
		if err != nil {
			t.Fatal(err)
		}
		waits[i] = wait
	}
	b.eventually(t, seen)
	return func() {
		t.Helper()
		answered := 0
		for i, wait := range waits {
			out, err := wait(true)
			if err != nil {
				t.Errorf("the sender of %s: %v", b.egress[i].Name, err)
			}
			answered += answeredTo(t, b.egress[i], out, own(b.egress[i]))
		}
		if answered < 3*len(waits) {
			t.Errorf("only %d connections were answered", answered)
		}
		t.Logf("%d connections of %d pods were answered", answered, len(waits))
		check()
	}
}

// answeredTo counts the connections of a pod that were answered, in the output of watch, and fails the
// test for each that was answered to another address than these.
func answeredTo(t *testing.T, p testbed.Pod, out string, own []string) (answered int) {
	t.Helper()
	wrong := map[string]int{}
	for line := range strings.Lines(out) {
		var r struct{ Saw string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("strange line %q: %v", line, err)
			continue
		}
		if r.Saw == "" {
			continue
		}
		answered++
		if saw, err := netip.ParseAddrPort(r.Saw); err != nil || !slices.Contains(own, saw.Addr().String()) {
			wrong[r.Saw]++
		}
	}
	if len(wrong) > 0 {
		t.Errorf("connections of %s on %s, which may have %v, were answered to (address: connections): %v", p.Name, p.Node, own, wrong)
	}
	return answered
}

// testMigration: the namespace's egress IP becomes that of an EgressIP. As long as both request it,
// nobody has it. What the administrator claims for a host stays there until the claim is
// withdrawn: then the controller gives it to a labelled host.
func (b *bed) testMigration(t *testing.T) {
	oneOwner := b.oneOwner(t)
	verify := b.sending(t, b.egressIP, b.secondIP)
	b.egressIPObject(t, "shop", "app: client", b.egressIP)
	for _, object := range []string{"netnamespace/" + egressNamespace, "egressip/shop"} {
		b.must(t, "wait", "--for=jsonpath={.status.conditions[?(@.type==\"EgressReady\")].reason}=MultipleNamespaces", object, "--timeout=30s")
	}
	b.awaitDropped(t, b.egress, b.bastionURL())
	b.request(t, egressNamespace)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.has(t, "shop", b.egressIP+" "+egressHost)
	b.must(t, "wait", "--for=condition=EgressReady", "egressip/shop", "--timeout=30s")

	b.claim(t)
	b.eventually(t, func() error {
		items, err := b.items(t, "shop")
		if err == nil && len(items) != 1 {
			err = fmt.Errorf("items are %q", items)
		}
		return err
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })

	// A second one goes to the other host, and connections are spread.
	b.egressIPObject(t, "shop", "app: client", b.egressIP, b.secondIP)
	b.eventually(t, func() error {
		items, err := b.items(t, "shop")
		hosts := map[string]bool{}
		for _, item := range items {
			hosts[strings.Fields(item)[1]] = true
		}
		if err == nil && len(hosts) != 2 {
			err = fmt.Errorf("items are %q: want two, on two hosts", items)
		}
		return err
	})
	for _, p := range b.egress {
		if p.Node == egressHost || p.Node == secondHost {
			continue
		}
		b.eventually(t, func() error {
			if seen := b.connections(t, p, 100); seen[b.egressIP] < 20 || seen[b.secondIP] < 20 {
				return fmt.Errorf("connections of %s on %s are spread as %v", p.Name, p.Node, seen)
			}
			return nil
		})
	}
	verify()
	oneOwner()
}

// testSelectors: a label that comes and goes moves a pod between an EgressIP and its NetNamespace, in
// the time of a patch. Pods without it have the NetNamespace's egress IP, and no connection of them is
// answered to another one at any time. The pod with the label is answered to one of both.
func (b *bed) testSelectors(t *testing.T) {
	b.egressIPObject(t, "shop", "tier: web", b.egressIP)
	b.request(t, egressNamespace, b.secondIP)
	b.eventually(t, func() error {
		items, err := b.items(t, "shop")
		if err == nil && (len(items) != 1 || !strings.HasPrefix(items[0], b.egressIP+" ")) {
			err = fmt.Errorf("items are %q", items)
		}
		return err
	})
	b.patch(t, "hostsubnet", secondHost, list([]string{b.secondIP}))
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.secondIP })
	chosen, others := b.egress[0], b.egress[1:]
	verify := b.sendingOwn(t, func(p testbed.Pod) []string {
		if p.Name == chosen.Name {
			return []string{b.egressIP, b.secondIP}
		}
		return []string{b.secondIP}
	}, b.egressIP, b.secondIP)
	for range 3 {
		b.must(t, "label", "pod", "-n", egressNamespace, chosen.Name, "tier=web")
		b.leaveWith(t, []testbed.Pod{chosen}, func(testbed.Pod) string { return b.egressIP })
		b.leaveWith(t, others, func(testbed.Pod) string { return b.secondIP })
		b.must(t, "label", "pod", "-n", egressNamespace, chosen.Name, "tier-")
		b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.secondIP })
	}
	b.must(t, "label", "pod", "-n", egressNamespace, chosen.Name, "tier=web")
	b.leaveWith(t, []testbed.Pod{chosen}, func(testbed.Pod) string { return b.egressIP })
	b.must(t, "label", "namespace", egressNamespace, "team-")
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.secondIP })
	b.must(t, "label", "namespace", egressNamespace, "team=shop")
	b.leaveWith(t, []testbed.Pod{chosen}, func(testbed.Pod) string { return b.egressIP })
	verify()
	b.patch(t, "hostsubnet", secondHost, list(nil))
	b.request(t, egressNamespace)
	b.leaveWith(t, others, b.nodeAddress)
	b.leaveWith(t, []testbed.Pod{chosen}, func(testbed.Pod) string { return b.egressIP })
}

// testOverlap: of two EgressIPs that choose a pod, the first by name counts, and both say so. No connection
// is answered to the address of the other one meanwhile. When the first goes, the other one counts.
func (b *bed) testOverlap(t *testing.T) {
	b.egressIPObject(t, "all", "app: client", b.secondIP)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.secondIP })
	verify := b.sendingOwn(t, func(testbed.Pod) []string { return []string{b.secondIP} }, b.egressIP, b.secondIP)
	for name, want := range map[string]string{"shop": "False Overlap", "all": "True Assigned"} {
		b.eventually(t, func() error {
			return b.hasField(t, "egressip", name, `{.status.conditions[?(@.type=="EgressReady")].status} {.status.conditions[?(@.type=="EgressReady")].reason}`, want)
		})
	}
	verify()
	b.must(t, "delete", "egressip", "all")
	b.leaveWith(t, b.egress[:1], func(testbed.Pod) string { return b.egressIP })
	b.leaveWith(t, b.egress[1:], b.nodeAddress)
	b.eventually(t, func() error {
		return b.hasField(t, "egressip", "shop", `{.status.conditions[?(@.type=="EgressReady")].reason}`, "Assigned")
	})
}

// testEgressIPPool: a namespace asks a pool, and its pods leave with an address of it; without the
// request with their nodes' addresses, and with the same one when it is made again. When the host of the
// address is none for EgressIPs any more, it moves, and nothing is sent with another.
func (b *bed) testEgressIPPool(t *testing.T) {
	b.must(t, "delete", "egressip", "shop", "--ignore-not-found", "--wait")
	if _, err := b.Apply(t.Context(), fmt.Sprintf(`
apiVersion: egressip.network.openshift.io/v1alpha1
kind: EgressIPPool
metadata: {name: partners}
spec: {cidrs: ["%s"], perNamespace: 1}
`, b.egressCIDR)); err != nil {
		t.Fatal(err)
	}
	ask := func() {
		t.Helper()
		_, err := b.Apply(t.Context(), fmt.Sprintf(`
apiVersion: egressip.network.openshift.io/v1alpha1
kind: EgressIPRequest
metadata: {name: out, namespace: %s}
spec: {pool: partners}
`, egressNamespace))
		if err != nil {
			t.Fatal(err)
		}
	}
	ask()
	var given string
	b.eventually(t, func() (err error) {
		given, err = b.Kubectl(t.Context(), "get", "egressiprequest", "out", "-n", egressNamespace, "-o", "jsonpath={.status.egressIPs[0]}")
		if err == nil && given == "" {
			err = errors.New("the request has no address yet")
		}
		return err
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return given })
	b.must(t, "delete", "egressiprequest", "out", "-n", egressNamespace)
	b.leaveWith(t, b.egress, b.nodeAddress) // as without a request
	ask()
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return given })
	verify := b.sending(t, given)
	items, err := b.items(t, egressNamespace+".out")
	if err != nil || len(items) != 1 {
		t.Fatalf("items are %q, %v", items, err)
	}
	// Its host is no host for EgressIPs any more: the address moves, and nothing else is sent.
	b.must(t, "label", "node", strings.Fields(items[0])[1], assignableLabel+"-")
	b.eventually(t, func() error {
		now, err := b.items(t, egressNamespace+".out")
		if err == nil && (len(now) != 1 || now[0] == items[0] || !strings.HasPrefix(now[0], given+" ")) {
			err = fmt.Errorf("items are %q, and were %q", now, items)
		}
		return err
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return given })
	verify()
}

// items are "ADDRESS NODE" of an EgressIP's status.
func (b *bed) items(t *testing.T, name string) ([]string, error) {
	t.Helper()
	out, err := b.Kubectl(t.Context(), "get", "egressip", name, "-o", `jsonpath={range .status.items[*]}{.egressIP} {.node}{"\n"}{end}`)
	return slices.Collect(strings.SplitSeq(strings.TrimSpace(out), "\n")), err
}

// has waits until an EgressIP has these items.
func (b *bed) has(t *testing.T, name string, want ...string) {
	t.Helper()
	b.eventually(t, func() error {
		items, err := b.items(t, name)
		if err == nil && !slices.Equal(items, want) {
			err = fmt.Errorf("items of %s are %q, want %q", name, items, want)
		}
		return err
	})
}
