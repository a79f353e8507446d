package dataplane

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// After a transaction that failed, what iptables holds is not known, whatever succeeds next.
func TestWhatIPTablesHoldIsUnknownAfterAFailure(t *testing.T) {
	d := &Dataplane{iptablesSeen: map[Backend]iptables.Tables{NFT: {}, Legacy: {}}}
	first, next := iptables.Transaction{Table: rules.NAT}, iptables.Transaction{Table: rules.Mangle}
	d.iptablesChanged(NFT, first, errors.New("refused"))
	d.iptablesChanged(NFT, next, nil)
	d.iptablesChanged(Legacy, first, nil)
	if _, known := d.iptablesSeen[NFT]; known {
		t.Error("it is known after a failure")
	}
	if seen := d.iptablesSeen[Legacy]; len(seen) != 1 {
		t.Errorf("after one that succeeded: %v", seen)
	}
}

// given: rules in a table of our own, and iptables that cannot be read; then each pass
// says so, and works.
//
// Mutant killed: warning-of-one-pass.
func TestUnreadableIPTablesIsAWarningInEachPass(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	broken := &iptables.Driver{}
	n.dp.iptables[Legacy] = broken
	for range 2 {
		var r Report
		n.Do(t, func() {
			var err error
			r, err = n.dp.Apply(context.WithoutCancel(t.Context()), n.state)
			must(t, err)
		})
		if len(r.Warnings) != 1 {
			t.Errorf("warnings %q", r.Warnings)
		}
	}
}

// given: networks inside of which one contains another, as the cluster's pod network does those
// of nodes; then passes settle, and when the larger one goes, then the others are inside still.
//
// Mutant killed: networks-within-networks-change-for-ever.
func TestNetworksWithinNetworks(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	within := n.state.Inside
	n.state.Inside = slices.Concat(within, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.244.1.0/24")})
	n.apply(t)
	if r := n.apply(t); r.Changes != 0 {
		t.Fatalf("a second pass made %d changes", r.Changes)
	}
	n.settled(t)
	n.state.Inside = within
	n.apply(t)
	n.settled(t)
	content, err := n.dp.nft.Observe()
	must(t, err)
	for _, want := range within {
		found := false
		for _, p := range content.Inside() {
			found = found || p.Overlaps(want) && p.Bits() <= want.Bits()
		}
		if !found {
			t.Errorf("%v is not inside any more", want)
		}
	}
}

// given: a kernel without nf_tables on a host that has iptables-nft; then no pass starts that, nor does
// a list of what is ours, and no warning says that its rules were not read: nobody has any. Those
// of the other backend are read.
//
// Mutants killed: absent-tables-are-read, absent-tables-are-listed.
func TestAbsentNFTablesIsNotReadByIPTables(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, b := range iptables.Backends() {
			for _, command := range []string{"", "-save", "-restore"} {
				name := family + "-" + string(b) + command
				script := "#!/bin/sh\ncase $1 in --version) echo 'iptables v1.8.9 (" + string(b) + ")';; *) echo " + name + " >>" + ran + ";; esac\n"
				must(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
			}
		}
	}
	t.Setenv("PATH", dir)
	drivers, err := iptables.OpenInstalled()
	must(t, err)
	d := &Dataplane{iptables: drivers, ip6tables: iptables.OpenIPv6()}
	for _, c := range []struct {
		absent bool
		want   []string
	}{
		{true, []string{"ip6tables-legacy-save", "iptables-legacy-save"}},
		{false, []string{"ip6tables-legacy-save", "ip6tables-nft-save", "iptables-legacy-save", "iptables-nft-save"}},
	} {
		d.noTables = func() bool { return c.absent }
		for what, do := range map[string]func() error{
			"pass": func() error {
				k := emptyKernel()
				err := observeRules(t.Context(), view{d: d, ip6tables: true}, &k)
				if len(k.warnings) > 0 {
					t.Errorf("absent %t: %s", c.absent, warning.Lines(k.warnings))
				}
				return errors.Join(err, k.problem)
			},
			"list": func() error { _, err := listRules(t.Context(), d); return err },
		} {
			must(t, os.RemoveAll(ran))
			must(t, do())
			out, err := os.ReadFile(ran)
			must(t, err)
			if got := slices.Sorted(maps.Keys(lineSet(string(out)))); !slices.Equal(got, c.want) {
				t.Errorf("absent %t: a %s runs %v, want %v", c.absent, what, got, c.want)
			}
		}
	}
}

func lineSet(text string) map[string]struct{} {
	set := map[string]struct{}{}
	for line := range strings.Lines(text) {
		set[strings.TrimSpace(line)] = struct{}{}
	}
	return set
}
