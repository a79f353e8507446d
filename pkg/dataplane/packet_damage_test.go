package dataplane

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: a pod whose namespace has its egress IP on another host, and one whose
// egress IP is on its own, both sending without a pause; when anything of ours
// is destroyed in the kernel of one of the two hosts, so that the other works on
// as before, then no packet leaves with another source, and the next Apply
// brings the traffic back. The test fails for each wrong packet.
//
// Kills the mutants without the lock in mangle FORWARD and without the one in
// filter FORWARD.
func TestDamageDropsAndIsRepaired(t *testing.T) {
	for _, rules := range []rulesOf{onlyNFT()} {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			host, other := w.nodes[0], w.nodes[1]
			near, far := host.addPod(t, "near", 2), other.addPod(t, "far", 2)
			host.host(eip1, 7)
			near.set(local(eip1, 7))
			far.set(remote(7, host))
			w.applyAll(t)
			fromNear, fromFar := startSender(t, near, w.bastion, 9001), startSender(t, far, w.bastion, 9002)
			w.seen.only(9001, eip1)
			w.seen.only(9002, eip1)
			w.flows(t, fromNear, eip1)
			w.flows(t, fromFar, eip1)

			ipt := rules.iptables()
			for _, d := range []struct {
				name string
				on   *node
				do   string
				// holds: the traffic goes on all the same.
				holds bool
				// unseen: it is mended by the next agent only.
				unseen bool
			}{
				{name: "overlay set down at the pod's host", on: other, do: "ip link set egress0 down"},
				{name: "overlay deleted at the pod's host", on: other, do: "ip link delete egress0"},
				{name: "programs taken off at the pod's host", on: other, do: "tc qdisc delete dev egress0 clsact"},
				{name: "policy rules deleted at the pod's host", on: other, do: "ip rule delete priority 90; ip rule delete priority 91"},
				{name: "overlay route deleted at the pod's host", on: other, do: "ip route delete default dev egress0 table 2000"},
				{name: "routes of the table flushed at the pod's host", on: other, do: "ip route flush table 2000"},
				{name: "neighbour deleted at the pod's host", on: other, do: "ip neighbour delete 169.254.77.2 dev egress0"},
				{name: "overlay's address deleted at the pod's host", on: other, do: "ip address flush dev egress0"},
				{name: "marks flushed at the pod's host", on: other, do: "ipset flush egress-pods"},
				{name: "marks flushed at the egress host", on: host, do: "ipset flush egress-pods"},
				{name: "mangle chains flushed at the pod's host", on: other, do: ipt + " -t mangle -F"},
				{name: "mangle chains flushed at the egress host", on: host, do: ipt + " -t mangle -F"},
				{name: "jump deleted at the pod's host", on: other, do: ipt + " -t mangle -D PREROUTING -j EGRESSIP-PREROUTING"},
				{name: "locks flushed at the pod's host", on: other, do: ipt + " -t filter -F; ipset flush egress-locked", holds: true},
				{name: "overlay set down at the egress host", on: host, do: "ip link set egress0 down"},
				{name: "overlay deleted at the egress host", on: host, do: "ip link delete egress0"},
				{name: "programs taken off at the egress host", on: host, do: "tc qdisc delete dev egress0 clsact"},
				{name: "return rule deleted at the egress host", on: host, do: "ip rule delete priority 91"},
				{name: "egress IP deleted at the egress host", on: host, do: "ip address delete " + eip1 + "/24 dev eth0"},
				{name: "hosts flushed at the egress host", on: host, do: "ipset flush egress-hosts"},
				{name: "inside networks flushed at the pod's host", on: other, do: "ipset flush egress-inside"},
				{name: "pins removed at the pod's host", on: other, do: "rm " + other.cfg.PinDir + "/*", holds: true, unseen: true},
			} {
				t.Log(d.name)
				d.on.Run(t, d.do)
				near.sends(t)
				far.sends(t)
				if d.holds {
					w.flows(t, fromNear, eip1)
					w.flows(t, fromFar, eip1)
				}
				if r := d.on.apply(t); r.Changes == 0 && !d.unseen {
					t.Errorf("%s: Apply saw nothing to repair", d.name)
				}
				w.flows(t, fromNear, eip1)
				w.flows(t, fromFar, eip1)
				d.on.settled(t)
			}
		})
	}
}

// sends waits until the pod has sent some more packets, wherever they went.
func (p *podMachine) sends(t *testing.T) {
	t.Helper()
	h := p.Handle(t)
	sent := func() uint64 {
		link, err := h.LinkByName("eth0")
		must(t, err)
		return link.Attrs().Statistics.TxPackets
	}
	before := sent()
	testenv.UntilWithin(t, patience, p.Name+" sends", func() bool { return sent() > before+100 })
}
