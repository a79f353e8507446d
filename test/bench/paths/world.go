package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/test/bench/figures"
)

// way is how a pod's packets leave. Those with a name of ours have the dataplane on both nodes.
type way struct {
	name string
	// beside is the way that it is compared with.
	beside string
	// backend has our rules; without it there is nothing of ours.
	backend dataplane.Backend
	remote  bool
	// pods is how many pods of the node have egress IPs. Only one of them is there.
	pods int
}

// sets are the ways that are measured in one run.
func sets() map[string][]way { return map[string][]way{"ways": ways(), "growth": growth()} }

// growth are ways of one pod, with more and more others on its node.
func growth() (list []way) {
	for _, backend := range []dataplane.Backend{dataplane.NFTables, dataplane.NFT} {
		name := map[dataplane.Backend]string{dataplane.NFTables: "nftables", dataplane.NFT: "iptables"}[backend]
		for pods := 1; pods <= 10000; pods *= 10 {
			y := way{name: fmt.Sprintf("%s, %s", name, count(pods)), backend: backend, pods: pods}
			if pods > 1 {
				y.beside = name + ", " + count(1)
			}
			list = append(list, y)
		}
	}
	return list
}

func ways() []way {
	return []way{
		{name: "local, plain"},
		{name: "local, nftables", beside: "local, plain", backend: dataplane.NFTables},
		{name: "local, iptables", beside: "local, plain", backend: dataplane.NFT},
		{name: "remote, bare", remote: true},
		{name: "remote, nftables", beside: "remote, bare", backend: dataplane.NFTables, remote: true},
		{name: "remote, iptables", beside: "remote, bare", backend: dataplane.NFT, remote: true},
	}
}

const (
	node1IP   = "192.168.7.11" // the pod's node
	node2IP   = "192.168.7.12"
	serverIP  = "192.168.7.72"
	egressIP  = "192.168.7.200"
	podIP     = "10.244.1.2"
	netID     = 7
	streams   = 5201 // the server reads what comes
	asked     = 5202 // the server answers each byte
	connected = 5203 // the server answers one byte and ends the connection
	sink      = 9    // the server's kernel drops it
	// podMTU is what a CNI with an overlay gives a pod: no packet needs to be cut on any way.
	podMTU = 1450
)

// world is one cluster and a server outside.
type world struct {
	way         way
	passes      passes
	prefix      string // of the names of its network namespaces
	pod, server netns.NsHandle
	expect      string // the source that the server has to see
	seen        seen
}

// makeRoom keeps this process's mounts from the machine: network namespaces, pins, locks.
func makeRoom(ctx context.Context) error {
	return command(ctx, "sh", "-ec", `mount --make-rprivate /; mount -t tmpfs tmpfs /run; mkdir -p /run/netns; ip link set lo up`)
}

// cluster makes two nodes and a server on one segment, and a pod on the first node. $p begins the
// names of their namespaces. Nodes masquerade what pods send outside, as nodes do.
const cluster = `
for m in segment node1 node2 pod server; do ip netns add $p-$m; ip -n $p-$m link set lo up; done
ip -n $p-segment link add br0 type bridge; ip -n $p-segment link set br0 up
attach() { # MACHINE ADDRESS
	ip -n $p-$1 link add eth0 type veth peer name $1 netns $p-segment
	ip -n $p-$1 address add $2/16 dev eth0; ip -n $p-$1 link set eth0 up
	ip -n $p-segment link set $1 master br0 up
}
attach node1 192.168.7.11; attach node2 192.168.7.12; attach server 192.168.7.72
ip -n $p-node1 link add cni0 type bridge; ip -n $p-node1 link set cni0 up; ip -n $p-node1 address add 10.244.1.1/24 dev cni0
ip -n $p-node1 link add pod0 mtu $mtu type veth peer name eth0 mtu $mtu netns $p-pod; ip -n $p-node1 link set pod0 master cni0 up
ip -n $p-pod address add 10.244.1.2/24 dev eth0; ip -n $p-pod link set eth0 up; ip -n $p-pod route add default via 10.244.1.1
ip -n $p-node2 route add 10.244.1.0/24 via 192.168.7.11
for n in node1 node2; do
	ip -n $p-$n route add default via 192.168.7.72
	ip netns exec $p-$n sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
	ip netns exec $p-$n nft 'add table ip others; add chain ip others post { type nat hook postrouting priority 100; }
		add rule ip others post ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 oifname eth0 masquerade'
done
ip netns exec $p-server nft 'add table ip t; add chain ip t pre { type filter hook prerouting priority -400; }; add rule ip t pre udp dport 9 drop'
`

