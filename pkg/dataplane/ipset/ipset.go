package ipset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxElements is far beyond the kernel's default of 65,536.
const maxElements = 1 << 20

// Set is the name and shape of an ipset.
type Set struct {
	Name string
	// Type is that of the kernel, such as hash:ip.
	Type string
	// Marks: entries have a mark and a mask for SET --map-mark.
	Marks bool
	// Timeout is how long entries stay, 0 for until they are deleted.
	Timeout time.Duration
	// IPv6: its entries are of IPv6.
	IPv6 bool
}

// Entries is the content of a set: each entry's mark and mask, both 0 in a set
// without marks.
type Entries map[netip.Prefix]Value

// Value is what SET --map-mark makes of a packet's mark: the bits of Mask
// become those of Mark.
type Value struct {
	Mark, Mask uint32
	// Ends is how long the entry stays, in a set with a timeout; 0 for until it is
	// deleted.
	Ends time.Duration
}

// ErrNoType is the error of a type of sets that the kernel does not have. To ask for it, the kernel may
// start a program that looks for a module.
var ErrNoType = errors.New("the kernel has no ipsets of this type")

// Ensure makes the set where it does not exist, and counts the changes.
func Ensure(h *netlink.Handle, k Set) (changes int, err error) {
	o := netlink.IpsetCreateOptions{Skbinfo: k.Marks, MaxElements: maxElements}
	if k.Timeout > 0 {
		seconds := uint32(k.Timeout.Seconds())
		o.Timeout = &seconds
	}
	if k.IPv6 {
		o.Family = unix.AF_INET6
	}
	err = h.IpsetCreate(k.Name, k.Type, o)
	if err == nil {
		return 1, nil
	}
	if errors.Is(err, nl.IPSetError(nl.IPSET_ERR_FIND_TYPE)) {
		return 0, fmt.Errorf("create ipset %s: %w: %s", k.Name, ErrNoType, k.Type)
	}
	if !exists(err) {
		return 0, fmt.Errorf("create ipset %s: %w", k.Name, err)
	}
	there, err := describe(k.Name)
	if err != nil {
		return 0, err
	}
	// A set without skbinfo maps nothing and says nothing.
	if there.Type != k.Type || there.Marks != k.Marks || there.IPv6 != k.IPv6 {
		return 0, fmt.Errorf("ipset %s is a %s (marks: %t, IPv6: %t), not a %s (marks: %t, IPv6: %t): run the cleanup command, which removes it",
			k.Name, there.Type, there.Marks, there.IPv6, k.Type, k.Marks, k.IPv6)
	}
	return 0, nil
}

// describe reads the shape of a set, and none of its entries: the library
// would list them all, and log a line for each that has a mark.
func describe(name string) (Set, error) {
	k := Set{Name: name}
	req := request(nl.IPSET_CMD_LIST, name)
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: listHeaderOnly})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return k, fmt.Errorf("look at ipset %s: %w", name, withText(err))
	}
	for _, msg := range msgs {
		if len(msg) < nl.SizeofNfgenmsg {
			continue
		}
		err := eachAttr(msg[nl.SizeofNfgenmsg:], func(typ int, value []byte) error {
			switch typ {
			case nl.IPSET_ATTR_TYPENAME:
				k.Type = strings.TrimRight(string(value), "\x00")
			case nl.IPSET_ATTR_FAMILY:
				k.IPv6 = len(value) == 1 && value[0] == unix.AF_INET6
			case nl.IPSET_ATTR_DATA:
				return eachAttr(value, func(typ int, value []byte) error {
					if typ == nl.IPSET_ATTR_CADT_FLAGS && len(value) == 4 {
						k.Marks = binary.BigEndian.Uint32(value)&nl.IPSET_FLAG_WITH_SKBINFO != 0
					}
					return nil
				})
			}
			return nil
		})
		if err != nil {
			return k, fmt.Errorf("look at ipset %s: %w", name, err)
		}
	}
	return k, nil
}

