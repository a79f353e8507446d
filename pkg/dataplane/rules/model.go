package rules

import "net/netip"

// Stage is a step of a packet's way through one hook. The stages have the names
// of netfilter's standard priorities, and run in their order: raw, mangle,
// filter; nat last.
type Stage string

// The stages.
const (
	// Raw comes before connection tracking.
	Raw Stage = "raw"
	// Mangle comes before routing decisions that depend on marks.
	Mangle Stage = "mangle"
	Filter Stage = "filter"
	// NAT sees the first packet of each connection only.
	NAT Stage = "nat"
)

// Stages lists the stages in the order in which changes are made: nothing is
// marked before locks and source NAT are in place. Removal goes the other way.
func Stages() []Stage { return []Stage{Raw, Filter, NAT, Mangle} }

// Hook is a point in the kernel at which packets meet rules.
type Hook string

// Netfilter's hooks for IP.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// ChainPrefix starts the name of every chain that is ours.
const ChainPrefix = "EGRESSIP-"

// Content is all rules of a host.
type Content map[Stage]Ruleset

// Ruleset is all that is ours in one stage.
type Ruleset struct {
	// Chains holds the rules of each chain, by name.
	Chains map[string][]Rule
	// Jumps lead packets into the chains. Those of one hook are in order.
	Jumps []HookJump
}

// HookJump sends all packets of a hook through a chain.
type HookJump struct {
	From Hook
	To   string
	// Last: the chain comes after the rules of other software, but before a
	// final rule that drops or rejects everything.
	Last bool
	// Late: the chain comes after all that other software does in this hook. It is for
	// backends with maps, see [Params]. Chains that are neither Last nor Late come first.
	Late bool
}

// Rule applies its action to packets that all of its matches match. A rule has
// at most one match of a transport protocol.
type Rule struct {
	Matches []Match
	Action  Action
}

// Match is a condition on a packet. The types below are all there are.
type Match interface{ match() }

// InInterface matches the interface that a packet came in by.
type InInterface struct {
	Name string
	Not  bool
}

// OutInterface matches the interface that a packet leaves by.
type OutInterface struct {
	Name string
	Not  bool
}

// SourceIn matches source addresses of a network, which is of the rules' family.
type SourceIn struct{ Network netip.Prefix }

// SourceLocal matches packets whose source is an address of the host itself.
type SourceLocal struct{}

// InKind matches packets that came in by a virtual device of a kind, such as veth. Devices of
// hardware are of none.
type InKind string

// WrongWay matches packets that came in by another device than that which leads to their
// source. It is for hook prerouting.
type WrongWay struct{}

// UDP matches UDP packets.
type UDP struct{}

// UDPPort matches UDP packets to a destination port.
type UDPPort uint16

// TCPPort matches TCP segments to a destination port.
type TCPPort uint16

// ICMPv6Type matches ICMPv6 messages of a type.
type ICMPv6Type uint8

// HopLimit matches packets of IPv6 with a hop limit.
type HopLimit uint8

// TCPFlags matches TCP segments that have, of the flags in Among, exactly
// those in Set.
type TCPFlags struct {
	Among, Set TCPFlag
	Not        bool
}

// TCPFlag is a set of flags of the TCP header.
type TCPFlag uint8

