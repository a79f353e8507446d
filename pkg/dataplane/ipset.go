package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// setPrefix marks the ipsets that are ours.
const setPrefix = "egress-"

// Our ipsets. The rules refer to them.
const (
	setPods   = rules.SetPods
	setLocked = rules.SetLocked
	setHosts  = rules.SetHosts
	setInside = rules.SetInside
	setIPs    = rules.SetIPs
	setResets = rules.SetResets
)

// resetFor is how long a pod may take to find out that a connection has ended:
// longer than TCP waits between two attempts to send.
const resetFor = 15 * time.Minute

// maxSetElements is far beyond the kernel's default of 65,536.
const maxSetElements = 1 << 20

// setKind is the shape of an ipset.
type setKind struct {
	name string
	typ  string
	// marks: entries bear a mark and mask for SET --map-mark.
	marks bool
	// timeout is how long entries stay, 0 for as long as they are not deleted.
	timeout time.Duration
}

func setKinds() []setKind {
	return []setKind{
		{name: setPods, typ: "hash:ip", marks: true},
		{name: setLocked, typ: "hash:ip"},
		{name: setHosts, typ: "hash:ip"},
		{name: setInside, typ: "hash:net"},
		{name: setIPs, typ: "hash:ip"},
		{name: setResets, typ: "hash:ip,port,ip", timeout: resetFor},
	}
}

// setMarks is the content of a set: each entry's mark and mask; both 0 in a set
// without marks.
type setMarks map[netip.Prefix]setMarkValue

// setMarkValue is what SET --map-mark makes of a packet's mark: the bits of
// Mask become those of Mark.
type setMarkValue struct{ Mark, Mask uint32 }

// ensureSet makes the set where it is not there.
func ensureSet(h *netlink.Handle, k setKind) (changes int, err error) {
	o := netlink.IpsetCreateOptions{Skbinfo: k.marks, MaxElements: maxSetElements}
	if k.timeout > 0 {
		seconds := uint32(k.timeout.Seconds())
		o.Timeout = &seconds
	}
	err = h.IpsetCreate(k.name, k.typ, o)
	if err == nil {
		return 1, nil
	}
	if !isSetThere(err) {
		return 0, fmt.Errorf("create ipset %s: %w", k.name, err)
	}
	there, err := describeSet(k.name)
	if err != nil {
		return 0, err
	}
	// A set without skbinfo maps nothing and says nothing.
	if there.typ != k.typ || there.marks != k.marks {
		return 0, fmt.Errorf("ipset %s is a %s (marks: %t), not a %s (marks: %t): run the cleanup command, which removes it",
			k.name, there.typ, there.marks, k.typ, k.marks)
	}
	return 0, nil
}