func exists(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, nl.IPSetError(nl.IPSET_ERR_EXIST))
}

// List returns the content of a set; one that does not exist is empty.
func List(name string) (Entries, error) {
	entries := Entries{}
	err := each(name, func(data []byte) error {
		entry, mark, err := parseEntry(data)
		if err == nil && entry.IsValid() {
			entries[entry] = mark
		}
		return err
	})
	return entries, err
}

// each calls do for each entry of a set; for none of one that does not exist.
func each(name string, do func(data []byte) error) error {
	msgs, err := request(nl.IPSET_CMD_LIST, name).Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list ipset %s: %w", name, withText(err))
	}
	for _, msg := range msgs {
		if len(msg) < nl.SizeofNfgenmsg {
			continue
		}
		if err := parse(msg[nl.SizeofNfgenmsg:], do); err != nil {
			return fmt.Errorf("list ipset %s: %w", name, err)
		}
	}
	return nil
}

// parse reads one message of a listing: ADT holds a DATA for each entry.
func parse(msg []byte, do func(data []byte) error) error {
	return eachAttr(msg, func(typ int, value []byte) error {
		if typ != nl.IPSET_ATTR_ADT {
			return nil
		}
		return eachAttr(value, func(typ int, value []byte) error {
			if typ != nl.IPSET_ATTR_DATA {
				return nil
			}
			return do(value)
		})
	})
}

func parseEntry(data []byte) (entry netip.Prefix, mark Value, err error) {
	var ip netip.Addr
	bits := 0
	err = eachAttr(data, func(typ int, value []byte) error {
		switch {
		case typ == nl.IPSET_ATTR_IP:
			return eachAttr(value, func(typ int, value []byte) error {
				if typ == nl.IPSET_ATTR_IPADDR_IPV4 || typ == nl.IPSET_ATTR_IPADDR_IPV6 {
					ip, _ = netip.AddrFromSlice(value)
				}
				return nil
			})
		case typ == nl.IPSET_ATTR_CIDR && len(value) == 1:
			bits = int(value[0])
		case typ == nl.IPSET_ATTR_TIMEOUT && len(value) == 4:
			mark.Ends = time.Duration(binary.BigEndian.Uint32(value)) * time.Second
		case typ == nl.IPSET_ATTR_SKBMARK && len(value) == 8:
			mark.Mark, mark.Mask = binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[4:])
		}
		return nil
	})
	if err != nil || !ip.IsValid() {
		return netip.Prefix{}, mark, err
	}
	if bits == 0 {
		bits = ip.BitLen()
	}
	return netip.PrefixFrom(ip, bits), mark, nil
}

// eachAttr calls do for each netlink attribute in b, without its flag bits.
func eachAttr(b []byte, do func(typ int, value []byte) error) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return fmt.Errorf("parse netlink attributes: %w", err)
	}
	for _, a := range attrs {
		if err := do(int(a.Attr.Type&nl.NLA_TYPE_MASK), a.Value); err != nil {
			return err
		}
	}
	return nil
}

// batchSize is how many entries go in one message: well below the 64 KiB that
// one attribute can hold.
const batchSize = 500

// Put adds entries, or changes the marks of those that exist, and when they end.
func Put(k Set, entries Entries) error {
	return change(nl.IPSET_CMD_ADD, k, entries.all)
}

// Delete deletes entries; one that does not exist is no error.
func Delete(k Set, entries Entries) error {
	return change(nl.IPSET_CMD_DEL, k, entries.all)
}

// encoded is an entry as an attribute of a message, whose line is its number there.
type encoded func(k Set, line uint32) *nl.RtAttr

