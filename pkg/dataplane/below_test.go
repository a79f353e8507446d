package dataplane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
)

// Packets pass the interfaces below the one that they leave by, with the tag of the last VLAN.
//
// Mutant killed: vlans-have-no-tags.
func TestInterfacesBelow(t *testing.T) {
	of := func(link netlink.Link, index, parent, master int) netlink.Link {
		*link.Attrs() = netlink.LinkAttrs{Index: index, ParentIndex: parent, MasterIndex: master, NetNsID: -1}
		return link
	}
	elsewhere := of(&netlink.Macvlan{}, 20, 1, 0)
	elsewhere.Attrs().NetNsID = 3
	links := []netlink.Link{
		of(&netlink.Device{}, 1, 0, 0),
		of(&netlink.Vlan{VlanId: 5}, 2, 1, 0),
		of(&netlink.Macvlan{}, 3, 1, 0),
		of(&netlink.Macvlan{}, 4, 2, 0),
		of(&netlink.Vlan{VlanId: 7}, 5, 2, 0),
		of(&netlink.Bridge{}, 6, 0, 0),
		of(&netlink.Vlan{VlanId: 8}, 7, 1, 6),
		of(&netlink.Veth{}, 8, 1, 6), // its peer is no way out
		of(&netlink.Bond{}, 9, 0, 0),
		of(&netlink.Device{}, 10, 0, 9),
		of(&netlink.Vlan{VlanId: 9}, 11, 9, 0),
		of(&netlink.Bridge{}, 12, 0, 0),
		of(&netlink.Vlan{VlanId: 1}, 13, 1, 12),
		of(&netlink.Vlan{VlanId: 2}, 14, 1, 12),
		of(&netlink.Vlan{VlanId: 0}, 15, 1, 0),
		elsewhere,
	}
	for from, want := range map[int]map[int]bpf.Tag{
		-1: {},
		1:  {1: 0},
		2:  {2: 0, 1: bpf.VLANTag(5)},
		3:  {3: 0, 1: 0},
		4:  {4: 0, 2: 0, 1: bpf.VLANTag(5)},
		5:  {5: 0, 2: bpf.VLANTag(7), 1: bpf.VLANTag(5)},
		6:  {6: 0, 7: 0, 8: 0, 1: bpf.VLANTag(8)},
		11: {11: 0, 9: bpf.VLANTag(9), 10: bpf.VLANTag(9)},
		12: {12: 0, 13: 0, 14: 0, 1: 0},
		15: {15: 0, 1: bpf.VLANTag(0)},
		20: {20: 0},
		99: {99: 0},
	} {
		if diff := cmp.Diff(want, below(links, from)); diff != "" {
			t.Errorf("below %d (-want +got):\n%s", from, diff)
		}
	}
}

// given: a host whose second interface is a macvlan on the uplink, in another network of the same
// LAN; then its egress IPs leave by it with the MAC address of that, those of the uplink as ever,
// and where others delete our policy rules nothing leaves with another address.
//
// Mutant killed: guards-below-drop.
func TestEgressIPOfAMacvlanOnTheUplink(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			w.router.Run(t, "ip address add "+gateway2+"/24 dev eth0")
			n1.Run(t, `ip link add eth1 link eth0 type macvlan mode bridge; ip link set eth1 up
				ip address add 172.16.5.11/24 dev eth1; ip route add default via 172.16.5.1 dev eth1 metric 200`)
			n1.cfg.Interfaces = []string{AnyInterface}
			n1.start(t)
			mine, there, first := n1.addPod(t, "mine", 2), n2.addPod(t, "there", 2), n1.addPod(t, "first", 3)
			n1.hostFurther(further1, gateway2, 7)
			n1.host(eip1, 8)
			mine.set(local(further1, 7))
			there.set(remote(7, n1))
			first.set(local(eip1, 8))
			w.applyAll(t)
			for i, s := range []struct {
				from *podMachine
				want string
			}{{mine, further1}, {there, further1}, {first, eip1}} {
				port := uint16(9001 + i)
				w.seen.only(port, s.want)
				w.flows(t, startSender(t, s.from, w.bastion, port), s.want)
			}
			if at := n1.guards(t); at != "eth0 eth1" {
				t.Errorf("guards at %s", at)
			}
			mac := func(device string) string {
				return strings.TrimSpace(n1.Run(t, "ip -o link show dev "+device+" | sed 's/.*link.ether //;s/ .*//'"))
			}
			testenv.UntilWithin(t, patience, "the router knows the MAC addresses of eth1 and eth0", func() bool {
				known := w.router.Run(t, "ip neigh show dev eth0")
				return strings.Contains(known, fmt.Sprintf("%s lladdr %s", further1, mac("eth1"))) && strings.Contains(known, fmt.Sprintf("%s lladdr %s", eip1, mac("eth0")))
			})
			n1.settled(t)
			n1.start(t)
			n1.settled(t)
			w.seen.says("without our rules")
			n1.Run(t, "ip rule del priority 85")
			w.linger(t)
			n1.apply(t)
			n1.settled(t)
		})
	}
}
