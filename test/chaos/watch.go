package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/egressip-operator/egressip-operator/test/chaos/traffic"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// rules say which sources a namespace's packets may have.
type rules struct {
	mu sync.Mutex
	// allowed are the egress IPs of each namespace, and until when; zero for as
	// long as it lasts. A namespace that is not in it must have the address of
	// its pod's node.
	allowed map[string]map[netip.Addr]time.Time
	nodes   map[netip.Addr]string
	// wrong are the packets with a wrong source, as far as they are kept.
	wrong []string
	total int
	count map[string]int // packets, by namespace
}

// keptWrong bounds what is kept of wrong packets.
const keptWrong = 20

func newRules(c *testbed.Cluster) *rules {
	r := &rules{allowed: map[string]map[netip.Addr]time.Time{}, nodes: map[netip.Addr]string{}, count: map[string]int{}}
	for _, node := range c.Nodes() {
		r.nodes[c.NodeIP(node)] = node
		// What the kernel takes while the node's own address is away.
		r.nodes[c.BridgeIP(node)] = node
		if c.DualStack() {
			r.nodes[c.NodeIPv6(node)] = node
		}
	}
	return r
}

// allow lets a namespace leave with addresses from now on, and with those that it
// had for a moment more: packets are on their way.
func (r *rules) allow(namespace string, ips ...string) {
	const onTheWay = 5 * time.Second
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	before := r.allowed[namespace]
	after := map[netip.Addr]time.Time{}
	for ip, until := range before {
		if until.IsZero() {
			until = now.Add(onTheWay)
		}
		after[ip] = until
	}
	for _, ip := range ips {
		after[netip.MustParseAddr(ip)] = time.Time{}
	}
	r.allowed[namespace] = after
}

// see judges a packet.
func (r *rules) see(s traffic.Seen) {
	if s.Namespace == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[s.Namespace]++
	source := s.Source.Addr()
	until, known := r.allowed[s.Namespace][source]
	ok := known && (until.IsZero() || s.At.Before(until))
	if len(r.allowed[s.Namespace]) == 0 {
		node, isNode := r.nodes[source]
		ok = isNode && (s.Pod.Node == "" || s.Pod.Node == node)
	}
	if ok {
		return
	}
	if r.total++; len(r.wrong) < keptWrong {
		r.wrong = append(r.wrong, fmt.Sprintf("namespace %s, which may leave with %v: %s", s.Namespace, r.names(s.Namespace), s))
	}
}

func (r *rules) names(namespace string) []string {
	var ips []string
	for ip, until := range r.allowed[namespace] {
		if until.IsZero() {
			ips = append(ips, ip.String())
		}
	}
	if len(ips) == 0 {
		return []string{"its node's address"}
	}
	slices.Sort(ips)
	return ips
}

// err reports wrong packets, if any.
func (r *rules) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total == 0 {
		return nil
	}
	return fmt.Errorf("%d packets with a wrong source:\n%s", r.total, strings.Join(r.wrong, "\n"))
}

func (r *rules) wrongs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

func (r *rules) packets() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(r.count)) {
		parts = append(parts, fmt.Sprintf("%s %d", n, r.count[n]))
	}
	return strings.Join(parts, ", ")
}

// owners watches who answers by ARP for egress IPs, from a machine on the LAN
// that is no node.
type owners struct {
	mu   sync.Mutex
	last map[string]map[string]time.Time // by address and MAC
	// both is since when, and until when, two answer for an address.
	both    map[string][2]time.Time
	longest time.Duration
	what    string
	// ignored are MAC addresses of machines that take egress IPs as part of a fault.
	ignored map[string]bool
}

// ignore forgets what a machine answers from now on.
func (o *owners) ignore(mac string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ignored[mac] = true
}

// asked is the pause between two ARP requests for one address. Answers that are at
// most two pauses apart count as simultaneous.
const asked = 50 * time.Millisecond

// watchOwners asks and listens until stop is called. Without addresses it does nothing.
func watchOwners(ctx context.Context, c *testbed.Cluster, ips []string) (o *owners, stop func() error, err error) {
	o = &owners{last: map[string]map[string]time.Time{}, both: map[string][2]time.Time{}, ignored: map[string]bool{}}
	if len(ips) == 0 {
		return o, func() error { return nil }, nil
	}
	own := netip.MustParseAddr(testbed.LANHostIP)
	capture, err := c.Capture(ctx, testbed.LANHost, "eth0", func(p testbed.Packet) bool {
		if p.ARP == 2 && !p.Outgoing && p.Destination.Addr() == own && slices.Contains(ips, p.Source.Addr().String()) {
			o.answer(p.Source.Addr().String(), p.MAC.String(), p.At)
		}
		return false
	})
	if err != nil {
		return nil, nil, err
	}
	wait, err := c.Background(ctx, testbed.LANHost, append([]string{"traffic", "arp", "-every", asked.String()}, ips...)...)
	if err != nil {
		_, _ = capture.Stop()
		return nil, nil, err
	}
	return o, func() error {
		_, errWait := wait(true)
		_, errStop := capture.Stop()
		if errStop != nil {
			return errStop
		}
		return errWait
	}, nil
}

// answer takes one answer.
func (o *owners) answer(ip, mac string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ignored[mac] {
		return
	}
	if o.last[ip] == nil {
		o.last[ip] = map[string]time.Time{}
	}
	o.last[ip][mac] = at
	for other, seen := range o.last[ip] {
		if other == mac || at.Sub(seen) > 2*asked {
			continue
		}
		span := o.both[ip]
		if at.Sub(span[1]) > 10*asked {
			span[0] = seen
		}
		span[1] = at
		o.both[ip] = span
		if length := span[1].Sub(span[0]); length > o.longest {
			o.longest = length
			o.what = fmt.Sprintf("%s and %s answered for %s from %s to %s",
				other, mac, ip, span[0].Format("15:04:05.000"), span[1].Format("15:04:05.000"))
		}
	}
}

// most is the longest time that two machines answered for one address, and which.
func (o *owners) most() (time.Duration, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.longest, o.what
}
