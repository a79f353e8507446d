package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
)

// tracker is the kernel's connection tracking.
type tracker interface {
	// Find returns the connections that match; of the given sources alone, unless there are
	// none.
	Find(sources []netip.Addr, match func(conntrack.Flow) bool) ([]conntrack.Entry, error)
	// FindTo returns the connections that match, among those that were opened to the given
	// addresses.
	FindTo(asked []netip.Addr, match func(conntrack.Flow) bool) ([]conntrack.Entry, error)
	// Forget makes the kernel forget connections, and counts them.
	Forget(entries []conntrack.Entry) (int, error)
}

// kernelTracker is that of the network namespace of the calling thread.
type kernelTracker struct{}

func (kernelTracker) Find(sources []netip.Addr, match func(conntrack.Flow) bool) ([]conntrack.Entry, error) {
	if len(sources) > 0 {
		return conntrack.FindFrom(sources, match)
	}
	return conntrack.Find(match)
}

func (kernelTracker) FindTo(asked []netip.Addr, match func(conntrack.Flow) bool) ([]conntrack.Entry, error) {
	if len(asked) > maxSources {
		return conntrack.Find(func(f conntrack.Flow) bool { return slices.Contains(asked, f.Asked.Addr()) && match(f) })
	}
	return conntrack.FindTo(asked, match)
}

func (kernelTracker) Forget(entries []conntrack.Entry) (int, error) {
	return conntrack.Forget(entries)
}

// staleness says which connections must be forgotten: those whose source was chosen
// for another path than the one that their packets take now. Their packets are
// dropped until then.
type staleness struct {
	marks Marks
	// pods are the marks of this host's pods, for connections that begin here.
	pods map[netip.Addr]uint32
	// freed are pods, and addresses that were pods, that had a path of ours and
	// have none now.
	freed map[netip.Addr]struct{}
	// ended are index marks that packets of some network no longer get.
	ended map[uint32]bool
	// sources are the egress IPs that index marks stand for.
	sources map[uint32]netip.Addr
	// withdrawn are egress IPs that the host no longer has.
	withdrawn map[netip.Addr]struct{}
	// routesBefore and routes are the overlay routes of pods before the change and
	// after it.
	routesBefore, routes map[netip.Addr]bpf.Route
	// began are the egress hosts that connections of pods with several began with.
	affinity bpf.FlowAffinity
	// inside holds the networks of the cluster, lengths the lengths of their prefixes.
	inside  map[netip.Prefix]struct{}
	lengths []int
	// excluded are the networks to which each pod leaves as without us.
	excluded nftables.Excluded
}

