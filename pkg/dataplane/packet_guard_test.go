package dataplane

import (
	"net"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	tcx "github.com/cilium/ebpf/link"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// masqueradeFirst puts a MASQUERADE rule of others before ours. Rules in iptables are put in
// order by the next pass; what comes before our own table stays there.
func (n *node) masqueradeFirst(t *testing.T) {
	t.Helper()
	if n.six {
		n.Run(t, `nft add table ip6 theirs; nft 'add chain ip6 theirs post { type nat hook postrouting priority 0; }'
			nft add rule ip6 theirs post ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade`)
		return
	}
	if !n.cfg.IPTables {
		n.Run(t, `nft 'table ip theirs { chain post { type nat hook postrouting priority 0; ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade; }; }'`)
		return
	}
	n.Run(t, "iptables-nft -t nat -I POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE")
}

// masqueradeSecond is when the others have noticed that theirs must not come first.
func (n *node) masqueradeSecond(t *testing.T) {
	t.Helper()
	switch {
	case n.six:
		n.Run(t, "nft delete table ip6 theirs")
	case !n.cfg.IPTables:
		n.Run(t, "nft delete table ip theirs")
	}
	n.apply(t)
}

// guardRules are rules to test the guard with: the default for each family, and with the whole
// matrix iptables, too.
func guardRules() []rulesOf {
	list := []rulesOf{ownTable(), ownTable().ofIPv6()}
	if wholeMatrix() {
		list = append(list, onlyNFT())
	}
	return list
}

// needsTCX skips a test of what holds on kernels with TCX alone: without it, others' filters may
// come before the guard, and an ingress qdisc keeps it out.
func needsTCX(t *testing.T) {
	t.Helper()
	if !bpf.HasTCX() {
		t.Skip("the kernel has no TCX (Linux 6.6)")
	}
}

// guarded is what tests of the guard begin with: a host and its pod with an egress IP,
// whose packets may have no other source.
func guarded(t *testing.T, rules rulesOf, before string) (*world, *node, *podMachine) {
	t.Helper()
	w := newWorld(t, 1, rules)
	n := w.nodes[0]
	n.Run(t, before)
	here := n.addPod(t, "here", 2)
	n.host(w.eip(1), 7)
	here.set(local(w.eip(1), 7))
	w.seen.only(9001, w.eip(1))
	n.apply(t)
	return w, n, here
}

// given: a host whose address moves to a bridge above its interface; when it gets
// another egress IP, then that works too, and the interface has no guard any more.
func TestGuardFollowsTheUplink(t *testing.T) {
	w, n, here := guarded(t, ownTable(), "true")
	late := n.addPod(t, "late", 3)
	here.leaves(t, eip1)
	n.Run(t, `mac=$(cat /sys/class/net/eth0/address)
		ip address flush dev eth0; ip link add brup type bridge; ip link set brup address $mac; ip link set brup up
		ip link set eth0 master brup; ip address add 192.168.7.11/24 dev brup; ip route replace default via 192.168.7.1`)
	n.host(eip2, 8)
	late.set(local(eip2, 8))
	if r := n.apply(t); r.Uplink != "brup" {
		t.Fatalf("uplink %s", r.Uplink)
	}
	w.router.Run(t, "ip neigh flush dev eth0")
	here.leaves(t, eip1)
	late.leaves(t, eip2)
	n.settled(t)
	if at := n.guards(t); at != "brup" {
		t.Errorf("guards at %s", at)
	}
}

func (n *node) guards(t *testing.T) (at string) {
	t.Helper()
	n.Do(t, func() {
		names, err := bpf.ListGuards(n.dp.nl)
		must(t, err)
		at = strings.Join(names, " ")
	})
	return at
}

// given: a host whose tc others use; when rules of others come before ours, then no
// packet leaves with another source than the egress IP.
func TestGuardHoldsBesideTCOfOthers(t *testing.T) {
	needsTCX(t)
	for name, before := range map[string]string{
		"ingress qdisc": "tc qdisc add dev eth0 ingress",
		"filter that accepts all, before ours": `tc qdisc add dev eth0 clsact
			tc filter add dev eth0 egress prio 1 protocol all bpf da bytecode '1,6 0 0 0'`,
	} {
		for _, rules := range guardRules() {
			t.Run(name+", "+rules.name, func(t *testing.T) {
				w, n, here := guarded(t, rules, before)
				s := startSender(t, here, w.bastion, 9001)
				w.flows(t, s, w.eip(1))
				n.masqueradeFirst(t)
				w.linger(t)
				n.masqueradeSecond(t)
				w.flows(t, s, w.eip(1))
				n.settled(t)
			})
		}
	}
}

// given: a guard that others detached, or that another program of TCX comes before;
// then the next Apply puts it back.
//
// Mutant killed: ipv6-passes-the-guard.
func TestGuardIsPutBack(t *testing.T) {
	accepts, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "theirs", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	must(t, err)
	defer accepts.Close()
	const notTheFirst = "not the first"
	damages := map[string]func(*node){
		"detached": func(n *node) { must(t, bpf.RemoveGuards(n.dp.nl)) },
		notTheFirst: func(*node) {
			link, err := net.InterfaceByName("eth0")
			must(t, err)
			must(t, tcx.RawAttachProgram(tcx.RawAttachProgramOptions{
				Target: link.Index, Program: accepts, Attach: ebpf.AttachTCXEgress, Anchor: tcx.Head(),
			}))
		},
	}
	for _, rules := range guardRules() {
		for name, damage := range damages {
			t.Run(rules.name+", "+name, func(t *testing.T) {
				if name == notTheFirst {
					needsTCX(t)
				}
				// A world for each: connections that others' rules have translated outlive the
				// damage, and a new one may find theirs by its port.
				w, n, here := guarded(t, rules, "true")
				s := startSender(t, here, w.bastion, 9001)
				n.Do(t, func() { damage(n) })
				if n.apply(t).Changes == 0 {
					t.Error("nothing was repaired")
				}
				n.settled(t)
				n.masqueradeFirst(t)
				w.linger(t)
				n.masqueradeSecond(t)
				w.flows(t, s, w.eip(1))
			})
		}
	}
}

// given: a host whose default route takes another interface than that with the host's
// address; then the warning names both, and the guard is at both; when the route is as
// it should be, then neither.
func TestDefaultRouteOverAnotherInterface(t *testing.T) {
	w, n, here := guarded(t, onlyNFT(), "true")
	connect(t, n.machine, "eth1", []string{"172.31.0.2/24"}, w.router, "eth9", []string{"172.31.0.1/24"})
	n.Run(t, "ip route replace default via 172.31.0.1 dev eth1")
	startSender(t, here, w.bastion, 9001)
	r := n.apply(t)
	if w := warning.Lines(r.Warnings); !strings.Contains(w, "the default route leads out of eth1, but egress IPs are on eth0") {
		t.Errorf("warnings: %s", w)
	}
	if at := n.guards(t); at != "eth0 eth1" {
		t.Errorf("guards at %s", at)
	}
	n.masqueradeFirst(t)
	w.linger(t)
	n.Run(t, "ip route delete default")
	if w := warning.Lines(n.apply(t).Warnings); !strings.Contains(w, "no default route") {
		t.Errorf("without default route, warnings: %s", w)
	}
	n.Run(t, "ip route replace default via 192.168.7.1")
	if r := n.apply(t); len(r.Warnings) != 0 {
		t.Errorf("afterwards, warnings: %v", r.Warnings)
	}
	n.settled(t)
	if at := n.guards(t); at != "eth0" {
		t.Errorf("afterwards, guards at %s", at)
	}
}

// given: a host whose packets of IPv6 to the outside take another interface than that with
// the egress IPs; then the guard is at both, and no packet leaves with another source.
//
// Mutant killed: other-way-out-of-ipv6-is-open.
func TestDefaultRouteOfIPv6OverAnotherInterface(t *testing.T) {
	w, n, here := guarded(t, ownTable().ofIPv6(), "true")
	connect(t, n.machine, "eth1", nil, w.router, "eth9", nil)
	w.router.Run(t, "ip address add fd00:31::1/64 dev eth9 nodad")
	n.Run(t, "ip address add fd00:31::2/64 dev eth1 nodad; ip -6 route replace default via fd00:31::1 dev eth1")
	n.apply(t)
	if at := n.guards(t); at != "eth0 eth1" {
		t.Errorf("guards at %s", at)
	}
	w.flows(t, startSender(t, here, w.bastion, 9001), w.eip(1))
	n.masqueradeFirst(t)
	w.linger(t)
	n.masqueradeSecond(t)
	n.Run(t, "ip -6 route replace default via fd00:7::1 dev eth0")
	n.apply(t)
	n.settled(t)
	if at := n.guards(t); at != "eth0" {
		t.Errorf("afterwards, guards at %s", at)
	}
}

// given: a host where the guard cannot be attached; then no egress IP is added, and
// the report says why.
//
// Kills the mutant that serves without a guard.
func TestNoEgressIPWithoutGuard(t *testing.T) {
	for _, rules := range guardRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			here := n.addPod(t, "here", 2)
			n.host(w.eip(1), 7)
			here.set(local(w.eip(1), 7))
			n.dp.guard = bpf.OldGuard()
			n.Run(t, "tc qdisc add dev eth0 ingress")
			r, err := n.tryApply(t)
			if err == nil || r.Hosted[0].Configured || !strings.Contains(r.Hosted[0].Error, "ingress qdisc") {
				t.Errorf("report %+v, error %v", r.Hosted, err)
			}
			if shown := n.Run(t, "ip address show dev eth0"); strings.Contains(shown, w.eip(1)) {
				t.Errorf("the egress IP is there:\n%s", shown)
			}
			s := startSender(t, here, w.bastion, 9001)
			w.seen.only(9001)
			w.silent(t, s)
			n.Run(t, "tc qdisc delete dev eth0 ingress")
			w.seen.only(9001, w.eip(1))
			n.apply(t)
			w.flows(t, s, w.eip(1))
		})
	}
}
