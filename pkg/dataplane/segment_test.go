package dataplane

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// squatter adds a machine to the LAN that has an address, and returns its MAC address.
func (w *world) squatter(t *testing.T, ip string) (*machine, net.HardwareAddr) {
	t.Helper()
	m := newMachine(t, "squatter")
	if !w.bastion.six {
		w.plug(t, m, ip+"/24")
		return m, m.mac(t)
	}
	w.plug(t, m, "192.168.7.77/24")
	m.Run(t, "ip address add "+ip+"/64 dev eth0 nodad")
	return m, m.mac(t)
}

func (m *machine) mac(t *testing.T) net.HardwareAddr {
	t.Helper()
	link, err := m.Handle(t).LinkByName("eth0")
	must(t, err)
	return link.Attrs().HardwareAddr
}

// given: a host with an egress IP; when another machine takes the address too, then
// the report names it, the address is announced, and it stays and is served; when the
// other machine has gone, then it is not reported any more.
//
// Kills the mutant that looks once, before it adds an address.
func TestAddressThatSomebodyElseTakesLater(t *testing.T) {
	for _, rules := range guardRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			n.cfg.AnnounceEvery = 100 * time.Millisecond
			n.start(t)
			here := n.addPod(t, "here", 2)
			n.host(w.eip(1), 7)
			n.host(w.eip(2), 8)
			here.set(local(w.eip(1), 7))
			if r := n.apply(t); r.Hosted[0].InUseBy != "" {
				t.Errorf("at first: %+v", r.Hosted)
			}
			s := startSender(t, here, w.bastion, 9001)
			w.seen.only(9001, w.eip(1))
			w.flows(t, s, w.eip(1))
			other, mac := w.squatter(t, w.eip(1))
			testenv.UntilWithin(t, patience, "the other machine is reported", func() bool {
				h := n.apply(t).Hosted
				return h[0].InUseBy == mac.String() && h[1].InUseBy == ""
			})
			other.Run(t, "ip link set eth0 down")
			testenv.UntilWithin(t, patience, "it is reported no longer", func() bool { return n.apply(t).Hosted[0].InUseBy == "" })
			w.flows(t, s, w.eip(1))
			n.settled(t)
		})
	}
}

// given: an egress IP that another machine has before the host; then the host takes it
// or not, and reports it or not, as configured.
func TestWhatAnAnswerMeansIsConfigured(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			for _, c := range []struct {
				mode           ARPProbe
				ignore         bool
				takes, reports bool
			}{
				{mode: ARPStrict, reports: true},
				{mode: ARPWarn, takes: true, reports: true},
				{mode: ARPOff, takes: true},
				{mode: ARPStrict, ignore: true, takes: true},
			} {
				w := newWorld(t, 1, rules)
				n := w.nodes[0]
				_, mac := w.squatter(t, eip1)
				n.cfg.ARPProbe, n.cfg.AnnounceEvery = c.mode, 100*time.Millisecond
				if c.ignore {
					n.cfg.ARPIgnore = []net.HardwareAddr{mac}
				}
				n.start(t)
				n.host(eip1, 7)
				for range 3 {
					r, err := n.tryApply(t)
					if h := r.Hosted[0]; h.Configured != c.takes || (h.InUseBy == mac.String()) != c.reports || (err == nil) != c.takes {
						t.Errorf("%s, ignored %t: %+v, %v", c.mode, c.ignore, h, err)
					}
					w.linger(t)
				}
			}
		})
	}
}

// given: an uplink that gets another MAC address; then its neighbours learn it for
// egress IPs at once.
//
// Kills the mutant that announces new addresses only.
func TestAnotherMACIsAnnounced(t *testing.T) {
	for _, rules := range guardRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			here := n.addPod(t, "here", 2)
			n.host(w.eip(1), 7)
			here.set(local(w.eip(1), 7))
			n.apply(t)
			w.router.Run(t, "sysctl -qw net.ipv4.neigh.eth0.locktime=0")
			here.leaves(t, w.eip(1))
			n.Run(t, "ip link set eth0 address 02:11:22:33:44:55")
			n.apply(t)
			testenv.UntilWithin(t, patience, "the router learns the MAC address", func() bool {
				return strings.Contains(w.router.Run(t, "ip neigh show "+w.eip(1)+" dev eth0"), "02:11:22:33:44:55")
			})
			here.leaves(t, w.eip(1))
			n.settled(t)
		})
	}
}

// given: a host with two interfaces on one segment; then the second, whose kernel
// answers for the addresses of the first, is not another machine.
//
// Kills the mutant that takes it for one.
func TestOwnInterfacesAreNotAnotherMachine(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			n.cfg.AnnounceEvery = 50 * time.Millisecond
			n.start(t)
			connect(t, n.machine, "eth1", nil, w.lan, "q-n1", nil)
			w.lan.Run(t, "ip link set q-n1 master br0")
			n.host(eip1, 7)
			n.apply(t)
			for range 5 {
				if h := n.apply(t).Hosted[0]; h.InUseBy != "" {
					t.Errorf("in use by %s", h.InUseBy)
				}
				w.linger(t)
			}
		})
	}
}

// given: a machine on the segment that answers ARP requests for every address, as some
// networks of clouds do; when a host must take an egress IP, with strict probes, then it does,
// and a warning names the machine; when that has gone, so does the warning.
//
// Mutants killed: everybody-is-an-owner, everybody-is-not-told.
func TestMachineThatAnswersForEverybody(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			here := n.addPod(t, "here", 2)
			proxy, mac := w.squatter(t, "192.168.7.99")
			// Every address is its own. Proxy ARP of Linux does not answer questions without a source.
			proxy.Run(t, "ip address flush dev eth0; ip route add local 0.0.0.0/0 dev lo")
			n.cfg.ARPProbe, n.cfg.AnnounceEvery = ARPStrict, 50*time.Millisecond
			n.start(t)
			n.host(eip1, 7)
			here.set(local(eip1, 7))
			told := func(r Report) bool {
				return len(r.Warnings) == 1 && r.Warnings[0].Reason == warning.AnsweredForAll && r.Warnings[0].Object == mac.String() &&
					strings.Contains(r.Warnings[0].Remedy, "--arp-ignore-macs")
			}
			for range 3 {
				r := n.apply(t) // expects that the egress IP is there
				if !told(r) || r.Hosted[0].InUseBy != "" {
					t.Fatalf("in use by %q, warnings: %s", r.Hosted[0].InUseBy, warning.Lines(r.Warnings))
				}
				w.linger(t)
			}
			proxy.Run(t, "ip link set eth0 down")
			if !wholeMatrix() {
				n.start(t) // it is remembered for a quarter of a minute
			}
			testenv.UntilWithin(t, 2*patience, "it is told no longer", func() bool { return len(n.apply(t).Warnings) == 0 })
			n.Run(t, "ip neigh flush dev eth0")
			w.router.Run(t, "ip neigh flush dev eth0")
			here.leaves(t, eip1)
		})
	}
}
