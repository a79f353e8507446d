package dataplane

import (
	"fmt"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
)

// given: hosts with egress IPs of IPv6, and senders without a pause: pods with an egress IP
// here and elsewhere, one with none, and the host itself; when the host's own address goes and
// comes back, be the egress IP the only address that is left, with an agent or without, then
// no packet has an egress IP that is not its namespace's; and all have their network again.
//
// Mutant killed: host-sends-with-its-egress-ip.
func TestAddressOfIPv6IsTheNamespacesAlone(t *testing.T) {
	w := newWorld(t, 2, ownTable().ofIPv6())
	n1, n2 := w.nodes[0], w.nodes[1]
	here, away, plain := n1.addPod(t, "here", 2), n1.addPod(t, "away", 3), n1.addPod(t, "plain", 4)
	n1.host(w.eip(1), 7)
	n2.host(w.eip(2), 8)
	here.set(local(w.eip(1), 7))
	away.set(remote(8, n2))
	plain.set(Pod{Kind: Node})
	w.applyAll(t)

	const gateway = "fd00:10:244:1::1"
	w.seen.only(9001, w.eip(1))
	w.seen.only(9002, w.eip(2))
	// While the host has no address, the kernel takes that of another device.
	w.seen.only(9003, n1.own(), gateway)
	w.seen.only(9004, n1.own(), gateway)
	senders := map[*sender]string{
		startSender(t, here, w.bastion, 9001):  w.eip(1),
		startSender(t, away, w.bastion, 9002):  w.eip(2),
		startSender(t, plain, w.bastion, 9003): n1.own(),
		startSender(t, n1, w.bastion, 9004):    n1.own(),
	}
	const back = `ip link set eth0 up; ip address replace fd00:7::11/64 dev eth0 nodad; ip address replace ` + gateway + `/64 dev cni0 nodad
		ip -6 route replace default via fd00:7::1; ip -6 route replace fd00:10:244:2::/64 via fd00:7::12
		ip route replace default via 192.168.7.1; ip route replace 10.244.2.0/24 via 192.168.7.12`
	for _, gone := range []string{
		"ip address del fd00:7::11/64 dev eth0",
		"ip address del fd00:7::11/64 dev eth0; ip address del " + gateway + "/64 dev cni0",
		"ip -6 address flush dev eth0 scope global",
		"ip link set eth0 down",
	} {
		for _, served := range []bool{false, true} {
			w.seen.says(fmt.Sprintf("%s, with an agent: %t", gone, served))
			n1.Run(t, gone)
			w.linger(t)
			if served {
				_, _ = n1.tryApply(t)
			}
			n1.Run(t, back)
			w.linger(t)
			n1.apply(t)
			n1.settled(t)
			// Neighbours are found again a second after the link is up, if the first question is lost.
			for s, source := range senders {
				w.flows(t, s, source)
			}
			n1.leaves(t, n1.own())
		}
	}
}

// given: pods in a network of IPv6 that no other node knows; then they leave with their
// namespace's egress IP, and are answered.
func TestPodsInUnknownNetworksOfIPv6(t *testing.T) {
	w := newWorld(t, 2, ownTable().ofIPv6())
	n1, n2 := w.nodes[0], w.nodes[1]
	n1.host(w.eip(1), 7)
	stranger, here := n2.addStranger(t, "stranger"), n1.addStranger(t, "here")
	stranger.set(remote(7, n1))
	here.set(local(w.eip(1), 7))
	w.applyAll(t)
	w.bastion.serveEcho(t, 7000)
	for _, p := range []*podMachine{stranger, here} {
		p.leaves(t, w.eip(1))
		echoes(t, p.dial(t, "tcp6", w.bastion.outside(7000)), 1<<20)
		echoes(t, p.dial(t, "udp6", w.bastion.outside(7000)), 1000)
	}
	w.applySettled(t)
}

// given: hosts that serve IPv6, on which nothing changes, so that passes do not read everything;
// when a part of ours is taken away, then the next pass finds it, whether the kernel reports
// that kind of change or not.
//
// Mutant killed: steady-without-maps-of-ipv6.
func TestSteadyPassOfIPv6(t *testing.T) {
	w := newWorld(t, 2, ownTable().ofIPv6())
	n, n2 := w.nodes[0], w.nodes[1]
	here, away := n.addPod(t, "here", 2), n.addPod(t, "away", 3)
	n.host(w.eip(1), 7)
	n2.host(w.eip(2), 8)
	here.set(local(w.eip(1), 7))
	away.set(remote(8, n2))
	w.applyAll(t)
	run := func(command string) func() { return func() { n.Run(t, command) } }
	in := func(f func() error) func() {
		return func() { n.Do(t, func() { must(t, f()) }) }
	}
	for _, c := range []struct {
		name   string
		damage func()
	}{
		{"address", run("ip address del " + w.eip(1) + "/128 dev eth0")},
		{"form of the address", run("ip address change " + w.eip(1) + "/128 dev eth0 preferred_lft forever")},
		{"rule", run("ip -6 rule del priority 90")},
		{"routes", run("ip -6 route flush table 2001")},
		{"device that is down", run("ip link set egress0 down")},
		{"neighbour", run("ip -6 neigh flush dev egress0 nud permanent")},
		{"BPF map pods", in(func() error { return n.dp.maps.DeleteRoute(away.ip) })},
		{"BPF map hosted", in(func() error { return n.dp.maps.DeleteHosted(bpf.Network{NetID: 7, IPv6: true}) })},
	} {
		n.untilSteady(t)
		if r := n.apply(t); r.Changes != 0 {
			t.Errorf("a steady pass made %d changes", r.Changes)
		}
		c.damage()
		if r := n.apply(t); r.Changes == 0 {
			t.Errorf("%s: nothing was repaired", c.name)
		}
	}
	n.settled(t)
	here.leaves(t, w.eip(1))
	away.leaves(t, w.eip(2))
	n.untilSteady(t)
	n.Run(t, "sysctl -qw net.ipv6.conf.all.forwarding=0")
	if r, _ := n.tryApply(t); r.IPv6.Reason != errNoIPv6Forward.Error() {
		t.Errorf("a host that forwards no more reports %+v", r.IPv6)
	}
}
