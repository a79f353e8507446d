package nftables

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// linksPriority is that of the chains that check sources: before all others of ours, and
// before whatever rewrites sources.
const linksPriority = -310

// Chains of the tables of links.
const (
	chainArrival = "arrival"
	chainBound   = "bound"
	chainForeign = "foreign"
	// chainForeign6 is the same for IPv6.
	chainForeign6 = "foreign6"
	chainNew      = "new"
)

// linkChains are the chains of a table of links.
//
//	arrival  from a link that may send with its own addresses only: bound
//	         with an address that belongs to a link: foreign
//	         with an address of another pod that is known: new
//	bound    passes what is its own, or of no link that is known; drops the rest
//	foreign  passes what comes from the address's own link, or from a link that leads to
//	         no pod; drops the rest. A link that is not known passes while no agent looks
//	         after the links: it may lead to a new pod with the address.
//	new      passes what comes from a link that is known; drops the rest while an agent
//	         looks after the links
func linkChains(t *nftables.Table) (map[string]Chain, error) {
	four := func(e ...[]expr.Any) []expr.Any { return append(etherType(unix.ETH_P_IP), slices.Concat(e...)...) }
	six := func(e ...[]expr.Any) []expr.Any { return append(etherType(unix.ETH_P_IPV6), slices.Concat(e...)...) }
	source, source6 := network(rules.Source), network6(rules.Source)
	passes, drops := verdict(expr.VerdictReturn, ""), verdict(expr.VerdictDrop, "")

	arrival := [][]expr.Any{
		slices.Concat(iif(), in(setBoundLinks), verdict(expr.VerdictGoto, chainBound)),
		four(source, in(setGuarded), verdict(expr.VerdictGoto, chainForeign)),
		six(source6, in(setGuarded6), verdict(expr.VerdictGoto, chainForeign6)),
		four(source, in(setKnown), verdict(expr.VerdictGoto, chainNew)),
		six(source6, in(setKnown6), verdict(expr.VerdictGoto, chainNew)),
	}
	bound := [][]expr.Any{
		four(linkAndSource(), in(setSources), passes),
		four(source, in(setUnbound), passes),
		four(source, equal(make([]byte, 4)), passes), // DHCP
		four(drops),
		six(linkAndSource6(), in(setSources6), passes),
		six(source6, in(setUnbound6), passes),
		six(source6, masked([]byte{0xff, 0xc0, 15: 0}), equal([]byte{0xfe, 0x80, 15: 0}), passes), // of the link
		six(source6, equal(make([]byte, 16)), passes),                                             // neighbour discovery
		six(drops),
	}
	if t.Family == nftables.TableFamilyBridge {
		// The kernel takes off any number of VLAN tags that name no VLAN, and this hook
		// sees a packet without the first.
		tagged := [][]expr.Any{}
		for _, tag := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
			tagged = append(tagged, slices.Concat(etherType(tag), iif(), notIn(setOtherLinks), noVLAN(), drops))
		}
		arrival = append(tagged, arrival...)
	} else {
		// Most packets here come from a bridge or the uplink.
		arrival = append([][]expr.Any{slices.Concat(iif(), in(setOtherLinks), passes)}, arrival...)
	}
	foreign := func(own ...[]expr.Any) [][]expr.Any {
		return [][]expr.Any{
			append(slices.Concat(own...), passes...),
			slices.Concat(iif(), in(setOtherLinks), passes),
			slices.Concat(iif(), in(setPodLinks), drops),
			slices.Concat(meta(expr.MetaKeyNFPROTO), in(setAttended), drops),
		}
	}
	fromNew := [][]expr.Any{
		slices.Concat(iif(), in(setPodLinks), passes),
		slices.Concat(iif(), in(setOtherLinks), passes),
		slices.Concat(meta(expr.MetaKeyNFPROTO), in(setAttended), drops),
	}
	r := renderer{table: Table{Chains: map[string]Chain{}}}
	for name, list := range map[string][][]expr.Any{
		chainArrival: arrival, chainBound: bound, chainNew: fromNew,
		chainForeign: foreign(linkAndSource(), in(setSources)), chainForeign6: foreign(linkAndSource6(), in(setSources6)),
	} {
		c := Chain{}
		if name == chainArrival {
			c.Base = &Base{Hook: rules.Prerouting, Priority: linksPriority}
		}
		for _, exprs := range list {
			c.Rules = append(c.Rules, r.identified(exprs))
		}
		r.table.Chains[name] = c
	}
	return r.table.Chains, r.err
}

// iif loads the link that a packet came by.
func iif() []expr.Any { return meta(expr.MetaKeyIIF) }

// linkAndSource loads the link and the source after it, linkAndSource6 that of IPv6.
func linkAndSource() []expr.Any  { return append(iif(), behindLink(12, 4)) }
func linkAndSource6() []expr.Any { return append(iif(), behindLink(8, 16)) }

func behindLink(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: word(1), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// in matches what was loaded against a set.
func in(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: set}}
}

func notIn(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: set, Invert: true}}
}

// etherType matches packets of a protocol.
func etherType(number uint16) []expr.Any {
	return append(meta(expr.MetaKeyPROTOCOL), equal(binary.BigEndian.AppendUint16(nil, number))...)
}

// noVLAN matches frames whose first tag names no VLAN.
func noVLAN() []expr.Any {
	const tag = 14 // behind the addresses and the number of the protocol
	return slices.Concat(
		[]expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: tag, Len: 2}},
		masked([]byte{0x0f, 0xff}), equal([]byte{0, 0}),
	)
}
