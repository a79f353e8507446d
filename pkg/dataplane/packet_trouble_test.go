package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
)

// given: hosts whose FORWARD policy is DROP, and a final rule that rejects;
// when a pod sends over the overlay, then its packets and the answers pass; but
// what a network policy drops does not.
func TestForwardPolicyDrop(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			p, q := n2.addPod(t, "p", 2), n2.addPod(t, "q", 3)
			for _, n := range w.nodes {
				n.Run(t, rules.iptables()+" -P FORWARD DROP; "+rules.iptables()+" -A FORWARD -j REJECT")
			}
			n2.Run(t, rules.iptables()+" -I FORWARD -s "+q.ip.String()+" -j DROP")
			n1.host(eip1, 7)
			p.set(remote(7, n1))
			q.set(remote(7, n1))
			w.applyAll(t)
			p.leaves(t, eip1)
			if q.answers(t, bastionIP+":8080") {
				t.Fatal("a network policy's DROP no longer holds")
			}
			w.applySettled(t)
		})
	}
}

// given: an egress IP that another machine on the LAN has; when a host must take
// it, then it does not, it says so, and the pods' packets are dropped; all is well
// once the other machine is gone.
func TestAddressThatSomebodyElseHas(t *testing.T) {
	for _, rules := range guardRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1 := w.nodes[0]
			here, plain := n1.addPod(t, "here", 2), n1.addPod(t, "plain", 3)
			squatter, owner := w.squatter(t, w.eip(1))
			n1.host(w.eip(1), 7)
			here.set(local(w.eip(1), 7))
			plain.set(Pod{Kind: Node})
			r, err := n1.tryApply(t)
			if !errors.Is(err, errTaken) || len(r.Hosted) != 1 || r.Hosted[0].Configured || !r.Hosted[0].Taken || r.Hosted[0].Error == "" {
				t.Fatalf("report %+v, error %v", r.Hosted, err)
			}
			if r.Hosted[0].InUseBy != owner.String() {
				t.Errorf("in use by %q, which is not the other machine, %v", r.Hosted[0].InUseBy, owner)
			}
			s := startSender(t, here, w.bastion, 9001)
			w.seen.only(9001)
			w.silent(t, s)
			plain.leaves(t, n1.own())
			squatter.Run(t, "ip link set eth0 down")
			w.seen.only(9001, w.eip(1))
			n1.apply(t)
			w.flows(t, s, w.eip(1))
		})
	}
}

// given: another VXLAN device at the overlay's port; when we come, then the
// pods whose way is the overlay are cut off, others are not, and the error
// names the device.
func TestOverlayPortInUse(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			n1.host(eip1, 7)
			n1.apply(t)
			n2.Run(t, "ip link add cnivx type vxlan id 9 dstport 9789 local "+n2.ip.String()+"; ip link set cnivx up")
			there, here := n2.addPod(t, "there", 2), n2.addPod(t, "here", 3)
			n2.host(eip2, 8)
			there.set(remote(7, n1))
			here.set(local(eip2, 8))
			_, err := n2.tryApply(t)
			if !errors.Is(err, overlay.ErrPortInUse) || !strings.Contains(err.Error(), "cnivx") {
				t.Fatalf("error %v", err)
			}
			s := startSender(t, there, w.bastion, 9001)
			w.seen.only(9001)
			w.silent(t, s)
			here.leaves(t, eip2)
			n2.Run(t, "ip link del cnivx")
			w.seen.only(9001, eip1)
			n2.apply(t)
			w.flows(t, s, eip1)
		})
	}
}

// given: a host whose kernel chooses another source than its InternalIP; then the overlay's
// packets have the InternalIP all the same, and another one when that becomes the
// InternalIP. Where the kernel is too old for that, others drop them, which is an error
// that names both, until the route names the InternalIP as its source.
//
// Kills mutants outer-source-left-to-the-kernel, former-outer-source-stays and
// any-source-will-do.
func TestOverlayHasTheHostsOwnSource(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			pod := n2.addPod(t, "pod", 2)
			n1.host(eip1, 7)
			pod.set(remote(7, n1))
			other := testenv.Addr("192.168.7.77")
			choose := func(source netip.Addr) {
				n2.Run(t, fmt.Sprintf("ip route replace 192.168.7.0/24 dev eth0 src %v", source))
			}
			n2.Run(t, "ip address add 192.168.7.77/24 dev eth0")
			choose(other)
			n1.apply(t)
			hosts := n1.state.Hosts
			_, err := n2.tryApply(t)
			s := startSender(t, pod, w.bastion, 9001)
			w.seen.only(9001, eip1)
			if n2.dp.source.IsValid() {
				must(t, err)
				w.flows(t, s, eip1)
				for _, n := range w.nodes {
					n.state.Hosts = []netip.Addr{n1.ip, other}
				}
				n2.state.HostIP = other
				choose(n2.ip)
				w.applyAll(t)
				w.flows(t, s, eip1)
				for _, n := range w.nodes {
					n.state.Hosts = hosts
				}
				n2.state.HostIP = n2.ip
				choose(other)
				w.applyAll(t)
				w.flows(t, s, eip1)
			}

			n2.dp.keepsSource, n2.dp.steady = true, nil // as before Linux 6.0
			_, err = n2.tryApply(t)
			if !errors.Is(err, errSource) || !strings.Contains(err.Error(), "192.168.7.77 instead of 192.168.7.12") {
				t.Fatalf("apply: %v", err)
			}
			w.silent(t, s)
			choose(n2.ip)
			n2.settled(t)
			w.flows(t, s, eip1)
		})
	}
}

