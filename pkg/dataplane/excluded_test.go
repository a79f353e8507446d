package dataplane

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
)

func networks(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// What the kernel gets of a list of networks: no set has one of all addresses, in none do two
// overlap, and two halves are one.
func TestExcludedNetworksAsTheKernelHasThem(t *testing.T) {
	four, six := testenv.Addr("10.244.1.2"), testenv.Addr("fd00:10:244:1::2")
	for _, c := range []struct {
		name      string
		pod       netip.Addr
		have, get []netip.Prefix
	}{
		{"none", four, nil, nil},
		{"of both families", four, networks("203.0.113.0/24", "2001:db8::/32"), networks("203.0.113.0/24")},
		{"of the other family", six, networks("203.0.113.0/24", "2001:db8::/32"), networks("2001:db8::/32")},
		{"all", four, networks("203.0.113.0/24", "0.0.0.0/0"), networks("0.0.0.0/1", "128.0.0.0/1")},
		{"all of IPv6", six, networks("::/0"), networks("::/1", "8000::/1")},
		{"one in another", four, networks("203.0.113.128/25", "203.0.113.0/24", "198.51.100.7/32"), networks("198.51.100.7/32", "203.0.113.0/24")},
		{"two halves", four, networks("203.0.113.128/25", "203.0.113.0/25"), networks("203.0.113.0/24")},
		{"with host bits", four, networks("203.0.113.9/24"), networks("203.0.113.0/24")},
		{"not valid", four, []netip.Prefix{{}}, nil},
	} {
		if diff := cmp.Diff(c.get, Pod{IP: c.pod, Excluded: c.have}.excluded(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// given: pods whose excluded networks change, some to such that overlap those of before, in both
// backends; when the changes are made in their order, then after the first phase each pod has what
// it had and what it gets, and at the end only the latter. The kernel takes each of them.
func TestExcludedNetworksChangeInOrder(t *testing.T) {
	a, b, c, d := testenv.Addr("10.244.1.2"), testenv.Addr("10.244.1.3"), testenv.Addr("10.244.1.4"), testenv.Addr("fd00:10:244:1::2")
	with := func(lists map[netip.Addr][]netip.Prefix, locked ...netip.Addr) kernel {
		k := emptyKernel()
		maps.Copy(k.excluded, lists)
		for _, ip := range locked {
			k.locked[ip], k.pods[ip] = struct{}{}, 1
		}
		return k
	}
	before := with(map[netip.Addr][]netip.Prefix{
		a: networks("10.0.0.0/8", "203.0.113.0/24"), b: networks("198.51.100.0/24"), d: networks("2001:db8::/32"),
	}, a, b, d)
	after := with(map[netip.Addr][]netip.Prefix{
		a: networks("10.0.0.0/9", "192.0.2.0/24"), c: networks("0.0.0.0/1"), d: networks("2001:db8::/32", "fd00::/8"),
	}, a, c, d)
	var list changes
	moved := list.excluded(orderInput{observed: before, desired: after})
	if want := []netip.Addr{a, b, c, d}; !slices.Equal(moved, want) {
		t.Errorf("connections are looked for from %v, want %v", moved, want)
	}
	list.sort()
	for _, table := range []bool{true, false} {
		t.Run(map[bool]string{true: "table", false: "ipsets"}[table], func(t *testing.T) {
			h := netnstest.Enter(t)
			m := members{d: &Dataplane{nl: h}, table: table}
			read := excludedInSets
			if table {
				driver, err := nftables.Open(false)
				must(t, err)
				defer func() { must(t, driver.Close()) }()
				m.d.nft = driver
				read = func() (nftables.Excluded, error) {
					content, err := driver.Observe()
					must(t, err)
					return excludedInTable(content)
				}
			}
			made, err := m.ensure(true, true)
			must(t, err)
			if made.excludedErr != nil {
				t.Skipf("this kernel has no ipset type hash:net,net: %v", made.excludedErr)
			}
			var first changes
			first.excluded(orderInput{observed: emptyKernel(), desired: before})
			step := func(changes []change, want nftables.Excluded) {
				t.Helper()
				for _, c := range changes {
					must(t, m.exclude([]change{c}))
				}
				got, err := read()
				must(t, err)
				if diff := cmp.Diff(want, got, netipComparer()); diff != "" {
					t.Fatalf("-want +got:\n%s", diff)
				}
			}
			step(first.list, before.excluded)
			grown := with(map[netip.Addr][]netip.Prefix{
				a: networks("10.0.0.0/8", "192.0.2.0/24", "203.0.113.0/24"), b: networks("198.51.100.0/24"), c: networks("0.0.0.0/1"),
				d: networks("2001:db8::/32", "fd00::/8"),
			}).excluded
			n := slices.IndexFunc(list.list, func(c change) bool { return c.phase != phaseGrow })
			step(list.list[:n], grown)
			step(list.list[n:], after.excluded)
		})
	}
}

func netipComparer() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

// What a former process has left, or what is of an address that was no locked pod's, goes before anything
// else: the address may be another pod's by now, and its rules may come into effect only then.
//
// Mutants killed: former-exclusions-stay, exclusions-of-others-stay.
func TestExclusionsThatWereNotInEffect(t *testing.T) {
	pod := testenv.Addr("10.244.1.2")
	for name, c := range map[string]struct {
		sweep, locked bool
		mark          uint32
		first         phase
	}{
		"in effect":           {locked: true, mark: 1, first: phaseInclude},
		"of a former process": {sweep: true, locked: true, mark: 1, first: phaseGrow},
		"not locked":          {mark: 1, first: phaseGrow},
		"without a way":       {locked: true, first: phaseGrow},
	} {
		in := orderInput{observed: emptyKernel(), desired: emptyKernel(), sweep: c.sweep}
		in.observed.excluded[pod] = networks("203.0.113.0/24")
		if in.desired.locked[pod] = struct{}{}; c.locked {
			in.observed.locked[pod] = struct{}{}
		}
		in.observed.pods[pod] = c.mark
		var list changes
		list.excluded(in)
		if len(list.list) != 1 || list.list[0].phase != c.first || !slices.Equal(list.list[0].included, networks("203.0.113.0/24")) {
			t.Errorf("%s: %+v, want one change of phase %d", name, list.list, c.first)
		}
	}
}