func change(cmd int, k Set, entries iter.Seq[encoded]) error {
	adt := nl.NewRtAttr(nl.IPSET_ATTR_ADT|int(nl.NLA_F_NESTED), nil)
	n := 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		req := request(cmd, k.Name) // without NLM_F_EXCL: "already so" is no error
		req.AddData(adt)
		req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_LINENO | nl.NLA_F_NET_BYTEORDER, Value: 0})
		_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		adt, n = nl.NewRtAttr(nl.IPSET_ATTR_ADT|int(nl.NLA_F_NESTED), nil), 0
		if err != nil {
			return fmt.Errorf("change ipset %s: %w", k.Name, withText(err))
		}
		return nil
	}
	for entry := range entries {
		adt.AddChild(entry(k, uint32(n)))
		if n++; n == batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// all are the entries as change takes them.
func (e Entries) all(yield func(encoded) bool) {
	for entry, mark := range e {
		if !yield(func(k Set, line uint32) *nl.RtAttr { return entryData(k, entry, mark, line) }) {
			return
		}
	}
}

func entryData(k Set, entry netip.Prefix, mark Value, line uint32) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_IP|int(nl.NLA_F_NESTED), addrData(k, entry.Addr())))
	if strings.HasPrefix(k.Type, "hash:net") {
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_CIDR, nl.Uint8Attr(uint8(entry.Bits()))))
	}
	if k.Marks {
		value := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, mark.Mark), mark.Mask)
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_SKBMARK|int(nl.NLA_F_NET_BYTEORDER), value))
	}
	if k.Timeout > 0 {
		seconds := uint32((mark.Ends + time.Second - 1) / time.Second) //nolint:gosec // hours at most
		data.AddChild(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_TIMEOUT | nl.NLA_F_NET_BYTEORDER, Value: seconds})
	}
	data.AddChild(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_LINENO | nl.NLA_F_NET_BYTEORDER, Value: line})
	return data
}

// Connection is an entry of a set of type hash:ip,port,ip.
type Connection struct {
	Source     netip.Addr
	Protocol   uint8
	SourcePort uint16
	Dest       netip.Addr
}

// PutConnection adds a connection to a set, or renews its timeout there.
func PutConnection(h *netlink.Handle, name string, c Connection) error {
	err := h.IpsetAdd(name, &netlink.IPSetEntry{
		IP: c.Source.AsSlice(), Protocol: &c.Protocol, Port: &c.SourcePort, IP2: c.Dest.AsSlice(), Replace: true,
	})
	if err != nil {
		return fmt.Errorf("add connection of %v to %v to ipset %s: %w", c.Source, c.Dest, name, err)
	}
	return nil
}

// Names lists the names of all sets.
func Names() ([]string, error) {
	// Headers only: the library logs a line for each entry with a mark.
	req := request(nl.IPSET_CMD_LIST, "")
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: listNamesOnly})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("list ipsets: %w", withText(err))
	}
	var names []string
	for _, msg := range msgs {
		if len(msg) < nl.SizeofNfgenmsg {
			continue
		}
		err := eachAttr(msg[nl.SizeofNfgenmsg:], func(typ int, value []byte) error {
			if typ == nl.IPSET_ATTR_SETNAME {
				names = append(names, strings.TrimRight(string(value), "\x00"))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// Flags of a listing, from the kernel's ip_set.h.
const (
	listNamesOnly  = 1 << 1 // IPSET_FLAG_LIST_SETNAME
	listHeaderOnly = 1 << 2 // IPSET_FLAG_LIST_HEADER
)

// Destroy removes a set that no rule refers to; one that does not exist is no
// error.
func Destroy(h *netlink.Handle, name string) error {
	if err := h.IpsetDestroy(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("destroy ipset %s: %w", name, err)
	}
	return nil
}

func request(cmd int, name string) *nl.NetlinkRequest {
	flags := unix.NLM_F_ACK
	if cmd == nl.IPSET_CMD_LIST {
		flags = unix.NLM_F_ACK | unix.NLM_F_DUMP
	}
	req := nl.NewNetlinkRequest(cmd|unix.NFNL_SUBSYS_IPSET<<8, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	if name != "" {
		req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name)))
	}
	return req
}

// withText gives the kernel's private error numbers their text.
func withText(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno >= nl.IPSET_ERR_PRIVATE {
		return nl.IPSetError(errno)
	}
	return err
}