// given: a host that serves; when its own address goes away, then Apply says
// so, and nothing leaks before or after; when it is back, traffic flows.
func TestUplinkThatVanishes(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			w.applyAll(t)
			a, b := startSender(t, here, w.bastion, 9001), startSender(t, there, w.bastion, 9002)
			w.seen.only(9001, eip1)
			w.seen.only(9002, eip1)
			w.flows(t, a, eip1)
			n1.Run(t, "ip address flush dev eth0")
			n1.host(eip2, 8)
			for range 2 {
				if r, err := n1.tryApply(t); !errors.Is(err, address.ErrNoUplink) || r.Uplink != "" || r.Hosted[1].Configured {
					t.Fatalf("report %+v, error %v", r, err)
				}
				w.linger(t)
			}
			n1.Run(t, "ip address add 192.168.7.11/24 dev eth0; ip route replace default via 192.168.7.1")
			w.router.Run(t, "ip neigh flush dev eth0")
			n1.apply(t)
			n1.settled(t)
			w.flows(t, a, eip1)
			w.flows(t, b, eip1)
		})
	}
}

// given: rules of others in one backend; when they move to the other, then so
// do ours, and none are left behind.
func TestBackendChanges(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	n.apply(t)
	a := startSender(t, here, w.bastion, 9001)
	w.seen.only(9001, eip1)
	w.flows(t, a, eip1)
	const rest = " -t nat -%c POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE"
	n.Run(t, fmt.Sprintf("iptables-nft"+rest, 'D'))
	n.Run(t, fmt.Sprintf("iptables-legacy"+rest, 'A'))
	r := n.apply(t)
	if !slices.Equal(r.Backends, []Backend{Legacy}) {
		t.Fatalf("backends %v", r.Backends)
	}
	if left := n.Run(t, "iptables-nft-save"); strings.Contains(left, "EGRESSIP") {
		t.Fatalf("left behind:\n%s", left)
	}
	w.flows(t, a, eip1)
	n.settled(t)
	// Now both: ours are first in both, and the mixture is reported.
	n.Run(t, fmt.Sprintf("iptables-nft"+strings.Replace(rest, "-%c POSTROUTING", "-%c POSTROUTING 1", 1), 'I'))
	if r := n.apply(t); len(r.Backends) != 2 || len(r.Warnings) == 0 {
		t.Fatalf("backends %v, warnings %v", r.Backends, r.Warnings)
	}
	w.flows(t, a, eip1)
	n.settled(t)
}

// given: more egress IPs than stand in one chain; then each pod leaves with its
// own all the same, in both backends, and all but one can go again.
func TestManyEgressIPs(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			for i := range 200 {
				n.host(fmt.Sprintf("192.168.7.%d", 20+i), uint32(1000+i))
			}
			pods := map[string]*podMachine{"192.168.7.20": n.addPod(t, "a", 2), "192.168.7.57": n.addPod(t, "b", 3), "192.168.7.219": n.addPod(t, "c", 4)}
			for ip, p := range pods {
				p.set(local(ip, 0))
			}
			n.apply(t)
			n.settled(t)
			for ip, p := range pods {
				p.leaves(t, ip)
			}
			keep := "192.168.7.219"
			n.state.Hosted = slices.DeleteFunc(n.state.Hosted, func(h Hosted) bool { return h.IP != testenv.Addr(keep) })
			for ip, p := range pods {
				if ip != keep {
					p.set(Pod{Kind: Node})
				}
			}
			n.apply(t)
			n.settled(t)
			pods[keep].leaves(t, keep)
			pods["192.168.7.20"].leaves(t, n.ip.String())
		})
	}
}

