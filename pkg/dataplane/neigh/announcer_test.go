package neigh

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// patience bounds the wait for anything that takes no time when all is well.
const patience = 10 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	netnstest.Must(t, err)
}

// heard gives, for each address, how many frames announced it until the last,
// an announcement of the address end, has come.
func heard(t *testing.T, s arpSocket, end netip.Addr) map[netip.Addr]int {
	t.Helper()
	count := map[netip.Addr]int{}
	soon, cancel := context.WithTimeout(t.Context(), testenv.Stretch(patience))
	defer cancel()
	for count[end] < 2 { // a request and a reply
		m, ok, err := s.receive(soon)
		must(t, err)
		if !ok {
			t.Fatalf("heard %v only", count)
		}
		if m.senderIP == m.targetIP {
			count[m.senderIP]++
		}
	}
	delete(count, end)
	return count
}

// Kills the mutants that announce without end, or on after the address went.
func TestAnnouncementIsRepeatedTwiceUnlessTheAddressGoes(t *testing.T) {
	host, other := netnstest.New(t, "host"), netnstest.New(t, "other")
	netnstest.Connect(t, host, "eth0", []string{"192.0.2.1/24"}, other, "eth0", nil)
	eth0, err := host.Handle(t).LinkByName("eth0")
	must(t, err)
	var hearer arpSocket
	other.Do(t, func() {
		link, err := netlink.LinkByName("eth0")
		must(t, err)
		hearer, _, err = openARP(link)
		must(t, err)
	})
	t.Cleanup(func() { must(t, hearer.close()) })

	stays, goes, end := testenv.Addr("192.0.2.200"), testenv.Addr("192.0.2.201"), testenv.Addr("192.0.2.99")
	var a Announcer
	a.Add(eth0, []netip.Addr{stays, goes})
	var total []int
	for second := 1; second <= 8; second++ {
		if second == 3 {
			a.Stop(goes)
		}
		host.Do(t, func() {
			a.repeat()
			must(t, Announce(eth0, []netip.Addr{end}))
		})
		got := heard(t, hearer, end)
		total = append(total, got[stays]*10+got[goes])
	}
	// Two frames each after one second; after five, for the one that stays.
	want := []int{22, 0, 0, 0, 20, 0, 0, 0}
	for i := range want {
		if total[i] != want[i] {
			t.Fatalf("frames by second: %v, want %v", total, want)
		}
	}
}

func TestAnnouncementIsARequestAndAReply(t *testing.T) {
	h := netnstest.Enter(t)
	eth0 := addVeth(t, h, "eth0", "seg0", "192.0.2.1/24")
	peer, err := h.LinkByName("seg0")
	must(t, err)
	hearer, ok, err := openARP(peer)
	if err != nil || !ok {
		t.Fatalf("listen: %t, %v", ok, err)
	}
	defer hearer.close()
	must(t, Announce(eth0, []netip.Addr{testenv.Addr("192.0.2.200")}))
	heard := map[uint16]bool{}
	soon, cancel := context.WithTimeout(t.Context(), testenv.Stretch(patience))
	defer cancel()
	for len(heard) < 2 {
		m, ok, err := hearer.receive(soon)
		must(t, err)
		if !ok {
			t.Fatalf("heard operations %v only", heard)
		}
		if m.senderIP == testenv.Addr("192.0.2.200") && m.targetIP == m.senderIP && m.senderMAC.String() == eth0.Attrs().HardwareAddr.String() {
			heard[m.op] = true
		}
	}
}

// Kills the mutant that repeats announcements although there are none: it
// looks at the uplink before there is one.
func TestNothingToAnnounceNeedsNoUplink(t *testing.T) {
	netnstest.Enter(t)
	var a Announcer
	a.repeat()
}