// bare leads the pod's packets to the other node by a VXLAN device, and rewrites them there.
const bare = `
for n in 1 2; do
	ip -n $p-node$n link add name vx0 address 02:00:00:00:00:0$n type vxlan id 7 dstport 4799 nolearning dev eth0
	ip -n $p-node$n address add 10.99.0.$n/24 dev vx0; ip -n $p-node$n link set vx0 up
	o=$((3 - n))
	bridge -n $p-node$n fdb add 02:00:00:00:00:0$o dev vx0 dst 192.168.7.1$o
	ip -n $p-node$n neigh add 10.99.0.$o lladdr 02:00:00:00:00:0$o dev vx0
done
ip -n $p-node1 rule add from 10.244.1.2 lookup 100; ip -n $p-node1 route add default via 10.99.0.2 dev vx0 table 100
ip -n $p-node2 route add 10.244.1.2/32 via 10.99.0.1 dev vx0; ip -n $p-node2 address add 192.168.7.200/32 dev eth0
ip netns exec $p-node2 nft 'flush chain ip others post; add rule ip others post ip saddr 10.244.1.2 oifname eth0 snat to 192.168.7.200'
`

func newWorld(ctx context.Context, y way) (*world, error) {
	w := &world{way: y, prefix: prefixOf(y), expect: egressIP}
	script := fmt.Sprintf("p=%s; mtu=%d\n%s", w.prefix, podMTU, cluster)
	switch {
	case y.backend == "" && y.remote:
		script += bare
	case y.backend == "":
		w.expect = node1IP
	}
	if err := command(ctx, "sh", "-ec", script); err != nil {
		return nil, err
	}
	if y.backend != "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		for i := 1; i <= 2; i++ {
			put := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--net=/run/netns/%s-node%d", w.prefix, i), self, "-put", y.name, "-node", strconv.Itoa(i))
			put.Stderr = os.Stderr
			out, err := put.Output()
			if err != nil {
				return nil, fmt.Errorf("put the dataplane on node %d: %w", i, err)
			}
			if i == 1 {
				if err := json.Unmarshal(out, &w.passes); err != nil {
					return nil, fmt.Errorf("read what the passes took: %w", err)
				}
			}
		}
	}
	var err error
	if w.pod, err = netns.GetFromName(w.prefix + "-pod"); err != nil {
		return nil, err
	}
	if w.server, err = netns.GetFromName(w.prefix + "-server"); err != nil {
		return nil, err
	}
	if err := w.serve(ctx); err != nil {
		return nil, err
	}
	return w, w.reached(ctx)
}

