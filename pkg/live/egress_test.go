package live

import (
	"net/netip"
	"slices"
	"testing"
)

// TestCompareEgressOfTheSendersHost: of an egress IP on the pod's own host, nothing of the overlay is
// asked, and where the destination is inside, nothing of the way out.
func TestCompareEgressOfTheSendersHost(t *testing.T) {
	_, host, _, want := asMeant()
	want.Egress.From, want.Egress.Interface = netip.Addr{}, ""
	host.Overlay, host.Egress.Served, host.Egress.Returns = nil, false, nil
	if differ := Differ(Compare(want, host)); len(differ) > 0 {
		t.Errorf("differs in %+v", differ)
	}
	want.Egress.Inside, host.Egress.Out = true, Lookup{Error: "no route"}
	if differ := Differ(Compare(want, host)); len(differ) > 0 {
		t.Errorf("to the inside, differs in %+v", differ)
	}
	host.Egress = nil
	if differ := Differ(Compare(want, host)); !slices.Equal([]Verdict{Unknown}, []Verdict{differ[0].Verdict}) {
		t.Errorf("what was not read is %+v", differ)
	}
}
