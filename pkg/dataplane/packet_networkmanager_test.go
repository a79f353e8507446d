package dataplane

import (
	"context"
	"os/exec"
	"strings"
	"testing"
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
// their network again without an agent's help.
func TestAddressUnderNetworkManager(t *testing.T) {
	addressUnder(t, daemon{name: "NetworkManager", path: networkManager, start: (*node).startNetworkManager})
}
