package neigh

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The pace of a Watch.
const (
	// defendEvery is the least time between two defences of an address (RFC 5227).
	defendEvery = 10 * time.Second
	// askAgainAfter is the greatest time between two questions about an address that
	// another machine has.
	askAgainAfter = 5 * time.Second
	// unansweredUntilGone is how many questions without an answer end a conflict.
	unansweredUntilGone = 3
	// maxTurns bounds how many addresses have their turn in one look.
	maxTurns = 64
	// maxHeard bounds how many packets one look takes of each protocol.
	maxHeard = 4096
	// watchBuffer holds, in bytes, what comes between two looks.
	watchBuffer = 1 << 20
)

// Watch finds out which other machines have the addresses of this host, for as long as
// it has them, and defends these. It also repeats their announcements. The zero Watch
// is ready for use, by one goroutine.
type Watch struct {
	lan  lan
	open bool
	// running: the device had a carrier at the last look.
	running bool
	held    map[netip.Addr]*heldAddress
	// everybody are machines that answer for addresses that nobody has, and when they
	// last did.
	everybody map[string]time.Duration
}

// heldAddress is an address of this host.
type heldAddress struct {
	turnAt time.Duration // when it is announced and asked about next
	// by is the machine that has it too, nil for none; it was heard at heardAt.
	by         net.HardwareAddr
	heardAt    time.Duration
	defended   bool
	defendedAt time.Duration
}

// Look is what one look of a Watch depends on.
type Look struct {
	// Link is the device that has the addresses, IPs these.
	Link netlink.Link
	IPs  []netip.Addr
	// Now is the time by a clock that never goes back.
	Now time.Duration
	// Every is the time between two announcements of an address, each with a question
	// about it; 0 for none.
	Every time.Duration
	// Nobodys are addresses that no machine has: one that answers for them answers for
	// every address.
	Nobodys []netip.Addr
	// Ignore reports whether a machine's answers do not count; nil for none.
	Ignore func(net.HardwareAddr) bool
	// Deaf: only announce.
	Deaf bool
}

// Sight is what one look of a Watch found.
type Sight struct {
	// Owners has the MAC address of the other machine that has an address.
	Owners map[netip.Addr]net.HardwareAddr
	// Everybody are machines that answer for every address.
	Everybody []string
	// Moved: the device has another MAC address, or a carrier again, or is another
	// device, so that all addresses must be announced again.
	Moved bool
}

// Close gives up the socket.
func (w *Watch) Close() error {
	if !w.open {
		return nil
	}
	w.open = false
	return w.lan.close()
}

// Look hears what was said since the last look, and says what is due. A device without
// link-layer addresses has no other machines.
func (w *Watch) Look(l Look) (s Sight, err error) {
	s.Moved, err = w.follow(l.Link, hasIPv6(l.IPs))
	if err != nil || !w.open {
		return s, err
	}
	// What other machines say of an address that was added since the last look, they
	// may have said when it was theirs; of one that has gone since, it may be theirs.
	w.release(l.IPs)
	heard, err := w.hear(l)
	if !l.Deaf {
		w.judge(l, heard)
	}
	w.hold(l)
	return w.report(s), errors.Join(err, w.defend(l, heard), w.takeTurns(l))
}

// Heard notes that a machine has said to have an address of this host.
func (w *Watch) Heard(ip netip.Addr, mac net.HardwareAddr, now time.Duration) {
	if w.held == nil {
		w.held = map[netip.Addr]*heldAddress{}
	}
	w.held[ip] = &heldAddress{turnAt: now, by: mac, heardAt: now}
}

// release ends the watch of addresses that the host has no longer.
func (w *Watch) release(ips []netip.Addr) {
	stay := 0
	for _, ip := range ips {
		if w.held[ip] != nil {
			stay++
		}
	}
	if stay == len(w.held) {
		return
	}
	still := make(map[netip.Addr]bool, len(ips))
	for _, ip := range ips {
		still[ip] = true
	}
	maps.DeleteFunc(w.held, func(ip netip.Addr, _ *heldAddress) bool { return !still[ip] })
}

// AnswersForAll notes that a machine answers for every address.
func (w *Watch) AnswersForAll(mac net.HardwareAddr, now time.Duration) {
	if w.everybody == nil {
		w.everybody = map[string]time.Duration{}
	}
	w.everybody[mac.String()] = now
}

// follow opens the segment where the device is another one, or has another MAC address.
func (w *Watch) follow(link netlink.Link, withIPv6 bool) (moved bool, err error) {
	attrs := link.Attrs()
	running := attrs.RawFlags&unix.IFF_RUNNING != 0
	back := running && !w.running
	w.running = running
	if arp := w.lan.arp; w.open && arp.link == attrs.Index && bytes.Equal(arp.mac, attrs.HardwareAddr) {
		if withIPv6 && w.lan.nd == nil {
			err = w.lan.addIPv6(link)
			w.widen()
		}
		return back, err
	}
	known := w.open
	if err := w.Close(); err != nil {
		return false, fmt.Errorf("close packet sockets: %w", err)
	}
	w.lan, w.open, err = openLAN(link, withIPv6)
	if err != nil || !w.open {
		return false, err
	}
	w.widen()
	return known && running, nil
}

