package nftables

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// NATPriority is the priority of our source NAT.
const NATPriority = 50

// latePriorities are those of chains that come after what others do in a hook, but before
// the kernel goes on: 225 is SELinux, 300 the helpers of connection tracking, and 100 is when
// packets get their new source, whatever the priorities of the rules that choose it.
func latePriorities() map[rules.Hook]int32 {
	return map[rules.Hook]int32{rules.Prerouting: 299, rules.Postrouting: 99}
}

// priorities are those of our other base chains. Before connection tracking, before whatever
// changes the marks that the overlay's program has given, before filters, and before other software's source
// NAT: standard priorities are -300, -150, 0 and 100.
func priorities() map[rules.Stage]int32 {
	return map[rules.Stage]int32{rules.Raw: -301, rules.Mangle: -151, rules.Filter: -1, rules.NAT: NATPriority}
}

// Marks are the packet marks that the rules give and compare.
type Marks struct {
	// All are the bits of the mark that are ours, Way those that say which way a
	// packet leaves.
	All, Way uint32
	// Ways are the marks of all ways, 0 among them.
	Ways []uint32
}

// Render writes rules, and those for IPv6, as our table. What comes last in a hook is
// left out: in nftables, a packet that one base chain accepts is still seen by all
// others.
func Render(content, content6 rules.Content, m Marks) (Table, error) {
	t := Table{Chains: map[string]Chain{}, Maps: map[string]Elements{setSame: {}, setSave: {}, setRestore: {}, setSNAT: {}, setSNAT6: {}}}
	r := renderer{table: t, marks: m}
	r.content(content)
	r.ipv6 = true
	r.content(content6)
	r.ipv6 = false
	for _, mark := range m.Ways {
		r.chain(markChain(mark), nil, []rules.Rule{{Action: rules.SetMark{Value: mark, Mask: m.All}}})
		r.chain(saveChain(mark), nil, []rules.Rule{{Action: rules.SetConnMark{Value: mark, Mask: m.Way}}})
		t.Maps[setSave][markKey(mark)] = "jump " + saveChain(mark)
		t.Maps[setRestore][markKey(mark)] = "jump " + markChain(mark)
		t.Maps[setSame][markKey(mark)+markKey(mark)] = ""
	}
	return t, r.err
}

// content adds the rules of one family.
func (r *renderer) content(content rules.Content) {
	for stage, set := range content {
		for name, list := range set.Chains {
			if onlyLast(set.Jumps, name) {
				continue
			}
			r.chain(chainName(name), nil, list)
		}
		for _, jump := range set.Jumps {
			if !jump.Last {
				r.enter(stage, jump)
			}
		}
	}
}

// onlyLast reports whether a chain is reached by a jump that comes last.
func onlyLast(jumps []rules.HookJump, chain string) bool {
	return slices.ContainsFunc(jumps, func(j rules.HookJump) bool { return j.To == chain && j.Last })
}

type renderer struct {
	table Table
	marks Marks
	// ipv6: the rules are for IPv6.
	ipv6 bool
	err  error
}

// network loads an address of the packet.
func (r *renderer) network(a rules.Address) []expr.Any {
	if r.ipv6 {
		return network6(a)
	}
	return network(a)
}

// sender loads the source address and the source MAC.
func (r *renderer) sender() []expr.Any { return sender(r.network(rules.Source), r.words()) }

// words is how many words of a register an address takes.
func (r *renderer) words() uint32 {
	if r.ipv6 {
		return 4
	}
	return 1
}

// endpoints loads the source address, the source port of TCP, and the destination address.
func (r *renderer) endpoints() []expr.Any {
	offset, length := uint32(16), uint32(4)
	if r.ipv6 {
		offset, length = 24, 16
	}
	return slices.Concat(protocol(unix.IPPROTO_TCP), r.network(rules.Source), []expr.Any{
		&expr.Payload{DestRegister: word(r.words()), Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Payload{DestRegister: word(r.words() + 1), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	})
}

// pair loads the source address and the destination address.
func (r *renderer) pair() []expr.Any {
	offset, length := uint32(16), uint32(4)
	if r.ipv6 {
		offset, length = 24, 16
	}
	return append(r.network(rules.Source), &expr.Payload{DestRegister: word(r.words()), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length})
}

// setMark leads a pod to the chain that sets its mark.
func (r *renderer) setMark(a rules.SetMarkFromSet) []expr.Any {
	marks, known := map[string]string{rules.SetPods: setMarks, rules.SetPods6: setMarks6}[a.Set]
	if !known {
		return r.unknown(a)
	}
	return slices.Concat(r.network(rules.Source), mapped(marks, 0))
}

// snatByMark gives the connection the source that a map has for the packet's mark.
func (r *renderer) snatByMark(a rules.SourceNATByMark) []expr.Any {
	snat := setSNAT
	if r.ipv6 {
		snat = setSNAT6
	}
	for mark, ip := range a.To {
		r.table.Maps[snat][markKey(mark)] = addrKey(ip)
	}
	return slices.Concat(meta(expr.MetaKeyMARK), masked(native(a.Mask)), mapped(snat, register), []expr.Any{r.snat(a.RandomPort)})
}

// snat gives the connection the source that was loaded.
func (r *renderer) snat(randomPort bool) expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if r.ipv6 {
		family = unix.NFPROTO_IPV6
	}
	return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: register, FullyRandom: randomPort}
}