// The flags, with their bits in the header.
const (
	FIN TCPFlag = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Mark matches packets whose mark has Value in the bits of Mask.
type Mark struct {
	Value, Mask uint32
	Not         bool
}

// ConnMark matches packets whose connection's mark has Value in the bits of
// Mask.
type ConnMark struct {
	Value, Mask uint32
	Not         bool
}

// MarksDiffer matches packets whose mark differs from their connection's in the bits of Mask,
// and those with a mark that is no way. It is for backends with maps, see [Params].
type MarksDiffer struct{ Mask uint32 }

// MarksSame matches all other packets: those whose mark is a way, and their connection's, too. It
// is for backends with maps, see [Params].
type MarksSame struct{ Mask uint32 }

// Direction matches packets of tracked connections by their direction.
type Direction string

// The directions: that of the connection's first packet, and the other.
const (
	Original Direction = "original"
	Reply    Direction = "reply"
)

// ConnState matches packets whose connection tracking state is in the list.
type ConnState []State

// State is what connection tracking makes of a packet.
type State string

// The states in use.
const (
	New       State = "new"
	Invalid   State = "invalid"
	Untracked State = "untracked"
)

// Unconfirmed matches packets of tracked connections of which no packet has
// left yet: the first packet of each.
type Unconfirmed struct{}

// InSet matches packets with an address in a set.
type InSet struct {
	Set  string
	Addr Address
	Not  bool
}

// Address is one of the addresses of a packet.
type Address string

// The addresses.
const (
	Source      Address = "source"
	Destination Address = "destination"
)

// AgentPresent matches packets while an agent is, or was a short while ago, at work on
// this host: while a set has entries that it renews. In iptables, where each family has a
// set of its own, Set has networks that contain every address.
type AgentPresent struct {
	Set string
	Not bool
}

// KnownSender matches packets whose source address and source MAC are in a set. It is for
// backends that learn these, see [Params].
type KnownSender struct {
	Set string
	Not bool
}

// PairInSet matches packets whose source address and destination address are in a set of pairs
// of an address and a network.
type PairInSet struct{ Set string }

// EndpointsInSet matches packets whose source address, source port and
// destination address, in this order, are in a set.
type EndpointsInSet struct{ Set string }

func (InInterface) match()    {}
func (OutInterface) match()   {}
func (SourceIn) match()       {}
func (SourceLocal) match()    {}
func (InKind) match()         {}
func (WrongWay) match()       {}
func (UDP) match()            {}
func (UDPPort) match()        {}
func (TCPPort) match()        {}
func (ICMPv6Type) match()     {}
func (HopLimit) match()       {}
func (TCPFlags) match()       {}
func (Mark) match()           {}
func (ConnMark) match()       {}
func (MarksDiffer) match()    {}
func (MarksSame) match()      {}
func (Direction) match()      {}
func (ConnState) match()      {}
func (Unconfirmed) match()    {}
func (InSet) match()          {}
func (AgentPresent) match()   {}
func (KnownSender) match()    {}
func (PairInSet) match()      {}
func (EndpointsInSet) match() {}

// Action is what happens to a packet. The types below are all there are. A
// packet goes on to the next rule after those that say so.
type Action interface{ action() }

// Drop discards the packet.
type Drop struct{}

// ResetTCP drops the packet and answers with a TCP reset.
type ResetTCP struct{}

// Prohibit drops the packet and answers with an ICMPv6 error, "administratively
// prohibited", so that its sender need not wait for a timeout.
type Prohibit struct{}

// Accept ends the packet's way through the rules of this stage and hook.
type Accept struct{}

// Return ends the packet's way through this chain.
type Return struct{}

// Jump sends the packet through another chain, and then on.
type Jump struct{ Chain string }

// Goto sends the packet through another chain instead of the rest of this one.
type Goto struct{ Chain string }

// SetMark sets the bits of Mask of the packet's mark to Value. The packet goes
// on.
type SetMark struct{ Value, Mask uint32 }

// SetMarkFromSet sets the packet's mark as the entry of a set says that its
// source address has: to the entry's mark, in the bits of the entry's mask.
// Without an entry the mark stays. The packet goes on.
//
// nftables combines marks with constants only, up to Linux 6.12: there, the entries
// lead to a chain for each mark, which sets it.
type SetMarkFromSet struct{ Set string }

// LearnSender adds the packet's source address and source MAC to one set, and the address
// to another. A packet without a MAC changes nothing. The packet goes on. It is for backends
// that can, see [Params].
type LearnSender struct{ Pairs, Addresses string }

// SetConnMark sets the bits of Mask of the connection's mark to Value. The
// packet goes on.
type SetConnMark struct{ Value, Mask uint32 }

// SaveMark copies the bits of Mask of the packet's mark to the connection's.
// The packet goes on. For nftables, see SetMarkFromSet: one rule for each mark.
type SaveMark struct{ Mask uint32 }

// RestoreMark copies the bits of Mask of the connection's mark to the packet's, and clears
// the other bits of ours where the backend has maps. The packet goes on. For nftables, see
// SetMarkFromSet.
type RestoreMark struct{ Mask uint32 }

// DropIfMarksDiffer drops a packet whose mark differs from its connection's in
// the bits of Mask. Others go on, with their marks as they were.
//
// A backend that does not compare two marks can compare their exclusive or with
// 0, as iptables does, or look the masked pair up in a set of equal pairs, as
// nftables can.
type DropIfMarksDiffer struct{ Mask uint32 }

// SourceNAT gives the packet's connection another source address, and a random source port
// if RandomPort is set. Else it keeps its port, as long as that is free.
type SourceNAT struct {
	To         netip.Addr
	RandomPort bool
}

// SourceNATByMark gives the packet's connection the source address that To has for
// the bits of Mask of the packet's mark. Without an entry the packet goes on. It is
// for backends with maps, see [Params].
type SourceNATByMark struct {
	Mask uint32
	To   map[uint32]netip.Addr
	// RandomPort is that of SourceNAT.
	RandomPort bool
}

// KeepSource has the packet's connection keep its source address, whatever source NAT
// of other software comes after.
type KeepSource struct{}

// NoTrack exempts the packet from connection tracking. The packet goes on.
type NoTrack struct{}

// ClampMSS lowers the MSS that a TCP SYN announces to what the path's MTU
// allows. The packet goes on.
type ClampMSS struct{}

func (Drop) action()              {}
func (ResetTCP) action()          {}
func (Prohibit) action()          {}
func (Accept) action()            {}
func (Return) action()            {}
func (Jump) action()              {}
func (Goto) action()              {}
func (SetMark) action()           {}
func (SetMarkFromSet) action()    {}
func (LearnSender) action()       {}
func (SetConnMark) action()       {}
func (SaveMark) action()          {}
func (RestoreMark) action()       {}
func (DropIfMarksDiffer) action() {}
func (SourceNAT) action()         {}
func (SourceNATByMark) action()   {}
func (KeepSource) action()        {}
func (NoTrack) action()           {}
func (ClampMSS) action()          {}
