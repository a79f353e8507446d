package nftables

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

func drawNetworks(t *rapid.T, label string) []netip.Prefix {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
		// Few bits, so that networks often contain each other and touch.
		a := byte(rapid.IntRange(0, 3).Draw(t, "first byte") * 64)
		b := byte(rapid.IntRange(0, 3).Draw(t, "second byte") * 85)
		bits := rapid.SampledFrom([]int{1, 2, 3, 8, 10, 16, 32}).Draw(t, "bits")
		if rapid.Bool().Draw(t, "IPv6") {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{a, b, 14: a, 15: b}), 4*bits).Masked()
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, 0, 0}), bits).Masked()
	}), 0, 8).Draw(t, label)
}

// Networks become intervals that do not overlap, and are read back from them, whole
// address space and neighbours included.
//
// Mutant killed: nested-networks-stay.
func TestPropertyIntervalsAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		networks := drawNetworks(t, "networks")
		families := map[string][]netip.Prefix{}
		for _, p := range networks {
			families[setInside(p)] = append(families[setInside(p)], p)
		}
		got := Content{Sets: map[string]Elements{
			rules.SetInside: intervals(families[rules.SetInside]), rules.SetInside6: intervals(families[rules.SetInside6]),
		}}.Inside()
		slices.SortFunc(got, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		if want := disjoint(networks); !slices.Equal(got, want) {
			t.Fatalf("%v became %v, want %v", networks, got, want)
		}
		for _, p := range networks {
			if !slices.ContainsFunc(got, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }) {
				t.Fatalf("%v: %v is lost", networks, p)
			}
		}
	})
}

// machine is the host of a driver.
type machine struct {
	*netnstest.Machine
	*Driver
}

func start(t *testing.T, own bool) machine {
	t.Helper()
	m := machine{Machine: netnstest.New(t, "host")}
	m.Do(t, func() {
		var err error
		m.Driver, err = Open(own)
		netnstest.Must(t, err)
		_, err = m.Ensure()
		netnstest.Must(t, err)
	})
	t.Cleanup(func() { _ = m.Close() }) // a test may have closed it
	return m
}

// What the driver believes to be in the table after any changes is what the kernel
// lists, for a table with an owner and for one that others could change.
//
// Mutants killed: changed-value-is-kept, swallowed-network-is-lost,
// contained-networks-are-forgotten.
func TestPropertyTheKernelHasWhatWasPut(t *testing.T) {
	for name, own := range map[string]bool{"owned": true, "shared": false} {
		t.Run(name, func(t *testing.T) {
			m := start(t, own)
			marks := []uint32{0, 0x40, 0x1000}
			table, err := Render(rules.Content{}, nil, Marks{All: 0x1f7f, Way: 0x177f, Ways: marks})
			netnstest.Must(t, err)
			m.Do(t, func() { netnstest.Must(t, m.Commit(Plan(Table{}, table))) })
			pods, hosts, inside := map[netip.Addr]uint32{}, map[netip.Addr]struct{}{}, map[netip.Prefix]struct{}{}
			rapid.Check(t, func(rt *rapid.T) {
				ips := func(families bool) []netip.Addr {
					return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) netip.Addr {
						last := byte(rapid.IntRange(1, 6).Draw(t, "last byte"))
						if families && rapid.Bool().Draw(t, "IPv6") {
							return netip.AddrFrom16([16]byte{0xfd, 15: last})
						}
						return netip.AddrFrom4([4]byte{10, 244, 1, last})
					}), 0, 4, rapid.ID[netip.Addr]).Draw(rt, "addresses")
				}
				put := map[netip.Addr]uint32{}
				for _, ip := range ips(true) {
					put[ip] = rapid.SampledFrom(marks).Draw(rt, "mark")
					if !ip.Is4() {
						put[ip] = 0
					}
				}
				gone, come, left := ips(true), ips(false), ips(false)
				networks, dropped := drawNetworks(rt, "networks"), drawNetworks(rt, "dropped")
				forgets := rapid.Bool().Draw(rt, "reads again")
				m.Do(t, func() {
					for _, err := range []error{
						m.PutPods(put), m.DeletePods(gone),
						m.Put(rules.SetHosts, come), m.Delete(rules.SetHosts, left),
						m.PutInside(networks),
					} {
						netnstest.Must(t, err)
					}
					if forgets {
						m.Forget()
						_, err := m.Observe()
						netnstest.Must(t, err)
					}
					netnstest.Must(t, m.DeleteInside(dropped))
				})
				maps.Copy(pods, put)
				for _, ip := range gone {
					delete(pods, ip)
				}
				for _, ip := range come {
					hosts[ip] = struct{}{}
				}
				for _, ip := range left {
					delete(hosts, ip)
				}
				for _, p := range networks {
					inside[p] = struct{}{}
				}
				for _, p := range dropped {
					delete(inside, p)
				}
				wantInside := disjoint(slices.Collect(maps.Keys(inside)))
				for _, forget := range []bool{false, true} {
					var got Content
					m.Do(t, func() {
						if forget {
							m.Forget()
						}
						var err error
						got, err = m.Observe()
						netnstest.Must(t, err)
					})
					gotInside := disjoint(got.Inside())
					compare := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
					if diff := cmp.Diff(pods, got.Pods(), compare); diff != "" {
						rt.Fatalf("pods, read again %t (-want +got):\n%s", forget, diff)
					}
					if diff := cmp.Diff(hosts, got.Addresses(rules.SetHosts), compare); diff != "" {
						rt.Fatalf("hosts, read again %t (-want +got):\n%s", forget, diff)
					}
					if !slices.Equal(wantInside, gotInside) {
						rt.Fatalf("inside, read again %t: %v, want %v", forget, gotInside, wantInside)
					}
				}
			})
		})
	}
}

