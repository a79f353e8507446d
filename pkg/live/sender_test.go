package live

import "testing"

// TestComparePodsWithoutTheOverlay: pods of all kinds that do not take the overlay.
func TestComparePodsWithoutTheOverlay(t *testing.T) {
	ip := addr("10.1.8.200")
	for name, c := range map[string]struct {
		want WantSender
		have Sender
		fine bool
	}{
		"here":                   {WantSender{Kind: Here, Source: ip}, Sender{Known: true, Way: WayHere, Source: ip, Locked: true, BoundTo: "v", Out: Lookup{Interface: "eth0"}}, true},
		"here, with another":     {WantSender{Kind: Here, Source: ip}, Sender{Known: true, Way: WayHere, Source: addr("10.1.8.201"), Locked: true, BoundTo: "v", Out: Lookup{Interface: "eth0"}}, false},
		"here, with none":        {WantSender{Kind: Here, Source: ip}, Sender{Known: true, Way: WayHere, Locked: true, BoundTo: "v", Out: Lookup{Interface: "eth0"}}, false},
		"here, to the overlay":   {WantSender{Kind: Here, Source: ip}, Sender{Known: true, Way: WayHere, Source: ip, Locked: true, BoundTo: "v", Out: Lookup{Interface: OverlayName}}, false},
		"as is":                  {WantSender{Kind: AsIs}, Sender{Known: true, Way: WayNode, Out: Lookup{Interface: "eth0"}}, true},
		"as is, and locked":      {WantSender{Kind: AsIs}, Sender{Known: true, Way: WayNode, Locked: true, Out: Lookup{Interface: "eth0"}}, false},
		"dropped":                {WantSender{Kind: Dropped}, Sender{Known: true, Way: WayOverlay, Locked: true, BoundTo: "v"}, true},
		"refused":                {WantSender{Kind: Refused}, Sender{Known: true, Way: WayRefused, Locked: true, BoundTo: "v"}, true},
		"refused by lock alone":  {WantSender{Kind: Refused}, Sender{Known: true, Way: WayNode, Locked: true, BoundTo: "v"}, true},
		"refused, and not":       {WantSender{Kind: Refused}, Sender{Known: true, Way: WayNode, BoundTo: "v"}, false},
		"inside, by the overlay": {WantSender{Kind: Here, Source: ip, Inside: true}, Sender{Known: true, Way: WayHere, Source: ip, Locked: true, BoundTo: "v", Inside: true, Out: Lookup{Interface: OverlayName}}, false},
	} {
		differ := Differ(Compare(Want{Host: "n", Sender: &c.want}, Host{Sender: &c.have}))
		if (len(differ) == 0) != c.fine {
			t.Errorf("%s: differs in %+v", name, differ)
		}
	}
}
