package neigh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// Announce announces that the addresses are at a device now: by a gratuitous ARP
// reply and a gratuitous ARP request for each, since some switches and hosts heed
// one and some the other; those of IPv6 by an unsolicited neighbour advertisement. A device
// without link-layer addresses needs no announcement.
func Announce(link netlink.Link, ips []netip.Addr) (err error) {
	if len(ips) == 0 {
		return nil
	}
	s, ok, err := openLAN(link, hasIPv6(ips))
	if err != nil || !ok {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var errs []error
	for _, ip := range ips {
		var reply error
		if ip.Is4() {
			reply = s.arp.send(arpMessage{op: arpReply, senderMAC: s.arp.mac, senderIP: ip, targetMAC: broadcastMAC(), targetIP: ip})
		}
		if err := errors.Join(reply, s.announce(ip)); err != nil {
			errs = append(errs, fmt.Errorf("announce %v on %s: %w", ip, link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

// repeatAfter returns the seconds after which an announcement is repeated.
func repeatAfter() []int { return []int{1, 5} }

// Announcer repeats announcements: the first is easily lost. The zero Announcer is
// ready for use, by several goroutines.
type Announcer struct {
	mu  sync.Mutex
	due map[netip.Addr]announced
}

// announced is an address that was announced at a device, and how many seconds ago.
type announced struct {
	link    netlink.Link
	seconds int
}

// Add schedules the repetitions for addresses that were announced at a device.
func (a *Announcer) Add(link netlink.Link, ips []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.due == nil {
		a.due = map[netip.Addr]announced{}
	}
	for _, ip := range ips {
		a.due[ip] = announced{link: link}
	}
}

// Stop ends the announcements of an address that is about to be deleted: none may
// be sent once another host has it.
func (a *Announcer) Stop(ip netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.due, ip)
}

// Run repeats what is due until ctx ends.
func (a *Announcer) Run(ctx context.Context) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-second.C:
			a.repeat()
		}
	}
}

// repeat announces what is due in this second. It holds the lock meanwhile, so
// that nothing is announced after Stop.
func (a *Announcer) repeat() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := map[int][]netip.Addr{}
	at := map[int]netlink.Link{}
	for ip, d := range a.due {
		d.seconds++
		a.due[ip] = d
		if slices.Contains(repeatAfter(), d.seconds) {
			index := d.link.Attrs().Index
			now[index], at[index] = append(now[index], ip), d.link
		}
		if d.seconds > slices.Max(repeatAfter()) {
			delete(a.due, ip)
		}
	}
	for index, ips := range now {
		slices.SortFunc(ips, netip.Addr.Compare)
		// A failure of the first announcement was reported; the repetitions are a
		// precaution.
		_ = Announce(at[index], ips)
	}
}
