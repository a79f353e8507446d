package egress

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Place is where an egress IP is, and in which state.
type Place struct {
	// Host that claims it; "" for none, and several with commas between them where they are in
	// conflict.
	Host  string
	State State
}

// Move is an egress IP that is elsewhere, or in another state, after a change.
type Move struct {
	IP    netip.Addr
	Group string
	// From and To are where it is before and after; the zero value while it is not requested.
	From, To Place
	Reason   Reason
	Message  string
}

// GroupChange is a group whose traffic is another after a change.
type GroupChange struct {
	Name string
	// Before and After are the active egress IPs, each with its host, and empty if there are none.
	Before, After []Assignment
	// New: there was no such group. Ended: there is none any more.
	New, Ended bool
	// Source: the source address of its traffic changes. Moved: it does not, and its egress IPs are on
	// other hosts.
	Source, Moved bool
	// Destinations: its egress IPs apply to other destinations.
	Destinations bool
	// Dropped names the families whose traffic is dropped, and was not; Served those whose traffic was
	// dropped, and is not. Of a family of which no egress IPs are requested, Refused and Released do.
	Dropped, Served, Refused, Released []Family
	// Exposed is the host whose loss would drop the group then, while no loss of one host would have
	// before; "" if there is none.
	Exposed string
	Message string
}

// Forecast is the difference between two states of a cluster, each as the controller leaves it.
type Forecast struct {
	// Moves in order of address, Groups in order of name.
	Moves  []Move
	Groups []GroupChange
	// Pending: the cluster before was not settled, so that it changes anyway. Unsettled: one of the
	// two does not settle.
	Pending, Unsettled bool
	// ExposedUnknown: there are too many hosts to find out which groups the loss of one would drop.
	ExposedUnknown bool
}

// Severity is how bad a forecast is.
type Severity int

// The severities.
const (
	NothingChanges Severity = iota
	SomethingChanges
	SomebodyIsDropped
)

// Severity returns the worst of what changes.
func (f Forecast) Severity() Severity {
	switch {
	case slices.ContainsFunc(f.Groups, func(g GroupChange) bool { return len(g.Dropped) > 0 }):
		return SomebodyIsDropped
	case len(f.Moves)+len(f.Groups) > 0:
		return SomethingChanges
	}
	return NothingChanges
}

// Predict compares a cluster with what a change makes of it. Both are settled first: differences
// that would come anyway are not part of the answer.
func Predict(before, after Cluster) Forecast {
	var f Forecast
	before, rounds, settled := Settle(before)
	after, _, settledAfter := Settle(after)
	f.Pending, f.Unsettled = rounds > 0, !settled || !settledAfter
	was, is := Resolve(before), Resolve(after)
	f.Moves = moves(was, is)
	exposedBefore, knownBefore := exposed(before, was)
	exposedAfter, knownAfter := exposed(after, is)
	f.ExposedUnknown = !knownBefore || !knownAfter
	for _, name := range groupNames(was, is) {
		change := changeOf(name, was, is)
		if from, to := groupOrNone(before, name), groupOrNone(after, name); from.Requesting() && to.Requesting() {
			change.Destinations = !from.Destinations.Equal(to.Destinations)
		}
		if !f.ExposedUnknown && exposedBefore[name] == "" && !change.New && len(change.Dropped) == 0 {
			change.Exposed = exposedAfter[name]
		}
		if change.matters() {
			f.Groups = append(f.Groups, change)
		}
	}
	return f
}

func groupOrNone(c Cluster, name string) Group {
	if g, ok := c.group(name); ok {
		return *g
	}
	return Group{}
}

