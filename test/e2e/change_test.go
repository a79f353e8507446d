package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// repairedIn is how soon what was deleted by hand must be back.
const repairedIn = 2 * time.Second

// testDrift deletes, by hand, one thing of ours after the other.
func (b *bed) testDrift(t *testing.T) {
	b.givenEgressIP(t)
	for _, c := range []struct{ node, damage string }{
		{egressHost, "address del " + b.egressIPOnUplink() + " dev eth0"},
		{"node1", "route flush table 2000"},
		{"node1", "rule del table 2000"},
		{egressHost, "rule del table 2001"},
	} {
		damage := b.ip() + " " + c.damage
		b.repaired(t, c.node, damage, func() error {
			_, err := b.NodeExec(t.Context(), c.node, strings.Fields(damage)...)
			return err
		})
	}
	for _, node := range []string{"node1", egressHost} {
		if b.ownTable() {
			b.guarded(t, node)
			continue
		}
		b.repaired(t, node, "without marks of pods", func() error {
			_, err := b.NodeExec(t.Context(), node, "ipset", "flush", b.named("egress-pods"))
			return err
		})
		b.repaired(t, node, "without jumps to our chains", func() error { return b.damageRules(t, node, "-A ", "-D ") })
		b.repaired(t, node, "our chains empty", func() error { return b.damageRules(t, node, ":", "-F ") })
	}
	// The overlay comes back with another MAC address: ask the packets.
	for _, node := range []string{"node1", egressHost} {
		verify := b.watchBastion(t, b.egressIP)
		if _, err := b.NodeExec(t.Context(), node, "ip", "link", "del", "egress0"); err != nil {
			t.Fatal(err)
		}
		b.within(t, repairedIn+time.Second, func() error {
			_, err := b.traffic(t, b.egress[0], "get", "-timeout", "300ms", b.bastionURL())
			return err
		})
		b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
		verify()
	}
}

// guarded expects that nobody but the agent can change our table.
func (b *bed) guarded(t *testing.T, node string) {
	t.Helper()
	for _, damage := range []string{
		"nft delete table inet egressip", "nft flush chain inet egressip forward", "nft flush map inet egressip egress-marks",
	} {
		if out, err := b.NodeExec(t.Context(), node, strings.Fields(damage)...); err == nil {
			t.Errorf("%s: %q was done: %s", node, damage, out)
		}
	}
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
}