// given: software that gives small marks to packets of the host, or of pods without
// egress IP, or to those of the host any mark, like WireGuard, Cilium and NetBird; then
// they leave as without us, and those of the host reach pods.
//
// Mutants killed: host-is-a-pod, host-takes-the-ways-of-pods.
func TestSmallMarksOfOthersAreNotOurs(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			here, plain := n.addPod(t, "here", 2), n.addPod(t, "plain", 3)
			for i, ip := range []string{eip1, eip2, eip3} {
				n.host(ip, uint32(7+i))
			}
			here.set(local(eip1, 7))
			plain.set(Pod{Kind: Node})
			n.apply(t)
			for mark := 1; mark <= 3; mark++ {
				// In OUTPUT, for the host's own; in FORWARD, behind ours, for the pod's.
				n.Run(t, fmt.Sprintf("%[1]s -t mangle -F OUTPUT; %[1]s -t mangle -A OUTPUT -d %[2]s -j MARK --set-mark %[3]d; "+
					"%[1]s -t mangle -D FORWARD -s %[4]v -j MARK --set-mark %[5]d 2>/dev/null || true; %[1]s -t mangle -A FORWARD -s %[4]v -j MARK --set-mark %[3]d",
					rules.iptables(), bastionIP, mark, plain.ip, mark-1))
				n.leaves(t, n.ip.String())
				plain.leaves(t, n.ip.String())
			}
			here.leaves(t, eip1)
			here.serveWhoami(t, here.ip.String()+":8080")
			for _, mark := range []int{0xca6c, 0xc00, 0xe00, 0xf00, 0x1bd00} {
				n.Run(t, fmt.Sprintf("%[1]s -t mangle -F OUTPUT; %[1]s -t mangle -A OUTPUT -j MARK --set-mark %[2]d", rules.iptables(), mark))
				n.leaves(t, n.ip.String())
				if _, err := n.whoami(t, here.ip.String()+":8080"); err != nil {
					t.Errorf("with mark %#x the host does not reach a pod: %v", mark, err)
				}
			}
		})
	}
}

// given: a host that cannot hold BPF maps; when we come, then the pods whose
// way is the overlay are cut off, and never let out as if we were not there.
func TestWithoutBPFNothingLeaks(t *testing.T) {
	w := newWorld(t, 2, onlyNFT())
	n1, n2 := w.nodes[0], w.nodes[1]
	n1.host(eip1, 7)
	n1.apply(t)
	here, there := n2.addPod(t, "here", 2), n2.addPod(t, "there", 3)
	n2.host(eip2, 8)
	here.set(local(eip2, 8))
	there.set(remote(7, n1))
	good := n2.cfg.PinDir
	n2.cfg.PinDir = "/dev/null/is/no/directory"
	n2.start(t)
	if r, err := n2.tryApply(t); err == nil || !r.Hosted[0].Configured {
		t.Fatalf("report %+v, error %v", r, err)
	}
	s := startSender(t, there, w.bastion, 9001)
	w.seen.only(9001)
	w.silent(t, s)
	here.leaves(t, eip2)
	n2.cfg.PinDir = good
	n2.start(t)
	w.seen.only(9001, eip1)
	n2.apply(t)
	w.flows(t, s, eip1)
}

// given: a host with very many services; when something of ours in their table
// is damaged, then it is found and repaired as on any host.
func TestDriftAmongManyServices(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	n.Run(t, `(echo '*nat'; echo ':KUBE-SERVICES - [0:0]'
		for i in $(seq `+fmt.Sprint(iptables.ManyRules)+`); do echo "-A KUBE-SERVICES -d 10.96.$((i / 250)).$((i % 250))/32 -p tcp -m tcp --dport 80 -j RETURN"; done
		echo '-A PREROUTING -j KUBE-SERVICES'; echo COMMIT) | iptables-nft-restore --noflush`)
	n.apply(t)
	n.settled(t)
	for _, damage := range []string{
		"iptables-nft -t nat -F EGRESSIP-POSTROUTING",
		"iptables-nft -t nat -D POSTROUTING -j EGRESSIP-POSTROUTING",
		"iptables-nft -t nat -D POSTROUTING -j EGRESSIP-POSTROUTING; iptables-nft -t nat -F EGRESSIP-POSTROUTING; iptables-nft -t nat -X EGRESSIP-POSTROUTING",
		"iptables-nft -t nat -I POSTROUTING -s 10.244.0.0/16 -j MASQUERADE",
		"iptables-nft -t mangle -F",
	} {
		n.settled(t)
		n.Run(t, damage)
		if n.apply(t).Changes == 0 {
			t.Fatalf("nothing was repaired: %s", damage)
		}
		n.settled(t)
		here.leaves(t, eip1)
	}
}
