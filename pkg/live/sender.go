package live

import (
	"fmt"
	"net/netip"
	"slices"
)

// sender compares what the pod's host has.
func (c *checks) sender(want WantSender, have *Sender) {
	if have == nil {
		c.add("what the host has for the pod", "known", "not read", Unknown)
		return
	}
	c.way(want, *have)
	locked := want.Kind != AsIs
	c.is("the pod in set egress-locked", locked, have.Locked)
	if locked {
		c.link(*have)
	}
	c.same("networks in set egress-excluded for the pod", prefixes(want.Excluded), prefixes(have.Excluded), excludedVerdict(want, *have))
	if want.Kind == ByOverlay {
		c.route(want, have.Route)
		for _, via := range want.Via {
			c.neighbour(via, have.Via)
		}
	} else {
		c.is("the pod's entry in map egress_pods", false, have.Route != nil)
	}
	c.destination(want.Inside, have.Inside)
	if want.Kind == Dropped || want.Kind == Refused {
		return
	}
	c.outOfSender(want, *have)
}

func excludedVerdict(want WantSender, have Sender) Verdict {
	if len(have.Excluded) < len(want.Excluded) {
		return Missing
	}
	return Stale
}

// way compares the way that the pod's packets are given.
func (c *checks) way(want WantSender, have Sender) {
	const object = "the pod in map egress-marks and set egress-pods"
	meant := wayOf(want)
	if !have.Known {
		c.add(object, meant, "not there: unknown pods are dropped by strict mode, and else leave as without egress IPs", Missing)
		return
	}
	if have.Way == WayUnclear {
		c.add(object, meant, "one of both lacks it, or has it in a form that is none of ours", Missing)
		return
	}
	if want.Kind == Refused && have.Way == WayNode && have.Locked {
		// Where IPv6 is not served, its packets get no marks, and the lock alone refuses them.
		c.add(object, meant, string(have.Way)+", and locked", OK)
		return
	}
	is := string(have.Way)
	if have.Way == WayHere {
		is += " with " + orNone(have.Source)
	}
	verdict := Stale
	if have.Way == WayHere && !have.Source.IsValid() {
		verdict = Missing
	}
	c.same(object, meant, is, verdict)
}

// wayOf is the way that a kernel gives what should be of a kind.
func wayOf(want WantSender) string {
	switch want.Kind {
	case Here:
		return string(WayHere) + " with " + want.Source.String()
	case ByOverlay, Dropped:
		return string(WayOverlay)
	case Refused:
		return string(WayRefused)
	case AsIs:
	}
	return string(WayNode)
}

func (c *checks) link(have Sender) {
	const object = "the link that the pod's address belongs to"
	if have.BoundTo == "" {
		c.add(object, "one, which leads to the pod", "none: sources are not checked", Missing)
		return
	}
	c.add(object, "one, which leads to the pod", have.BoundTo, OK)
}

func (c *checks) route(want WantSender, have *Route) {
	const object = "the pod's entry in map egress_pods"
	meant := routeText(Route{NetID: want.NetID, Via: want.Via})
	if have == nil {
		c.add(object, meant, "not there: the pod's packets are dropped at the overlay", Missing)
		return
	}
	c.same(object, meant, routeText(*have), Stale)
}

func routeText(r Route) string {
	via := slices.Clone(r.Via)
	slices.SortFunc(via, netip.Addr.Compare)
	return fmt.Sprintf("network %d to %s", r.NetID, texts(via))
}

func (c *checks) neighbour(via netip.Addr, have []Neighbour) {
	i := slices.IndexFunc(have, func(n Neighbour) bool { return n.Host == via })
	if i < 0 {
		c.add(fmt.Sprintf("the way to egress host %v", via), "known", "not read", Unknown)
		return
	}
	c.is(fmt.Sprintf("egress host %v in set egress-hosts", via), true, have[i].Listed)
	object := fmt.Sprintf("the route of outer packets to %v", via)
	if text := have[i].Out.Error; text != "" {
		c.add(object, "by an interface", text, Foreign)
		return
	}
	c.add(object, "by an interface", have[i].Out.text(), OK)
}

func (c *checks) destination(want, have bool) {
	c.is("the destination in set egress-inside", want, have)
}

// outOfSender compares where the kernel sends the pod's packets.
func (c *checks) outOfSender(want WantSender, have Sender) {
	object, out := "the route of the pod's packet", have.Out
	switch {
	case out.Filtered:
		c.add(object, "a route", "dropped by the reverse path filter of "+orDash(have.Interface)+": "+out.Error, Foreign)
	case out.Error != "":
		c.add(object, "a route", out.Error, Missing)
	case want.Kind == ByOverlay && !want.Inside && !want.Past && out.Interface != OverlayName:
		c.add(object, "by "+OverlayName, out.text(), Foreign)
	case out.Interface == OverlayName && (want.Kind != ByOverlay || want.Inside || want.Past):
		c.add(object, "not by "+OverlayName, out.text(), Stale)
	default:
		c.add(object, "a route", out.text(), OK)
	}
}
