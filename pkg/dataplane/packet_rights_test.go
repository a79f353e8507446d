package dataplane

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// capabilities are those that the agent may have, by the names of the chart.
func capabilities() map[string]uint {
	return map[string]uint{"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "SYS_ADMIN": unix.CAP_SYS_ADMIN}
}

// capabilitiesOfTheChart reads what the agent's container gets.
func capabilitiesOfTheChart(t *testing.T) []string {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join("..", "..", "config", "agent", "agent.yaml"))
	must(t, err)
	found := regexp.MustCompile(`(?s)capabilities:\s+add:\s+((?:- [A-Z_]+\s+)+)`).FindSubmatch(manifest)
	if found == nil {
		t.Fatal("the manifest of the agent adds no capabilities")
	}
	return strings.Fields(strings.ReplaceAll(string(found[1]), "-", ""))
}

// confine takes from the calling thread, and from what it executes, all capabilities but
// some, and mounts /proc/sys read-only, as container runtimes do. The thread must end.
func confine(keep []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("leave the mount namespace: %w", err)
	}
	for _, m := range []struct {
		source, target string
		flags          uintptr
	}{
		{"", "/", unix.MS_REC | unix.MS_SLAVE},
		{"/proc/sys", "/proc/sys", unix.MS_BIND},
		{"", "/proc/sys", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	} {
		if err := unix.Mount(m.source, m.target, "", m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	var kept uint64
	for _, name := range keep {
		kept |= 1 << capabilities()[name]
	}
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if kept&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range data {
		part := uint32(kept>>(32*i)) & data[i].Permitted // a machine may lack some itself
		data[i] = unix.CapUserData{Effective: part, Permitted: part}
	}
	return unix.Capset(&header, &data[0])
}

// given: an agent with the capabilities of the chart, which may not write below
// /proc/sys; then it does all that an agent does, also after another one. Each of them
// is needed.
//
// Mutant killed: settings-by-file.
func TestRightsOfTheChartAreEnough(t *testing.T) {
	granted := capabilitiesOfTheChart(t)
	if want := slices.Sorted(maps.Keys(capabilities())); !slices.Equal(slices.Sorted(slices.Values(granted)), want) {
		t.Fatalf("the chart gives %v, and this test knows %v", granted, want)
	}
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			for _, n := range w.nodes {
				n.Run(t, "sysctl -qw net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.default.forwarding=0")
				n.rights = granted
				n.start(t)
			}
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			w.applyAll(t)
			here.leaves(t, eip1)
			there.leaves(t, eip1)
			for _, n := range w.nodes {
				n.settled(t)
				n.start(t)
				n.settled(t)
			}
			// The address moves, and connections are forgotten and reset.
			w.bastion.serveEcho(t, 7000)
			open := here.dial(t, "tcp4", bastionIP+":7000")
			echoes(t, open, 10)
			n1.unhost(eip1)
			n2.host(eip1, 7)
			here.set(Pod{Kind: Drop})
			there.set(Pod{Kind: Drop})
			w.applyAll(t)
			here.set(remote(7, n2))
			there.set(local(eip1, 7))
			w.applyAll(t)
			there.leaves(t, eip1)
			here.leaves(t, eip1)
			for _, n := range w.nodes {
				n.stop(t)
				n.act(t, func() { must(t, Cleanup(context.WithoutCancel(t.Context()), n.cfg)) })
			}
		})
	}
	for _, without := range granted {
		t.Run("without "+without, func(t *testing.T) {
			w := newWorld(t, 1, ownTable())
			n := w.nodes[0]
			n.host(eip1, 7)
			n.rights = slices.DeleteFunc(slices.Clone(granted), func(c string) bool { return c == without })
			var err error
			n.act(t, func() {
				var dp *Dataplane
				if dp, err = New(n.cfg); err == nil {
					_, err = dp.Apply(context.WithoutCancel(t.Context()), n.state)
					must(t, dp.Close())
				}
			})
			if err == nil {
				t.Errorf("nothing needs %s", without)
			}
		})
	}
}
