package controllers

import (
	"net/netip"
	"slices"
	"time"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// failsAfter is how long a host may report that it could not be configured for an
	// egress IP before another host is preferred. Its agent tries again every second.
	failsAfter = 5 * time.Second
	// failsFor is how long other hosts are preferred after that, so that the egress IP
	// does not go back and forth between two hosts that both cannot have it.
	failsFor = 10 * time.Minute
)

// failures remembers which automatic hosts could not be configured for which egress
// IPs. The API does not say since when.
type failures map[failure]period

type failure struct {
	host string
	ip   netip.Addr
}

// period is from when to when a failure was reported.
type period struct{ since, last time.Time }

// update takes what agents report now.
func (f failures) update(hosts []*v1.HostSubnet, now time.Time) {
	reported := make(map[failure]bool)
	for _, h := range hosts {
		managed := assignedTo(h)
		for _, claim := range h.Status.EgressIPs {
			ip, err := netip.ParseAddr(claim.IP)
			if err != nil || !slices.Contains(managed, claim.IP) || claim.Configured || claim.Reason != string(egress.ReasonNotConfigured) {
				continue
			}
			key := failure{host: h.Name, ip: ip}
			reported[key] = true
			if _, known := f[key]; !known {
				f[key] = period{since: now}
			}
			f[key] = period{since: f[key].since, last: now}
		}
	}
	for key, s := range f {
		brief := s.last.Sub(s.since) < failsAfter
		if !reported[key] && (brief || now.Sub(s.last) > failsFor) {
			delete(f, key)
		}
	}
}

// lasting are the failures that count, by host.
func (f failures) lasting() map[string]map[netip.Addr]bool {
	byHost := make(map[string]map[netip.Addr]bool)
	for key, s := range f {
		if s.last.Sub(s.since) < failsAfter {
			continue
		}
		if byHost[key.host] == nil {
			byHost[key.host] = make(map[netip.Addr]bool)
		}
		byHost[key.host][key.ip] = true
	}
	return byHost
}

// next is how long it takes until another failure may count or be forgotten; 0 for
// never.
func (f failures) next(now time.Time) time.Duration {
	var next time.Duration
	for _, s := range f {
		wait := s.last.Add(failsFor).Sub(now)
		if s.last.Sub(s.since) < failsAfter {
			wait = s.since.Add(failsAfter).Sub(now)
		}
		if wait = max(wait, time.Millisecond); next == 0 || wait < next {
			next = wait
		}
	}
	return next
}