// newStaleness returns the staleness of going from the observed kernel to the desired.
func newStaleness(m Marks, observed, desired kernel, known, wanted indices) staleness {
	s := staleness{
		marks:     m,
		pods:      desired.pods,
		freed:     map[netip.Addr]struct{}{},
		ended:     map[uint32]bool{},
		sources:   map[uint32]netip.Addr{},
		withdrawn: map[netip.Addr]struct{}{},

		routesBefore: observed.routes,
		routes:       desired.routes,
		inside:       desired.inside,
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
	s.excluded = desired.excluded
	var found [129]bool
	for p := range desired.inside {
		if !found[p.Bits()] {
			found[p.Bits()], s.lengths = true, append(s.lengths, p.Bits())
		}
	}
	return s
}

// withUnforgotten adds what the kernel failed to forget in former passes, which changed
// what they could: what they have changed cannot be observed any more.
func (s staleness) withUnforgotten(former *staleness, desired kernel) staleness {
	if former == nil {
		return s
	}
	s.routesBefore = maps.Clone(s.routesBefore)
	maps.Copy(s.routesBefore, former.routesBefore)
	maps.Copy(s.ended, former.ended)
	for ip := range former.withdrawn {
		if _, again := desired.addresses[ip]; !again {
			s.withdrawn[ip] = struct{}{}
		}
	}
	return s
}

// rerouted returns the pods whose connections may have begun with any of several hosts, and
// whose route changes.
func (s staleness) rerouted() map[netip.Addr]bool {
	pods := map[netip.Addr]bool{}
	for ip, before := range s.routesBefore {
		if after, stays := s.routes[ip]; stays && len(before.Via) > 1 && !before.Equal(after) {
			pods[ip] = true
		}
	}
	return pods
}

// stale reports whether a connection must be forgotten. Connections into the
// host or to a pod, and those of pods that leave unmarked, never are.
func (s staleness) stale(f conntrack.Flow) bool {
	if _, gone := s.withdrawn[f.SourceOutside]; gone {
		return true
	}
	way := f.Mark & (s.marks.Remote() | s.marks.IndexMask())
	if f.Mark&s.marks.Return() != 0 {
		return s.ended[way] || s.wrongSource(f, way)
	}
	if _, freed := s.freed[f.Source]; freed {
		return way != 0
	}
	mark := s.pods[f.Source]
	inside := s.isInside(f.Dest) || slices.ContainsFunc(s.excluded[f.Source], func(p netip.Prefix) bool { return p.Contains(f.Dest) })
	if mark != 0 && (way != mark && !inside || way != 0 && inside || s.wrongSource(f, way)) {
		return true
	}
	return way == s.marks.Remote() && way == mark && s.moved(f)
}

// moved reports whether a connection over the overlay gets another source, as when
// the host that it began with has gone.
func (s staleness) moved(f conntrack.Flow) bool {
	before, after := s.routesBefore[f.Source], s.routes[f.Source]
	if len(before.Via) == 0 || len(after.Via) == 0 || before.Equal(after) {
		return false
	}
	host := before.Via[0]
	if len(before.Via) > 1 {
		known := false
		if host, known = s.affinity.Host(f.Protocol, netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Dest, f.DestPort)); !known {
			return false
		}
	}
	return changesSource(before, after, host)
}

// changesSource reports whether a connection that began with a host gets another
// source address when its pod's route changes.
func changesSource(before, after bpf.Route, host netip.Addr) bool {
	i := slices.Index(before.Via, host)
	if i < 0 || !before.Sources[i].IsValid() {
		return false
	}
	source := before.Sources[i]
	if j := slices.Index(after.Via, host); j >= 0 {
		return after.Sources[j].IsValid() && after.Sources[j] != source
	}
	// It gets any of the others.
	return slices.ContainsFunc(after.Sources, func(ip netip.Addr) bool { return ip.IsValid() && ip != source })
}

// resettable reports whether a connection that must be forgotten is one that its
// pod, on this host, may try to go on with. One to a service's address is not: the
// kernel's reset would come from the endpoint, which the pod does not know. The endpoint
// resets it then, when it gets what the pod sends.
func (s staleness) resettable(f conntrack.Flow) bool {
	translated := f.Asked != netip.AddrPortFrom(f.Dest, f.DestPort)
	if f.Protocol != unix.IPPROTO_TCP || translated || f.Mark&s.marks.Return() != 0 {
		return false
	}
	switch f.State {
	case nl.TCP_CONNTRACK_SYN_SENT, nl.TCP_CONNTRACK_LAST_ACK, nl.TCP_CONNTRACK_TIME_WAIT, nl.TCP_CONNTRACK_CLOSE:
		return false // neither end has it yet, or any more
	}
	_, pod := s.pods[f.Source]
	return pod
}

// wrongSource reports whether a rule of other software, which came before ours for a
// while, gave the connection another source than its egress IP.
func (s staleness) wrongSource(f conntrack.Flow, way uint32) bool {
	ip, ok := s.sources[way]
	return ok && ip != f.SourceOutside
}

func (s staleness) isInside(ip netip.Addr) bool {
	for _, bits := range s.lengths {
		if p, err := ip.Prefix(bits); err == nil {
			if _, ok := s.inside[p]; ok {
				return true
			}
		}
	}
	return false
}

// stray reports whether a connection to an egress IP is one of a packet that came while the
// host did not have the address, and was forwarded: the server's end of a pod's connection
// that began when the host had it. As long as it is tracked, what the pod sends would get
// another port. One that others have led elsewhere, as to a service's endpoint, is theirs.
func stray(f conntrack.Flow) bool { return f.Dest == f.Asked.Addr() }
