package ipset

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// An entry is read as it was written, whatever the family. Not every kernel has sets of pairs, so
// that this is asked of the messages alone, too.
func TestPairsAreReadAsTheyAreWritten(t *testing.T) {
	for _, p := range []Pair{
		{netip.MustParsePrefix("10.244.1.2/32"), netip.MustParsePrefix("203.0.113.0/24")},
		{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("203.0.113.7/32")},
		{netip.MustParsePrefix("fd00::2/128"), netip.MustParsePrefix("2001:db8::/32")},
	} {
		data := p.data(Set{IPv6: p.First.Addr().Is6()}, 7).Serialize()
		got, err := parsePair(data[unix.SizeofRtAttr:])
		if err != nil || got != p {
			t.Errorf("%v is read as %v (%v)", p, got, err)
		}
	}
}

func TestSetsOfPairs(t *testing.T) {
	h := netnstest.Enter(t)
	k := Set{Name: "egress-excluded", Type: "hash:net,net"}
	if _, err := Ensure(h, k); err != nil {
		t.Skipf("this kernel has no sets of pairs: %v", err)
	}
	first, second := netip.MustParsePrefix("10.244.1.2/32"), netip.MustParsePrefix("10.244.1.3/32")
	want := Pairs{
		{first, netip.MustParsePrefix("203.0.113.0/24")}: {}, {first, netip.MustParsePrefix("0.0.0.0/1")}: {},
		{second, netip.MustParsePrefix("203.0.113.7/32")}: {},
	}
	must(t, PutPairs(k, want))
	must(t, PutPairs(k, want))
	gone := Pair{first, netip.MustParsePrefix("0.0.0.0/1")}
	must(t, DeletePairs(k, Pairs{gone: {}}))
	must(t, DeletePairs(k, Pairs{gone: {}}))
	delete(want, gone)
	got, err := ListPairs(k.Name)
	must(t, err)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	none, err := ListPairs("egress-none")
	if err != nil || len(none) != 0 {
		t.Errorf("a set that is not there has %v (%v)", none, err)
	}
}
