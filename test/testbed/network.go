package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// makeNetworks makes every place but the nodes.
func (c *Cluster) makeNetworks(ctx context.Context) error {
	b := &batch{c: c, ctx: ctx}
	b.place(lan)
	b.ip(lan, "link add br0 type bridge")
	b.ip(lan, fmt.Sprintf("link set br0 mtu %d up", c.options.MTU))
	// The LAN is a plain switch: iptables has no say in bridged frames.
	b.optional(lan, "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
	b.place(Router)
	b.plug(Router, routerIP, routerIPv6)
	b.place(Bastion)
	b.ip(Router, fmt.Sprintf("link add eth1 mtu %d type veth peer name eth0 netns %s", c.options.MTU, c.netnsName(Bastion)))
	b.ip(Router, "link set eth1 up")
	b.ip(Bastion, fmt.Sprintf("link set eth0 mtu %d up", c.options.MTU))
	b.addresses(Router, "eth1", routerOuterIP, routerOuterIPv6)
	b.addresses(Bastion, "eth0", BastionIP, BastionIPv6)
	b.route(Bastion, "default via "+routerOuterIP, "default via "+routerOuterIPv6)
	b.forwards(Router)
	b.place(ControlPlane)
	b.plug(ControlPlane, controlPlaneIP, controlPlaneIPv6)
	b.place(LANHost)
	b.plug(LANHost, LANHostIP, LANHostIPv6)
	b.routes(ControlPlane, 0)
	b.serviceRoute(ControlPlane)
	b.routes(LANHost, 0)
	return b.err
}

// makeNodeNetwork makes the place of the i-th node as a machine has it that
// has just booted: nothing but its address, routes and settings.
func (c *Cluster) makeNodeNetwork(ctx context.Context, i int) error {
	name := nodeName(i)
	b := &batch{c: c, ctx: ctx}
	b.place(name)
	// Before there is any device, so that new ones inherit it; and on those
	// that are there.
	b.forwards(name)
	b.sysctl(name, "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1", "net.ipv4.conf.lo.rp_filter=1",
		// As the kernel has it, whatever this machine has: egress IPs look as in OpenShift then.
		"net.ipv4.conf.all.promote_secondaries=0", "net.ipv4.conf.default.promote_secondaries=0")
	b.plug(name, nodeIP(i).String(), nodeIPv6(i).String())
	b.sysctl(name, "net.ipv4.conf.eth0.rp_filter=1")
	if b.err != nil || !c.staticRoutes() {
		return b.err
	}
	b.routes(name, i)
	if b.err != nil {
		return b.err
	}
	return c.Masquerade(ctx, name)
}

// Masquerade has a node translate what its pods send out of the cluster to its own address, as
// it does from the start with the CNIs bridge and ptp.
func (c *Cluster) Masquerade(ctx context.Context, node string) error {
	i, ok := c.nodeIndex(node)
	if !ok {
		return fmt.Errorf("masquerade on %s: there is no such node", node)
	}
	clusters, programs := c.options.families(ClusterCIDR, ClusterCIDRv6), c.iptables()
	var errs []error
	for f, pods := range c.options.families(podCIDR(i), podCIDRv6(i)) {
		_, err := c.NodeExec(ctx, node, programs[f], "-w", "-t", "nat", "-A", "POSTROUTING", "-s", pods, "!", "-d", clusters[f],
			"-m", "comment", "--comment", "pods leave with the node's address", "-j", "MASQUERADE")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// iptables names the programs that make nodes' own rules, one for each family.
func (c *Cluster) iptables() []string {
	return c.options.families("iptables-"+string(c.options.Backend), "ip6tables-"+string(c.options.Backend))
}

// batch makes networks step by step, until one fails.
type batch struct {
	c   *Cluster
	ctx context.Context
	err error
}

// place makes a network namespace.
func (b *batch) place(place string) {
	if b.err == nil {
		b.err = b.c.ip(b.ctx, "netns", "add", b.c.netnsName(place))
	}
	b.ip(place, "link set lo up")
}

func (b *batch) ip(place, command string) {
	if b.err == nil {
		b.err = b.c.ip(b.ctx, append([]string{"-netns", b.c.netnsName(place)}, strings.Fields(command)...)...)
	}
}

func (b *batch) sysctl(place string, settings ...string) {
	if b.err == nil {
		b.err = b.c.sysctl(place, settings...)
	}
}

// optional makes settings that not every kernel has.
func (b *batch) optional(place string, settings ...string) {
	if b.err != nil {
		return
	}
	if err := b.c.sysctl(place, settings...); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.err = err
	}
}

// plug connects a place's new eth0 to the LAN, with the way outside. Its MAC address stays the
// same over reboots, as a network card's does.
func (b *batch) plug(place, address, address6 string) {
	b.ip(lan, fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d address %s netns %s",
		portName(place), b.c.options.MTU, b.c.options.MTU, macOf(address), b.c.netnsName(place)))
	b.ip(lan, "link set "+portName(place)+" master br0 up")
	b.ip(place, "link set eth0 up")
	b.addresses(place, "eth0", address, address6)
	if place != Router {
		b.route(place, "default via "+routerIP, "default via "+routerIPv6)
	}
}

// addresses gives a device its address of each family that the test bed has.
func (b *batch) addresses(place, device, address, address6 string) {
	if b.c.options.ipv4() {
		b.ip(place, "addr add "+address+"/24 brd + dev "+device)
	}
	if b.c.options.ipv6() {
		b.ip(place, "addr add "+address6+"/64 dev "+device+" nodad")
	}
}

// route adds a route of each family that the test bed has.
func (b *batch) route(place, route, route6 string) {
	if b.c.options.ipv4() {
		b.ip(place, "-4 route add "+route)
	}
	if b.c.options.ipv6() {
		b.ip(place, "-6 route add "+route6)
	}
}

// forwards makes a place a router of each family that the test bed has.
func (b *batch) forwards(place string) {
	b.sysctl(place, b.c.options.families("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")...)
}

// routes adds routes to the pods of each node other than the except-th.
func (b *batch) routes(place string, except int) {
	for i := 1; i <= b.c.options.Nodes; i++ {
		if i == except {
			continue
		}
		b.route(place, fmt.Sprintf("%s via %s", podCIDR(i), nodeIP(i)), fmt.Sprintf("%s via %s", podCIDRv6(i), nodeIPv6(i)))
	}
}

// serviceRoute leads to ClusterIPs through any node that answers: the API server calls
// webhooks by them.
func (b *batch) serviceRoute(place string) {
	route, route6 := ServiceCIDR, ServiceCIDRv6
	for i := 1; i <= b.c.options.Nodes; i++ {
		route += " nexthop via " + nodeIP(i).String()
		route6 += " nexthop via " + nodeIPv6(i).String()
	}
	b.route(place, route, route6)
	b.optional(place, "net.ipv4.fib_multipath_use_neigh=1")
}

func (c *Cluster) netnsName(place string) string { return c.options.Prefix + "-" + place }

// portName is the LAN's end of a place's cable; device names have at most 15
// characters.
func portName(place string) string { return ("p-" + place)[:min(15, len("p-"+place))] }

// macOf is the MAC address of a LAN address of IPv4, which a place has or, in a test bed of
// IPv6 alone, would have: 02:eb:192:168:7:x in hexadecimal.
func macOf(address string) net.HardwareAddr {
	ip := net.ParseIP(address).To4()
	return net.HardwareAddr{0x02, 0xeb, ip[0], ip[1], ip[2], ip[3]}
}

// LinkDown pulls a node's cable: its side sees no carrier.
func (c *Cluster) LinkDown(ctx context.Context, node string) error {
	return c.ip(ctx, "-netns", c.netnsName(lan), "link", "set", portName(node), "down")
}

// LinkUp plugs it in again.
func (c *Cluster) LinkUp(ctx context.Context, node string) error {
	return c.ip(ctx, "-netns", c.netnsName(lan), "link", "set", portName(node), "up")
}

// removePlace kills what runs in a place and deletes it.
func (c *Cluster) removePlace(ctx context.Context, place string) error {
	path := c.netns(place)
	// A process may start another during the search.
	for range 20 {
		processes, err := inside(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", place, err)
		}
		if len(processes) == 0 {
			break
		}
		var errs []error
		for _, p := range processes {
			errs = append(errs, p.kill(ctx))
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("remove %s: %w", place, err)
		}
	}
	if err := c.ip(ctx, "netns", "del", c.netnsName(place)); err != nil {
		return fmt.Errorf("remove %s: %w", place, err)
	}
	return nil
}

// places lists those that exist, nodes last: they need the others least.
func (c *Cluster) places() ([]string, error) {
	paths, err := filepath.Glob(c.netns("*"))
	if err != nil {
		return nil, err
	}
	var nodes, others []string
	for _, path := range paths {
		place := strings.TrimPrefix(filepath.Base(path), c.options.Prefix+"-")
		if number, ok := strings.CutPrefix(place, "node"); ok {
			if _, err := strconv.Atoi(number); err == nil {
				nodes = append(nodes, place)
				continue
			}
		}
		others = append(others, place)
	}
	return append(nodes, others...), nil
}

// listenLocal opens a listening socket on 127.0.0.1 of the machine.
func listenLocal() (*os.File, int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	defer listener.Close()
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return nil, 0, errors.New("no TCP listener")
	}
	file, err := tcp.File()
	if err != nil {
		return nil, 0, err
	}
	return file, netAddrPort(listener.Addr()), nil
}

func netAddrPort(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}
