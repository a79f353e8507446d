package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

const (
	secondHost = "node2"
	// fallbackWithin is well above what it takes, and well below what a Node
	// takes to be NotReady.
	fallbackWithin = 3 * time.Second
	modeKey        = "egressip.network.openshift.io/mode"
	failBackKey    = "egressip.network.openshift.io/fail-back"
)

// withdrawAfter withdraws everything that a test requested when it ends.
func (b *bed) withdrawAfter(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Stretch(settle))
		defer cancel()
		patches := map[string]string{
			"netnamespace/" + egressNamespace: `{"egressIPs": [], "metadata": {"annotations": {"` + modeKey + `": null, "` + failBackKey + `": null}}}`,
		}
		for _, node := range b.Nodes() {
			patches["hostsubnet/"+node] = `{"egressIPs": [], "egressCIDRs": []}`
		}
		for object, patch := range patches {
			if _, err := b.Kubectl(ctx, "patch", object, "--type=merge", "-p", patch); err != nil {
				t.Error(err)
			}
		}
	})
}

// testOrdered: of two egress IPs the first is used; the second while the host of
// the first is offline; the first again when it is back, unless the namespace keeps what it uses.
func (b *bed) testOrdered(t *testing.T) {
	b.withdrawAfter(t)
	b.request(t, egressNamespace, b.egressIP, b.secondIP)
	b.claim(t, b.egressIP)
	b.patch(t, "hostsubnet", secondHost, list([]string{b.secondIP}))
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.inState(t, "Active", "Standby")

	verify := b.watchBastion(t, b.egressIP, b.secondIP)
	var alive, remote []testbed.Pod
	for _, p := range b.egress {
		if p.Node != egressHost {
			alive = append(alive, p)
		}
		if p.Node != egressHost && p.Node != secondHost {
			remote = append(remote, p)
		}
	}
	ended := b.idle(t, remote[0])
	var off time.Time
	outage := b.outage(t, remote[0], func() {
		off = time.Now()
		if err := b.PowerOff(t.Context(), egressHost); err != nil {
			t.Error(err)
		}
	})
	at, how := ended()
	t.Logf("a connection that waited for data ended %s after the cut: %s", at.Sub(off), how)
	if after := at.Sub(off); after < 0 || after > fallbackWithin || !strings.Contains(how, "reset") {
		t.Errorf("a connection that waited for data ended %s after the cut, %q: want it reset within %s", after, how, fallbackWithin)
	}
	// Probes find out, in 0.7 s; the Node would be NotReady much later.
	t.Logf("the host of the active egress IP lost power: no new connection for %s", outage)
	if outage > fallbackWithin {
		t.Errorf("no new connection for %s after the host of the active egress IP lost power, want less than %s", outage, fallbackWithin)
	}
	b.leaveWith(t, alive, func(testbed.Pod) string { return b.secondIP })
	b.inState(t, "HostOffline", "Active")

	// The namespace keeps what works, if it asks for that, and goes back else.
	b.failBack(t, `"never"`)
	if err := b.PowerOn(t.Context(), egressHost); err != nil {
		t.Fatal(err)
	}
	b.back(t, egressHost)
	b.within(t, trustedWithin, func() error {
		return b.hasField(t, "netnamespace", egressNamespace, "{.status.egressIPs[*].state}", "Standby Active")
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.secondIP })
	b.failBack(t, "null")
	b.leaveWithin(t, trustedWithin, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.inState(t, "Active", "Standby")
	verify()
}

// testOverlayClosed: a firewall on the host of the first egress IP begins to drop the
// packets of the overlay, and nothing else. Pods on other nodes use the second egress IP
// as fast as when a host dies, and the host's condition says that it is silent.
func (b *bed) testOverlayClosed(t *testing.T) {
	const overlayPort = 9789
	b.withdrawAfter(t)
	b.request(t, egressNamespace, b.egressIP, b.secondIP)
	b.claim(t, b.egressIP)
	b.patch(t, "hostsubnet", secondHost, list([]string{b.secondIP}))
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.witnessed(t, egressHost)
	verify := b.watchBastion(t, b.egressIP, b.secondIP)
	var others []testbed.Pod
	var remote testbed.Pod
	for _, p := range b.egress {
		if p.Node != egressHost {
			others = append(others, p)
		}
		if p.Node != egressHost && p.Node != secondHost {
			remote = p
		}
	}
	closed := false
	open := func(ctx context.Context) error {
		if !closed {
			return nil
		}
		closed = false
		return b.UnblockUDP(ctx, egressHost, overlayPort)
	}
	b.afterwards(t, open)
	outage := b.outage(t, remote, func() {
		closed = true
		if err := b.BlockUDP(t.Context(), egressHost, overlayPort); err != nil {
			t.Error(err)
		}
	})
	t.Logf("the overlay's port was closed at the host of the active egress IP: no new connection for %s", outage)
	if outage > fallbackWithin {
		t.Errorf("no new connection for %s after the overlay's port was closed, want less than %s", outage, fallbackWithin)
	}
	b.leaveWith(t, others, func(testbed.Pod) string { return b.secondIP })
	b.eventually(t, func() error { return b.hasCondition(t, egressHost, "Online", "Unknown", "Silent") })
	if err := open(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.within(t, trustedWithin, func() error { return b.hasCondition(t, egressHost, "Online", "True", "NodeReady") })
	b.leaveWithin(t, trustedWithin, b.egress, func(testbed.Pod) string { return b.egressIP })
	verify()
}

// outage has a pod open connections to the bastion all the time while something
// is done, and returns the longest time in which none that began was answered.
func (b *bed) outage(t *testing.T, p testbed.Pod, do func()) time.Duration {
	t.Helper()
	return b.outageTo(t, p, b.bastion, do)
}

// outageTo is outage with one of the bastion's addresses.
func (b *bed) outageTo(t *testing.T, p testbed.Pod, bastion string, do func()) time.Duration {
	t.Helper()
	target := "tcp://" + net.JoinHostPort(bastion, strconv.Itoa(testbed.BastionEchoPort))
	length := testenv.Stretch(8 * time.Second)
	type answer struct {
		out string
		err error
	}
	done := make(chan answer, 1)
	go func() {
		out, err := b.Exec(t.Context(), p.Place(), "traffic", "watch", "-every", testenv.Stretch(20*time.Millisecond).String(), "-for", length.String(),
			"-timeout", testenv.Stretch(time.Second).String(), "-id", "outage", target)
		done <- answer{out, err}
	}()
	// Until the first connections are there.
	log := b.watchEcho(t, bastion)
	b.eventually(t, log)
	do()
	a := <-done
	if a.err != nil {
		t.Fatal(a.err)
	}
	var answered []time.Time
	for line := range strings.Lines(a.out) {
		var r struct {
			At  time.Time
			Saw string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("line of the traffic client: %v: %s", err, line)
		}
		if r.Saw != "" {
			answered = append(answered, r.At)
		}
	}
	if len(answered) < 2 {
		t.Fatalf("no connections to measure by:\n%s", a.out)
	}
	slices.SortFunc(answered, time.Time.Compare)
	var longest time.Duration
	for i := range answered[1:] {
		longest = max(longest, answered[i+1].Sub(answered[i]))
	}
	return longest
}

// idle has a pod wait for data over a connection to the bastion. What it returns says
// when and how the connection ended.
func (b *bed) idle(t *testing.T, p testbed.Pod) (ended func() (time.Time, string)) {
	t.Helper()
	const length = 20 * time.Second
	var out string
	var err error
	done := make(chan struct{})
	log := b.watchEcho(t, b.bastion)
	go func() {
		defer close(done)
		out, err = b.Exec(t.Context(), p.Place(), "traffic", "idle", "-for", length.String(),
			b.echo())
	}()
	b.eventually(t, log)
	return func() (time.Time, string) {
		<-done
		var r struct {
			At    time.Time
			Error string
		}
		if err := errors.Join(err, json.Unmarshal([]byte(out), &r)); err != nil {
			t.Fatalf("wait for data: %v: %s", err, out)
		}
		return r.At, r.Error
	}
}

// watchEcho returns a function that reports whether a connection to the bastion's echo at one
// of its addresses has been seen since.
func (b *bed) watchEcho(t *testing.T, bastion string) func() error {
	t.Helper()
	k, err := b.Capture(t.Context(), testbed.Bastion, "eth0", func(p testbed.Packet) bool {
		return !p.Outgoing && p.Destination.Port() == testbed.BastionEchoPort && p.Destination.Addr().String() == bastion
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = k.Stop() })
	return func() error {
		if len(k.Packets()) == 0 {
			return errors.New("no connection has reached the bastion yet")
		}
		return nil
	}
}

// inState waits for the states of the requested egress IPs in the status.
func (b *bed) inState(t *testing.T, states ...string) {
	t.Helper()
	b.eventually(t, func() error {
		return b.hasField(t, "netnamespace", egressNamespace, "{.status.egressIPs[*].state}", strings.Join(states, " "))
	})
}

// failBack says whether the namespace goes back to an earlier egress IP, as a value of JSON.
func (b *bed) failBack(t *testing.T, value string) {
	t.Helper()
	b.patch(t, "netnamespace", egressNamespace, `{"metadata": {"annotations": {"`+failBackKey+`": `+value+`}}}`)
}

// testBalanced: connections of a pod elsewhere spread over the egress IPs; a pod
// on an egress host uses that host's.
func (b *bed) testBalanced(t *testing.T) {
	b.withdrawAfter(t)
	b.patch(t, "netnamespace", egressNamespace,
		`{"egressIPs": ["`+b.egressIP+`", "`+b.secondIP+`"], "metadata": {"annotations": {"`+modeKey+`": "balanced"}}}`)
	b.claim(t, b.egressIP)
	b.patch(t, "hostsubnet", secondHost, list([]string{b.secondIP}))
	b.inState(t, "Active", "Active")
	own := map[string]string{egressHost: b.egressIP, secondHost: b.secondIP}
	var remote []testbed.Pod
	for _, p := range b.egress {
		if own[p.Node] == "" {
			remote = append(remote, p)
			continue
		}
		b.leaveWith(t, []testbed.Pod{p}, func(p testbed.Pod) string { return own[p.Node] })
	}
	if len(remote) == 0 {
		t.Fatal("no pod is away from both egress hosts")
	}
	verify := b.watchBastion(t, b.egressIP, b.secondIP)
	for _, p := range remote {
		b.eventually(t, func() error {
			_, err := b.traffic(t, p, "get", "-timeout", quick(), b.bastionURL())
			return err
		})
		seen := b.connections(t, p, 300)
		total := seen[b.egressIP] + seen[b.secondIP]
		if total < 200 {
			t.Fatalf("%s on %s: only %d connections were answered: %v", p.Name, p.Node, total, seen)
		}
		// Of 300 fair choices fewer than a third fall to one side once in 10^8
		// runs.
		for _, ip := range []string{b.egressIP, b.secondIP} {
			if seen[ip]*3 < total {
				t.Errorf("%s on %s: %d of %d connections with %s, want at least a third", p.Name, p.Node, seen[ip], total, ip)
			}
		}
	}
	for _, p := range b.egress {
		if ip := own[p.Node]; ip != "" {
			if seen := b.connections(t, p, 40); seen[ip] == 0 || len(seen) != 1 {
				t.Errorf("%s on %s, which has %s: %v", p.Name, p.Node, ip, seen)
			}
		}
	}
	verify()
}

// connections has a pod open about n connections, and counts them by the source
// that the bastion saw.
func (b *bed) connections(t *testing.T, p testbed.Pod, n int) map[string]int {
	t.Helper()
	const every = 10 * time.Millisecond
	out, err := b.Exec(t.Context(), p.Place(), "traffic", "watch", "-every", every.String(),
		"-for", (time.Duration(n) * every).String(), "-timeout", "3s", "-id", "balance", "tcp://"+b.echo())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(out) {
		var r struct{ Saw, Error string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("line of the traffic client: %v: %s", err, line)
		}
		if source, err := netip.ParseAddrPort(r.Saw); err == nil {
			seen[source.Addr().String()]++
		} else if r.Error != "" {
			t.Errorf("%s on %s: %s", p.Name, p.Node, r.Error)
		}
	}
	return seen
}

// testAutomatic: hosts with egressCIDRs get what is requested; what a user
// writes among their claims is corrected.
func (b *bed) testAutomatic(t *testing.T) {
	b.withdrawAfter(t)
	b.request(t, egressNamespace, b.egressIP, b.secondIP)
	for _, node := range []string{egressHost, secondHost} {
		b.patch(t, "hostsubnet", node, b.automatic())
	}
	hosts := map[string]string{}
	b.eventually(t, func() error {
		clear(hosts)
		for _, node := range []string{egressHost, secondHost} {
			claims, err := b.Kubectl(t.Context(), "get", "hostsubnet", node, "-o", "jsonpath={.egressIPs[*]}")
			if err != nil {
				return err
			}
			hosts[claims] = node
		}
		if hosts[b.egressIP] == "" || hosts[b.secondIP] == "" {
			return fmt.Errorf("claims by host: %v; want one on each", hosts)
		}
		return nil
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })

	// The claims of such a host are the controller's. One inside egressCIDRs would wait
	// for a NetNamespace for a while: it could come from a backup.
	host := hosts[b.egressIP]
	b.patch(t, "hostsubnet", host, list([]string{b.besideIP}))
	b.eventually(t, func() error {
		return b.hasField(t, "hostsubnet", host, "{.egressIPs[*]}", b.egressIP)
	})
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })

	// No namespace requests the addresses any more, so no host claims them.
	b.request(t, egressNamespace)
	for _, node := range []string{egressHost, secondHost} {
		b.eventually(t, func() error { return b.hasField(t, "hostsubnet", node, "{.egressIPs[*]}", "") })
	}
}

