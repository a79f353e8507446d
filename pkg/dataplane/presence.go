package dataplane

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
)

// An agent that is at work is present in the kernel: in a set whose entries end by
// themselves, and which it renews. Rules that only make sense with an agent look there.
// Without one no new pod becomes known, and it would be dropped for ever.

// renewals is how often presence is renewed before it would end.
const renewals = 4

// stayPresent renews the agent's presence, where there is one and that is due. It comes
// first in a round: what depends on it must not end.
func (r *round) stayPresent() error {
	d, stays := r.d, r.stays()
	if recent(d.renewed, stays) {
		return nil
	}
	d.renewed = new(monotonic())
	var errs []error
	for _, where := range r.presences() {
		present, _, err := d.present(where)
		if present {
			err = d.makePresent(where, stays)
		}
		if !present || err != nil {
			d.renewed = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// appear makes the agent present where it is not. It comes last: until then the sets say
// what was so when an agent was there before.
func (r *round) appear() error {
	if r.d.renewed != nil && r.members.table && r.d.nft.Owned() {
		return nil // nobody else could end it
	}
	began := monotonic()
	var errs []error
	for _, where := range r.presences() {
		present, _, err := r.d.present(where)
		if err == nil && !present {
			err = r.d.makePresent(where, r.stays())
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if err == nil && r.d.renewed == nil {
		r.d.renewed = &began
	}
	return err
}

// stays is how long a presence stays, 0 for good.
func (r *round) stays() time.Duration {
	if r.locksBoot {
		return 0 // until the first pass of an agent
	}
	return max(r.d.cfg.AwayAfter, 0)
}

// presences are where this round's agent must be present.
func (r *round) presences() []presence {
	return slices.DeleteFunc(presences(), func(where presence) bool {
		return where.table != r.members.table || where.ipset == setPresent6 && !r.ipv6
	})
}

// recent reports whether a presence that stays so long need not be renewed yet.
func recent(renewed *time.Duration, stays time.Duration) bool {
	return renewed != nil && (stays == 0 || monotonic()-*renewed < stays/renewals)
}

// StayPresent renews the presence that an agent before this one has left, if it has not
// ended yet. It is for an agent that cannot Apply yet: one that waits for the API server
// for an hour must not let pods out that it does not know.
func (d *Dataplane) StayPresent() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	stays := max(d.cfg.AwayAfter, 0)
	if recent(d.renewed, stays) || recent(d.stayed, stays) {
		return nil
	}
	content, err := d.nft.Observe()
	if err != nil {
		return err
	}
	var errs []error
	for _, where := range presences() {
		if where.table && !content.Has(setPresent) {
			continue
		}
		present, ends, err := d.present(where)
		if present && ends {
			err = d.makePresent(where, stays)
		}
		errs = append(errs, err)
	}
	errs = append(errs, d.stayWithLinks(stays))
	d.stayed = new(monotonic())
	return errors.Join(errs...)
}

// halves are networks that contain every address of a family.
func halves(ipv6 bool) []netip.Prefix {
	if ipv6 {
		return []netip.Prefix{netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1")}
	}
	return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}
}

// presence is where an agent is present: in the table of our own, for both families, or
// in an ipset.
type presence struct {
	table bool
	ipset string
}

func presences() []presence {
	return []presence{{table: true}, {ipset: setPresent}, {ipset: setPresent6}}
}

// makePresent makes an agent present for a time, or for good if that is 0.
func (d *Dataplane) makePresent(where presence, stays time.Duration) error {
	if where.table {
		return d.nft.Renew(stays)
	}
	set, entries := ourSet(where.ipset), ipset.Entries{}
	for _, half := range halves(set.IPv6) {
		entries[half] = ipset.Value{Ends: stays}
	}
	return ipset.Put(set, entries)
}

// present reports whether an agent is present, and whether that ends by itself.
func (d *Dataplane) present(where presence) (present, ends bool, err error) {
	if where.table {
		return d.nft.Present()
	}
	entries, err := ipset.List(where.ipset)
	for _, value := range entries {
		present, ends = true, value.Ends > 0
	}
	return present, ends, err
}
