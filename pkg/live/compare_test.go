package live

import (
	"net/netip"
	"strings"
	"testing"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// asMeant are hosts of a pod whose packets take the overlay, with what they should have.
func asMeant() (sender, egress Host, wantSender, wantEgress Want) {
	pod, from, via, ip := addr("10.244.1.5"), addr("10.1.8.11"), addr("10.1.8.13"), addr("10.1.8.200")
	overlay := func() *Overlay {
		return &Overlay{Exists: true, Up: true, Outward: true, Inward: true, NextHop: true, Filter: 2}
	}
	sender = Host{Overlay: overlay(), Sender: &Sender{
		Known: true, Way: WayOverlay, Mark: 0x1000, Locked: true, Interface: "cni0", BoundTo: "veth1",
		Excluded: []netip.Prefix{prefix("192.0.2.0/25"), prefix("192.0.2.128/25")},
		Route:    &Route{NetID: 17, Via: []netip.Addr{via}}, Via: []Neighbour{{Host: via, Listed: true, Out: Lookup{Interface: "eth0"}}}, Out: Lookup{Interface: OverlayName, Table: 2000},
	}}
	egress = Host{Overlay: overlay(), Egress: &Egress{
		Served: true, Mark: 0x440, Source: ip, Index: true, OwnMark: 0x440, Addresses: []Address{{Interface: "eth0", Up: true, Ours: true}}, Listed: true, Sender: true,
		Guards: []Guard{{Interface: "eth0", Known: true, Mark: 0x440}}, Returns: &Route{NetID: 17, Via: []netip.Addr{from}},
		Out: Lookup{Interface: "eth0", Gateway: addr("10.1.8.1")}, Back: Lookup{Local: true},
	}}
	_ = pod
	wantSender = Want{Host: "node1", Sender: &WantSender{Kind: ByOverlay, NetID: 17, Via: []netip.Addr{via}, Excluded: []netip.Prefix{prefix("192.0.2.0/24")}}}
	wantEgress = Want{Host: "node3", Egress: &WantEgress{EgressIP: ip, Interface: "eth0", NetID: 17, From: from}}
	return sender, egress, wantSender, wantEgress
}

// TestCompareNamesWhatDiffers: what is as meant differs in nothing; each thing that does not is
// named once, with its verdict.
//
// Mutants: live-stale-is-fine, live-unread-is-fine.
func TestCompareNamesWhatDiffers(t *testing.T) {
	sender, egress, wantSender, wantEgress := asMeant()
	if differ := append(Differ(Compare(wantSender, sender)), Differ(Compare(wantEgress, egress))...); len(differ) > 0 {
		t.Fatalf("what is as meant differs: %+v", differ)
	}
	for name, c := range map[string]struct {
		change  func(s *Sender, e *Egress, hosts [2]*Host, want *WantSender)
		object  string
		verdict Verdict
	}{
		"unknown pod":        {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Known = false }, "map egress-marks", Missing},
		"contradiction":      {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Way = WayUnclear }, "map egress-marks", Missing},
		"another way":        {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Way = WayNode }, "map egress-marks", Stale},
		"not locked":         {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Locked = false }, "egress-locked", Missing},
		"not bound":          {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.BoundTo = "" }, "link", Missing},
		"excluded lacks one": {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Excluded = nil }, "egress-excluded", Missing},
		"excluded has more":  {func(s *Sender, _ *Egress, _ [2]*Host, w *WantSender) { w.Excluded = nil }, "egress-excluded", Stale},
		"no entry":           {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Route = nil }, "egress_pods", Missing},
		"another network":    {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Route.NetID = 18 }, "egress_pods", Stale},
		"another host":       {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Route.Via = []netip.Addr{addr("10.1.8.14")} }, "egress_pods", Stale},
		"host not listed":    {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Via[0].Listed = false }, "egress host 10.1.8.13 in", Missing},
		"host not asked":     {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Via = nil }, "way to egress host", Unknown},
		"host out of reach":  {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Via[0].Out = Lookup{Error: "no route"} }, "outer packets", Foreign},
		"taken for inside":   {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Inside = true }, "egress-inside", Stale},
		"routed elsewhere":   {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Out.Interface = "eth0" }, "route of the pod's packet", Foreign},
		"filtered": {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) {
			s.Out = Lookup{Error: "no way back", Filtered: true}
		}, "route of the pod's packet", Foreign},
		"no route":               {func(s *Sender, _ *Egress, _ [2]*Host, _ *WantSender) { s.Out = Lookup{Error: "no route"} }, "route of the pod's packet", Missing},
		"dropped, and has entry": {func(s *Sender, _ *Egress, _ [2]*Host, w *WantSender) { w.Kind = Dropped }, "egress_pods", Stale},
		"sender not read":        {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Sender = nil }, "for the pod", Unknown},
		"no overlay":             {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Overlay = &Overlay{} }, "device egress0", Missing},
		"overlay down":           {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Overlay.Up = false }, "state of egress0", Foreign},
		"no neighbour":           {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Overlay.NextHop = false }, "neighbours", Missing},
		"no program":             {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[1].Overlay.Inward = false }, "ingress of egress0", Missing},
		"strict overlay":         {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[1].Overlay.Filter = 1 }, "reverse path filter of egress0", Foreign},
		"unread":                 {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Unread = []string{"guards: EPERM"} }, "guards: EPERM", Unknown},
		"chain gone":             {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Rules.Missing = []string{"chain x"} }, "chain x", Missing},
		"route of others":        {func(_ *Sender, _ *Egress, h [2]*Host, _ *WantSender) { h[0].Rules.Foreign = []string{"route y"} }, "route y", Foreign},
		"not served":             {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Served = false }, "egress_hosted", Missing},
		"serves another":         {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Source = addr("10.1.8.201") }, "egress_hosted", Stale},
		"no source NAT":          {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Index = false }, "source NAT", Missing},
		"egress IP not listed":   {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Listed = false }, "egress-ips", Missing},
		"sender not listed":      {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Sender = false }, "pod's host 10.1.8.11", Missing},
		"answers go elsewhere":   {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Returns.Via[0] = addr("10.1.8.12") }, "egress_returns", Stale},
		"no address":             {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Addresses = nil }, "address 10.1.8.200", Missing},
		"address of others":      {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Addresses[0].Ours = false }, "address 10.1.8.200", Foreign},
		"interface down":         {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Addresses[0].Up = false }, "address 10.1.8.200", Foreign},
		"two addresses": {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) {
			e.Addresses = append(e.Addresses, e.Addresses[0])
		}, "address 10.1.8.200", Stale},
		"no guard":               {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Guards = nil }, "guard at eth0", Missing},
		"guard does not know it": {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Guards[0].Known = false }, "guard at eth0", Missing},
		"guard of another index": {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Guards[0].Mark = 0x441 }, "guard at eth0", Stale},
		"guard of elsewhere":     {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Guards[0].Elsewhere = true }, "guard at eth0", Stale},
		"no way out":             {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Out = Lookup{Error: "no route"} }, "from the egress host", Missing},
		"back into the overlay":  {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Out = Lookup{Interface: OverlayName} }, "from the egress host", Foreign},
		"answers filtered": {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) {
			e.Back = Lookup{Error: "no way", Filtered: true}
		}, "answers to", Foreign},
		"answers forwarded": {func(_ *Sender, e *Egress, _ [2]*Host, _ *WantSender) { e.Back = Lookup{Interface: "eth1"} }, "answers to", Missing},
	} {
		t.Run(name, func(t *testing.T) {
			sender, egress, wantSender, wantEgress := asMeant()
			c.change(sender.Sender, egress.Egress, [2]*Host{&sender, &egress}, wantSender.Sender)
			differ := append(Differ(Compare(wantSender, sender)), Differ(Compare(wantEgress, egress))...)
			if len(differ) == 0 || !strings.Contains(differ[0].Object, c.object) || differ[0].Verdict != c.verdict {
				t.Errorf("got %+v, want %s of %q", differ, c.verdict, c.object)
			}
			if Unclear(differ) != (c.verdict == Unknown) {
				t.Errorf("unclear: %t", Unclear(differ))
			}
		})
	}
}
