package dataplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: an agent without the rights that it needs to see the kernel; then a warning says that all
// others are as of before, which they are, and goes when the agent has its rights.
//
// Mutant killed: unseen-kernel-is-not-told.
func TestWarningOfAKernelThatCannotBeSeen(t *testing.T) {
	n := newWorld(t, 1, ownTable()).nodes[0]
	n.host(eip1, 7)
	n.Run(t, "sysctl -qw net.ipv4.ip_forward=0")
	n.warnsOnly(t, warning.ForwardingOff, "net.ipv4.ip_forward")
	n.rights = without(t, "NET_ADMIN")
	n.Run(t, "sysctl -qw net.ipv4.ip_forward=1") // nobody sees it
	r, err := n.tryApply(t)
	if found := r.Warnings; err == nil || len(found) != 2 || found[0].Reason != warning.ForwardingOff ||
		found[1].Reason != warning.Unknown || found[1].Object != "kernel" || !strings.Contains(found[1].Remedy, "AgentReady") {
		t.Errorf("warnings, with error %v:\n%s", err, warning.Lines(found))
	}
	n.rights = nil
	n.warnsNoMore(t)
}

// given: a container whose runtime hides a part of /proc/sys; then a warning says what could not be
// looked at, and goes when it is there.
//
// Mutant killed: hidden-settings-are-good.
func TestWarningOfSettingsThatAreHidden(t *testing.T) {
	n := newWorld(t, 1, ownTable()).nodes[0]
	n.warnsNoMore(t)
	empty := t.TempDir()
	var r Report
	n.Do(t, func() { // on a thread of its own, which ends with it
		must(t, unix.Unshare(unix.CLONE_NEWNS))
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
		must(t, unix.Mount(empty, "/proc/sys/net/ipv4/conf/default", "", unix.MS_BIND, ""))
		var err error
		r, err = n.dp.Apply(context.WithoutCancel(t.Context()), n.state)
		must(t, err)
	})
	if found := r.Warnings; len(found) != 1 || found[0].Reason != warning.Unknown || found[0].Object != "host" ||
		!strings.Contains(found[0].Problem, "conf/default/forwarding") || found[0].Remedy == "" {
		t.Errorf("warnings: %s", warning.Lines(found))
	}
	n.warnsNoMore(t)
}

// given: an iptables that is too old for random source ports, which are asked for; then a warning
// says so, and goes when a newer one is there.
//
// Mutant killed: old-iptables-is-not-told.
func TestWarningOfAnOldIPTables(t *testing.T) {
	n := newWorld(t, 1, onlyNFT()).nodes[0]
	n.cfg.SNATPorts = RandomPorts
	n.start(t)
	n.warnsNoMore(t)
	path, dir := os.Getenv("PATH"), t.TempDir()
	installed, err := exec.LookPath("iptables-nft")
	must(t, err)
	// In all but its version it is the one that is installed.
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != --version ] || exec echo 'iptables v1.6.1 (nf_tables)'\nexec %s \"$@\"\n", installed)
	must(t, os.WriteFile(filepath.Join(dir, "iptables-nft"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+path)
	n.start(t)
	n.warnsOnly(t, warning.Incomplete, "iptables-nft", "connections keep their source ports", "--snat-ports=preserve")
	t.Setenv("PATH", path)
	n.start(t)
	n.warnsNoMore(t)
}

// given: nodes whose uplinks carry packets of different sizes; then the one that sends larger
// ones warns of the other,
// by what each has found out about its uplink, until they carry the same.
//
// Mutant killed: mtu-of-the-uplink-is-not-read.
func TestWarningOfASmallerMTU(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n1, n2 := w.nodes[0], w.nodes[1]
	found := func() []warning.Warning {
		own, other := n1.apply(t), n2.apply(t)
		if back := warning.MTUs(other.Uplink, other.UplinkMTU, []warning.Peer{{Name: n1.Name, MTU: own.UplinkMTU}}); len(back) > 0 {
			t.Errorf("warnings of the other: %s", warning.Lines(back))
		}
		return warning.MTUs(own.Uplink, own.UplinkMTU, []warning.Peer{{Name: n2.Name, MTU: other.UplinkMTU}})
	}
	if list := found(); len(list) > 0 {
		t.Errorf("at first: %s", warning.Lines(list))
	}
	n2.Run(t, "ip link set eth0 mtu 1400")
	if list := found(); len(list) != 1 || list[0].Reason != warning.MTUDiffers || list[0].Object != "device eth0" ||
		!strings.Contains(list[0].Problem, "its MTU is 1500, and other nodes have less: n2 with 1400") || list[0].Remedy == "" {
		t.Errorf("warnings: %s", warning.Lines(list))
	}
	n2.Run(t, "ip link set eth0 mtu 1500")
	if list := found(); len(list) > 0 {
		t.Errorf("afterwards: %s", warning.Lines(list))
	}
}
