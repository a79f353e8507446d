package dataplane

import (
	"context"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// heard gives, for each address, how many frames announced it until the last,
// an announcement of the address end, has come.
func heard(t *testing.T, s arpSocket, end netip.Addr) map[netip.Addr]int {
	t.Helper()
	count := map[netip.Addr]int{}
	soon, cancel := context.WithTimeout(t.Context(), patience)
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
	host, other := newMachine(t, "host"), newMachine(t, "other")
	connect(t, host, "eth0", []string{"192.0.2.1/24"}, other, "eth0", nil)
	u, err := findUplink(host.Handle(t), addr("192.0.2.1"))
	must(t, err)
	var hearer arpSocket
	other.Do(t, func() {
		link, err := netlink.LinkByName("eth0")
		must(t, err)
		hearer, _, err = openARP(uplink{link: link, name: "eth0"})
		must(t, err)
	})
	t.Cleanup(func() { must(t, hearer.close()) })

	stays, goes, end := addr("192.0.2.200"), addr("192.0.2.201"), addr("192.0.2.99")
	var a announcements
	a.add(u, []netip.Addr{stays, goes})
	var total []int
	for second := 1; second <= 8; second++ {
		if second == 3 {
			a.stop(goes)
		}
		host.Do(t, func() {
			a.repeat()
			must(t, announce(u, []netip.Addr{end}))
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