// widen gives the sockets room for what comes between two looks. Without CAP_NET_ADMIN the
// buffers keep their size: a storm is heard in part.
func (w *Watch) widen() {
	for _, s := range w.lan.sockets() {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer)
	}
}

// hear takes what came in since the last look: for each address, who said to have it.
func (w *Watch) hear(l Look) (map[netip.Addr][]net.HardwareAddr, error) {
	heard := map[netip.Addr][]net.HardwareAddr{}
	err := w.lan.heardOf(maxHeard, func(c claim) {
		switch {
		case bytes.Equal(c.mac, w.lan.arp.mac):
		case slices.Contains(l.Nobodys, c.ip):
			w.AnswersForAll(c.mac, l.Now)
		case w.held[c.ip] != nil:
			heard[c.ip] = append(heard[c.ip], c.mac)
		}
	})
	return heard, err
}

// judge notes which machines have addresses of this host, and forgets those that have
// not been heard of for long.
func (w *Watch) judge(l Look, heard map[netip.Addr][]net.HardwareAddr) {
	maps.DeleteFunc(w.everybody, func(_ string, at time.Duration) bool {
		return l.Every > 0 && l.Now-at > unansweredUntilGone*(l.Every+askAgainAfter)
	})
	for ip, h := range w.held {
		for _, mac := range heard[ip] {
			if !w.answersForAll(mac) && (l.Ignore == nil || !l.Ignore(mac)) {
				if h.by == nil {
					h.turnAt = l.Now + l.askAgain()
				}
				h.by, h.heardAt = mac, l.Now
			}
		}
		if h.by != nil && (w.answersForAll(h.by) || l.Now-h.heardAt > unansweredUntilGone*l.askAgain()) {
			h.by = nil
		}
	}
}

func (w *Watch) answersForAll(mac net.HardwareAddr) bool {
	_, all := w.everybody[mac.String()]
	return all
}

// askAgain is the time between two questions about an address that another machine has.
func (l Look) askAgain() time.Duration {
	if l.Every == 0 {
		return askAgainAfter
	}
	return min(l.Every, askAgainAfter)
}

// hold begins to watch new addresses. Their turns are spread over time.
func (w *Watch) hold(l Look) {
	if w.held == nil {
		w.held = map[netip.Addr]*heldAddress{}
	}
	for i, ip := range l.IPs {
		if w.held[ip] == nil {
			w.held[ip] = &heldAddress{turnAt: l.Now + l.Every*time.Duration(i%maxTurns+1)/maxTurns}
		}
	}
}

func (w *Watch) report(s Sight) Sight {
	s.Owners = map[netip.Addr]net.HardwareAddr{}
	for ip, h := range w.held {
		if h.by != nil {
			s.Owners[ip] = h.by
		}
	}
	s.Everybody = slices.Sorted(maps.Keys(w.everybody))
	return s
}

// defend announces addresses that another machine has just said to have.
func (w *Watch) defend(l Look, heard map[netip.Addr][]net.HardwareAddr) error {
	var errs []error
	for ip := range heard {
		h := w.held[ip]
		if h == nil || h.by == nil || h.defended && l.Now-h.defendedAt < defendEvery {
			continue
		}
		h.defended, h.defendedAt = true, l.Now
		errs = append(errs, w.say(l, ip, w.lan.announce))
	}
	return errors.Join(errs...)
}

// takeTurns announces the addresses whose turn it is, and asks who else has them.
func (w *Watch) takeTurns(l Look) error {
	var turns []netip.Addr
	for ip, h := range w.held {
		if h.by == nil && l.Every == 0 {
			continue
		}
		if h.turnAt <= l.Now {
			turns = append(turns, ip)
		}
	}
	slices.SortFunc(turns, func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(w.held[a].turnAt, w.held[b].turnAt), a.Compare(b))
	})
	turns = turns[:min(len(turns), maxTurns)]
	var errs []error
	for _, ip := range turns {
		h := w.held[ip]
		h.turnAt = l.Now + l.Every
		if h.by != nil {
			// Its announcements are defences.
			h.turnAt = l.Now + l.askAgain()
		} else {
			errs = append(errs, w.say(l, ip, w.lan.announce))
		}
		if !l.Deaf {
			errs = append(errs, w.say(l, ip, w.lan.ask))
		}
	}
	if len(turns) > 0 && !l.Deaf {
		for _, ip := range l.Nobodys {
			if ip.Is6() && w.lan.nd == nil {
				continue
			}
			errs = append(errs, w.say(l, ip, w.lan.ask))
		}
	}
	return errors.Join(errs...)
}

// say sends a message. A device that is down has nobody to hear it.
func (w *Watch) say(l Look, ip netip.Addr, send func(netip.Addr) error) error {
	err := send(ip)
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("speak about %v on %s: %w", ip, l.Link.Attrs().Name, err)
	}
	return nil
}
