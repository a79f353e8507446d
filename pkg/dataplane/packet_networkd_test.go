package dataplane

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

const networkd = "/lib/systemd/systemd-networkd"

// startNetworkd runs systemd-networkd on a node, with a file system of its own for what
// it writes, until stop is called or the test ends. A read-only /sys tells it not to wait
// for udev.
func (n *node) startNetworkd(t *testing.T) (stop func()) {
	t.Helper()
	const script = `mount -t tmpfs none /run; mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases
		chown -R systemd-network /run/systemd/netif; mount -t sysfs -o ro none /sys
		printf '[Match]\nName=eth0\n[Network]\nAddress=192.168.7.11/24\nGateway=192.168.7.1\nLinkLocalAddressing=no\n' >/run/systemd/network/10.network
		exec ` + networkd
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-ec", script)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	n.Do(t, func() { must(t, cmd.Start()) })
	stop = func() {
		cancel()
		_ = cmd.Wait() // it ends by the signal
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("systemd-networkd said:\n%s", log)
		}
	})
	return stop
}

// daemon is one that gives a host its address.
type daemon struct {
	name, path string
	start      func(*node, *testing.T) (stop func())
}

// addressUnder plays the loss of a host's address with the daemon that it is from.
func addressUnder(t *testing.T, d daemon) {
	t.Helper()
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			if _, err := os.Stat(d.path); err != nil {
				t.Skipf("without %s: %v", d.name, err)
			}
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			n.Run(t, "ip address flush dev eth0; sysctl -qw net.ipv4.conf.all.promote_secondaries=1")
			stop := d.start(n, t)
			has := func() bool {
				return strings.Contains(n.Run(t, "ip -4 -oneline address show dev eth0"), "192.168.7.11/24") &&
					n.Run(t, "ip route show default") != ""
			}
			testenv.UntilWithin(t, patience, d.name+" gives the host its address", has)
			here, plain := n.addPod(t, "here", 2), n.addPod(t, "plain", 3)
			n.host(eip1, 7)
			here.set(local(eip1, 7))
			plain.set(Pod{Kind: Node})
			n.apply(t)
			own := []string{n.ip.String(), n.gateway()}
			w.seen.only(9001, eip1)
			w.seen.only(9002, own...)
			w.seen.only(9003, own...)
			a, b, c := startSender(t, here, w.bastion, 9001), startSender(t, plain, w.bastion, 9002), startSender(t, n, w.bastion, 9003)
			flows := func() {
				t.Helper()
				w.flows(t, a, eip1)
				w.flows(t, b, own[0])
				w.flows(t, c, own[0])
			}
			flows()
			w.lan.Run(t, "ip link set p-n1 down")
			testenv.UntilWithin(t, patience, d.name+" takes the address away", func() bool { return !has() })
			w.lan.Run(t, "ip link set p-n1 up")
			testenv.UntilWithin(t, patience, d.name+" gives it back", has)
			flows()
			n.apply(t)
			n.settled(t)
			flows()
			stop()
			w.linger(t)
			flows()
			d.start(n, t)
			w.linger(t)
			testenv.UntilWithin(t, patience, "the host has its address", has)
			flows()
			n.settled(t)
		})
	}
}

// given: a host whose address is from systemd-networkd, which takes it away after three
// seconds without carrier and gives it back then; when that happens, and when networkd
// starts again, then no packet of the host or of other pods has an egress IP, and
// all have their network again without an agent's help.
func TestAddressUnderNetworkd(t *testing.T) {
	addressUnder(t, daemon{name: "systemd-networkd", path: networkd, start: (*node).startNetworkd})
}
