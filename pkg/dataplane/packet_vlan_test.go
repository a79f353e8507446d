package dataplane

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// vlans are the ways in which a second network comes with a tag: by the NIC of the uplink, and by
// another one.
func vlans() []secondNetwork {
	return []secondNetwork{
		{name: "of the uplink's NIC", device: "eth0.7", interfaces: []string{AnyInterface}, parent: "eth0", port: "p-NAME"},
		{name: "of another NIC", device: "eth1.7", interfaces: []string{AnyInterface}, parent: "eth1", port: "q-NAME", connects: true},
	}
}

// tag makes the node's interface of the second network, and the switch's.
func (k secondNetwork) tag(t *testing.T, w *world, n *node, addr, addr6 string) {
	t.Helper()
	port := strings.ReplaceAll(k.port, "NAME", n.Name)
	if k.connects {
		connect(t, n.machine, k.parent, nil, w.lan, port, nil)
	}
	w.lan.Run(t, fmt.Sprintf("ip link add link %[1]s name %[1]s.7 type vlan id 7; ip link set %[1]s.7 master br1 up", port))
	n.Run(t, fmt.Sprintf("ip link add link %s name %s type vlan id 7; ip link set %[2]s up; ip address add %s dev %[2]s", k.parent, k.device, addr))
	if n.six {
		n.Run(t, fmt.Sprintf("ip address add %s dev %s nodad", addr6, k.device))
	}
}

// needsVLANs skips the test where the kernel knows no VLANs.
func needsVLANs(t *testing.T) {
	t.Helper()
	uplinkKind{needs: "vlan"}.known(t)
}

// vlanRules are one way for each family, and with the whole matrix one for each of our backends.
func vlanRules() []rulesOf {
	list := faultRules()
	if matrix() != legacyAlone {
		list = append(list, ownTable().ofIPv6())
	}
	return list
}

// The same as TestEgressIPOfASecondNetwork, where the second network is that of a VLAN.
func TestEgressIPOfAVLAN(t *testing.T) {
	needsVLANs(t)
	for _, rules := range vlanRules() {
		for _, kind := range vlans() {
			t.Run(kind.name+", "+rules.name, func(t *testing.T) { playSecondNetwork(t, rules, kind) })
		}
	}
}

// The same as TestSecondInterfaceInTrouble, where the second interface is a VLAN; it may also get
// another tag, be deleted and made again, or go with its parent.
func TestVLANInTrouble(t *testing.T) {
	needsVLANs(t)
	const up = `ip link set DEV up; ip address replace 172.16.5.11/24 dev DEV; ip route replace default via 172.16.5.1 dev DEV metric 200`
	for _, rules := range faultRules() {
		for _, kind := range vlans() {
			again := "ip link delete DEV; ip link add link " + kind.parent + " name DEV type vlan id "
			more := []fault{
				{"with another tag", again + "8; " + up, "", again + "7; " + up},
				{"deleted", "ip link delete DEV", "is not there", "ip link add link " + kind.parent + " name DEV type vlan id 7; " + up},
			}
			if kind.connects {
				more = append(more, fault{"without its parent", "ip link set " + kind.parent + " down", "is down", "ip link set " + kind.parent + " up; " + up})
			}
			t.Run(kind.name+", "+rules.name, func(t *testing.T) { playSecondInTrouble(t, rules, kind, more...) })
		}
	}
}

// given: a host with an egress IP of a VLAN of the uplink's NIC, where the guard sees packets of
// all VLANs of that; when policy rules are gone, and the default route leads to the uplink or to
// another VLAN, then no packet with that egress IP leaves there, without a tag or with the other
// one; those of others leave as they did.
func TestGuardSeesTagsOfVLANs(t *testing.T) {
	needsVLANs(t)
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			lan1, lan2 := w.secondBy(t, vlans()[0])
			n := w.nodes[0]
			mine, plain := n.addPod(t, "mine", 2), n.addPod(t, "plain", 3)
			w.lan.Run(t, "ip link add link p-n1 name p-n1.8 type vlan id 8; ip link set p-n1.8 up; ip address add 172.16.8.1/24 dev p-n1.8")
			n.Run(t, "ip link add link eth0 name eth0.8 type vlan id 8; ip link set eth0.8 up; ip address add 172.16.8.11/24 dev eth0.8")
			lan3 := newCaptureOf(t, w.lan, "p-n1.8", unix.ETH_P_IP)
			n.hostFurther(further1, gateway2, 7)
			mine.set(local(further1, 7))
			plain.set(Pod{Kind: Node})
			n.apply(t)
			const port, other = 9001, 9002
			for _, c := range []*capture{lan1, lan3} {
				c.only(port)
			}
			lan2.only(port, further1)
			w.flows(t, startSender(t, mine, w.bastion, port), further1)
			startSender(t, plain, w.bastion, other)
			leave := func(by *capture, port uint16, from string) {
				t.Helper()
				before := by.from(port, from)
				testenv.UntilWithin(t, patience, fmt.Sprintf("packets to port %d from %s", port, from), func() bool { return by.from(port, from) > before+20 })
			}
			leave(lan1, other, n.ip.String())
			for _, c := range []struct {
				what, route string
				by          *capture
				from        string
			}{
				{"the default route by the uplink", "true", lan1, n.ip.String()},
				{"the default route by another VLAN", "ip route replace default via 172.16.8.1 dev eth0.8", lan3, "172.16.8.11"},
			} {
				for _, seen := range []*capture{lan1, lan2, lan3} {
					seen.says(c.what)
				}
				n.Run(t, "ip rule del priority 85; "+c.route)
				leave(c.by, other, c.from)
				w.linger(t)
				n.apply(t)
				leave(lan2, port, further1)
			}
		})
	}
}
