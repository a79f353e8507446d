package dataplane

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// objects lists all that cleanup could forget, or take too much of. Tables of
// iptables without rules are left out: naming one makes it, and nothing can
// tell who did.
func (n *node) objects(t *testing.T) []string {
	t.Helper()
	list := strings.Split(n.Run(t, `
		ip -o link | sed 's/^[0-9]*: //; s/ qlen.*//; s/state .*//'
		ip -4 -o address | sed 's/^[0-9]*: //; s/valid_lft.*//'
		ip rule; ip -6 rule; ip route show table all | grep -v fe80 | sort
		tc qdisc show; ipset list -n
		sysctl net.ipv4.conf | grep rp_filter`), "\n")
	commands := []string{"iptables-legacy-save"}
	if matrix() != legacyAlone {
		commands = append(commands, "iptables-nft-save")
	}
	for _, command := range commands {
		var tables []string
		out := regexp.MustCompile(`(?m)\[\d+:\d+\]|^#.*\n`).ReplaceAllString(n.Run(t, command), "")
		for part := range strings.SplitSeq(out, "COMMIT\n") {
			if strings.Contains(part, "-A ") || strings.Contains(part, " - ") {
				tables = append(tables, part)
			}
		}
		slices.Sort(tables)
		list = append(append(list, command), tables...)
	}
	return list
}

// given: a host with rules of others; when we come, serve and go, then every
// object of the kernel is as it was; going twice, or by halves, does no harm.
func TestCleanupLeavesNothingOfOursAndAllElse(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			n1.Run(t, rules.iptables()+" -t mangle -A FORWARD -p tcp -j ACCEPT; "+rules.iptables()+" -t mangle -N THEIRS; "+
				"ipset create theirs hash:ip; ip rule add fwmark 0x10000/0x10000 lookup 100 priority 500; ip address add 192.168.7.77/24 dev eth0")
			before := [][]string{n1.objects(t), n2.objects(t)}

			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			w.applyAll(t)
			here.leaves(t, eip1)
			there.leaves(t, eip1)

			for i, n := range w.nodes {
				for _, half := range []string{"", rules.unjump("nat", "POSTROUTING") + "; ip link del egress0; ip rule del priority 90"} {
					n.apply(t)
					n.stop(t)
					n.Run(t, half)
					n.clean(t)
					n.clean(t)
					if diff := cmp.Diff(before[i], n.objects(t)); diff != "" {
						t.Fatalf("objects of %s (-before us +after us):\n%s", n.Name, diff)
					}
					if _, err := os.Stat(n.cfg.PinDir); !os.IsNotExist(err) {
						t.Fatalf("pinned maps remain: %v", err)
					}
					n.start(t)
				}
				// An agent that is uninstalled does it at its end.
				n.apply(t)
				n.Do(t, func() { must(t, n.dp.Cleanup(context.WithoutCancel(t.Context()))) })
				n.stop(t)
				if diff := cmp.Diff(before[i], n.objects(t)); diff != "" {
					t.Fatalf("objects of %s (-before us +after its agent's end):\n%s", n.Name, diff)
				}
				n.start(t)
			}
			here.leaves(t, n1.ip.String())
			there.leaves(t, n2.ip.String())
		})
	}
}

func (n *node) clean(t *testing.T) {
	t.Helper()
	n.Do(t, func() { must(t, Cleanup(context.WithoutCancel(t.Context()), n.cfg)) })
}
