package dataplane

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: a kernel in which a backend of iptables that nobody uses cannot be read, as
// without its modules; then that is a warning, and new pods are served. When the one
// that is in use cannot be read, then that is an error, what works is reported as
// working, and new pods are served all the same.
//
// Mutant killed: unused-backend-is-needed.
func TestBackendThatCannotBeRead(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	n.host(eip1, 7)
	drivers := n.dp.iptables
	pods := map[string]*podMachine{"before": n.addPod(t, "before", 2), "meanwhile": n.addPod(t, "meanwhile", 3), "then": n.addPod(t, "then", 4)}
	serves := func(pod string) (Report, error) {
		t.Helper()
		pods[pod].set(local(eip1, 7))
		r, err := n.tryApply(t)
		if !r.Overlay || !r.Hosted[0].Configured {
			t.Errorf("%s: report %+v, error %v", pod, r, err)
		}
		pods[pod].leaves(t, eip1)
		return r, err
	}
	n.dp.iptables = map[Backend]*iptables.Driver{NFT: drivers[NFT], Legacy: {}}
	if r, err := serves("before"); err != nil || !strings.Contains(warning.Lines(r.Warnings), "iptables-legacy cannot be read") {
		t.Errorf("warnings %q, error %v", r.Warnings, err)
	}
	n.dp.iptables = map[Backend]*iptables.Driver{NFT: {}, Legacy: drivers[Legacy]}
	if r, err := serves("meanwhile"); err == nil || !strings.Contains(err.Error(), "read the rules of iptables-nft") || !slices.Equal(r.Backends, []Backend{NFT}) {
		t.Errorf("backends %v, error %v", r.Backends, err)
	}
	n.dp.iptables = drivers
	if r, err := serves("then"); err != nil || len(r.Warnings) > 0 {
		t.Errorf("warnings %q, error %v", r.Warnings, err)
	}
	n.settled(t)
}

// given: a rule of others that iptables cannot show; then the error names the table and
// what to do, and the jumps stay as they are.
//
// Mutant killed: incompatible-table-is-empty.
func TestTableThatIPTablesCannotRead(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	n.apply(t)
	before := n.Run(t, "nft -s list table ip nat")
	added := n.Run(t, "nft -e -a add rule ip nat POSTROUTING ip saddr 198.51.100.9 masquerade random")
	for range 2 {
		r, err := n.tryApply(t)
		if !errors.Is(err, iptables.ErrIncompatible) || !strings.Contains(err.Error(), "table nat") || !r.Hosted[0].Configured {
			t.Errorf("report %+v, error %v", r, err)
		}
		here.leaves(t, eip1)
	}
	_, handle, _ := strings.Cut(added, "# handle ")
	n.Run(t, "nft delete rule ip nat POSTROUTING handle "+handle)
	if after := n.Run(t, "nft -s list table ip nat"); after != before {
		t.Errorf("table nat was\n%s\nand is\n%s", before, after)
	}
	n.settled(t)
}

// forgetful is connection tracking that fails to list connections.
type forgetful struct{ tracker }

func (forgetful) Find([]netip.Addr, func(conntrack.Flow) bool) ([]conntrack.Entry, error) {
	return nil, errors.New("out of memory")
}

// given: connections of pods; when their sources change while the kernel fails to
// forget connections, then egress IPs that are lost are released all the same, nothing
// leaves with another source, and the next pass that can forgets them.
//
// Mutants killed: failed-forget-is-lost, failed-forget-forgets-the-route.
func TestWhatWasNotForgottenIsForgottenLater(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n1, n2 := w.nodes[0], w.nodes[1]
	here, freed, there := n1.addPod(t, "here", 2), n1.addPod(t, "freed", 3), n1.addPod(t, "there", 4)
	n1.host(eip1, 7)
	n1.host(eip2, 8)
	n2.host(eip3, 9)
	here.set(local(eip1, 7))
	freed.set(local(eip2, 8))
	route := func(source string) Pod {
		p := remote(9, n2)
		p.Sources = []netip.Addr{testenv.Addr(source)}
		return p
	}
	there.set(route(eip3))
	w.applyAll(t)
	w.bastion.serveEcho(t, 7000)
	for _, p := range []*podMachine{here, freed, there} {
		echoes(t, p.dial(t, "tcp4", bastionIP+":7000"), 10)
	}
	open := func() (n int) {
		n1.Do(t, func() {
			entries, err := conntrack.Find(func(f conntrack.Flow) bool { return f.Asked.Port() == 7000 })
			must(t, err)
			n = len(entries)
		})
		return n
	}
	if n := open(); n != 3 {
		t.Fatalf("%d connections", n)
	}
	fails := func() {
		t.Helper()
		n1.dp.tracked = forgetful{n1.dp.tracked}
		if _, err := n1.tryApply(t); err == nil || !strings.Contains(err.Error(), "out of memory") {
			t.Errorf("error %v", err)
		}
		n1.dp.tracked = kernelTracker{}
	}

	here.set(local(eip2, 8))
	there.set(route("192.168.7.204"))
	fails()
	here.leaves(t, eip2)
	n1.apply(t)
	if n := open(); n != 1 {
		t.Errorf("%d connections are left, and one should be", n)
	}

	freed.set(Pod{Kind: Node})
	n1.unhost(eip1)
	fails()
	if shown := n1.Run(t, "ip -4 address show dev eth0"); strings.Contains(shown, eip1) {
		t.Errorf("%s is not released:\n%s", eip1, shown)
	}
	if freed.answers(t, bastionIP+":8080") {
		t.Error("a pod is unlocked whose connections are not forgotten")
	}
	n1.apply(t)
	if n := open(); n != 0 {
		t.Errorf("%d connections are not forgotten", n)
	}
	freed.leaves(t, n1.ip.String())
	n1.settled(t)
}
