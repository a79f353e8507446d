package neigh

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// one is the address that tests of the watch are about.
const one = "192.0.2.200"

// segment is a host that watches 192.0.2.200 and .201, and another machine.
type segment struct {
	t           *testing.T
	host, other *netnstest.Machine
	handle      *netlink.Handle
	watch       Watch
	look        Look
	hearer      arpSocket
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{t: t, host: netnstest.New(t, "host"), other: netnstest.New(t, "other")}
	netnstest.Connect(t, s.host, "eth0", []string{"192.0.2.1/24"}, s.other, "eth0", []string{"192.0.2.9/24"})
	s.handle = s.host.Handle(t)
	s.look = Look{
		IPs:     []netip.Addr{testenv.Addr("192.0.2.200"), testenv.Addr("192.0.2.201")},
		Every:   time.Minute,
		Nobodys: []netip.Addr{testenv.Addr("203.0.113.1")},
	}
	s.other.Do(t, func() {
		link, err := netlink.LinkByName("eth0")
		must(t, err)
		s.hearer, _, err = openARP(link)
		must(t, err)
	})
	t.Cleanup(func() { must(t, s.watch.Close()); must(t, s.hearer.close()) })
	return s
}

// answerAll makes the other machine answer for every address.
func (s *segment) answerAll() {
	s.t.Helper()
	var all arpSocket
	s.other.Do(s.t, func() {
		link, err := netlink.LinkByName("eth0")
		must(s.t, err)
		all, _, err = openARP(link)
		must(s.t, err)
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			m, ok, err := all.receive(ctx)
			if err != nil || !ok || m.op != arpRequest || m.senderIP == m.targetIP {
				continue
			}
			_ = all.send(arpMessage{op: arpReply, senderMAC: all.mac, senderIP: m.targetIP, targetMAC: m.senderMAC, targetIP: m.senderIP})
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
		must(s.t, all.close())
	})
}

// after looks again when some time has passed, and returns what was found, and how
// often the other machine heard each address announced since the last look.
func (s *segment) after(d time.Duration) (Sight, map[netip.Addr]int) {
	s.t.Helper()
	s.look.Now += d
	var sight Sight
	end := testenv.Addr("192.0.2.99")
	s.host.Do(s.t, func() {
		link, err := s.handle.LinkByName("eth0")
		must(s.t, err)
		s.look.Link = link
		sight, err = s.watch.Look(s.look)
		must(s.t, err)
		must(s.t, Announce(link, []netip.Addr{end}))
	})
	return sight, heard(s.t, s.hearer, end)
}

// answered looks until the machine's answer to a question is there, or for a while.
func (s *segment) answered(want bool) (sight Sight) {
	s.t.Helper()
	deadline := time.Now().Add(testenv.Stretch(patience))
	if !want {
		deadline = time.Now().Add(testenv.Stretch(100 * time.Millisecond))
	}
	for time.Now().Before(deadline) {
		if sight, _ = s.after(0); len(sight.Owners) > 0 == want && want {
			return sight
		}
	}
	if len(sight.Owners) > 0 != want {
		s.t.Fatalf("owners %v, want some: %t", sight.Owners, want)
	}
	return sight
}

