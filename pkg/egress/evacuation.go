package egress

import (
	"net/netip"
	"slices"
)

// Evacuation is how far a host is that is being evacuated.
type Evacuation struct {
	// Asked: the cluster says that the host is being evacuated.
	Asked bool
	// Moving: the controller has something left to do, so that the rest may change by itself.
	Moving bool
	// Stays are the egress IPs that the host still has for groups, in order of address.
	Stays []Stay
	// Waiting are egress IPs of other hosts that their agents have not configured, in order of
	// address. They may have come from this one.
	Waiting []netip.Addr
}

// Stay is an egress IP of a host that is being evacuated.
type Stay struct {
	IP    netip.Addr
	Group string
	// InUse: traffic leaves with it. Managed: the controller has assigned it, and would move it if
	// another host could take it.
	InUse, Managed bool
}

// Done reports whether nothing more happens by itself.
func (e *Evacuation) Done() bool { return e.Asked && !e.Moving && len(e.Waiting) == 0 }

// InUse reports whether traffic still leaves through the host.
func (e *Evacuation) InUse() bool {
	return slices.ContainsFunc(e.Stays, func(s Stay) bool { return s.InUse })
}

// Evacuated returns how far the evacuation of a host is.
func Evacuated(c Cluster, name string) Evacuation {
	host, _ := c.Host(name)
	e := Evacuation{Asked: host.Evacuating}
	_, e.Moving = writeOnce(c)
	r := Resolve(c)
	for _, h := range r.Hosts {
		other, _ := c.Host(h.Name)
		for _, claim := range h.Claims {
			switch {
			case !claim.Assigned():
			case h.Name == name:
				e.Stays = append(e.Stays, Stay{IP: claim.IP, Group: claim.Group, InUse: claim.State == Active, Managed: host.manages(claim.IP)})
			case other.Online && other.manages(claim.IP) && !other.Reports[claim.IP].Configured:
				e.Waiting = append(e.Waiting, claim.IP)
			}
		}
	}
	e.Waiting = sortedUnique(e.Waiting)
	return e
}