// What was changed until the table got its owner is seen.
//
// Mutant killed: unowned-content-is-believed.
func TestContentIsReadAgainOnceOwned(t *testing.T) {
	m := start(t, true)
	if !m.Owned() {
		t.Skip("the kernel has no tables that outlive their owners")
	}
	m.Do(t, func() {
		netnstest.Must(t, m.Close())
		next, err := Open(true)
		netnstest.Must(t, err)
		m.Driver = next
		_, err = m.Observe()
		netnstest.Must(t, err)
	})
	m.Run(t, "nft add element inet egressip egress-hosts { 192.0.2.9 }")
	m.Do(t, func() {
		netnstest.Must(t, m.own())
		content, err := m.Observe()
		netnstest.Must(t, err)
		if _, seen := content.Addresses(rules.SetHosts)[netip.MustParseAddr("192.0.2.9")]; !seen || !m.Owned() {
			t.Errorf("owned: %t; hosts %v", m.Owned(), content.Addresses(rules.SetHosts))
		}
	})
}

// A set with the name of one of ours and another form is an error that says what to do,
// and Remove removes it.
//
// Mutant killed: any-form-will-do.
func TestSetOfAnotherForm(t *testing.T) {
	m := machine{Machine: netnstest.New(t, "host")}
	m.Run(t, "nft add table inet egressip; nft 'add map inet egressip egress-hosts { type ipv4_addr : mark; }'")
	m.Do(t, func() {
		var err error
		m.Driver, err = Open(true)
		netnstest.Must(t, err)
		if _, err := m.Ensure(); err == nil || !strings.Contains(err.Error(), "egress-hosts") || !strings.Contains(err.Error(), "cleanup") {
			t.Errorf("error %v", err)
		}
		_, err = m.Remove()
		netnstest.Must(t, err)
		_, err = m.Ensure()
		netnstest.Must(t, err)
	})
	t.Cleanup(func() { netnstest.Must(t, m.Close()) })
}

// What another version of ours left in the table goes with the first change, though its chains
// are led to by sets that this version does not know.
//
// Mutant killed: unknown-sets-stay.
func TestTableOfAnotherVersion(t *testing.T) {
	m := start(t, false)
	want, err := Render(rules.Content{}, nil, Marks{All: 7, Way: 7, Ways: []uint32{0, 1}})
	netnstest.Must(t, err)
	m.Run(t, `nft 'add chain inet egressip mark-7
		add map inet egressip egress-later { type mark : verdict; elements = { 0x7 : jump mark-7 }; }
		add set inet egressip egress-latest { type ipv4_addr; elements = { 192.0.2.1 }; }
		add chain inet egressip later { type filter hook forward priority 0; }
		add rule inet egressip later ip saddr @egress-latest meta mark vmap @egress-later'`)
	m.Do(t, func() {
		before, err := m.Observe()
		netnstest.Must(t, err)
		netnstest.Must(t, m.Commit(Plan(before.Table, want)))
		m.Forget()
		after, err := m.Observe()
		netnstest.Must(t, err)
		if again := Plan(after.Table, want); again.Changes != 0 || len(after.Table.Unknown) > 0 {
			t.Errorf("a second plan has %d changes; unknown are %q", again.Changes, after.Table.Unknown)
		}
	})
	for _, gone := range []string{"later", "latest", "mark-7"} {
		if left := m.Run(t, "nft list table inet egressip"); strings.Contains(left, gone) {
			t.Errorf("%s is still there:\n%s", gone, left)
		}
	}
}

