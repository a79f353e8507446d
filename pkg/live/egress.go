package live

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// egress compares what the egress host has.
func (c *checks) egress(want WantEgress, have *Egress) {
	if have == nil {
		c.add("what the host has for the egress IP", "known", "not read", Unknown)
		return
	}
	remote := want.From.IsValid()
	if remote {
		c.is(fmt.Sprintf("the pod's host %v in set egress-hosts", want.From), true, have.Sender)
		c.served(want, *have)
		if r := have.Returns; r != nil {
			c.same("the pod's entry in map egress_returns, learned from its packets", routeText(Route{NetID: want.NetID, Via: []netip.Addr{want.From}}), routeText(*r), Stale)
		}
	}
	c.is(fmt.Sprintf("source NAT to %v", want.EgressIP), true, have.Index)
	c.is(fmt.Sprintf("%v in set egress-ips", want.EgressIP), true, have.Listed)
	c.address(want, *have)
	c.guard(want, *have)
	if remote {
		c.is("the destination in set egress-inside", want.Inside, have.Inside)
	}
	if want.Inside {
		return
	}
	c.outOfEgress(want, *have)
}

func (c *checks) served(want WantEgress, have Egress) {
	object, meant := fmt.Sprintf("network %d in map egress_hosted", want.NetID), "leads to "+want.EgressIP.String()
	switch {
	case !have.Served:
		c.add(object, meant, "not there: what comes over the overlay is dropped", Missing)
	case !have.Source.IsValid():
		c.add(object, meant, fmt.Sprintf("mark %#x, to which no source NAT belongs: dropped", have.Mark), Missing)
	default:
		c.same(object, meant, "leads to "+have.Source.String(), Stale)
	}
}

func (c *checks) address(want WantEgress, have Egress) {
	object := fmt.Sprintf("address %v on an interface", want.EgressIP)
	meant := "one interface"
	if want.Interface != "" {
		meant = want.Interface
	}
	texts := make([]string, 0, len(have.Addresses))
	verdict := OK
	for _, a := range have.Addresses {
		text := a.Interface
		switch {
		case !a.Ours:
			text, verdict = text+", not from here", Foreign
		case !a.Up:
			text, verdict = text+", which is down", cmp.Or(keep(verdict), Foreign)
		}
		texts = append(texts, text)
	}
	switch {
	case len(have.Addresses) == 0:
		c.add(object, meant, "on none", Missing)
		return
	case verdict != OK:
	case len(have.Addresses) > 1, want.Interface != "" && have.Addresses[0].Interface != want.Interface:
		verdict = Stale
	}
	c.add(object, meant, strings.Join(texts, "; "), verdict)
}

// keep is a verdict that is not OK.
func keep(v Verdict) Verdict {
	if v == OK {
		return ""
	}
	return v
}

// guard compares what the guard does where the address stands.
func (c *checks) guard(want WantEgress, have Egress) {
	if len(have.Addresses) == 0 {
		return
	}
	at := have.Addresses[0].Interface
	object := "the guard at " + at
	meant := "lets " + want.EgressIP.String() + " pass with its mark alone"
	i := slices.IndexFunc(have.Guards, func(g Guard) bool { return g.Interface == at })
	switch {
	case i < 0:
		c.add(object, meant, "not there", Missing)
	case have.Guards[i].Elsewhere:
		c.add(object, meant, "drops it, as belonging to another interface", Stale)
	case !have.Guards[i].Known:
		c.add(object, meant, "does not know it: drops what has a mark of an egress IP", Missing)
	case have.Index && have.Guards[i].Mark != have.OwnMark:
		c.add(object, meant, fmt.Sprintf("lets it pass with mark %#x, and the rules give %#x", have.Guards[i].Mark, have.OwnMark), Stale)
	default:
		c.add(object, meant, meant, OK)
	}
}

// outOfEgress compares where the kernel sends packets with the egress IP, and what it does with
// answers.
func (c *checks) outOfEgress(want WantEgress, have Egress) {
	object, out := "the route of the packet from the egress host", have.Out
	switch {
	case out.Filtered:
		c.add(object, "a route", "dropped by the reverse path filter: "+out.Error, Foreign)
		return
	case out.Error != "":
		c.add(object, "a route", out.Error, Missing)
		return
	case out.Interface == OverlayName:
		c.add(object, "not by "+OverlayName, out.text(), Foreign)
		return
	}
	c.add(object, "a route", out.text(), OK)
	object = "answers to " + want.EgressIP.String() + " at " + orDash(out.Interface)
	switch back := have.Back; {
	case back.Filtered:
		c.add(object, "taken", "dropped by the reverse path filter: "+back.Error, Foreign)
	case back.Error != "":
		c.add(object, "taken", back.Error, Missing)
	case !back.Local:
		c.add(object, "taken", "forwarded: "+back.text(), Missing)
	default:
		c.add(object, "taken", "taken", OK)
	}
}
