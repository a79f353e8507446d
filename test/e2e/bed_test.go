package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	egressNamespace = "egress-test"
	plainNamespace  = "no-egress-ip"
	egressHost      = "node3"

	// settle bounds the wait for what the cluster does by itself.
	settle = 30 * time.Second
	// trustedWithin bounds the wait until a host that was silent is used as before: one that
	// fell several times is held down for up to a minute, by the controller and by each agent.
	trustedWithin = time.Minute + settle
)

// quick is the timeout of a request that should be dropped.
func quick() string { return testenv.Stretch(700 * time.Millisecond).String() }

// bed is a test bed with the operator installed, and clients in two
// namespaces, one on each node.
type bed struct {
	*testbed.Cluster
	// family is that of the step that is played.
	family
	backend testbed.Backend
	root    string // of the repository
	// host claims egressIP: the last node, which is egressHost in clusters of three.
	host string
	// rules is where the operator's rules are: "nftables" or "iptables".
	rules string
	// kustomized is true if the operator is installed by config/default, else by its chart
	// with values.
	kustomized bool
	values     []string
	// beside are the egress IPs of namespaces that have them through all steps.
	beside []string
	// lostPower are the nodes that were off at any time.
	lostPower map[string]bool
	// egress and plain are the pods of egressNamespace and plainNamespace,
	// sorted by node.
	egress, plain []testbed.Pod
	// before is what each node's kernel held before the operator came.
	before map[string]testbed.Snapshot
}

// newBedOf brings a test bed up, without the operator.
func newBedOf(t *testing.T, options testbed.Options) *bed {
	t.Helper()
	root, err := binaries.Repository()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{family: ipv4(), lostPower: map[string]bool{}, backend: options.Backend, root: root, rules: "nftables"}
	if options.IPv6Only {
		b.family = ipv6()
	}
	if options.Backend == testbed.Legacy {
		// Of the two ways to install, and the two backends, each suite takes one.
		b.rules, b.kustomized = "iptables", true
	}
	for _, file := range []string{b.image(), b.binary()} {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("%v: run \"make image\" first", err)
		}
	}
	options.Images, options.Progress = append(options.Images, b.image()), os.Stderr
	b.Cluster, err = testbed.Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b.tell(t)
		}
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(time.Minute))
		defer cancel()
		if err := b.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Log("the test bed is up")
	b.host = b.Nodes()[len(b.Nodes())-1]
	b.plain = b.deploy(t, plainNamespace)
	b.egress = b.deploy(t, egressNamespace)
	t.Log("pods of both namespaces are ready")
	return b
}

func (b *bed) image() string  { return filepath.Join(b.root, "build", "image.tar") }
func (b *bed) binary() string { return filepath.Join(b.root, "build", "egressip-operator") }
func (b *bed) chart() string  { return filepath.Join(b.root, "charts", "egressip-operator") }

// install installs the operator, and waits for its objects.
func (b *bed) install(t *testing.T) {
	t.Helper()
	if b.kustomized {
		b.kustomize(t)
	} else if err := b.InstallChart(t.Context(), b.chart(), b.values...); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, func() error {
		_, err := b.Kubectl(t.Context(), append([]string{"get", "hostsubnets"}, b.Nodes()...)...)
		if err == nil {
			_, err = b.Kubectl(t.Context(), "get", "netnamespaces", plainNamespace, egressNamespace)
		}
		return err
	})
}

// ownTable reports whether our rules are in a table of their own, as by default: so in
// one of the two suites.
func (b *bed) ownTable() bool { return b.rules == "nftables" }

// kustomize installs config/default, with the image that the nodes have, and
// config/canonical.
func (b *bed) kustomize(t *testing.T) {
	t.Helper()
	manifest, err := b.Kubectl(t.Context(), "kustomize", filepath.Join(b.root, "config", "default"))
	if err != nil {
		t.Fatal(err)
	}
	manifest = regexp.MustCompile(`image: .*/egressip-operator:\S+`).ReplaceAllString(manifest, "image: egressip-operator:dev")
	manifest = strings.ReplaceAll(manifest, "imagePullPolicy: IfNotPresent", "imagePullPolicy: Never")
	manifest = strings.ReplaceAll(manifest, "--backend=auto", "--backend=iptables")
	manifest = strings.ReplaceAll(manifest, "--egress-interfaces=auto", "--egress-interfaces=eth*")
	if _, err := b.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"canonical", "egressip"} {
		if _, err := b.Kubectl(t.Context(), "apply", "-k", filepath.Join(b.root, "config", part)); err != nil {
			t.Fatal(err)
		}
	}
	for _, workload := range []string{"deployment/egressip-controller", "daemonset/egressip-agent"} {
		if _, err := b.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "rollout", "status", workload, "--timeout=2m"); err != nil {
			t.Fatal(err)
		}
	}
}

// uninstall takes out what install put in.
func (b *bed) uninstall(ctx context.Context) error {
	if b.kustomized {
		for _, part := range []string{"canonical", "egressip", "default"} {
			if _, err := b.Kubectl(ctx, "delete", "--wait", "--timeout=2m", "-k", filepath.Join(b.root, "config", part)); err != nil {
				return err
			}
		}
		return nil
	}
	return b.UninstallChart(ctx)
}