// A table goes from any content to any other in one transaction, and a second plan
// has nothing to do.
func TestPropertyPlansConverge(t *testing.T) {
	m := start(t, false)
	draw := func(t *rapid.T) Table {
		indices := rapid.SliceOfNDistinct(rapid.Uint32Range(1, 6), 0, 4, rapid.ID[uint32]).Draw(t, "marks")
		to := map[uint32]netip.Addr{}
		for _, i := range indices {
			to[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 3).Draw(t, "egress IP"))})
		}
		content := rules.Content{
			rules.NAT: {
				Chains: map[string][]rules.Rule{rules.ChainPostrouting: {{Action: rules.SourceNATByMark{Mask: 7, To: to}}}},
				Jumps:  []rules.HookJump{{From: rules.Postrouting, To: rules.ChainPostrouting}},
			},
		}
		if rapid.Bool().Draw(t, "locks") {
			content[rules.Filter] = rules.Ruleset{
				Chains: map[string][]rules.Rule{
					rules.ChainLocked: {{Matches: []rules.Match{rules.Unconfirmed{}}, Action: rules.Jump{Chain: rules.ChainReset}}},
					rules.ChainReset:  slices.Repeat([]rules.Rule{{Action: rules.Return{}}}, rapid.IntRange(0, 2).Draw(t, "rules")),
				},
				Jumps: []rules.HookJump{{From: rules.Forward, To: rules.ChainLocked}},
			}
		}
		table, err := Render(content, nil, Marks{All: 7, Way: 7, Ways: append(indices, 0)})
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	rapid.Check(t, func(rt *rapid.T) {
		want := draw(rt)
		m.Do(t, func() {
			before, err := m.Observe()
			netnstest.Must(t, err)
			netnstest.Must(t, m.Commit(Plan(before.Table, want)))
			m.Forget()
			after, err := m.Observe()
			netnstest.Must(t, err)
			if again := Plan(after.Table, want); again.Changes != 0 {
				rt.Fatalf("a second plan has %d changes: %+v", again.Changes, again)
			}
		})
	})
}

// A rule that is not rendered is an error, and no rule that says less.
func TestUnknownPartsAreErrors(t *testing.T) {
	content := rules.Content{rules.Filter: {Chains: map[string][]rules.Rule{rules.ChainLocked: {{Action: rules.SourceNAT{}}}}}}
	if _, err := Render(content, nil, Marks{}); err == nil {
		t.Error("an action without a form in nftables was rendered")
	}
}

// The kernel takes all rules that a host may have, of both families.
func TestKernelTakesAllRules(t *testing.T) {
	m := start(t, true)
	marks := mark.Default()
	p := rules.Params{
		Marks: marks, Overlay: "egress0", OverlayPort: 9789, ProbePort: 9788, Resets: true, Excluded: true, Senders: true, Maps: true,
		Indices: map[netip.Addr]int{netip.MustParseAddr("192.0.2.200"): marks.FirstIndex()},
		Strict:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Strict6: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")},
	}
	table, err := Render(rules.Build(p), rules.Build6(p), Marks{
		All: marks.Mask, Way: marks.Remote() | marks.IndexMask(), Ways: []uint32{0, marks.Remote(), marks.Index(marks.FirstIndex())},
	})
	netnstest.Must(t, err)
	m.Do(t, func() {
		netnstest.Must(t, m.Supported(table))
		netnstest.Must(t, m.Commit(Plan(Table{}, table)))
		netnstest.Must(t, m.Renew(0))
		netnstest.Must(t, m.Renew(time.Minute))
		if present, ends, err := m.Present(); !present || !ends || err != nil {
			t.Errorf("present %t, ends %t, %v", present, ends, err)
		}
		netnstest.Must(t, m.ForgetSenders([]netip.Addr{netip.MustParseAddr("10.244.1.5")}))
	})
}

// The kernel refuses what it does not know, and nothing of the trial stays.
func TestTrialLeavesNothing(t *testing.T) {
	m := start(t, true)
	before := m.Run(t, "nft list ruleset")
	bad := Table{Chains: map[string]Chain{"x": {Rules: []Rule{{ID: "1", Exprs: []expr.Any{&expr.Lookup{SourceRegister: register, SetName: "none"}}}}}}}
	m.Do(t, func() {
		if m.Supported(bad) == nil {
			t.Error("a rule that looks into a set that does not exist is supported")
		}
		good, err := Render(rules.Content{}, nil, Marks{Ways: []uint32{0}})
		netnstest.Must(t, err)
		netnstest.Must(t, m.Supported(good))
	})
	if after := m.Run(t, "nft list ruleset"); after != before {
		t.Errorf("the ruleset was\n%s\nand is\n%s", before, after)
	}
}
