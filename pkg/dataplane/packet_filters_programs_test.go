package dataplane

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// programs are a real packet filter and what it needs, on some nodes. Each node has files
// and sockets of its own.
type programs struct {
	files map[*node]int // a process that keeps the node's mounts
	// private are the directories that each node has a copy of.
	private string
}

// install begins a node's mounts. The script runs with them, in the background.
func (p *programs) install(t *testing.T, n *node, script string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", `
		mount -t tmpfs none /run; mount -t tmpfs none /var/log
		d=$(mktemp -d -p /run); for f in `+p.private+`; do mkdir -p $d$(dirname $f); cp -a $f $d$f; mount --bind $d$f $f; done
		(`+script+`) >/var/log/script 2>&1 &
		echo ready; exec sleep infinity`)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	n.Do(t, func() { must(t, cmd.Start()) })
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	p.files[n] = cmd.Process.Pid
}

// in is a command for the node, with its mounts.
func (p *programs) in(n *node, script string) string {
	// The program's children have the mounts, unshare itself has not.
	return fmt.Sprintf("nsenter --mount=/proc/$(pgrep -P %d)/ns/mnt sh -ec '%s' 2>&1", p.files[n], script)
}

func (p *programs) runs(script string) func(*testing.T, *node) {
	return func(t *testing.T, n *node) {
		t.Helper()
		n.Run(t, p.in(n, script))
	}
}

// installedFilters are the packet filters that are installed here.
func installedFilters(t *testing.T) []nodeFilter {
	t.Helper()
	var list []nodeFilter
	if _, err := exec.LookPath("ufw"); err == nil {
		p := &programs{files: map[*node]int{}, private: "/etc/ufw /etc/default/ufw"}
		list = append(list, nodeFilter{
			name: "ufw", closed: []warning.Reason{warning.OverlayPortClosed}, remedy: "ufw allow 9789/udp",
			begin: func(t *testing.T, n *node) {
				t.Helper()
				p.install(t, n, "true")
				n.Run(t, p.in(n, `ufw default deny incoming; ufw default deny routed; ufw allow 22/tcp
					ufw allow from 10.244.0.0/16; ufw route allow from 10.244.0.0/16; ufw --force enable`))
			},
			open: p.runs("ufw allow 9789/udp"), reload: p.runs("ufw reload"),
		})
	}
	if _, err := exec.LookPath("firewalld"); err == nil {
		p := &programs{files: map[*node]int{}, private: "/etc/firewalld"}
		list = append(list, nodeFilter{
			name: "firewalld", closed: []warning.Reason{warning.OverlayPortClosed}, remedy: "firewall-cmd --permanent --add-port=9789/udp", flushes: true,
			begin: func(t *testing.T, n *node) {
				t.Helper()
				p.install(t, n, `mkdir -p /run/dbus; dbus-daemon --system --nofork --nopidfile &
					until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done; exec firewalld --nofork --nopid`)
				testenv.UntilWithin(t, 6*patience, "firewalld runs", func() bool {
					_, err := n.Try(t, p.in(n, "firewall-cmd --state"))
					return err == nil
				})
				n.Run(t, p.in(n, `firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16
					firewall-cmd --permanent --zone=public --add-masquerade; firewall-cmd --reload`))
			},
			open: p.runs("firewall-cmd --permanent --add-port=9789/udp; firewall-cmd --reload"), reload: p.runs("firewall-cmd --reload"),
		})
	}
	return list
}

// TestInstalledPacketFiltersOfNodes is TestPacketFiltersOfNodes with the programs
// themselves, where they are installed: make filters.
func TestInstalledPacketFiltersOfNodes(t *testing.T) {
	if !wholeMatrix() {
		t.Skip("takes a minute: make filters")
	}
	filters := installedFilters(t)
	if len(filters) == 0 {
		t.Skip("neither ufw nor firewalld is installed")
	}
	for _, r := range []rulesOf{ownTable(), onlyNFT()} {
		for _, f := range filters {
			t.Run(r.name+"/"+f.name, func(t *testing.T) { newFiltered(t, r, f).play(t) })
		}
	}
}
