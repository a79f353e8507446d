package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Flow is a tracked connection.
type Flow struct {
	// Source opened the connection. Dest is the address that it reached, after
	// a service's address was translated.
	Source, Dest netip.Addr
	// Asked is the destination before that translation.
	Asked netip.AddrPort
	// SourceOutside is the source that Dest sees.
	SourceOutside netip.Addr
	// Mark is the connection's mark.
	Mark uint32
	// Protocol is the number in the IP header. SourcePort belongs to Source,
	// DestPort to Dest.
	Protocol             uint8
	SourcePort, DestPort uint16
	// State is that of TCP, in the numbers of connection tracking.
	State uint8
}

// Entry is a tracked connection as the kernel listed it.
type Entry struct {
	Flow

	// message names the connection to the kernel, family is that of its addresses.
	message []byte
	family  uint8
}

// The attributes of connection tracking that are read here, from the kernel's
// nfnetlink_conntrack.h.
const (
	attrTupleOrig  = 1
	attrTupleReply = 2
	attrProtoInfo  = 4
	attrMark       = 8
	attrZone       = 18
	attrMarkMask   = 21
	attrFilter     = 25

	attrTupleIP    = 1
	attrTupleProto = 2

	attrIPv4Source = 1
	attrIPv4Dest   = 2
	attrIPv6Source = 3
	attrIPv6Dest   = 4

	attrProtoNumber     = 1
	attrProtoSourcePort = 2
	attrProtoDestPort   = 3

	attrFilterOrig  = 1
	attrFilterReply = 2
	filterSource    = 1 << 0 // of the addresses and ports of a direction, the source address
	filterDest      = 1 << 1 // and the destination address

	attrProtoInfoTCP = 1
	attrTCPState     = 1
)

// Find returns the connections of either family that match, in one walk through the table, or in another
// where a change of the table interrupts it. It keeps no others in memory. Connections
// in zones other than the default one are not asked for: who uses zones keeps them
// apart. It works in the network namespace of the calling thread.
func Find(match func(Flow) bool) ([]Entry, error) {
	found, err := nlutil.Whole(func() ([]Entry, error) { return walk(unix.AF_UNSPEC, nil, match) })
	if err != nil {
		return found, fmt.Errorf("list tracked connections: %w", err)
	}
	return found, nil
}

// FindFrom returns the connections that match and that one of a few sources has opened. The
// kernel filters those of IPv4, from Linux 5.8 on: in a table with hundreds of thousands, it
// then tells of a handful. Of IPv6 it would tell of all others (Linux 5.8 to 6.18 at least).
func FindFrom(sources []netip.Addr, match func(Flow) bool) ([]Entry, error) {
	var found []Entry
	for _, source := range sources {
		some, err := find(source, opened(attrIPv4Source, filterSource, source), func(f Flow) bool { return f.Source == source && match(f) })
		if err != nil {
			return found, fmt.Errorf("list tracked connections of %v: %w", source, err)
		}
		found = append(found, some...)
	}
	return found, nil
}

// FindTo returns the connections that match and that were opened to one of a few addresses,
// as their sources asked for it. The kernel filters as for [FindFrom].
func FindTo(asked []netip.Addr, match func(Flow) bool) ([]Entry, error) {
	var found []Entry
	for _, ip := range asked {
		some, err := find(ip, opened(attrIPv4Dest, filterDest, ip), func(f Flow) bool { return f.Asked.Addr() == ip && match(f) })
		if err != nil {
			return found, fmt.Errorf("list tracked connections to %v: %w", ip, err)
		}
		found = append(found, some...)
	}
	return found, nil
}

// find is a search among the connections of an address's family.
func find(of netip.Addr, asked []nl.NetlinkRequestData, match func(Flow) bool) ([]Entry, error) {
	return nlutil.Whole(func() ([]Entry, error) { return walk(familyOf(of), asked, match) })
}

// opened is the part of a request that asks for connections with an address in their first
// packet, as its source or destination; nil where the kernel does not understand it.
func opened(attr int, filtered uint32, ip netip.Addr) []nl.NetlinkRequestData {
	if ip.Is6() {
		return nil
	}
	tuple := nl.NewRtAttr(attrTupleOrig|unix.NLA_F_NESTED, nil)
	tuple.AddRtAttr(attrTupleIP|unix.NLA_F_NESTED, nil).AddRtAttr(attr, ip.AsSlice())
	filter := nl.NewRtAttr(attrFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(attrFilterOrig, binary.NativeEndian.AppendUint32(nil, filtered))
	filter.AddRtAttr(attrFilterReply, binary.NativeEndian.AppendUint32(nil, 0))
	return []nl.NetlinkRequestData{tuple, filter}
}

// familyOf is the number of an address's family.
func familyOf(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// walk is one walk through the table, in which the kernel tells of what is asked for, of one
// family or of all.
func walk(family uint8, asked []nl.NetlinkRequestData, match func(Flow) bool) ([]Entry, error) {
	request := (&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0}).Serialize()
	for _, attr := range asked {
		request = append(request, attr.Serialize()...)
	}
	var found []Entry
	err := nlutil.Dump(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, request, func(_ uint16, msg []byte) error {
		entry, ours, err := parse(msg)
		if err == nil && ours && match(entry.Flow) {
			entry.message, entry.family = append([]byte(nil), msg[nl.SizeofNfgenmsg:]...), msg[0]
			found = append(found, entry)
		}
		return err
	})
	return found, err
}

// EachMarked calls each with the connections whose mark has a value in the bits of a mask,
// in one walk through the table, by and large: one that comes or goes meanwhile may be left
// out, or counted twice. The kernel filters them.
func EachMarked(value, mask uint32, each func(Flow)) error {
	asked := []nl.NetlinkRequestData{
		nl.NewRtAttr(attrMark, binary.BigEndian.AppendUint32(nil, value)),
		nl.NewRtAttr(attrMarkMask, binary.BigEndian.AppendUint32(nil, mask)),
	}
	_, err := walk(unix.AF_UNSPEC, asked, func(f Flow) bool {
		if f.Mark&mask == value {
			each(f)
		}
		return false
	})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list tracked connections by mark: %w", err)
	}
	return nil
}

