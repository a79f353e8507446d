package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/clock"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/neigh"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// ARPProbe says what an answer of another machine for an egress IP means.
type ARPProbe string

// The ways to take answers.
const (
	// ARPStrict: an egress IP that another machine answers for is not added. The zero
	// value means the same.
	ARPStrict ARPProbe = "strict"
	// ARPWarn: it is added, and reported.
	ARPWarn ARPProbe = "warn"
	// ARPOff: nobody is asked, and nobody heard.
	ARPOff ARPProbe = "off"
)

// probe asks the segments of the interfaces by ARP for other owners of the addresses.
func (r *round) probe(ctx context.Context, pending []netip.Addr) {
	r.probed = true
	if r.uplinkErr != nil {
		for _, ip := range pending {
			r.unusable[ip] = r.uplinkErr
		}
		return
	}
	for _, place := range r.byPlace(pending) {
		r.probeAt(ctx, place)
	}
}

// probeAt asks the segment of an interface.
func (r *round) probeAt(ctx context.Context, place placed) {
	watch := r.d.watchAt(place.Link.Attrs().Index)
	answers, err := neigh.Ask(ctx, place.Link, place.ips, r.nobodys(place.Uplink))
	now := monotonic()
	for _, mac := range answers.Everybody {
		watch.AnswersForAll(mac, now)
	}
	ignore := r.ignore()
	strict := r.d.cfg.ARPProbe != ARPWarn
	for _, ip := range place.ips {
		macs := slices.DeleteFunc(answers.Owners[ip], ignore)
		switch {
		case len(macs) > 0 && strict:
			r.unusable[ip], r.inUseBy[ip] = fmt.Errorf("%w: %v", errTaken, macs[0]), macs[0].String()
		case len(macs) > 0:
			watch.Heard(ip, macs[0], now)
		case err != nil && strict:
			r.unusable[ip] = err
		}
	}
}

// nobodys are addresses that no machine on the segment has: one reserved for
// documentation, and the network's own. A machine that answers for them answers for
// every address.
func (r *round) nobodys(at address.Uplink) (ips []netip.Addr) {
	if !r.state.overIPv6() {
		ips = append(ips, netip.AddrFrom4([4]byte{203, 0, 113, 1}))
		if at.CIDR.Addr().Is4() && at.CIDR.Bits() < 31 {
			ips = append(ips, at.CIDR.Masked().Addr())
		}
	}
	if r.serve6 {
		// The first address of a network of IPv6 is that of its routers.
		ips = append(ips, netip.AddrFrom16([16]byte{0: 0x3f, 1: 0xff, 15: 1}))
	}
	return ips
}

// watchSegment looks who else has the egress IPs that are on the host's interfaces now, defends
// them, and repeats their announcements. What fails here is a warning.
func (r *round) watchSegment() {
	if r.uplinkErr != nil {
		return
	}
	at := map[int]bool{}
	for _, place := range r.byPlace(sortedAddrs(r.addresses)) {
		at[place.Link.Attrs().Index] = true
		r.watchAt(place)
	}
	if err := r.d.closeWatches(func(link int) bool { return !at[link] }); err != nil {
		r.warn(warning.NotWatching(r.uplink.Name, err))
	}
}

// watchAt returns the watch of an interface.
func (d *Dataplane) watchAt(link int) *neigh.Watch {
	if d.watches == nil {
		d.watches = map[int]*neigh.Watch{}
	}
	if d.watches[link] == nil {
		d.watches[link] = &neigh.Watch{}
	}
	return d.watches[link]
}

// closeWatches closes the watches of some interfaces.
func (d *Dataplane) closeWatches(which func(link int) bool) error {
	var errs []error
	for link, watch := range d.watches {
		if which(link) {
			errs = append(errs, watch.Close())
			delete(d.watches, link)
		}
	}
	return errors.Join(errs...)
}

// watchAt is watchSegment for one interface.
func (r *round) watchAt(place placed) {
	ips := place.ips
	sight, err := r.d.watchAt(place.Link.Attrs().Index).Look(neigh.Look{
		Link: place.Link, IPs: ips, Now: monotonic(), Every: r.d.cfg.AnnounceEvery,
		Nobodys: r.nobodys(place.Uplink), Ignore: r.ignore(), Deaf: r.d.cfg.ARPProbe == ARPOff,
	})
	if err != nil {
		r.warn(warning.NotWatching(place.Name, err))
	}
	if sight.Moved {
		r.d.announcer.Add(place.Link, ips)
		if err := neigh.Announce(place.Link, ips); err != nil {
			r.warn(warning.NotAnnounced(place.Name, err))
		}
	}
	for ip, mac := range sight.Owners {
		r.inUseBy[ip] = mac.String()
	}
	for _, mac := range sight.Everybody {
		if !r.d.ignored[mac] && r.d.cfg.ARPProbe != ARPOff {
			r.warn(warning.AnswersForAll(mac, place.Name))
		}
	}
}

// ignore reports whether what a MAC address says does not count: it is in the list, or
// the host's own. Another interface of the host on the segment answers for all
// addresses of the host, unless arp_ignore forbids it.
func (r *round) ignore() func(net.HardwareAddr) bool {
	var own map[string]bool
	return func(mac net.HardwareAddr) bool {
		if own == nil {
			own = map[string]bool{}
			links, err := nlutil.Whole(r.d.nl.LinkList)
			if err != nil {
				r.warn(warning.NotWatching(r.uplink.Name, fmt.Errorf("the host's own MAC addresses are not known: %w", err)))
			}
			for _, link := range links {
				own[link.Attrs().HardwareAddr.String()] = true
			}
		}
		return r.d.ignored[mac.String()] || own[mac.String()]
	}
}

// monotonic returns the time since an arbitrary moment.
func monotonic() time.Duration { return clock.Monotonic() }

// ignoredMACs is the list as a set.
func ignoredMACs(macs []net.HardwareAddr) map[string]bool {
	set := make(map[string]bool, len(macs))
	for _, mac := range macs {
		set[mac.String()] = true
	}
	return set
}
