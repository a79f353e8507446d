package dataplane

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// given: a host that serves, among objects of others; when what is ours is
// listed, then nothing is changed, every kind of object is in the list and
// nothing of others is, and after cleanup the list is empty.
func TestLeftoversAreWhatCleanupTakes(t *testing.T) {
	w := newWorld(t, 1, allRules()[0])
	n := w.nodes[0]
	pod := n.addPod(t, "here", 2)
	n.Run(t, "ipset create theirs hash:ip; ip rule add fwmark 0x10000/0x10000 lookup 100 priority 500; ip address add 192.168.7.77/24 dev eth0")
	if got := n.leftovers(t); len(got) > 0 {
		t.Errorf("nothing was done yet, and these are listed:\n%s", strings.Join(got, "\n"))
	}
	n.host(eip1, 7)
	pod.set(local(eip1, 7))
	w.applyAll(t)
	before := n.objects(t)
	got := strings.Join(n.leftovers(t), "\n")
	for _, want := range []string{
		"table mangle, rule: -A PREROUTING -j EGRESSIP-PREROUTING", "table nat, chain EGRESSIP-POSTROUTING with",
		"ip rule, priority 89: to table 255", "ip rule, priority 90: to table 2000", "ip rule, priority 91: to table 2001", "in table 2000",
		"device egress0", "nftables table bridge egressip", "nftables table inet egressip-links", "address " + eip1 + "/24, label eth0:eip", "ipset egress-pods", "BPF map " + n.cfg.PinDir,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	for _, theirs := range []string{"theirs", "table 100", "192.168.7.77"} {
		if strings.Contains(got, theirs) {
			t.Errorf("%q is in:\n%s", theirs, got)
		}
	}
	if diff := cmp.Diff(before, n.objects(t)); diff != "" {
		t.Errorf("the list changed the host:\n%s", diff)
	}
	n.stop(t)
	n.clean(t)
	if got := n.leftovers(t); len(got) > 0 {
		t.Errorf("after cleanup these are listed:\n%s", strings.Join(got, "\n"))
	}
}

func (n *node) leftovers(t *testing.T) (list []string) {
	t.Helper()
	n.Do(t, func() {
		var err error
		list, err = Leftovers(context.WithoutCancel(t.Context()), n.cfg)
		must(t, err)
	})
	return list
}
