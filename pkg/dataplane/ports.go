package dataplane

import (
	"cmp"
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// The pace of counting, which takes a walk through all tracked connections: once in
// countEvery, and less often where that would take more than one part in countShare of one
// processor.
const (
	countEvery = 30 * time.Second
	countShare = 200
)

// Source ports of an egress IP to one destination: the kernel gives out those from 1024 on. A
// warning begins at portsMany, and ends below portsFew.
const (
	portsAll  = 65536 - 1024
	portsMany = portsAll * 8 / 10
	portsFew  = portsAll * 7 / 10
)

// Usage is how much of an egress IP was in use when it was last counted.
type Usage struct {
	// Connections are all that are tracked with it as source.
	Connections int
	// Ports are the source ports in use to the one destination that takes most of them.
	Ports int
	// Destination is that one, Protocol its IP protocol.
	Destination netip.AddrPort
	Protocol    uint8
}

// usages are those of the host's egress IPs. Its methods may be called from several
// goroutines.
type usages struct {
	mu      sync.Mutex
	counts  int
	of      map[netip.Addr]Usage
	running map[netip.Addr]bool // egress IPs that are running out of ports
}

// put takes the outcome of a count.
func (u *usages) put(of map[netip.Addr]Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[netip.Addr]bool{}
	for ip, usage := range of {
		if usage.Ports >= portsMany || u.running[ip] && usage.Ports >= portsFew {
			out[ip] = true
		}
	}
	u.counts, u.of, u.running = u.counts+1, of, out
}

// report adds to a report what was counted.
func (u *usages) report(r *Report) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r.Counts = u.counts
	for i, h := range r.Hosted {
		r.Hosted[i].Usage = u.of[h.IP]
		if u.running[h.IP] {
			r.Warnings = append(r.Warnings, warning.FewPorts(h.IP, u.of[h.IP].Destination, protocolName(u.of[h.IP].Protocol)))
		}
	}
}

func protocolName(protocol uint8) string {
	switch protocol {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_UDP:
		return "UDP"
	case unix.IPPROTO_SCTP:
		return "SCTP"
	default:
		return "DCCP"
	}
}

// destination is what source ports are counted for.
type destination struct {
	source, dest [16]byte
	port         uint16
	protocol     uint8
}

// counter counts connections.
type counter struct {
	connections map[netip.Addr]int
	ports       map[destination]int
}

func newCounter() counter {
	return counter{connections: map[netip.Addr]int{}, ports: map[destination]int{}}
}

func (c counter) add(f conntrack.Flow) {
	c.connections[f.SourceOutside]++
	switch f.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		c.ports[destination{f.SourceOutside.As16(), f.Dest.As16(), f.DestPort, f.Protocol}]++
	}
}

// usages returns what was counted. Of destinations that take as many ports, it is the least.
func (c counter) usages() map[netip.Addr]Usage {
	of := make(map[netip.Addr]Usage, len(c.connections))
	for ip, n := range c.connections {
		of[ip] = Usage{Connections: n}
	}
	for d, n := range c.ports {
		ip, to := netip.AddrFrom16(d.source).Unmap(), netip.AddrPortFrom(netip.AddrFrom16(d.dest).Unmap(), d.port)
		u := of[ip]
		if cmp.Or(n-u.Ports, u.Destination.Compare(to), int(u.Protocol)-int(d.protocol)) > 0 {
			u.Ports, u.Destination, u.Protocol = n, to, d.protocol
			of[ip] = u
		}
	}
	return of
}

// countPorts counts the connections of the host's egress IPs at its pace, until ctx ends.
func (d *Dataplane) countPorts(ctx context.Context) {
	pause := countEvery
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		began := monotonic()
		if !d.hosts.Load() {
			d.usages.put(nil)
		} else if of, err := d.countUsages(); err == nil { // else it stays as it was counted last
			d.usages.put(of)
		}
		pause = max(countEvery, countShare*(monotonic()-began))
	}
}

// countUsages counts once. Connections with an egress IP have an index in their mark.
func (d *Dataplane) countUsages() (map[netip.Addr]Usage, error) {
	index := d.cfg.Marks.Index(d.cfg.Marks.FirstIndex())
	c := newCounter()
	err := conntrack.EachMarked(index, index, c.add)
	return c.usages(), err
}
