package dataplane

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A flow is a tracked connection, as far as staleness depends on it.
type flow struct {
	// source opened it; dest is whom it really reached, after any service's
	// address was translated.
	source, dest netip.Addr
	// asked is whom source asked for, before that was translated.
	asked netip.AddrPort
	// sourceOutside is the source that dest sees.
	sourceOutside netip.Addr
	// mark is the connection's mark: the way of its first packet.
	mark uint32
	// protocol is its number in IP; sourcePort is the source's, destPort the one
	// that dest really has.
	protocol             uint8
	sourcePort, destPort uint16
	// state is that of TCP, as connection tracking counts them.
	state uint8
}

// staleness tells which connections must be forgotten: those whose source was
// chosen for another way than their packets now go. Their packets are dropped
// until then.
type staleness struct {
	marks Marks
	// pods are the marks of this host's pods, for connections that begin here.
	pods map[netip.Addr]uint32
	// freed are pods, and addresses that were pods, that had a way of ours and
	// have none now.
	freed map[netip.Addr]struct{}
	// ended are index marks that packets of some network no longer get.
	ended map[uint32]bool
	// sources are the egress IPs that index marks stand for.
	sources map[uint32]netip.Addr
	// withdrawn are egress IPs that the host no longer bears.
	withdrawn map[netip.Addr]struct{}
	// routesBefore and routes are the overlay routes of pods as they were, and as
	// they are to be.
	routesBefore, routes map[netip.Addr]podRoute
	// began are the egress hosts that connections of pods with several began with.
	began beginnings
	// inside holds the networks of the cluster, by prefix length.
	inside map[int]map[netip.Prefix]struct{}
}

// judge makes the staleness of going from the observed kernel to the desired.
func judge(m Marks, observed, desired kernel, known, wanted indices) staleness {
	s := staleness{
		marks:     m,
		pods:      desired.pods,
		freed:     map[netip.Addr]struct{}{},
		ended:     map[uint32]bool{},
		sources:   map[uint32]netip.Addr{},
		withdrawn: map[netip.Addr]struct{}{},

		routesBefore: observed.routes,
		routes:       desired.routes,
		inside:       map[int]map[netip.Prefix]struct{}{},
	}
	for ip := range observed.locked {
		if _, still := desired.locked[ip]; !still {
			s.freed[ip] = struct{}{}
		}
	}
	for ip, mark := range observed.pods {
		if _, still := desired.pods[ip]; !still && mark != 0 {
			s.freed[ip] = struct{}{}
		}
	}
	for ip, i := range wanted {
		s.sources[m.Index(i)] = ip
	}
	for ip, i := range known {
		if _, still := wanted[ip]; !still {
			s.ended[m.Index(i)] = true
		}
	}
	for id, mark := range observed.served {
		if now, still := desired.served[id]; !still || now != mark {
			s.ended[mark] = true
		}
	}
	for ip := range observed.addresses {
		if _, still := desired.addresses[ip]; !still {
			s.withdrawn[ip] = struct{}{}
		}
	}
	for p := range desired.inside {
		if s.inside[p.Bits()] == nil {
			s.inside[p.Bits()] = map[netip.Prefix]struct{}{}
		}
		s.inside[p.Bits()][p] = struct{}{}
	}
	return s
}

// rerouted are the pods whose connections may have begun with any of several hosts, and
// whose route changes.
func (s staleness) rerouted() map[netip.Addr]bool {
	pods := map[netip.Addr]bool{}
	for ip, before := range s.routesBefore {
		if after, stays := s.routes[ip]; stays && len(before.via) > 1 && !before.equal(after) {
			pods[ip] = true
		}
	}
	return pods
}

// stale tells whether a connection must be forgotten. Connections into the
// host or to a pod, and those of pods that leave unmarked, never are.
func (s staleness) stale(f flow) bool {
	if _, gone := s.withdrawn[f.sourceOutside]; gone {
		return true
	}
	way := f.mark & (s.marks.Remote() | s.marks.IndexMask())
	if f.mark&s.marks.Return() != 0 {
		return s.ended[way] || s.misled(f, way)
	}
	if _, freed := s.freed[f.source]; freed {
		return way != 0
	}
	mark := s.pods[f.source]
	if mark != 0 && (way != mark && !s.isInside(f.dest) || s.misled(f, way)) {
		return true
	}
	return way == s.marks.Remote() && way == mark && !s.isInside(f.dest) && s.moved(f)
}

// moved tells whether a connection over the overlay gets another source, as when
// the host that it began with has gone.
func (s staleness) moved(f flow) bool {
	before, after := s.routesBefore[f.source], s.routes[f.source]
	if len(before.via) == 0 || len(after.via) == 0 || before.equal(after) {
		return false
	}
	host := before.via[0]
	if len(before.via) > 1 {
		known := false
		if host, known = s.began.host(f); !known {
			return false
		}
	}
	return before.moves(after, host)
}

// resettable tells whether a connection that must be forgotten is one that its
// pod, on this host, may try to go on with. One to a service's address is not: the
// kernel's reset would come from the endpoint, which the pod does not know. The endpoint
// resets it then, when it gets what the pod sends.
func (s staleness) resettable(f flow) bool {
	translated := f.asked != netip.AddrPortFrom(f.dest, f.destPort)
	if f.protocol != unix.IPPROTO_TCP || translated || f.mark&s.marks.Return() != 0 {
		return false
	}
	switch f.state {
	case nl.TCP_CONNTRACK_SYN_SENT, nl.TCP_CONNTRACK_LAST_ACK, nl.TCP_CONNTRACK_TIME_WAIT, nl.TCP_CONNTRACK_CLOSE:
		return false // nobody has it, or has it any more
	}
	_, pod := s.pods[f.source]
	return pod
}

// misled tells whether somebody else's rule, which came before ours for a
// while, gave the connection another source than its egress IP.
func (s staleness) misled(f flow, way uint32) bool {
	ip, ok := s.sources[way]
	return ok && ip != f.sourceOutside
}

func (s staleness) isInside(ip netip.Addr) bool {
	for bits, networks := range s.inside {
		if p, err := ip.Prefix(bits); err == nil {
			if _, ok := networks[p]; ok {
				return true
			}
		}
	}
	return false
}
