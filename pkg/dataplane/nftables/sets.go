package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Sets and maps that are ours alone. Elements of all but setMarks change with the rules.
const (
	// setSNAT has the egress IP of each mark.
	setSNAT = "egress-snat"
	// setSave leads each mark to the chain that copies it to the connection.
	setSave = "egress-save"
	// setRestore leads each mark of a connection to the chain that gives it to the packet.
	setRestore = "egress-restore"
	// setMarks leads each pod to the chain that gives its packets their mark. Set
	// egress-pods has the same pods: up to Linux 6.1 at least, a map cannot be asked
	// whether it has a key.
	setMarks = "egress-marks"
	// setSame has the pairs of marks that are equal.
	setSame = "egress-same"

	// The like for IPv6. Marks, and what is done with them, are the same for both.
	setSNAT6  = "egress-snat6"
	setMarks6 = "egress-marks6"
)

// mapNames lists those whose elements change with the rules.
func mapNames() []string { return []string{setSame, setSave, setRestore, setSNAT, setSNAT6} }

// resetFor is how long a connection stays in the set of those that get a reset.
const resetFor = 15 * time.Minute

// maxSenders is far more than a node has pods: the kernel needs a bound for what it adds
// by itself.
const maxSenders = 1 << 16

// table is our table as the library names it.
func table() *nftables.Table {
	return &nftables.Table{Name: Name, Family: nftables.TableFamilyINet}
}

// sets are all sets and maps of a table, in a fixed order.
func sets(t *nftables.Table) []*nftables.Set {
	ip, ip6, mark := nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeMark
	return []*nftables.Set{
		{Table: t, Name: setMarks, KeyType: ip, DataType: nftables.TypeVerdict, IsMap: true},
		{Table: t, Name: rules.SetPods, KeyType: ip},
		{Table: t, Name: rules.SetLocked, KeyType: ip},
		{Table: t, Name: rules.SetHosts, KeyType: ip},
		{Table: t, Name: rules.SetInside, KeyType: ip, Interval: true},
		{Table: t, Name: rules.SetIPs, KeyType: ip},
		{Table: t, Name: rules.SetExcluded, KeyType: concat(ip, ip), Interval: true, Concatenation: true},
		{Table: t, Name: rules.SetExcluded6, KeyType: concat(ip6, ip6), Interval: true, Concatenation: true},
		{Table: t, Name: rules.SetPods6, KeyType: ip6},
		{Table: t, Name: rules.SetLocked6, KeyType: ip6},
		{Table: t, Name: rules.SetHosts6, KeyType: ip6},
		{Table: t, Name: rules.SetInside6, KeyType: ip6, Interval: true},
		{
			Table: t, Name: rules.SetResets, HasTimeout: true, Timeout: resetFor,
			KeyType: concat(ip, nftables.TypeInetService, ip),
		},
		{Table: t, Name: rules.SetPresent, KeyType: nftables.TypeNFProto, HasTimeout: true},
		{Table: t, Name: rules.SetSenders, KeyType: concat(ip, nftables.TypeEtherAddr), Dynamic: true, Size: maxSenders},
		{Table: t, Name: rules.SetBound, KeyType: ip, Dynamic: true, Size: maxSenders},
		{Table: t, Name: setSame, KeyType: concat(mark, mark), KeyByteOrder: binaryutil.NativeEndian},
		{Table: t, Name: setSave, KeyType: mark, DataType: nftables.TypeVerdict, IsMap: true, KeyByteOrder: binaryutil.NativeEndian},
		{Table: t, Name: setRestore, KeyType: mark, DataType: nftables.TypeVerdict, IsMap: true, KeyByteOrder: binaryutil.NativeEndian},
		{Table: t, Name: setSNAT, KeyType: mark, DataType: ip, IsMap: true, KeyByteOrder: binaryutil.NativeEndian},
		{Table: t, Name: setMarks6, KeyType: ip6, DataType: nftables.TypeVerdict, IsMap: true},
		{Table: t, Name: rules.SetIPs6, KeyType: ip6},
		{
			Table: t, Name: rules.SetResets6, HasTimeout: true, Timeout: resetFor,
			KeyType: concat(ip6, nftables.TypeInetService, ip6),
		},
		{Table: t, Name: rules.SetSenders6, KeyType: concat(ip6, nftables.TypeEtherAddr), Dynamic: true, Size: maxSenders},
		{Table: t, Name: rules.SetBound6, KeyType: ip6, Dynamic: true, Size: maxSenders},
		{Table: t, Name: setSNAT6, KeyType: mark, DataType: ip6, IsMap: true, KeyByteOrder: binaryutil.NativeEndian},
	}
}

// isOurs reports whether a set has the name of one of ours.
func isOurs(name string) bool {
	return slices.ContainsFunc(sets(table()), func(s *nftables.Set) bool { return s.Name == name })
}

// hasOtherForm reports whether a set has the name of one of ours, and another form. The
// library does not tell the key's type of a map to verdicts.
func hasOtherForm(is *nftables.Set) bool {
	for _, want := range sets(table()) {
		if want.Name == is.Name {
			return is.IsMap != want.IsMap || is.Interval != want.Interval || is.HasTimeout != want.HasTimeout
		}
	}
	return false
}

// concat joins types that always can be joined.
func concat(types ...nftables.SetDatatype) nftables.SetDatatype {
	joined, err := nftables.ConcatSetType(types...)
	if err != nil {
		return nftables.TypeInvalid // the kernel refuses it
	}
	return joined
}

// markChain is the chain that gives a packet a mark, saveChain that which gives it to
// its connection.
func markChain(mark uint32) string { return fmt.Sprintf("mark-%x", mark) }
func saveChain(mark uint32) string { return fmt.Sprintf("save-%x", mark) }

// podVerdict is the value of a pod in the map of pods.
func podVerdict(mark uint32) string { return "jump " + markChain(mark) }

// noMark is a mark that no pod should have.
const noMark = ^uint32(0)

// podMark reads podVerdict. A value that we never write is noMark.
func podMark(verdict string) uint32 {
	mark, err := strconv.ParseUint(strings.TrimPrefix(verdict, "jump mark-"), 16, 32)
	if err != nil {
		return noMark
	}
	return uint32(mark)
}

// isInside reports whether a set has networks.
func isInside(set string) bool { return set == rules.SetInside || set == rules.SetInside6 }

// setInside is the set that has a network, if that is inside.
func setInside(p netip.Prefix) string {
	if p.Addr().Is4() {
		return rules.SetInside
	}
	return rules.SetInside6
}

// isExcluded reports whether a set has pairs of pods and networks.
func isExcluded(set string) bool { return set == rules.SetExcluded || set == rules.SetExcluded6 }

func addrKey(ip netip.Addr) string { return string(ip.AsSlice()) }

func keyAddr(key string) netip.Addr {
	ip, _ := netip.AddrFromSlice([]byte(key))
	return ip
}

// resetKey is a connection of a pod: its address and port, and the other end. Each
// field takes four bytes.
func resetKey(source netip.AddrPort, dest netip.Addr) string {
	key := slices.Concat(source.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, source.Port()), []byte{0, 0}, dest.AsSlice())
	return string(key)
}

// disjoint returns the networks that no other contains, in order: nftables keeps
// intervals that do not overlap.
func disjoint(networks []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(networks)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
