package dataplane

import (
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: a host with an egress IP, and an agent that may not hear ARP; then a warning says that
// other owners go unnoticed, and the egress IP is served. With the right there is no warning, and
// another owner is noticed.
//
// Mutant killed: deaf-watch-is-not-told.
func TestWarningOfOwnersThatAreNotHeard(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	n.warnsNoMore(t)
	n.cfg.AnnounceEvery = 100 * time.Millisecond
	n.rights = without(t, "NET_RAW")
	n.start(t)
	n.warnsOnly(t, warning.NotWatched, "device eth0", "other owners of egress IPs may go unnoticed", "operation not permitted", "NET_RAW")
	here.leaves(t, eip1)
	n.rights = nil
	n.warnsNoMore(t)
	_, mac := w.squatter(t, eip1)
	testenv.UntilWithin(t, patience, "another owner is noticed", func() bool { return n.apply(t).Hosted[0].InUseBy == mac.String() })
}

// given: an uplink that gets another MAC address while its queue takes no packets; then a warning
// says that the egress IPs are not announced, and goes. When the queue takes packets again, then
// another address is announced.
//
// Mutant killed: failed-announcement-is-not-told.
func TestWarningOfAnnouncementsThatFail(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	n.warnsNoMore(t)
	here.leaves(t, eip1)
	n.Run(t, "tc qdisc add dev eth0 root pfifo limit 0; ip link set eth0 address 02:11:22:33:44:55")
	n.warnsOnly(t, warning.NotWatched, "device eth0", "not announced although eth0 has changed", "announce "+eip1, "arping")
	n.warnsNoMore(t)
	n.Run(t, "tc qdisc delete dev eth0 root; ip link set eth0 address 02:11:22:33:44:66")
	n.warnsNoMore(t)
	here.leaves(t, eip1)
}
