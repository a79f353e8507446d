package ipset

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	netnstest.Must(t, err)
}

func TestSetsHoldTenThousandMarkedEntries(t *testing.T) {
	h := netnstest.Enter(t)
	k := Set{Name: "egress-pods", Type: "hash:ip", Marks: true}
	netnstest.Twice(t, "set", func() (int, error) { return Ensure(h, k) })
	want := Entries{}
	ip := testenv.Addr("10.0.0.1")
	for i := range 10_000 {
		want[netip.PrefixFrom(ip, 32)] = Value{Mark: uint32(i) & 0x1f7f, Mask: 0x1f7f}
		ip = ip.Next()
	}
	must(t, Put(k, want))
	expectSet(t, k.Name, want)

	// A changed mark replaces the old one in place.
	first := netip.MustParsePrefix("10.0.0.1/32")
	want[first] = Value{Mark: 0x1000, Mask: 0x1f7f}
	must(t, Put(k, Entries{first: want[first]}))
	expectSet(t, k.Name, want)

	gone := Entries{first: {}, netip.MustParsePrefix("203.0.113.9/32"): {}}
	must(t, Delete(k, gone))
	delete(want, first)
	expectSet(t, k.Name, want)
}

func TestSetOfNetworks(t *testing.T) {
	h := netnstest.Enter(t)
	k := Set{Name: "egress-inside", Type: "hash:net"}
	netnstest.Twice(t, "set", func() (int, error) { return Ensure(h, k) })
	want := Entries{netip.MustParsePrefix("10.96.0.0/16"): {}, netip.MustParsePrefix("192.0.2.7/32"): {}}
	must(t, Put(k, want))
	must(t, Put(k, want))
	expectSet(t, k.Name, want)
	names, err := Names()
	must(t, err)
	if diff := cmp.Diff([]string{"egress-inside"}, names); diff != "" {
		t.Fatalf("sets (-want +got):\n%s", diff)
	}
}

func TestSetsOfIPv6(t *testing.T) {
	h := netnstest.Enter(t)
	for _, c := range []struct {
		set  Set
		want Entries
	}{
		{Set{Name: "egress-locked6", Type: "hash:ip", IPv6: true}, Entries{netip.MustParsePrefix("fd00::1/128"): {}, netip.MustParsePrefix("2001:db8::1/128"): {}}},
		{Set{Name: "egress-inside6", Type: "hash:net", IPv6: true}, Entries{netip.MustParsePrefix("fd00:1::/64"): {}, netip.MustParsePrefix("2001:db8::7/128"): {}}},
	} {
		netnstest.Twice(t, "set", func() (int, error) { return Ensure(h, c.set) })
		must(t, Put(c.set, c.want))
		must(t, Put(c.set, c.want))
		expectSet(t, c.set.Name, c.want)
		must(t, Delete(c.set, c.want))
		expectSet(t, c.set.Name, nil)
		if _, err := Ensure(h, Set{Name: c.set.Name, Type: c.set.Type}); err == nil {
			t.Errorf("%s was taken for a set of IPv4", c.set.Name)
		}
	}
}

func TestSetWithoutMarksIsNotTakenForOne(t *testing.T) {
	h := netnstest.Enter(t)
	must(t, h.IpsetCreate("egress-pods", "hash:ip", netlink.IpsetCreateOptions{}))
	if _, err := Ensure(h, Set{Name: "egress-pods", Type: "hash:ip", Marks: true}); err == nil {
		t.Fatal("a set without skbinfo maps nothing, silently, and was accepted")
	}
}

func TestSetThatDoesNotExistIsEmptyAndDestroyed(t *testing.T) {
	h := netnstest.Enter(t)
	must(t, Destroy(h, "egress-never-made"))
	expectSet(t, "egress-never-made", nil)
}

func TestConnectionIsPutTwice(t *testing.T) {
	h := netnstest.Enter(t)
	k := Set{Name: "egress-resets", Type: "hash:ip,port,ip", Timeout: time.Minute}
	netnstest.Twice(t, "set", func() (int, error) { return Ensure(h, k) })
	c := Connection{Source: testenv.Addr("10.0.0.1"), Protocol: unix.IPPROTO_TCP, SourcePort: 40000, Dest: testenv.Addr("203.0.113.9")}
	must(t, PutConnection(h, k.Name, c))
	must(t, PutConnection(h, k.Name, c))
	got, err := List(k.Name)
	must(t, err)
	if len(got) != 1 {
		t.Errorf("entries: %v", got)
	}
}

func expectSet(t *testing.T, name string, want Entries) {
	t.Helper()
	got, err := List(name)
	must(t, err)
	if diff := cmp.Diff(fmt.Sprint(len(want)), fmt.Sprint(len(got))); diff != "" {
		t.Fatalf("entries of %s (-want +got):\n%s", name, diff)
	}
	for entry, mark := range want {
		if got[entry] != mark {
			t.Fatalf("entry %v of %s: %#v, wanted %#v", entry, name, got[entry], mark)
		}
	}
}