// tell prints what helps to understand a failure.
func (b *bed) tell(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(30*time.Second))
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces", "-o", "wide"},
		{"get", "netnamespaces,egressips,hostsubnets", "-o", "yaml"},
		{"-n", testbed.OperatorNamespace, "logs", "daemonset/egressip-agent", "--all-pods", "--prefix", "--tail=60"},
		{"-n", testbed.OperatorNamespace, "logs", "deployment/egressip-controller", "--tail=60"},
	} {
		out, err := b.Kubectl(ctx, args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// deploy makes a namespace with a pod on each node, and waits for these.
func (b *bed) deploy(t *testing.T, namespace string) []testbed.Pod {
	t.Helper()
	manifest := fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: client, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: client
        image: %[2]s
        imagePullPolicy: Never
        args: [serve, ":8080"]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: %[3]d}
`, namespace, testbed.TrafficImage, int(testenv.Stretch(time.Second).Seconds()))
	if _, err := b.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	pods, err := b.AwaitPods(t.Context(), namespace, "app=client", len(b.Nodes()))
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// PowerOff is the test bed's, and notes which node it was.
func (b *bed) PowerOff(ctx context.Context, node string) error {
	b.lostPower[node] = true
	return b.Cluster.PowerOff(ctx, node)
}

// patch changes an object by a merge patch.
func (b *bed) patch(t *testing.T, kind, name, patch string) {
	t.Helper()
	if _, err := b.Kubectl(t.Context(), "patch", kind, name, "--type=merge", "-p", patch); err != nil {
		t.Fatal(err)
	}
}

// request and claim set egressIPs, the latter of the last node; without any they
// withdraw them.
func (b *bed) request(t *testing.T, namespace string, ips ...string) {
	t.Helper()
	b.patch(t, "netnamespace", namespace, list(ips))
}

func (b *bed) claim(t *testing.T, ips ...string) {
	t.Helper()
	b.patch(t, "hostsubnet", b.host, list(ips))
}

func list(ips []string) string {
	quoted := make([]string, len(ips))
	for i, ip := range ips {
		quoted[i] = fmt.Sprintf("%q", ip)
	}
	return fmt.Sprintf(`{"egressIPs": [%s]}`, strings.Join(quoted, ", "))
}

// givenEgressIP requests and claims the egress IP, and waits until every pod of
// the namespace leaves with it. When the test ends both are withdrawn.
func (b *bed) givenEgressIP(t *testing.T) {
	t.Helper()
	b.request(t, egressNamespace, b.egressIP)
	b.claim(t, b.egressIP)
	t.Cleanup(func() {
		// t.Context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle))
		defer cancel()
		for _, object := range []string{"netnamespace/" + egressNamespace, "hostsubnet/" + b.host} {
			if _, err := b.Kubectl(ctx, "patch", object, "--type=merge", "-p", list(nil)); err != nil {
				t.Error(err)
			}
		}
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
}

// leaveWith waits until each pod is seen by the bastion with the wanted
// address.
func (b *bed) leaveWith(t *testing.T, pods []testbed.Pod, want func(testbed.Pod) string) {
	t.Helper()
	b.leaveWithin(t, settle, pods, want)
}

// leaveWithin is leaveWith with a bound of its own for each pod.
func (b *bed) leaveWithin(t *testing.T, bound time.Duration, pods []testbed.Pod, want func(testbed.Pod) string) {
	t.Helper()
	for _, p := range pods {
		b.within(t, bound, func() error {
			got, err := b.traffic(t, p, "get", "-timeout", quick(), b.bastionURL())
			if err == nil && got != want(p) {
				err = fmt.Errorf("seen as %s", got)
			}
			if err != nil {
				return fmt.Errorf("%s on %s, wanted %s: %w", p.Name, p.Node, want(p), err)
			}
			return nil
		})
	}
}

// nodeAddress is what a pod without egress IP leaves with.
func (b *bed) nodeAddress(p testbed.Pod) string { return b.nodeIP(p.Node) }

// each runs f for all of a list at once, and fails the test with their errors: what
// must not be answered takes its whole timeout.
func each[T any](t *testing.T, list []T, f func(T) error) {
	t.Helper()
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, one := range list {
		all.Go(func() { errs[i] = f(one) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// unanswered sends from each pod what each of the commands says, and fails the test if
// anything is answered. A command is one of the traffic client, with its arguments.
func (b *bed) unanswered(t *testing.T, pods []testbed.Pod, commands ...string) {
	t.Helper()
	each(t, pods, func(p testbed.Pod) error {
		var errs []error
		for _, command := range commands {
			args := strings.Fields(command)
			if out, err := b.Exec(t.Context(), p.Place(), append([]string{"traffic", args[0], "-timeout", quick()}, args[1:]...)...); err == nil {
				errs = append(errs, fmt.Errorf("%s on %s: %s is answered: %s", p.Name, p.Node, command, out))
			}
		}
		return errors.Join(errs...)
	})
}

// traffic runs the traffic client in the network of a pod and returns the address that the other side
// saw.
func (b *bed) traffic(t *testing.T, p testbed.Pod, args ...string) (string, error) {
	t.Helper()
	out, err := b.Exec(t.Context(), p.Place(), append([]string{"traffic"}, args...)...)
	if err != nil {
		return "", err
	}
	return sawIn(out)
}

// sawIn finds the address in an answer "HOST saw ADDRESS:PORT, ...".
func sawIn(answer string) (string, error) {
	_, rest, found := strings.Cut(answer, "saw ")
	text, _, _ := strings.Cut(strings.TrimSpace(rest), ",")
	saw, err := netip.ParseAddrPort(text)
	if !found || err != nil {
		return "", fmt.Errorf("no address in the answer %q", answer)
	}
	return saw.Addr().String(), nil
}

// eventually polls f, and fails the test with f's last error.
func (b *bed) eventually(t *testing.T, f func() error) {
	t.Helper()
	b.within(t, settle, f)
}

func (b *bed) within(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	if err := testbed.Poll(t.Context(), limit, f); err != nil {
		t.Fatal(err)
	}
}

// watchBastion records every packet that reaches the bastion; the function that
// it returns stops that and fails the test for each whose source is not
// allowed: a leak.
func (b *bed) watchBastion(t *testing.T, allowed ...string) (verify func()) {
	t.Helper()
	k, err := b.Capture(t.Context(), testbed.Bastion, "eth0", func(p testbed.Packet) bool { return !p.Outgoing && p.ARP == 0 })
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		packets, err := k.Stop()
		if err != nil {
			t.Error(err)
		}
		wrong := map[string]int{}
		for _, p := range packets {
			if !ofTheHostItself(p) {
				wrong[p.Source.Addr().String()]++
			}
		}
		for _, ip := range slices.Concat(allowed, b.beside) {
			delete(wrong, ip)
		}
		if len(wrong) > 0 {
			t.Errorf("of %d packets, these came with a wrong source (address: packets): %v", len(packets), wrong)
		}
		logged := 0
		for _, p := range packets {
			if logged < maxLoggedPackets && !ofTheHostItself(p) && wrong[p.Source.Addr().String()] > 0 {
				logged++
				t.Logf("a packet with a wrong source: %+v", p)
			}
		}
	}
}

// maxLoggedPackets bounds the packets with a wrong source that are printed whole.
const maxLoggedPackets = 20

// ofTheHostItself reports whether p, as the bastion gets it, is what a host sends for itself
// and no pod: an ICMP error, which is the message of path MTU discovery or "host unreachable"
// for a packet of the bastion's own, or a reset. The latter two answer a late packet, such as a
// keep-alive or what was not acknowledged: to an egress IP which the host does not have yet or
// any more, be it the egress IP of a step before, or to a connection that a pod had from the
// host's address and that was forgotten when its namespace got an egress IP. A reset of a pod has
// passed its node in addition to the router; one from an egress IP is no host's own.
func ofTheHostItself(p testbed.Packet) bool {
	const reset, hopsOfAHost = 4, 64 - 1
	if p.Protocol == unix.IPPROTO_TCP {
		return p.TCPFlags&reset != 0 && p.Hops == hopsOfAHost && len(p.Payload) == 0 && !isAnEgressIP(p.Source.Addr())
	}
	if p.Protocol == unix.IPPROTO_ICMPV6 {
		return ofTheHostItself6(p)
	}
	const unreachable, host, tooBig, quoted, sourceAt = 3, 1, 4, 8, 12
	if p.Protocol != unix.IPPROTO_ICMP || len(p.Payload) < quoted+sourceAt+8 || p.Payload[0] != unreachable {
		return false
	}
	source, _ := netip.AddrFromSlice(p.Payload[quoted+sourceAt:][:4])
	target, _ := netip.AddrFromSlice(p.Payload[quoted+sourceAt+4:][:4])
	return p.Payload[1] == tooBig ||
		p.Payload[1] == host && source == p.Destination.Addr() && isAnEgressIP(target)
}

// isAnEgressIP reports whether an address is one of egress IPs.
func isAnEgressIP(a netip.Addr) bool {
	return netip.MustParsePrefix(egressRange).Contains(a) || netip.MustParsePrefix(egressRange6).Contains(a)
}

// ofTheHostItself6 is the same for errors of ICMPv6.
func ofTheHostItself6(p testbed.Packet) bool {
	const unreachable, host, tooBig, quoted, sourceAt = 1, 3, 2, 8, 8
	if len(p.Payload) < quoted+sourceAt+32 {
		return false
	}
	source, _ := netip.AddrFromSlice(p.Payload[quoted+sourceAt:][:16])
	target, _ := netip.AddrFromSlice(p.Payload[quoted+sourceAt+16:][:16])
	return p.Payload[0] == tooBig ||
		p.Payload[0] == unreachable && p.Payload[1] == host && source == p.Destination.Addr() && isAnEgressIP(target)
}