// compareMarks matches packets whose mark is their connection's, and a way; or all others.
func compareMarks(mask uint32, differ bool) []expr.Any {
	return append(
		slices.Concat(meta(expr.MetaKeyMARK), masked(native(mask))),
		&expr.Ct{Key: expr.CtKeyMARK, Register: word(1)},
		&expr.Bitwise{SourceRegister: word(1), DestRegister: word(1), Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Lookup{SourceRegister: register, SetName: setSame, Invert: differ},
	)
}

// sourceIn matches source addresses of a network.
func (r *renderer) sourceIn(p netip.Prefix) []expr.Any {
	mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
	return slices.Concat(r.network(rules.Source), masked(mask), equal(p.Masked().Addr().AsSlice()))
}

// chain adds a chain.
func (r *renderer) chain(name string, base *Base, list []rules.Rule) {
	c := Chain{Base: base}
	for _, rule := range list {
		var exprs []expr.Any
		for _, m := range rule.Matches {
			exprs = append(exprs, r.match(m)...)
		}
		c.Rules = append(c.Rules, r.identified(append(exprs, r.action(rule.Action)...)))
	}
	r.table.Chains[name] = c
}

// enter leads the packets of a hook that are of the rules' family into a chain.
func (r *renderer) enter(stage rules.Stage, jump rules.HookJump) {
	name, priority := fmt.Sprintf("%s-%s", stage, jump.From), priorities()[stage]
	if jump.Late {
		name, priority = name+"-late", latePriorities()[jump.From]
	}
	c := r.table.Chains[name]
	c.Base = &Base{Hook: jump.From, Priority: priority, NAT: stage == rules.NAT}
	family := byte(unix.NFPROTO_IPV4)
	if r.ipv6 {
		family = unix.NFPROTO_IPV6
	}
	c.Rules = append(c.Rules, r.identified(slices.Concat(
		meta(expr.MetaKeyNFPROTO), equal([]byte{family}),
		verdict(expr.VerdictJump, chainName(jump.To)),
	)))
	r.table.Chains[name] = c
}

// identified gives a rule its ID.
func (r *renderer) identified(exprs []expr.Any) Rule {
	h := fnv.New64a()
	for _, e := range exprs {
		data, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("render %T: %w", e, err)
		}
		_, _ = h.Write(data) // never fails
	}
	return Rule{ID: fmt.Sprintf("%016x", h.Sum64()), Exprs: exprs}
}

// whence matches devices, and what leads to a source.
func whence(m rules.Match) []expr.Any {
	switch m := m.(type) {
	case rules.InInterface:
		return slices.Concat(meta(expr.MetaKeyIIFNAME), compare(m.Not, interfaceName(m.Name)))
	case rules.OutInterface:
		return slices.Concat(meta(expr.MetaKeyOIFNAME), compare(m.Not, interfaceName(m.Name)))
	case rules.InKind:
		return slices.Concat(meta(metaKindOfInput), equal(interfaceName(string(m))))
	case rules.SourceLocal:
		return slices.Concat([]expr.Any{&expr.Fib{Register: register, FlagSADDR: true, ResultADDRTYPE: true}}, equal(native(unix.RTN_LOCAL)))
	default: // WrongWay
		return slices.Concat([]expr.Any{&expr.Fib{Register: register, FlagSADDR: true, FlagIIF: true, ResultOIF: true}}, equal(native(0)))
	}
}

// carried matches what a packet carries, and how far.
func carried(m rules.Match) []expr.Any {
	switch m := m.(type) {
	case rules.UDPPort:
		return port(unix.IPPROTO_UDP, uint16(m))
	case rules.TCPPort:
		return port(unix.IPPROTO_TCP, uint16(m))
	case rules.TCPFlags:
		return slices.Concat(protocol(unix.IPPROTO_TCP), transport(13, 1), masked([]byte{byte(m.Among)}), compare(m.Not, []byte{byte(m.Set)}))
	case rules.ICMPv6Type:
		return slices.Concat(protocol(unix.IPPROTO_ICMPV6), transport(0, 1), equal([]byte{byte(m)}))
	case rules.HopLimit:
		return slices.Concat(hopLimit(), equal([]byte{byte(m)}))
	default: // UDP
		return protocol(unix.IPPROTO_UDP)
	}
}