// Forget makes the kernel forget connections, and counts them. A later packet of such
// a connection begins a new one, or is invalid.
func Forget(entries []Entry) (int, error) {
	n, failed := 0, 0
	var first error
	for _, e := range entries {
		req := request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, e.family)
		req.AddRawData(e.message)
		switch _, err := req.Execute(unix.NETLINK_NETFILTER, 0); {
		case err == nil, errors.Is(err, unix.ENOENT):
			n++
		default:
			failed++
			if first == nil {
				first = err
			}
		}
	}
	if first != nil {
		return n, fmt.Errorf("delete tracked connections: %d of %d remain: %w", failed, len(entries), first)
	}
	return n, nil
}

// Delete makes the kernel forget all connections that match, and counts them.
func Delete(match func(Flow) bool) (int, error) {
	entries, err := Find(match)
	n, errForget := Forget(entries)
	return n, errors.Join(err, errForget)
}

func request(command, flags int, family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|command, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

// parse reads one connection. It is not ours if it is not of IPv4 or IPv6, or in a zone.
func parse(msg []byte) (e Entry, ours bool, err error) {
	if len(msg) < nl.SizeofNfgenmsg {
		return Entry{}, false, fmt.Errorf("parse a tracked connection: %d bytes", len(msg))
	}
	var orig, reply tuple
	zone := false
	err = eachAttr(msg[nl.SizeofNfgenmsg:], func(typ uint16, value []byte) (err error) {
		switch typ {
		case attrTupleOrig:
			orig, err = parseTuple(value)
		case attrTupleReply:
			reply, err = parseTuple(value)
		case attrMark:
			e.Mark = big32(value)
		case attrZone:
			zone = true
		case attrProtoInfo:
			e.State, err = parseState(value)
		}
		return err
	})
	e.Source, e.Dest = orig.source, reply.source
	e.Asked = netip.AddrPortFrom(orig.dest, orig.destPort)
	e.SourceOutside = reply.dest
	e.Protocol, e.SourcePort, e.DestPort = orig.protocol, orig.sourcePort, reply.sourcePort
	return e, !zone && orig.source.IsValid(), err
}

// tuple is one direction of a connection.
type tuple struct {
	source, dest         netip.Addr
	protocol             uint8
	sourcePort, destPort uint16
}

func parseTuple(b []byte) (t tuple, err error) {
	err = eachAttr(b, func(typ uint16, value []byte) error {
		switch typ {
		case attrTupleIP:
			return eachAttr(value, func(typ uint16, value []byte) error {
				ip, ok := netip.AddrFromSlice(value)
				switch {
				case ok && (typ == attrIPv4Source || typ == attrIPv6Source):
					t.source = ip
				case ok && (typ == attrIPv4Dest || typ == attrIPv6Dest):
					t.dest = ip
				}
				return nil
			})
		case attrTupleProto:
			return eachAttr(value, func(typ uint16, value []byte) error {
				switch {
				case typ == attrProtoNumber && len(value) == 1:
					t.protocol = value[0]
				case typ == attrProtoSourcePort:
					t.sourcePort = big16(value)
				case typ == attrProtoDestPort:
					t.destPort = big16(value)
				}
				return nil
			})
		}
		return nil
	})
	return t, err
}

func parseState(b []byte) (state uint8, err error) {
	err = eachAttr(b, func(typ uint16, value []byte) error {
		if typ != attrProtoInfoTCP {
			return nil
		}
		return eachAttr(value, func(typ uint16, value []byte) error {
			if typ == attrTCPState && len(value) == 1 {
				state = value[0]
			}
			return nil
		})
	})
	return state, err
}

// eachAttr calls do for each netlink attribute in b, without its flag bits.
func eachAttr(b []byte, do func(typ uint16, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return fmt.Errorf("parse a tracked connection: an attribute of %d bytes in %d", length, len(b))
		}
		if err := do(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length]); err != nil {
			return err
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return nil
}

func big16(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func big32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