func groupNames(was, is Resolution) []string {
	names := make(map[string]bool, len(is.Groups))
	for _, r := range []Resolution{was, is} {
		for i := range r.Groups {
			names[r.Groups[i].Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// changeOf compares one group.
func changeOf(name string, was, is Resolution) GroupChange {
	before, had := was.Group(name)
	after, has := is.Group(name)
	change := GroupChange{Name: name, Before: before.Active, After: after.Active, New: !had, Ended: !has, Message: after.Message}
	for _, f := range []Family{IPv4, IPv6} {
		switch {
		case after.Drops[f] && !before.Drops[f] && after.requests(f):
			change.Dropped = append(change.Dropped, f)
		case after.Drops[f] && !before.Drops[f]:
			change.Refused = append(change.Refused, f)
		case before.Drops[f] && !after.Drops[f] && before.requests(f):
			change.Served = append(change.Served, f)
		case before.Drops[f] && !after.Drops[f]:
			change.Released = append(change.Released, f)
		}
	}
	sources := func(active []Assignment) []netip.Addr {
		ips := make([]netip.Addr, 0, len(active))
		for _, a := range active {
			ips = append(ips, a.IP)
		}
		return sortedUnique(ips)
	}
	change.Source = !slices.Equal(sources(before.Active), sources(after.Active))
	change.Moved = !change.Source && !slices.Equal(hostsOf(before.Active), hostsOf(after.Active))
	return change
}

func hostsOf(active []Assignment) []string {
	places := make([]string, 0, len(active))
	for _, a := range active {
		places = append(places, a.IP.String()+"@"+a.Host)
	}
	slices.Sort(places)
	return places
}

// matters reports whether anything is another than before.
func (g *GroupChange) matters() bool {
	return g.Source || g.Moved || g.Destinations || len(g.Dropped)+len(g.Served)+len(g.Refused)+len(g.Released) > 0 || g.Exposed != ""
}

// moves compares where egress IPs are.
func moves(was, is Resolution) []Move {
	before, after := places(was), places(is)
	var all []Move
	for _, ip := range slices.SortedFunc(maps.Keys(union(before, after)), netip.Addr.Compare) {
		from, to := before[ip], after[ip]
		if from.From == to.From {
			continue
		}
		all = append(all, Move{IP: ip, Group: cmp.Or(to.Group, from.Group), From: from.From, To: to.From, Reason: to.Reason, Message: to.Message})
	}
	return all
}

// places are the egress IPs that groups request, each with where it is in From.
func places(r Resolution) map[netip.Addr]Move {
	claimed := make(map[netip.Addr][]string)
	for i := range r.Hosts {
		for _, claim := range r.Hosts[i].Claims {
			claimed[claim.IP] = append(claimed[claim.IP], r.Hosts[i].Name)
		}
	}
	all := make(map[netip.Addr]Move)
	for i := range r.Groups {
		g := &r.Groups[i]
		for _, request := range g.Requests {
			ip, err := netip.ParseAddr(request.IP)
			if err != nil {
				continue
			}
			all[ip] = Move{Group: g.Name, From: Place{Host: strings.Join(claimed[ip], ","), State: request.State}, Reason: request.Reason, Message: request.Message}
		}
	}
	return all
}

func union(a, b map[netip.Addr]Move) map[netip.Addr]Move {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// maxLosses bounds the hosts whose loss is simulated.
const maxLosses = 64

// exposed are the groups that the loss of one host would drop, each with that host, the first by
// name; known is false if there are too many hosts to find out. c is settled, and r its resolution.
func exposed(c Cluster, r Resolution) (hosts map[string]string, known bool) {
	hosts = make(map[string]string)
	simulate := make(map[string][]string) // groups by the host that alone serves them
	for i := range r.Groups {
		g := &r.Groups[i]
		for _, f := range []Family{IPv4, IPv6} {
			alone, movable := g.servedBy(c, f)
			switch {
			case alone == "":
			case movable:
				simulate[alone] = append(simulate[alone], g.Name)
			case hosts[g.Name] == "" || alone < hosts[g.Name]:
				hosts[g.Name] = alone
			}
		}
	}
	if len(simulate) > maxLosses {
		return nil, false
	}
	for _, host := range slices.Sorted(maps.Keys(simulate)) {
		lost, _, _ := Settle(WithOffline(c, map[string]bool{host: true}))
		without := Resolve(lost)
		for _, name := range simulate[host] {
			before, _ := r.Group(name)
			after, _ := without.Group(name)
			if hosts[name] == "" && (after.Drops[IPv4] && !before.Drops[IPv4] || after.Drops[IPv6] && !before.Drops[IPv6]) {
				hosts[name] = host
			}
		}
	}
	return hosts, true
}

// servedBy returns the one host that can serve a family of the group; "" if there is none, or
// another one. movable: the controller may give an egress IP of it to another host.
func (n *GroupResult) servedBy(c Cluster, f Family) (host string, movable bool) {
	if len(onlyActive(n.Active, f)) == 0 {
		return "", false
	}
	for _, request := range n.Requests {
		ip, err := netip.ParseAddr(request.IP)
		if err != nil || FamilyOf(ip) != f || request.State != Active && request.State != Standby {
			continue
		}
		if host != "" && host != request.Host {
			return "", false
		}
		host = request.Host
		h, _ := c.Host(host)
		movable = movable || h.manages(ip)
	}
	return host, movable
}