// reached waits until a connection is answered, and fails if one came from another source than it
// had to.
func (w *world) reached(ctx context.Context) error {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := askOnce(ctx, w)
		if err == nil {
			return w.check()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no connection is answered: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// check fails if the server saw another source than it had to, or none.
func (w *world) check() error {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	if w.seen.others != "" || w.seen.count == 0 {
		return fmt.Errorf("%s: of %d connections one came from %q, want %s", w.way.name, w.seen.count, w.seen.others, w.expect)
	}
	return nil
}

// putHere puts a node's state into the kernel, as an agent does that ends then.
func putHere(ctx context.Context, name string, node int) (err error) {
	for _, y := range append(ways(), growth()...) {
		if y.name != name {
			continue
		}
		pins := fmt.Sprintf("/run/bpf-%s-%d/egressip", prefixOf(y), node)
		d, err := dataplane.New(dataplane.Config{PinDir: pins, ARPProbe: dataplane.ARPOff, Backends: []dataplane.Backend{y.backend}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		p, err := play(ctx, d, state(y, node))
		return errors.Join(err, json.NewEncoder(os.Stdout).Encode(p))
	}
	return fmt.Errorf("there is no way %q", name)
}

// passes is what passes of the dataplane take: the time of the first one, which puts all into the
// kernel, and the processor time of later ones, in milliseconds.
type passes struct{ First, OnePodMore, Idle float64 }

// play puts a state into the kernel, and plays passes on a node as it is.
func play(ctx context.Context, d *dataplane.Dataplane, s dataplane.State) (p passes, err error) {
	const times = 10
	began := time.Now()
	report, err := d.Apply(ctx, s)
	p.First = float64(time.Since(began).Microseconds()) / 1e3
	for _, h := range report.Hosted {
		if !h.Configured {
			err = errors.Join(err, fmt.Errorf("egress IP %s: %s", h.IP, h.Error))
		}
	}
	var idle, change []float64
	pass := func(s dataplane.State, to *[]float64) {
		before := processorTime()
		_, failed := d.Apply(ctx, s)
		*to, err = append(*to, float64((processorTime()-before).Microseconds())/1e3), errors.Join(err, failed)
	}
	more := s
	if len(s.Pods) > 0 {
		another := s.Pods[0]
		another.IP = netip.MustParseAddr("10.244.1.200")
		more.Pods = append(slices.Clone(s.Pods), another)
	}
	for range times {
		pass(s, &idle)
		pass(more, &change)
		pass(s, &change)
	}
	p.OnePodMore, p.Idle = figures.Quantile(change, 0.5), figures.Quantile(idle[1:], 0.5)
	return p, err
}

// processorTime is that of this process and of those that it has started.
func processorTime() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// prefixOf begins the names of the network namespaces of a way's world.
func prefixOf(y way) string {
	return strings.NewReplacer(", ", "-", " ", "-").Replace(y.name)
}

// state is what a node's kernel has to have. A host has maxHosted egress IPs at most; more pods share them.
func state(y way, node int) dataplane.State {
	const maxHosted = 512
	remote := y.remote
	node1, node2 := netip.MustParseAddr(node1IP), netip.MustParseAddr(node2IP)
	s := dataplane.State{
		HostIP: node1, Hosts: []netip.Addr{node1, node2}, Strict: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")},
	}
	hosted := []dataplane.Hosted{{IP: netip.MustParseAddr(egressIP), NetID: netID}}
	pod := dataplane.Pod{IP: netip.MustParseAddr(podIP), NetID: netID}
	if node == 2 {
		s.HostIP, s.Subnets = node2, []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}
		if remote {
			s.Hosted = hosted
		}
		return s
	}
	if remote {
		pod.Kind, pod.Via, pod.Sources = dataplane.Remote, []netip.Addr{node2}, []netip.Addr{hosted[0].IP}
	} else {
		pod.Kind, pod.EgressIP = dataplane.Local, hosted[0].IP
		s.Hosted = hosted
	}
	s.Pods = []dataplane.Pod{pod}
	for i := 1; i < y.pods; i++ {
		more := pod
		more.IP = netip.AddrFrom4([4]byte{10, 244, byte(10 + i/250), byte(1 + i%250)})
		if i < maxHosted {
			more.NetID, more.EgressIP = uint32(netID+i), netip.AddrFrom4([4]byte{192, 168, byte(8 + i/250), byte(1 + i%250)})
			s.Hosted = append(s.Hosted, dataplane.Hosted{IP: more.EgressIP, NetID: more.NetID})
		} else {
			of := s.Hosted[i%maxHosted]
			more.NetID, more.EgressIP = of.NetID, of.IP
		}
		s.Pods = append(s.Pods, more)
	}
	return s
}

// within calls f on a thread of its own in a network namespace. Sockets that f makes are of that
// namespace, for all who use them later.
func within[T any](ns netns.NsHandle, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never back: the thread is no good for others
		if err := netns.Set(ns); err != nil {
			done <- result{err: err}
			return
		}
		value, err := f()
		done <- result{value, err}
	}()
	r := <-done
	return r.value, r.err
}

func (w *world) listen(ctx context.Context, port int) (net.Listener, error) {
	return within(w.server, func() (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf("%s:%d", serverIP, port))
	})
}

func command(ctx context.Context, name string, arguments ...string) error {
	if out, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func count(pods int) string {
	if pods == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", pods)
}
