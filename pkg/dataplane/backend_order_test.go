package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// replacement is a change of the backend on a host, from iptables to a table of our own.
type replacement struct {
	state State
	use   []Backend
}

// newReplacement returns the change, and the kernel before it.
func newReplacement(t *testing.T) (replacement, kernel) {
	t.Helper()
	r := replacement{use: []Backend{NFTables}, state: State{
		HostIP: testenv.Addr("192.168.7.11"), Hosts: []netip.Addr{testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12")},
		Inside: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Hosted: []Hosted{{IP: testenv.Addr("192.168.7.201"), NetID: 7}},
		Pods: []Pod{
			{IP: testenv.Addr("10.244.1.2"), Kind: Local, NetID: 7, EgressIP: testenv.Addr("192.168.7.201")},
			{IP: testenv.Addr("10.244.1.3"), Kind: Remote, NetID: 8, Via: []netip.Addr{testenv.Addr("192.168.7.12")}},
			{IP: testenv.Addr("10.244.1.4"), Kind: Drop},
			{IP: testenv.Addr("10.244.1.5"), Kind: Node},
		},
	}}
	k := bareKernel([]Backend{NFT})
	before := replacement{state: r.state, use: []Backend{NFT}}
	for _, c := range before.changes(t, k) {
		k.do(c, func() {})
	}
	// What was in use becomes the former backend.
	k.former = former{pods: k.pods, locked: k.locked, ipsets: []string{setPods, setLocked}}
	k.pods, k.locked = map[netip.Addr]uint32{}, map[netip.Addr]struct{}{}
	k.hosts, k.ips, k.inside = map[netip.Addr]struct{}{}, map[netip.Addr]struct{}{}, map[netip.Prefix]struct{}{}
	return r, k
}

func (r replacement) changes(t *testing.T, observed kernel) []change {
	t.Helper()
	m := DefaultMarks()
	known, used := knownIndices(m, observed)
	g, problems, without := aim(r.state, digested(r.state, nil), m, nil, known, used)
	if len(problems)+len(without) > 0 {
		t.Fatal(problems, without)
	}
	return order(orderInput{
		observed: observed, desired: g.desired, marks: m, use: r.use, known: known,
		rules: rules.Params{Marks: m, Overlay: overlayName, OverlayPort: 9789, Indices: g.serving},
		table: func(p rules.Params) nftables.Table {
			table, err := renderTable(p)
			must(t, err)
			return table
		},
	})
}

// protected says which pod that requests egress IPs neither backend holds back: one does
// where its rules are in effect and it has the pod locked.
func (k kernel) protected(want kernel) error {
	iptablesHolds := len(k.rules[NFT][rules.Filter].Own[rules.ChainLocked]) > 0
	tableHolds := k.table.InEffect()
	for ip := range want.locked {
		_, byFormer := k.former.locked[ip]
		_, byTable := k.locked[ip]
		if (!iptablesHolds || !byFormer) && (!tableHolds || !byTable) {
			return fmt.Errorf("pod %v is not locked: iptables %t, table %t", ip, iptablesHolds && byFormer, tableHolds && byTable)
		}
	}
	return nil
}

// marked says which pod a table that is in effect does not know by its mark.
func (k kernel) marked(want kernel) error {
	if !k.table.InEffect() {
		return nil
	}
	for ip, mark := range want.pods {
		if got, known := k.pods[ip]; !known || got != mark {
			return fmt.Errorf("pod %v has mark %#x (known: %t), want %#x", ip, got, known, mark)
		}
	}
	return nil
}

// given: a host that changes from iptables to a table of our own; when the agent dies
// after any change, and another one goes on from there, then at no moment is a pod that
// requests egress IPs without a lock, or any pod unknown to a table that is in effect.
//
// Mutants killed: dormant-table-is-in-effect, former-members-are-taken-for-ours.
func TestBackendChangeSurvivesDeaths(t *testing.T) {
	r, start := newReplacement(t)
	want := desire(r.state, digested(r.state, nil), DefaultMarks(), indices{testenv.Addr("192.168.7.201"): DefaultMarks().FirstIndex()})
	list := r.changes(t, start)
	for died := 0; died <= len(list); died++ {
		k := start.copied()
		k.former.pods, k.former.locked = maps.Clone(start.former.pods), maps.Clone(start.former.locked)
		play := func(changes []change) {
			for i, c := range changes {
				k.do(c, func() {})
				if err := errors.Join(k.protected(want), k.marked(want)); err != nil {
					t.Fatalf("death after %d changes of %d; after change %d (phase %d, op %d): %v", died, len(list), i+1, c.phase, c.op, err)
				}
			}
		}
		play(list[:died])
		play(r.changes(t, k))
		if err := k.marked(want); err != nil || !k.table.InEffect() || len(k.former.ipsets) > 0 {
			t.Fatalf("death after %d changes: at the end: %v; table in effect: %t, former sets: %v", died, err, k.table.InEffect(), k.former.ipsets)
		}
		if left := k.rules[NFT][rules.Mangle].Own; len(left) > 0 {
			t.Fatalf("death after %d changes: chains are left in iptables: %v", died, left)
		}
	}
}
