package online

import "time"

// Contact is which peers this host reached recently.
type Contact struct {
	// Watched is how many hosts it watches that have ever answered it, Answering
	// how many of these answer now.
	Watched, Answering int
	// API is when the API server last answered; zero for never.
	API time.Time
	// Current: the API server has just confirmed that what this host knows about
	// itself is up to date.
	Current bool
}

// majority reports whether the host, together with the peers that answer it, is
// more than half of the hosts that it knows.
func (c Contact) majority() bool { return 2*(1+c.Answering) > 1+c.Watched }

// patience is how many times longer a host waits for the API server where only probes
// are at fault.
const patience = 10

// Isolation is whether a host must consider itself cut off from the cluster. Its
// addresses may be given to another host then, and nothing can notify it: so that no
// address has two owners, it withdraws them by itself. The zero value is a host that
// is not cut off.
type Isolation struct {
	// Withdrawn: the host has no egress IPs.
	Withdrawn bool
	// lost is since when there is no majority; zero where there is one.
	lost time.Time
}

// Uncertain reports whether the API server must be asked: there is no majority, or
// what was withdrawn might be taken back.
func (i Isolation) Uncertain() bool { return i.Withdrawn || !i.lost.IsZero() }

// Next is the isolation after an observation at the given time. A host withdraws
// when it has reached neither the API server nor a majority of the hosts that it
// knows for the time after; 0 means never. Where the API server has answered for that
// long while no majority did, probes are at fault, as behind a firewall: then a slow
// answer is no sign of being cut off, and the host waits patience times as long. If
// another host is given its addresses meanwhile, that one finds by ARP that they are in
// use. It returns when it has reached the API
// server again and is up to date: a majority alone cannot tell whether its addresses
// were given away.
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
		if c.API.Sub(i.lost) >= after {
			after *= patience
		}
		i.Withdrawn = now.Sub(alone) >= after
	}
	return i
}
