package dataplane

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/podlink"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// An address of a pod with egress IPs belongs to the link that leads to the pod: no other
// pod can send with it, and the pod can send with nothing else. Else a pod would get
// another one's egress IP, or get rid of its own, by what it writes into its packets.

// unboundFor is how long it may be unknown which link an address has: pods come and go.
const unboundFor = 30 * time.Second

// linkSight is what was last seen of the links of pods.
type linkSight struct {
	facts podlink.Facts
	// pods are those that the facts are about, at is when they were read.
	pods []netip.Addr
	at   time.Duration
	// renewed is when the kernel was told last that an agent looks after the links.
	renewed *time.Duration
	// absent: there are no tables of links that could be told.
	absent bool
	// unbound is since when it is unknown which link an address has.
	unbound map[netip.Addr]time.Duration
}

// linkPlan is what links may send with: while ways of pods change, and from then on where
// that is something else.
type linkPlan struct {
	meanwhile nftables.Links
	finally   *nftables.Links
}

// planLinks decides what links may send with. A pod whose lock ends keeps its address for
// itself until then.
func (r *round) planLinks(observed, desired kernel) (plan linkPlan) {
	locked := maps.Clone(desired.locked)
	maps.Copy(locked, observed.locked)
	if len(locked) == 0 {
		return plan
	}
	all := maps.Clone(locked)
	for ip := range desired.pods {
		all[ip] = struct{}{}
	}
	pods := sortedAddrs(all)
	facts, err := r.d.linkFacts(pods)
	if err != nil {
		r.warnOfPods(warning.SourcesNotChecked(err))
	}
	former := observed.links.Bound()
	finally := bindLinks(facts, pods, desired.locked, former)
	plan.meanwhile = holdHeirs(bindLinks(facts, pods, locked, former), former, observed.links.Guarded())
	if r.state.Strict && err == nil {
		finally.Known = knownAside(desired.pods, finally)
		both := maps.Clone(desired.pods)
		maps.Copy(both, observed.pods)
		plan.meanwhile.Known = knownAside(both, plan.meanwhile)
	}
	if !reflect.DeepEqual(finally, plan.meanwhile) {
		plan.finally = &finally
	}
	r.warnUnbound(finally.Unbound)
	return plan
}

// observeLinks reads what links may send with. Nothing else depends on it.
func observeLinks(_ context.Context, v view, k *kernel) error {
	links, err := v.d.nft.ObserveLinks()
	if err != nil {
		k.warnings = append(k.warnings, warning.SourcesNotChecked(err))
		return nil
	}
	k.links = links
	return nil
}

// linkFacts reads which links lead to pods. It does so at once for other pods; else what was
// read counts for some seconds, as with 110 pods to read takes milliseconds. A link that is
// new meanwhile may send with no address of these pods.
func (d *Dataplane) linkFacts(pods []netip.Addr) (podlink.Facts, error) {
	rest := lookEvery
	if d.relinked.Load() {
		rest = lookSoon
	}
	if d.watched.Load() && slices.Equal(d.links.pods, pods) && monotonic()-d.links.at < rest {
		return d.links.facts, nil
	}
	d.relinked.Store(false)
	facts, err := podlink.Read(d.nl, pods)
	d.links.facts, d.links.pods, d.links.at = facts, pods, monotonic()
	if err != nil {
		d.links.pods = nil // read again in the next pass
	}
	return facts, err
}

// bindLinks decides what links may send with, from what the host says about them. locked
// are the pods with egress IPs, former is which link had which address before. It is pure.
//
// Where the address's route leads is the CNI's word. Which port of a bridge has it is that
// of the pod's own network namespace, which a pod with NET_ADMIN can change: a link keeps
// an address until another one alone has it, and of several links none gets it.
func bindLinks(f podlink.Facts, pods []netip.Addr, locked map[netip.Addr]struct{}, former map[netip.Addr]int) nftables.Links {
	found, taken := map[netip.Addr]int{}, map[int]bool{}
	for _, ip := range pods {
		if link := seenAt(f, ip, former[ip]); link != 0 {
			found[ip], taken[link] = link, true
		}
	}
	out := nftables.Links{Sources: map[int][]netip.Addr{}}
	for _, ip := range pods {
		if _, must := locked[ip]; !must {
			continue
		}
		link := found[ip]
		if before := f.Links[former[ip]]; link == 0 && before.Crosses && before.Master == f.Routes[ip] && before.Master != 0 &&
			len(f.Holders(before.Master, ip)) == 0 && !taken[former[ip]] {
			link, found[ip] = former[ip], former[ip]
		}
		if link == 0 {
			out.Unbound = append(out.Unbound, ip)
			continue
		}
		out.Guarded = append(out.Guarded, ip)
		out.Sources[link] = nil
	}
	for _, ip := range pods {
		if _, bound := out.Sources[found[ip]]; bound {
			out.Sources[found[ip]] = append(out.Sources[found[ip]], ip)
		}
	}
	for index, l := range f.Links {
		switch {
		case l.Crosses:
			out.Pods = append(out.Pods, index)
		case l.Name != overlayName: // which has no packets of pods of this host, and may not be there yet
			out.Others = append(out.Others, index)
		}
	}
	slices.Sort(out.Pods)
	slices.Sort(out.Others)
	return out
}