// repaired damages a node, and demands that it be as before soon.
func (b *bed) repaired(t *testing.T, node, what string, damage func() error) {
	t.Helper()
	before := b.settledSnapshot(t, node)
	if err := damage(); err != nil {
		t.Errorf("%s: %s: %v", node, what, err)
		return
	}
	start := time.Now()
	var diff []string
	for begun := start; begun.Sub(start) < repairedIn; {
		begun = time.Now()
		after, err := b.Snapshot(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		if diff = before.Diff(after); len(diff) == 0 {
			break
		}
	}
	if len(diff) > 0 {
		t.Errorf("%s: %s: after %s:\n%s", node, what, repairedIn, strings.Join(diff, "\n"))
	}
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
}

// damageRules takes the lines of iptables-save that begin with from and speak
// of our chains, and puts to in that place: "-D " deletes jumps, "-F " empties
// chains. Rules of others stay.
func (b *bed) damageRules(t *testing.T, node, from, to string) error {
	t.Helper()
	save, err := b.NodeExec(t.Context(), node, b.iptables()+"-"+string(b.backend)+"-save")
	if err != nil {
		return err
	}
	var damage strings.Builder
	lines := 0
	for line := range strings.Lines(save) {
		rule, ok := strings.CutPrefix(line, from)
		switch {
		case strings.HasPrefix(line, "*"), line == "COMMIT\n":
			damage.WriteString(line)
		case ok && from == ":" && strings.HasPrefix(rule, "EGRESSIP-"):
			damage.WriteString(to + strings.Fields(rule)[0] + "\n")
			lines++
		case ok && from != ":" && !strings.HasPrefix(rule, "EGRESSIP-") && strings.Contains(rule, "-j EGRESSIP-"):
			damage.WriteString(to + rule)
			lines++
		}
	}
	if lines == 0 {
		return fmt.Errorf("no rules of ours:\n%s", save)
	}
	return b.ExecInput(t.Context(), node, damage.String(), b.iptables()+"-"+string(b.backend)+"-restore", "--noflush", "--wait")
}

// settledSnapshot takes snapshots until two in a row are equal.
func (b *bed) settledSnapshot(t *testing.T, node string) testbed.Snapshot {
	t.Helper()
	var last testbed.Snapshot
	b.eventually(t, func() error {
		now, err := b.Snapshot(t.Context(), node)
		if err != nil {
			return err
		}
		diff := last.Diff(now)
		last = now
		if len(diff) > 0 {
			return fmt.Errorf("%s does not settle: %s", node, strings.Join(diff, "\n"))
		}
		return nil
	})
	return last
}

// testAgentRestart kills every agent under load, one after the other: traffic
// is the kernel's, and does not notice.
func (b *bed) testAgentRestart(t *testing.T) {
	b.givenEgressIP(t)
	verify := b.watchBastion(t, b.egressIP)
	const length = 20 * time.Second
	waits := map[string]func(bool) (string, error){}
	for _, p := range b.egress {
		for name, args := range map[string][]string{
			"new connections":   {"watch", "-every", "25ms", "-timeout", "2s", b.bastionURL()},
			"datagrams":         {"watch", "-every", "25ms", "-timeout", "2s", "udp://" + b.server()},
			"an old connection": {"stream", "-every", "25ms", "-timeout", "2s", b.echo()},
		} {
			command := []string{"traffic", args[0], "-for", length.String()}
			wait, err := b.Background(t.Context(), p.Place(), append(command, args[1:]...)...)
			if err != nil {
				t.Fatal(err)
			}
			waits[fmt.Sprintf("%s from %s", name, p.Node)] = wait
		}
	}
	for _, node := range []string{egressHost, "node1", "node2"} {
		if n, err := b.Kill(t.Context(), node, isAgent); err != nil || n != 1 {
			t.Errorf("killed %d agents on %s, %v; want 1", n, node, err)
		}
		b.eventually(t, func() error {
			if pids, err := b.PIDs(node, isAgent); err != nil || len(pids) != 1 {
				return errors.Join(fmt.Errorf("no new agent on %s", node), err)
			}
			return nil
		})
		if _, err := b.AwaitPods(t.Context(), testbed.OperatorNamespace, "app.kubernetes.io/component=agent", len(b.Nodes())); err != nil {
			t.Fatal(err)
		}
	}
	for what, wait := range waits {
		out, err := wait(false)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		answered, bad := b.readResults(t, out)
		if len(bad) > 0 || answered < 400 {
			t.Errorf("%s: %d answers, %d bad ones, such as %v, at last %v", what, answered, len(bad), bad[:min(3, len(bad))], bad[max(0, len(bad)-1):])
		}
	}
	verify()
}

// isAgent recognises the agent by its command line.
func isAgent(args []string) bool {
	return filepath.Base(args[0]) == "egressip-operator" && len(args) > 1 && args[1] == "agent"
}

// readResults counts the answers in the output of watch or stream that show
// the egress IP, and returns the other lines.
func (f family) readResults(t *testing.T, out string) (answered int, bad []string) {
	t.Helper()
	for line := range strings.Lines(out) {
		var r struct{ Saw, Error string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("strange line %q: %v", line, err)
			continue
		}
		if r.Error == "" && f.isEgressIP(r.Saw) {
			answered++
		} else {
			bad = append(bad, line)
		}
	}
	return answered, bad
}

// snapshots lists what every node's kernel holds.
func (b *bed) snapshots(t *testing.T) map[string]testbed.Snapshot {
	t.Helper()
	all := map[string]testbed.Snapshot{}
	for _, node := range b.Nodes() {
		all[node] = b.settledSnapshot(t, node)
	}
	return all
}

// testRemoval: after the operator is uninstalled, each node is as it was. By itself that is so
// once no namespace requests egress IPs any more, which one of the two suites asks for; else
// the agents leave what drops pods, until "cleanup" has run.
func (b *bed) testRemoval(t *testing.T) {
	// With an egress IP in use, so that there is something to remove.
	ips := []string{b.egressIP}
	if b.DualStack() {
		ips = []string{egressIP4, egressIP6}
	}
	b.request(t, egressNamespace, ips...)
	b.claim(t, ips...)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	if len(ips) > 1 {
		b.leave6With(t, b.egress)
	}
	withdrawn := b.ownTable()
	if withdrawn {
		b.request(t, egressNamespace)
		b.leaveWith(t, b.egress, b.nodeAddress)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Stretch(3*time.Minute))
	defer cancel()
	if err := b.uninstall(ctx); err != nil {
		t.Fatal(err)
	}
	if !withdrawn {
		b.cleanUp(t)
	}
	b.nodesAsBefore(t)
	b.leaveWith(t, b.egress, b.nodeAddress)
	if len(ips) > 1 {
		b.leave6(t, b.egress)
	}
}

// nodesAsBefore waits until the kernel of each node holds what it held before the operator came.
func (b *bed) nodesAsBefore(t *testing.T) {
	t.Helper()
	for node, was := range b.before {
		b.eventually(t, func() error {
			is, err := b.Snapshot(t.Context(), node)
			if err != nil {
				return err
			}
			var diff []string
			for _, d := range was.Diff(is) {
				// kube-proxy writes its rules in no fixed order.
				if !strings.HasSuffix(d, "the order differs") {
					diff = append(diff, d)
				}
			}
			if len(diff) > 0 {
				return fmt.Errorf("%s is not as it was:\n%s", node, strings.Join(diff, "\n"))
			}
			return nil
		})
	}
}

// cleanUp runs "cleanup" on every node, once the agents have ended and given their egress IPs
// up.
func (b *bed) cleanUp(t *testing.T) {
	t.Helper()
	// No address is left that nothing manages.
	b.eventually(t, func() error { return b.hasEgressIP(t, b.host, b.egressIP, false) })
	for _, node := range b.Nodes() {
		// An agent that has yet to end owns what it made.
		b.eventually(t, func() error {
			if pids, err := b.PIDs(node, isAgent); err != nil || len(pids) > 0 {
				return errors.Join(fmt.Errorf("agents still run on %s: %v", node, pids), err)
			}
			return nil
		})
		if out, err := b.NodeShell(t.Context(), node, b.binary(), "cleanup"); err != nil {
			t.Fatalf("cleanup on %s: %v\n%s", node, err, out)
		}
	}
}