// describeSet reads what kind a set is, and none of its entries: the library
// would list them all, and log a line for each that has a mark.
func describeSet(name string) (setKind, error) {
	k := setKind{name: name}
	req := setRequest(nl.IPSET_CMD_LIST, name)
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: listHeaderOnly})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return k, fmt.Errorf("look at ipset %s: %w", name, setError(err))
	}
	for _, msg := range msgs {
		if len(msg) < nl.SizeofNfgenmsg {
			continue
		}
		err := eachAttr(msg[nl.SizeofNfgenmsg:], func(typ int, value []byte) error {
			switch typ {
			case nl.IPSET_ATTR_TYPENAME:
				k.typ = strings.TrimRight(string(value), "\x00")
			case nl.IPSET_ATTR_DATA:
				return eachAttr(value, func(typ int, value []byte) error {
					if typ == nl.IPSET_ATTR_CADT_FLAGS && len(value) == 4 {
						k.marks = binary.BigEndian.Uint32(value)&nl.IPSET_FLAG_WITH_SKBINFO != 0
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

func isSetThere(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, nl.IPSetError(nl.IPSET_ERR_EXIST))
}

// listSet gives the content of a set; a set that is not there is empty.
func listSet(name string) (setMarks, error) {
	req := setRequest(nl.IPSET_CMD_LIST, name)
	entries := setMarks{}
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return entries, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list ipset %s: %w", name, setError(err))
	}
	for _, msg := range msgs {
		if len(msg) < nl.SizeofNfgenmsg {
			continue
		}
		if err := parseSet(msg[nl.SizeofNfgenmsg:], entries); err != nil {
			return nil, fmt.Errorf("list ipset %s: %w", name, err)
		}
	}
	return entries, nil
}

// parseSet reads one message of a listing: ADT holds a DATA for each entry.
func parseSet(msg []byte, into setMarks) error {
	return eachAttr(msg, func(typ int, value []byte) error {
		if typ != nl.IPSET_ATTR_ADT {
			return nil
		}
		return eachAttr(value, func(typ int, value []byte) error {
			if typ != nl.IPSET_ATTR_DATA {
				return nil
			}
			entry, mark, err := parseSetEntry(value)
			if err == nil && entry.IsValid() {
				into[entry] = mark
			}
			return err
		})
	})
}

func parseSetEntry(data []byte) (entry netip.Prefix, mark setMarkValue, err error) {
	var ip netip.Addr
	bits := 32
	err = eachAttr(data, func(typ int, value []byte) error {
		switch {
		case typ == nl.IPSET_ATTR_IP:
			return eachAttr(value, func(typ int, value []byte) error {
				if typ == nl.IPSET_ATTR_IPADDR_IPV4 && len(value) == 4 {
					ip = netip.AddrFrom4([4]byte(value))
				}
				return nil
			})
		case typ == nl.IPSET_ATTR_CIDR && len(value) == 1:
			bits = int(value[0])
		case typ == nl.IPSET_ATTR_SKBMARK && len(value) == 8:
			mark = setMarkValue{Mark: binary.BigEndian.Uint32(value), Mask: binary.BigEndian.Uint32(value[4:])}
		}
		return nil
	})
	if err != nil || !ip.IsValid() {
		return netip.Prefix{}, mark, err
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

// setBatch is how many entries go in one message: well below the 64 KiB that
// one attribute can hold.
const setBatch = 500

// putSetEntries adds entries, or changes the marks of those that are there.
func putSetEntries(k setKind, entries setMarks) error {
	return changeSet(nl.IPSET_CMD_ADD, k, entries)
}

// deleteSetEntries deletes entries; one that is not there is no error.
func deleteSetEntries(k setKind, entries setMarks) error {
	return changeSet(nl.IPSET_CMD_DEL, k, entries)
}

func changeSet(cmd int, k setKind, entries setMarks) error {
	adt := nl.NewRtAttr(nl.IPSET_ATTR_ADT|int(nl.NLA_F_NESTED), nil)
	n := 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		req := setRequest(cmd, k.name) // without NLM_F_EXCL: "already so" is no error
		req.AddData(adt)
		req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_LINENO | nl.NLA_F_NET_BYTEORDER, Value: 0})
		_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		adt, n = nl.NewRtAttr(nl.IPSET_ATTR_ADT|int(nl.NLA_F_NESTED), nil), 0
		if err != nil {
			return fmt.Errorf("change ipset %s: %w", k.name, setError(err))
		}
		return nil
	}
	for entry, mark := range entries {
		adt.AddChild(setEntryData(k, entry, mark, uint32(n)))
		if n++; n == setBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func setEntryData(k setKind, entry netip.Prefix, mark setMarkValue, line uint32) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	ip := nl.NewRtAttr(nl.IPSET_ATTR_IPADDR_IPV4|int(nl.NLA_F_NET_BYTEORDER), entry.Addr().AsSlice())
	data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_IP|int(nl.NLA_F_NESTED), ip.Serialize()))
	if strings.HasPrefix(k.typ, "hash:net") {
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_CIDR, nl.Uint8Attr(uint8(entry.Bits()))))
	}
	if k.marks {
		value := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, mark.Mark), mark.Mask)
		data.AddChild(nl.NewRtAttr(nl.IPSET_ATTR_SKBMARK|int(nl.NLA_F_NET_BYTEORDER), value))
	}
	data.AddChild(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_LINENO | nl.NLA_F_NET_BYTEORDER, Value: line})
	return data
}

// putReset notes a connection whose pod is to get a reset.
func putReset(h *netlink.Handle, f flow) error {
	protocol, port := f.protocol, f.sourcePort
	err := h.IpsetAdd(setResets, &netlink.IPSetEntry{
		IP: f.source.AsSlice(), Protocol: &protocol, Port: &port, IP2: f.dest.AsSlice(), Replace: true,
	})
	if err != nil {
		return fmt.Errorf("add connection of pod %v to %v to ipset %s: %w", f.source, f.dest, setResets, err)
	}
	return nil
}

// ownSets names the sets of ours that are there. The prefix alone is no proof:
// others may call a set egress-something too.
func ownSets() ([]string, error) {
	// Headers only: the library logs a line for each entry with a mark.
	req := setRequest(nl.IPSET_CMD_LIST, "")
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: listNamesOnly})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("list ipsets: %w", setError(err))
	}
	var names []string
	for _, msg := range msgs {
		if len(msg) < nl.SizeofNfgenmsg {
			continue
		}
		err := eachAttr(msg[nl.SizeofNfgenmsg:], func(typ int, value []byte) error {
			if name := strings.TrimRight(string(value), "\x00"); typ == nl.IPSET_ATTR_SETNAME && isOurSet(name) {
				names = append(names, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

func isOurSet(name string) bool {
	return slices.ContainsFunc(setKinds(), func(k setKind) bool { return k.name == name })
}

// Flags of a listing, from the kernel's ip_set.h.
const (
	listNamesOnly  = 1 << 1 // IPSET_FLAG_LIST_SETNAME
	listHeaderOnly = 1 << 2 // IPSET_FLAG_LIST_HEADER
)

// destroySet removes a set that no rule refers to; one that is not there is no
// error.
func destroySet(h *netlink.Handle, name string) error {
	if err := h.IpsetDestroy(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("destroy ipset %s: %w", name, err)
	}
	return nil
}

func setRequest(cmd int, name string) *nl.NetlinkRequest {
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

// setError gives the kernel's private error numbers their text.
func setError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno >= nl.IPSET_ERR_PRIVATE {
		return nl.IPSetError(errno)
	}
	return err
}