// holdHeirs has nobody send with an address that another link has than before: it leads to
// another pod, and the way of the address's packets may still be that of the former one.
// guarded are the addresses that belonged to a link, as far as is known.
func holdHeirs(l nftables.Links, former map[netip.Addr]int, guarded map[netip.Addr]struct{}) nftables.Links {
	for link, addrs := range l.Sources {
		l.Sources[link] = slices.DeleteFunc(addrs, func(ip netip.Addr) bool {
			_, before := guarded[ip]
			return before && former[ip] != link
		})
	}
	return l
}

// knownAside returns the addresses of pods that belong to no link. A pod that starts while no
// agent is at work, and gets the address of one that has ended, would be taken for that: with
// the address of one without egress IPs it would leave with the node's.
func knownAside(pods map[netip.Addr]uint32, l nftables.Links) []netip.Addr {
	aside := maps.Clone(pods)
	for _, ip := range slices.Concat(l.Guarded, l.Unbound) {
		delete(aside, ip)
	}
	return sortedAddrs(aside)
}

// seenAt returns the link that leads to a pod; 0 where that is not known.
func seenAt(f podlink.Facts, ip netip.Addr, former int) int {
	via, routed := f.Routes[ip]
	if !routed {
		return 0
	}
	if f.Links[via].Crosses {
		return via
	}
	holders := f.Holders(via, ip)
	switch {
	case len(holders) == 1:
		return holders[0]
	case slices.Contains(holders, former):
		return former
	default:
		return 0
	}
}

// linkChanges adds the changes of what links may send with.
func (c *changes) linkChanges(in orderInput) {
	if !in.observed.links.Is(in.links.meanwhile) {
		c.add(change{phase: phaseLock, op: putLinks, links: in.links.meanwhile})
	}
	if in.links.finally != nil {
		c.add(change{phase: phaseUnlock, op: putLinks, links: *in.links.finally})
	}
}

// attendLinks has the kernel know that an agent looks after the links.
func (r *round) attendLinks() {
	stays := r.stays()
	if recent(r.d.links.renewed, stays) {
		return
	}
	began := monotonic()
	r.d.links.absent = false
	switch there, err := r.d.nft.AttendLinks(stays); {
	case err != nil:
		r.warn(warning.SourcesNotChecked(err))
	case there:
		r.d.links.renewed = &began
	default:
		r.d.links.absent = true
	}
}

// stayWithLinks is attendLinks for an agent that cannot Apply yet, where an agent before it
// is still taken to be there.
func (d *Dataplane) stayWithLinks(stays time.Duration) error {
	there, ends, err := d.nft.LinksAttended()
	if err != nil || !there || !ends {
		return err
	}
	_, err = d.nft.AttendLinks(stays)
	return err
}

// warnUnbound warns of addresses of which it has been unknown for long which link they have.
func (r *round) warnUnbound(unbound []netip.Addr) {
	now, since := monotonic(), map[netip.Addr]time.Duration{}
	var lasting []netip.Addr
	for _, ip := range unbound {
		first, before := r.d.links.unbound[ip]
		if !before {
			first = now
		}
		since[ip] = first
		if (ip.Is4() || r.serve6) && now-first >= unboundFor {
			lasting = append(lasting, ip)
		}
	}
	r.d.links.unbound = since
	if len(lasting) > 0 {
		f := r.d.links.facts
		r.warnOfPods(warning.SourcesUnbound(lasting, f.Links[f.Routes[lasting[0]]].Name))
	}
}
