package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: a namespace with an egress IP on n1, on nodes whose reverse path filters look at
// marks; when its pods on all nodes reach out, also one in a network that no host knows,
// then all have that egress IP as source, and other pods that of their node.
//
// Mutants killed: replies-to-known-networks-alone, way-back-looks-at-marks.
func TestPodsLeaveWithTheirEgressIP(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			here, there, plain := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "plain", 3)
			dropped, stranger := n3.addPod(t, "dropped", 2), n3.addStranger(t, "stranger")
			for _, n := range w.nodes {
				n.Run(t, "sysctl -qw net.ipv4.conf.all.src_valid_mark=1")
			}
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			stranger.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			dropped.set(Pod{Kind: Drop})
			w.applyAll(t)

			here.leaves(t, eip1)
			there.leaves(t, eip1)
			stranger.leaves(t, eip1)
			plain.leaves(t, n2.ip.String())
			warnings := len(rules.want) - 1
			if matrix() == legacyAlone {
				warnings += 2 // SourcesUnchecked, and RulesUnreadable for iptables-nft
			}
			if r := n1.apply(t); !slices.Equal(r.Backends, rules.want) || len(r.Warnings) != warnings {
				t.Fatalf("backends %v, warnings %v", r.Backends, r.Warnings)
			}
			n3.state.Locate = []netip.Addr{stranger.ip, dropped.ip, testenv.Addr(bastionIP)}
			found := n3.apply(t).PodRoutes
			if want := []PodRoute{
				{IP: stranger.ip, Network: netip.PrefixFrom(stranger.ip, 32)},
				{IP: dropped.ip, Network: n3.pods},
				{IP: testenv.Addr(bastionIP), Network: netip.MustParsePrefix(bastionIP + "/32"), Outward: true},
			}; !slices.Equal(found, want) {
				t.Fatalf("pods are found at %v, want %v", found, want)
			}
			s := startSender(t, dropped, w.bastion, 9001)
			w.seen.only(9001)
			w.silent(t, s)
			w.applySettled(t)

			w.bastion.serveEcho(t, 7000)
			to := bastionIP + ":7000"
			for _, p := range []*podMachine{here, there, plain, stranger} {
				echoes(t, p.dial(t, "tcp4", to), 3<<20)
				echoes(t, p.dial(t, "udp4", to), 1000)
				p.ping(t, bastionIP, 84)
			}
			here.ping(t, bastionIP, 1500)
			there.ping(t, bastionIP, 1450)
			// A packet of one byte more, and DF: the pod's host says so.
			testenv.UntilWithin(t, patience, "the pod learns the path MTU of the overlay", func() bool {
				err := there.tryPing(t, bastionIP, 1451, testenv.Stretch(50*time.Millisecond))
				return errors.Is(err, unix.EMSGSIZE)
			})
		})
	}
}

func (w *world) applySettled(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		n.settled(t)
	}
}

// given: pods with and without egress IPs, on hosts where others moved the rule of
// table local behind ours; when they reach pods, nodes and services of the cluster, the
// metadata service of a cloud, and addresses of their own node, then each is seen as
// before we came.
//
// Kills the mutant without a rule of ours that leads to the host's own addresses.
func TestInsideTheClusterNothingChanges(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			pods := []*podMachine{n1.addPod(t, "a1", 2), n1.addPod(t, "b1", 3), n2.addPod(t, "a2", 2), n2.addPod(t, "c2", 3)}
			targets := []string{n1.ip.String() + ":80", n2.ip.String() + ":80", n1.gateway() + ":80"}
			n1.serveWhoami(t, ":80")
			n2.serveWhoami(t, ":80")
			w.router.Run(t, "ip address add 169.254.169.254/32 dev lo")
			w.router.serveWhoami(t, "169.254.169.254:80")
			targets = append(targets, "169.254.169.254:80")
			for _, n := range w.nodes {
				n.Run(t, `ip rule add priority 100 lookup local; ip rule delete priority 0
					ip address add 10.99.0.1/32 dev lo; ip address add 169.254.20.10/32 dev lo`)
			}
			targets = append(targets, "10.99.0.1:80", "169.254.20.10:80")
			for _, p := range pods {
				p.serveWhoami(t, ":80")
				targets = append(targets, p.ip.String()+":80")
			}
			for _, n := range w.nodes {
				rules.service(t, n, "10.96.0.10", pods[0].ip.String()+":80")
				rules.nodePort(t, n, pods[2].ip.String()+":80")
				targets = append(targets, n.ip.String()+":30080")
			}
			targets = append(targets, "10.96.0.10:80")
			look := func() map[string]string {
				seen := map[string]string{}
				for _, p := range pods {
					for _, to := range targets {
						if p == pods[0] && to == "10.96.0.10:80" {
							continue // a pod that reaches itself by its service: a matter of the CNI
						}
						from, err := p.whoami(t, to)
						if err != nil {
							t.Fatalf("%s at %s: %v", p.Name, to, err)
						}
						seen[p.Name+" at "+to] = from
					}
				}
				return seen
			}
			before := look()
			n1.host(eip1, 7)
			pods[0].set(local(eip1, 7))
			pods[1].set(Pod{Kind: Node})
			pods[2].set(remote(7, n1))
			pods[3].set(Pod{Kind: Drop})
			w.applyAll(t)
			if diff := cmp.Diff(before, look()); diff != "" {
				t.Fatalf("who is seen inside the cluster (-without us +with us):\n%s", diff)
			}
		})
	}
}