// testRights: an ordinary user cannot write egress IPs, and an agent writes the
// status of its own node alone.
func (b *bed) testRights(t *testing.T) {
	_, err := b.Kubectl(t.Context(), "--as=jane", "--as-group=system:authenticated", "patch", "netnamespace", egressNamespace, "--type=merge", "-p", list([]string{b.egressIP}))
	if err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("a user without rights patches a NetNamespace: %v", err)
	}
	agents, err := b.Pods(t.Context(), testbed.OperatorNamespace, "app.kubernetes.io/component=agent")
	if err != nil || len(agents) == 0 {
		t.Fatalf("agents: %v, %v", agents, err)
	}
	// A token bound to the agent's pod names its node, as the mounted one does.
	agent := agents[0]
	token, err := b.Kubectl(t.Context(), "-n", testbed.OperatorNamespace, "create", "token", "egressip-agent", "--bound-object-kind=Pod", "--bound-object-name="+agent.Name)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := b.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = strings.TrimSpace(token)
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	hostSubnets := client.Resource(v1.GroupVersion().WithResource("hostsubnets"))
	for _, node := range b.Nodes() {
		_, err := hostSubnets.Patch(t.Context(), node, types.MergePatchType, []byte(`{"status": {"agent": {"version": "forged"}}}`), metav1.PatchOptions{}, "status")
		switch {
		case node == agent.Node && err != nil:
			t.Errorf("the agent of %s writes the status of its own HostSubnet: %v", node, err)
		case node != agent.Node && (err == nil || !strings.Contains(err.Error(), "the agent of")):
			t.Errorf("the agent of %s writes the status of %s's HostSubnet: %v", agent.Node, node, err)
		}
	}
}
