package nftables

import (
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// A range is read as it was written; one of several pods, or of none, is not valid.
func TestRangesAreReadAsTheyAreWritten(t *testing.T) {
	pod := netip.MustParseAddr("10.244.1.2")
	for _, text := range []string{"203.0.113.0-203.0.113.255", "203.0.113.7-203.0.113.7", "0.0.0.0-255.255.255.255"} {
		r := netipx.MustParseIPRange(text)
		if of, got := rangeOf(rangeKey(pod, r)); of != pod || got != r {
			t.Errorf("%v is read as %v of %v", r, got, of)
		}
	}
	six, r := netip.MustParseAddr("fd00::2"), netipx.MustParseIPRange("2001:db8::-2001:db8::7:ffff")
	if of, got := rangeOf(rangeKey(six, r)); of != six || got != r {
		t.Errorf("%v is read as %v of %v", r, got, of)
	}
	var several string
	for _, part := range []string{"10.244.1.2", "203.0.113.0", "10.244.1.3", "203.0.113.255"} {
		several += addrKey(netip.MustParseAddr(part))
	}
	for name, key := range map[string]string{"of several pods": several, "of another length": "short", "empty": ""} {
		if _, got := rangeOf(key); got.IsValid() {
			t.Errorf("a range %s is read as %v", name, got)
		}
	}
}

// given: a set of pods and ranges; when networks of a pod are exchanged for others that overlap
// them, then that is one transaction, which the kernel takes, and networks that touch are one
// range; what others have put there goes when that is asked for.
func TestExcludedNetworksAreExchanged(t *testing.T) {
	m := start(t, false)
	pod, other := netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.1.3")
	networks := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	change := func(put, del []netip.Prefix, elements int, want ...netip.Prefix) {
		t.Helper()
		m.Do(t, func() {
			netnstest.Must(t, m.Exclude(rules.SetExcluded, []Exclusion{{pod, put, del}}))
			m.Forget()
			content, err := m.Observe()
			netnstest.Must(t, err)
			got, err := content.Excluded()
			netnstest.Must(t, err)
			if !slices.Equal(got[pod], want) || len(content.Sets[rules.SetExcluded]) != elements+1 {
				t.Fatalf("the set has %v, as %d elements; want %v", got, len(content.Sets[rules.SetExcluded]), want)
			}
			if !slices.Equal(got[other], networks("192.0.2.0/24")) {
				t.Fatalf("of another pod, the set has %v", got[other])
			}
		})
	}
	m.Do(t, func() {
		netnstest.Must(t, m.Exclude(rules.SetExcluded, []Exclusion{{Pod: other, Put: networks("192.0.2.0/24")}}))
	})
	change(networks("10.0.0.0/8"), nil, 1, networks("10.0.0.0/8")...)
	change(networks("10.0.0.0/9", "203.0.113.0/24"), networks("10.0.0.0/8"), 2, networks("10.0.0.0/9", "203.0.113.0/24")...)
	change(networks("10.128.0.0/10"), networks("198.51.100.0/24"), 2, networks("10.0.0.0/9", "10.128.0.0/10", "203.0.113.0/24")...)
	m.Run(t, "nft add element inet egressip egress-excluded '{ 10.244.1.2-10.244.1.2 . 198.51.100.3-198.51.100.4 }'")
	m.Forget()
	change(nil, networks("198.51.100.3/32", "198.51.100.4/32"), 2, networks("10.0.0.0/9", "10.128.0.0/10", "203.0.113.0/24")...)
	change(nil, networks("10.0.0.0/8", "203.0.113.0/24"), 0)
}
