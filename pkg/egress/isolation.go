package egress

import (
	"net/netip"
	"time"
)

// Contact is whom a host reached of late.
type Contact struct {
	// Watched are the hosts that it watches and that have ever answered it,
	// Answering those of them that do now.
	Watched, Answering int
	// API is when the API server last answered; zero for never.
	API time.Time
	// Current: the API server was asked a moment ago, and what this host knows
	// of itself is what it holds.
	Current bool
}

// majority tells whether the host, together with those that answer it, is more
// than half of all that it knows of.
func (c Contact) majority() bool { return 2*(1+c.Answering) > 1+c.Watched }

// Isolation is whether a host must think itself cut off from the cluster. Its
// addresses may be given to another host then, and nobody can tell it: so that
// none has two owners, it gives them up by itself. The zero value is a host that
// is not cut off.
type Isolation struct {
	// Withdrawn: the host bears no egress IPs.
	Withdrawn bool
	// lost is since when there is no majority; zero where there is one.
	lost time.Time
}

// Uncertain tells whether the API server is to be asked: there is no majority, or
// what was given up might be taken back.
func (i Isolation) Uncertain() bool { return i.Withdrawn || !i.lost.IsZero() }

// Next is the isolation after a look at the given time. A host withdraws when
// for the given time it has reached neither the API server nor a majority of the
// hosts that it knows; 0 for never. It returns when it has reached the API server
// again and knows what that says of it: a majority alone cannot tell whether its
// addresses were given away.
func (i Isolation) Next(c Contact, after time.Duration, now time.Time) Isolation {
	switch {
	case c.majority():
		i.lost = time.Time{}
	case i.lost.IsZero():
		i.lost = now
	}
	switch {
	case after <= 0:
		i.Withdrawn = false
	case i.Withdrawn:
		i.Withdrawn = !c.Current
	case !i.lost.IsZero():
		alone := i.lost
		if c.API.After(alone) {
			alone = c.API
		}
		i.Withdrawn = now.Sub(alone) >= after
	}
	return i
}

// GiveUp returns the plan of a host that gives all its egress IPs up: pods that
// leave there have no way out, rather than one with another address.
func GiveUp(p Plan) Plan {
	p.Hosted, p.Standby = nil, nil
	pods := make([]PodPath, 0, len(p.Pods))
	for _, pod := range p.Pods {
		if pod.Kind == PathLocal {
			pod.Kind, pod.EgressIP = PathDrop, netip.Addr{}
		}
		pods = append(pods, pod)
	}
	p.Pods = pods
	return p
}