// given: addresses of this host; when a minute has passed, then each has been announced
// once, and another machine that has taken one is found; when that has given it up, it
// is forgotten. It is defended at most every ten seconds meanwhile.
func TestWatchFindsAnotherOwnerAndDefends(t *testing.T) {
	s := newSegment(t)
	ip := testenv.Addr(one)
	if sight, said := s.after(0); len(sight.Owners)+len(said) > 0 || sight.Moved {
		t.Fatalf("at first: %+v, said %v", sight, said)
	}
	s.other.Run(t, "ip address add 192.0.2.200/32 dev eth0")
	if _, said := s.after(time.Minute); said[ip] != 1 || said[testenv.Addr("192.0.2.201")] != 1 {
		t.Fatalf("announced %v", said)
	}
	sight := s.answered(true)
	if mac := sight.Owners[ip]; mac == nil || len(sight.Owners) != 1 || sight.Everybody != nil {
		t.Fatalf("found %+v", sight)
	}
	total := 0
	for range 20 {
		sight, said := s.after(time.Second)
		total += said[ip]
		if len(sight.Owners) == 0 {
			t.Fatal("the other owner is forgotten while it answers")
		}
		s.answered(true)
	}
	if total > 2 {
		t.Errorf("defended %d times in 20 seconds", total)
	}
	s.other.Run(t, "ip address delete 192.0.2.200/32 dev eth0")
	for range 4 {
		s.after(askAgainAfter)
	}
	if sight, _ := s.after(time.Second); len(sight.Owners) != 0 {
		t.Errorf("still found: %v", sight.Owners)
	}
}

// given: a machine that announces an address of this host by itself; then it is found
// without a question. One whose answers do not count is not, nor one that spoke before
// the address was here.
func TestWatchHearsAnnouncements(t *testing.T) {
	s := newSegment(t)
	s.look.Every = 0
	claims := func() {
		s.other.Do(t, func() {
			link, err := netlink.LinkByName("eth0")
			must(t, err)
			must(t, Announce(link, []netip.Addr{testenv.Addr(one)}))
		})
	}
	all := s.look.IPs
	s.look.IPs = all[1:]
	s.after(0)
	claims()
	s.look.IPs = all
	s.answered(false)
	claims()
	mac := s.answered(true).Owners[testenv.Addr(one)]
	s.look.IPs = all[1:]
	s.answered(false)
	s.look.IPs, s.look.Ignore = all, func(m net.HardwareAddr) bool { return m.String() == mac.String() }
	s.after(0)
	claims()
	s.answered(false)
	s.look.Ignore, s.look.Deaf = nil, true
	claims()
	s.answered(false)
}

// given: a machine that answers for every address; then it is reported, and is no
// other owner.
func TestWatchKnowsWhoAnswersForEverybody(t *testing.T) {
	s := newSegment(t)
	s.answerAll()
	s.after(0)
	s.after(time.Minute)
	testenv.UntilWithin(t, patience, "the machine is told", func() bool {
		sight, _ := s.after(0)
		return len(sight.Everybody) == 1
	})
	if sight := s.answered(false); len(sight.Owners) != 0 {
		t.Errorf("owners %v", sight.Owners)
	}
	var got Answers
	s.host.Do(t, func() {
		link, err := s.handle.LinkByName("eth0")
		must(t, err)
		got, err = Ask(t.Context(), link, s.look.IPs, s.look.Nobodys)
		must(t, err)
	})
	if len(got.Owners) != 0 || len(got.Everybody) != 1 {
		t.Errorf("asked: %+v", got)
	}
}

func TestWatchTellsWhenTheDeviceHasMoved(t *testing.T) {
	s := newSegment(t)
	s.after(0)
	s.host.Run(t, "ip link set eth0 address 02:00:00:00:00:77")
	if sight, _ := s.after(0); !sight.Moved {
		t.Error("another MAC address goes unnoticed")
	}
	s.other.Run(t, "ip link set eth0 down")
	if sight, err := s.lookOnce(); sight.Moved || err != nil {
		t.Errorf("without carrier: %+v, %v", sight, err)
	}
	s.other.Run(t, "ip link set eth0 up")
	testenv.UntilWithin(t, patience, "the carrier is back", func() bool {
		sight, err := s.lookOnce()
		return err == nil && sight.Moved
	})
	if sight, _ := s.lookOnce(); sight.Moved {
		t.Error("moved twice")
	}
}

func (s *segment) lookOnce() (sight Sight, err error) {
	s.host.Do(s.t, func() {
		s.look.Link, err = s.handle.LinkByName("eth0")
		must(s.t, err)
		sight, err = s.watch.Look(s.look)
	})
	return sight, err
}