// given: a virtual IP, which moves between hosts and is inside after a while; then a pod
// with an egress IP reaches it on each host, the egress host included, as seen from its
// node; and connections that began while it was outside, or inside, do not go on with the
// former source.
//
// Kills the mutants without the look at connections when what is inside changes.
func TestAddressBecomesInside(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			there, here := n2.addPod(t, "there", 2), n1.addPod(t, "here", 2)
			n1.host(eip1, 7)
			there.set(remote(7, n1))
			here.set(local(eip1, 7))
			w.applyAll(t)
			const vip = "192.168.7.99"
			move := func(from, to *node) {
				from.Run(t, "ip address del "+vip+"/32 dev eth0")
				to.Run(t, "ip address add "+vip+"/32 dev eth0")
				w.lan.Run(t, "ip neigh flush all")
				for _, n := range w.nodes {
					n.Run(t, "ip neigh flush to "+vip)
				}
			}
			n3.Run(t, "ip address add "+vip+"/32 dev eth0")
			seen := n3.receiveUDPAt(t, vip+":9000")
			open := map[*podMachine]net.Conn{there: there.dial(t, "udp4", vip+":9000"), here: here.dial(t, "udp4", vip+":9000")}
			expect := func(sources ...string) {
				t.Helper()
				for p, c := range open {
					speak(t, c, p.Name)
					if got := seen.of(p.Name); got[len(got)-1] != testenv.Addr(sources[p.node.index-1]) || len(got) > 2 {
						t.Fatalf("%s was seen as %v, and is not %v now", p.Name, got, sources)
					}
				}
			}
			expect(eip1, eip1)
			outside := slices.Clone(n1.state.Inside)
			inside := append(slices.Clone(outside), netip.MustParsePrefix(vip+"/32"))
			for _, n := range w.nodes {
				n.state.Inside = inside
			}
			w.applyAll(t)
			expect(n1.ip.String(), n2.ip.String())

			move(n3, n1) // where the egress IP is
			n1.serveWhoami(t, vip+":80")
			if from, err := there.whoami(t, vip+":80"); err != nil || from != n2.ip.String() {
				t.Fatalf("on the egress host: %q, %v", from, err)
			}
			move(n1, n3)
			for _, n := range w.nodes {
				n.state.Inside = outside
			}
			w.applyAll(t)
			seen.forget()
			expect(eip1, eip1)
			w.applySettled(t)
		})
	}
}

// given: a pod with an egress IP elsewhere; when clients outside reach it by
// NodePort, or by its own IP, then the answers come from the address that they asked.
func TestAnswersToOutsideClientsTakeTheOldWay(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			p := n2.addPod(t, "web", 2)
			p.serveEcho(t, 80)
			p.serveWhoami(t, ":81")
			n1.host(eip1, 7)
			p.set(remote(7, n1))
			w.applyAll(t)

			// externalTrafficPolicy Cluster: masqueraded by the node asked.
			rules.nodePort(t, n2, p.ip.String()+":80")
			rules.nodePort(t, n3, p.ip.String()+":80")
			rules.nodePort(t, n1, p.ip.String()+":80")
			// Local: on the pod's node only, and the pod sees the client.
			rules.nodePortLocal(t, n2, 30081, p.ip.String()+":81")
			for _, n := range w.nodes {
				echoes(t, w.bastion.dial(t, "tcp4", n.ip.String()+":30080"), 3<<20)
			}
			got, err := w.bastion.whoami(t, n2.ip.String()+":30081")
			if err != nil || got != bastionIP {
				t.Fatalf("NodePort with policy Local: %q, %v", got, err)
			}
			// A client that has a route to pods.
			w.router.Run(t, "ip route add 10.244.2.0/24 via "+n2.ip.String())
			echoes(t, w.bastion.dial(t, "tcp4", p.ip.String()+":80"), 3<<20)
			w.bastion.ping(t, p.ip.String(), 84)
		})
	}
}

// given: a service whose endpoint is outside the cluster; when a pod uses it,
// then the endpoint sees the pod's egress IP.
func TestServiceWithEndpointOutside(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			w.applyAll(t)
			for _, n := range w.nodes {
				rules.service(t, n, "10.96.0.20", bastionIP+":8080")
			}
			for _, p := range []*podMachine{here, there} {
				got, err := p.whoami(t, "10.96.0.20:80")
				if err != nil || got != eip1 {
					t.Fatalf("%s by the service: seen as %q, %v", p.Name, got, err)
				}
			}
		})
	}
}
