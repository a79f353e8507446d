package dataplane

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/feature"
)

// given: rules in each place; then reports say what the kernel lacks of what is used there,
// in every pass, and what is lost by configuration is not blamed on the kernel.
//
// Mutant killed: configured-iptables-is-a-lack.
func TestReportSaysWhatTheKernelLacks(t *testing.T) {
	for name, c := range map[string]struct {
		rules rulesOf
		begin func(*node)
		lacks map[feature.Name]bool
	}{
		"own table":               {rules: ownTable()},
		"own table without owner": {rules: ownTableShared(), lacks: map[feature.Name]bool{feature.TableOwner: true, feature.OwnTable: false}},
		"iptables as configured":  {rules: onlyLegacy(), lacks: map[feature.Name]bool{feature.OwnTable: false, feature.TableOwner: false}},
		"iptables, as the kernel refuses the table": {
			rules: onlyLegacy(), begin: func(n *node) { n.dp.choice = &choice{reason: "refused"} },
			lacks: map[feature.Name]bool{feature.OwnTable: true, feature.TableOwner: false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newWorld(t, 1, c.rules).nodes[0]
			if c.begin != nil {
				c.begin(n)
			}
			want := map[feature.Name]bool{feature.TCX: !bpf.HasTCX()}
			maps.Copy(want, c.lacks)
			var u unix.Utsname
			must(t, unix.Uname(&u))
			for range 3 {
				r := n.apply(t)
				if r.Kernel != unix.ByteSliceToString(u.Release[:]) {
					t.Errorf("kernel %q", r.Kernel)
				}
				for name, lacks := range want {
					at := slices.IndexFunc(r.Missing, func(f feature.Feature) bool { return f.Name == name })
					if at >= 0 != lacks || lacks && !strings.Contains(r.Missing[at].String(), "(Linux ") {
						t.Errorf("%s: lacks it: %t, missing %v", name, lacks, r.Missing)
					}
				}
			}
			if name == "own table" && n.dp.nft.Owned() == slices.ContainsFunc(n.dp.kernel.missing, func(f feature.Feature) bool { return f.Name == feature.TableOwner }) {
				t.Errorf("the table has an owner: %t, missing %v", n.dp.nft.Owned(), n.dp.kernel.missing)
			}
		})
	}
}

// given: no backend configured; then rules are in a table of our own, or in iptables on a
// kernel without nf_tables, whose report says so; pods leave with their egress IPs in both.
func TestBackendIsWhatTheKernelCan(t *testing.T) {
	w := newWorld(t, 2, onlyLegacy())
	n1, n2 := w.nodes[0], w.nodes[1]
	_, err := n1.Try(t, "nft list tables")
	want, lacks := NFTables, false
	if err != nil {
		want, lacks = Legacy, true
	}
	for _, n := range w.nodes {
		n.cfg.IPTables = false
		n.start(t)
	}
	here, there, plain := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "plain", 3)
	n1.host(eip1, 7)
	here.set(local(eip1, 7))
	there.set(remote(7, n1))
	plain.set(Pod{Kind: Node})
	w.applyAll(t)
	for _, n := range w.nodes {
		r := n.apply(t)
		found := slices.ContainsFunc(r.Missing, func(f feature.Feature) bool { return f.Name == feature.OwnTable })
		if !slices.Equal(r.Backends, []Backend{want}) || found != lacks {
			t.Errorf("%s: backends %v (%s), missing %v", n.Name, r.Backends, r.BackendReason, r.Missing)
		}
	}
	here.leaves(t, eip1)
	there.leaves(t, eip1)
	plain.leaves(t, n2.ip.String())
	w.applySettled(t)
}