func (r *renderer) match(m rules.Match) []expr.Any {
	switch m := m.(type) {
	case rules.SourceIn:
		return r.sourceIn(m.Network)
	case rules.InInterface, rules.OutInterface, rules.SourceLocal, rules.InKind, rules.WrongWay:
		return whence(m)
	case rules.UDP, rules.UDPPort, rules.TCPPort, rules.TCPFlags, rules.ICMPv6Type, rules.HopLimit:
		return carried(m)
	case rules.Mark:
		return slices.Concat(meta(expr.MetaKeyMARK), masked(native(m.Mask)), compare(m.Not, native(m.Value)))
	case rules.MarksDiffer:
		return compareMarks(m.Mask, true)
	case rules.MarksSame:
		return compareMarks(m.Mask, false)
	case rules.ConnMark:
		return slices.Concat(ct(expr.CtKeyMARK), masked(native(m.Mask)), compare(m.Not, native(m.Value)))
	case rules.Direction:
		direction := byte(0)
		if m == rules.Reply {
			direction = 1
		}
		return slices.Concat(ct(expr.CtKeyDIRECTION), equal([]byte{direction}))
	case rules.ConnState:
		return slices.Concat(ct(expr.CtKeySTATE), masked(native(stateBits(m))), compare(true, native(0)))
	case rules.Unconfirmed:
		return slices.Concat(ct(expr.CtKeySTATUS), masked(native(statusConfirmed)), equal(native(0)))
	case rules.InSet:
		return slices.Concat(r.network(m.Addr), []expr.Any{&expr.Lookup{SourceRegister: register, SetName: m.Set, Invert: m.Not}})
	case rules.AgentPresent:
		return slices.Concat(meta(expr.MetaKeyNFPROTO), []expr.Any{&expr.Lookup{SourceRegister: register, SetName: rules.SetPresent, Invert: m.Not}})
	case rules.KnownSender:
		return slices.Concat(r.sender(), []expr.Any{&expr.Lookup{SourceRegister: register, SetName: m.Set, Invert: m.Not}})
	case rules.PairInSet:
		return append(r.pair(), &expr.Lookup{SourceRegister: register, SetName: m.Set})
	case rules.EndpointsInSet:
		return append(r.endpoints(), &expr.Lookup{SourceRegister: register, SetName: m.Set})
	default:
		return r.unknown(m)
	}
}

func (r *renderer) action(a rules.Action) []expr.Any {
	switch a := a.(type) {
	case rules.Drop:
		return verdict(expr.VerdictDrop, "")
	case rules.ResetTCP:
		return slices.Concat(protocol(unix.IPPROTO_TCP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	case rules.Prohibit:
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmp6Prohibited}}
	case rules.Accept:
		return verdict(expr.VerdictAccept, "")
	case rules.Return:
		return verdict(expr.VerdictReturn, "")
	case rules.Jump:
		return verdict(expr.VerdictJump, chainName(a.Chain))
	case rules.Goto:
		return verdict(expr.VerdictGoto, chainName(a.Chain))
	case rules.SetMark:
		return slices.Concat(meta(expr.MetaKeyMARK), replaced(a.Mask, a.Value),
			[]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register}})
	case rules.LearnSender:
		learn := func(set string) []expr.Any {
			return []expr.Any{&expr.Dynset{SrcRegKey: register, SetName: set, Operation: unix.NFT_DYNSET_OP_ADD}}
		}
		return slices.Concat(r.sender(), learn(a.Pairs), r.network(rules.Source), learn(a.Addresses))
	case rules.SetConnMark:
		return slices.Concat(ct(expr.CtKeyMARK), replaced(a.Mask, a.Value),
			[]expr.Any{&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: register}})
	case rules.SetMarkFromSet:
		return r.setMark(a)
	case rules.SaveMark:
		return slices.Concat(meta(expr.MetaKeyMARK), masked(native(a.Mask)), mapped(setSave, 0))
	case rules.RestoreMark:
		return slices.Concat(ct(expr.CtKeyMARK), masked(native(a.Mask)), mapped(setRestore, 0))
	case rules.DropIfMarksDiffer:
		return append(compareMarks(a.Mask, true), verdict(expr.VerdictDrop, "")...)
	case rules.SourceNATByMark:
		return r.snatByMark(a)
	case rules.KeepSource:
		// To accept would not do: the kernel then asks the next chain.
		return append(r.network(rules.Source), r.snat(false))
	case rules.NoTrack:
		return []expr.Any{&expr.Notrack{}}
	case rules.ClampMSS:
		return []expr.Any{
			&expr.Rt{Key: expr.RtTCPMSS, Register: register},
			&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 2, Size: 2},
			&expr.Exthdr{SourceRegister: register, Type: tcpOptionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
		}
	default:
		return r.unknown(a)
	}
}

// unknown is an error: a part of the model that is not rendered.
func (r *renderer) unknown(part any) []expr.Any {
	if r.err == nil {
		r.err = fmt.Errorf("render %T: nftables has no form for it", part)
	}
	return nil
}
