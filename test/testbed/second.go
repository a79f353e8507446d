package testbed

import (
	"context"
	"errors"
	"fmt"
)

// The second network of nodes: another LAN, with the same router.
const (
	// SecondInterface is the nodes' interface there. SecondEgressIP and SecondEgressRange are
	// for egress IPs.
	SecondInterface   = "eth1"
	SecondNetwork     = "172.31.9.0/24"
	SecondEgressIP    = "172.31.9.200"
	SecondEgressRange = "172.31.9.192/27"
	secondRouterIP    = "172.31.9.1"
	secondBridge      = "br1"
	secondRouter      = "eth2"
)

// AddSecondNetwork gives all nodes an interface on a LAN of its own, with an address of IPv4 there and a
// default route that comes after the first one. Reverse path filters are strict there, too.
func (c *Cluster) AddSecondNetwork(ctx context.Context) error {
	b := &batch{c: c, ctx: ctx}
	b.ip(lan, "link add "+secondBridge+" type bridge")
	b.ip(lan, fmt.Sprintf("link set %s mtu %d up", secondBridge, c.options.MTU))
	plug := func(place, device, address string) {
		port := "s-" + place
		b.ip(lan, fmt.Sprintf("link add %s mtu %d type veth peer name %s mtu %d netns %s", port, c.options.MTU, device, c.options.MTU, c.netnsName(place)))
		b.ip(lan, fmt.Sprintf("link set %s master %s up", port, secondBridge))
		b.ip(place, "link set "+device+" up")
		b.ip(place, "addr add "+address+"/24 brd + dev "+device)
	}
	plug(Router, secondRouter, secondRouterIP)
	for i, name := range c.Nodes() {
		plug(name, SecondInterface, fmt.Sprintf("172.31.9.%d", 11+i))
		b.sysctl(name, "net.ipv4.conf."+SecondInterface+".rp_filter=1")
		b.ip(name, "route add default via "+secondRouterIP+" dev "+SecondInterface+" metric 200")
	}
	return b.err
}

// RemoveSecondNetwork takes away what AddSecondNetwork has added.
func (c *Cluster) RemoveSecondNetwork(ctx context.Context) error {
	var errs []error
	for _, place := range append(c.Nodes(), Router) {
		errs = append(errs, c.ip(ctx, "-netns", c.netnsName(lan), "link", "delete", "s-"+place))
	}
	return errors.Join(append(errs, c.ip(ctx, "-netns", c.netnsName(lan), "link", "delete", secondBridge))...)
}
