package dataplane

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

const networkManager = "/usr/sbin/NetworkManager"

// startNetworkManager runs NetworkManager, and a message bus for it, on a node, with a file
// system of its own for what they write, until stop is called or the test ends. A read-only
// /sys tells it not to wait for udev. Both end, at once, with the first process of their
// PID namespace.
func (n *node) startNetworkManager(t *testing.T) (stop func()) {
	t.Helper()
	const script = `mount -t tmpfs none /run; mount -t tmpfs none /var/lib/NetworkManager; mount -t sysfs -o ro none /sys
		mkdir -p /run/dbus /run/nm/conf.d /run/nm/connections
		printf '[main]\nplugins=keyfile\ndhcp=internal\ndns=none\nno-auto-default=*\n[keyfile]\npath=/run/nm/connections\nunmanaged-devices=except:interface-name:eth0\n' >/run/nm/NetworkManager.conf
		printf '[connection]\nid=uplink\ntype=ethernet\ninterface-name=eth0\n[ipv4]\nmethod=manual\naddress1=192.168.7.11/24,192.168.7.1\n[ipv6]\nmethod=disabled\n' >/run/nm/connections/uplink.nmconnection
		chmod 600 /run/nm/connections/uplink.nmconnection
		dbus-daemon --system --fork --nopidfile
		exec ` + networkManager + ` --no-daemon --config=/run/nm/NetworkManager.conf --config-dir=/run/nm/conf.d`
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script)
	cmd.WaitDelay = patience
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	n.Do(t, func() { must(t, cmd.Start()) })
	stop = func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("NetworkManager said:\n%s", log)
		}
	})
	return stop
}

// given: a host whose address is from NetworkManager, which takes it away some seconds after
// the carrier is gone and gives it back then; when that happens, and when NetworkManager ends
// and starts again, then no packet of the host or of other pods has an egress IP, and all have
// their network again.
func TestAddressUnderNetworkManager(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			if _, err := os.Stat(networkManager); err != nil {
				t.Skipf("without NetworkManager: %v", err)
			}
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			n.Run(t, "ip address flush dev eth0")
			stop := n.startNetworkManager(t)
			has := func() bool {
				return strings.Contains(n.Run(t, "ip -4 -oneline address show dev eth0"), "192.168.7.11/24") &&
					n.Run(t, "ip route show default") != ""
			}
			testenv.UntilWithin(t, patience, "NetworkManager gives the host its address", has)
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
			testenv.UntilWithin(t, patience, "NetworkManager takes the address away", func() bool { return !has() })
			w.lan.Run(t, "ip link set p-n1 up")
			testenv.UntilWithin(t, patience, "NetworkManager gives it back", has)
			n.apply(t)
			n.settled(t)
			flows()
			stop()
			w.linger(t)
			flows()
			n.startNetworkManager(t)
			w.linger(t)
			testenv.UntilWithin(t, patience, "the host has its address", has)
			n.apply(t)
			flows()
			n.settled(t)
		})
	}
}
