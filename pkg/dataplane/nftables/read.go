package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Flags of a table, from the kernel's nf_tables.h.
const (
	tableOwner   = 1 << 1
	tablePersist = 1 << 2
)

// own makes the table, and makes this socket its owner where the kernel has tables
// that outlive their owners. Where it has not, the table has no owner.
func (d *Driver) own() error {
	// Until it is owned somebody else can change it: what was seen may be old.
	defer d.Forget()
	err := d.ownTable(table())
	d.owned = err == nil && d.wantOwned
	return err
}

// ownTable is own for any table of ours.
func (d *Driver) ownTable(t *nftables.Table) error {
	if d.wantOwned {
		err := d.newTable(t, tableOwner|tablePersist)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return inUse(fmt.Errorf("make %s: %w", tableText(t), err))
		}
		d.wantOwned = false
	}
	if err := d.newTable(t, 0); err != nil {
		return inUse(fmt.Errorf("make %s: %w", tableText(t), err))
	}
	return nil
}

// inUse adds to an error what it means.
func inUse(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: another process owns the table, for example another agent on this host", err)
	}
	return err
}

// newTable makes a table, or changes its flags. The library has no flags.
func (d *Driver) newTable(t *nftables.Table, flags uint32) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(t.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
	})
	if err != nil {
		return err
	}
	message := func(typ netlink.HeaderType, flags netlink.HeaderFlags, header, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: append(header, data...)}
	}
	batch := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	_, err = d.raw.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, slices.Clone(batch), nil),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Acknowledge,
			[]byte{byte(t.Family), unix.NFNETLINK_V0, 0, 0}, attributes),
		message(unix.NFNL_MSG_BATCH_END, 0, slices.Clone(batch), nil),
	})
	if err != nil {
		return err
	}
	_, err = d.raw.Receive()
	return err
}

// readGeneration reads the number of the kernel's present generation of rules, of all
// tables.
func readGeneration() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EINVAL) {
		// So netfilter answers where nothing serves that kind of message.
		return 0, ErrAbsent
	}
	if err != nil {
		return 0, fmt.Errorf("read the generation of nftables: %w", err)
	}
	for _, msg := range msgs {
		attrs, err := attributes(msg)
		if err != nil {
			return 0, err
		}
		if id := attrs[unix.NFTA_GEN_ID]; len(id) == 4 {
			return binary.BigEndian.Uint32(id), nil
		}
	}
	return 0, errors.New("read the generation of nftables: the kernel names none")
}

// readRules reads the rules of all chains of a table, in one dump: the library
// takes one for each chain.
func readRules(t *nftables.Table, chains map[string]Chain) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(t.Family), Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(t.Name)))
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return fmt.Errorf("list the rules of %s: %w", tableText(t), err)
	}
	for _, msg := range msgs {
		attrs, err := attributes(msg)
		if err != nil {
			return err
		}
		name := strings.TrimRight(string(attrs[unix.NFTA_RULE_CHAIN]), "\x00")
		id, _ := userdata.GetString(attrs[unix.NFTA_RULE_USERDATA], userdata.TypeComment)
		c := chains[name]
		c.Rules = append(c.Rules, Rule{ID: id})
		chains[name] = c
	}
	return nil
}

// attributes reads the attributes of a message of nftables, without their flag bits.
func attributes(msg []byte) (map[uint16][]byte, error) {
	if len(msg) < nl.SizeofNfgenmsg {
		return nil, fmt.Errorf("parse a message of nftables: it has %d bytes", len(msg))
	}
	list, err := nl.ParseRouteAttr(msg[nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, fmt.Errorf("parse a message of nftables: %w", err)
	}
	found := make(map[uint16][]byte, len(list))
	for _, a := range list {
		found[a.Attr.Type&nl.NLA_TYPE_MASK] = a.Value
	}
	return found, nil
}

// verdictText reads the verdict of an element: "jump CHAIN", or what no element of
// ours has.
func verdictText(data []byte) (string, error) {
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return "", fmt.Errorf("parse a verdict: %w", err)
	}
	var kind int32
	var chain string
	for _, a := range list {
		switch {
		case a.Attr.Type&nl.NLA_TYPE_MASK == unix.NFTA_VERDICT_CODE && len(a.Value) == 4:
			kind = int32(binary.BigEndian.Uint32(a.Value)) //nolint:gosec // verdicts of nftables are negative
		case a.Attr.Type&nl.NLA_TYPE_MASK == unix.NFTA_VERDICT_CHAIN:
			chain = strings.TrimRight(string(a.Value), "\x00")
		}
	}
	if expr.VerdictKind(kind) != expr.VerdictJump {
		return fmt.Sprintf("verdict %d %s", kind, chain), nil
	}
	return "jump " + chain, nil
}

func baseOf(c *nftables.Chain) *Base {
	if c.Hooknum == nil || c.Priority == nil {
		return nil
	}
	b := &Base{Priority: int32(*c.Priority), NAT: c.Type == nftables.ChainTypeNAT}
	for hook, number := range hooks() {
		if *number == *c.Hooknum {
			b.Hook = hook
		}
	}
	return b
}

func hookNumber(h rules.Hook) *nftables.ChainHook { return hooks()[h] }

func hooks() map[rules.Hook]*nftables.ChainHook {
	return map[rules.Hook]*nftables.ChainHook{
		rules.Prerouting:  nftables.ChainHookPrerouting,
		rules.Input:       nftables.ChainHookInput,
		rules.Forward:     nftables.ChainHookForward,
		rules.Output:      nftables.ChainHookOutput,
		rules.Postrouting: nftables.ChainHookPostrouting,
	}
}

// interval is the key of a network in a set of networks: its first address, and the
// first after it, which is the zero address at the end of all addresses. To the kernel
// these are two elements; they come and go together.
func interval(p netip.Prefix) string {
	start := p.Masked().Addr().AsSlice()
	after := slices.Clone(start)
	// The bit above those of the host is added, with its carry.
	for at := p.Bits() - 1; at >= 0; at-- {
		bit := byte(1) << (7 - at%8)
		after[at/8] ^= bit
		if after[at/8]&bit != 0 {
			break
		}
	}
	return string(start) + string(after)
}

// intervals are the elements of the networks that no other contains.
func intervals(networks []netip.Prefix) Elements {
	elements := Elements{}
	for _, p := range disjoint(networks) {
		elements[interval(p)] = ""
	}
	return elements
}

// paired returns the intervals of a set as the kernel lists it: their ends, in any
// order. An end that belongs to no interval, as tools write at the beginning, is left
// out.
func paired(list []nftables.SetElement) Elements {
	var starts, ends []string
	for _, e := range list {
		if e.IntervalEnd {
			ends = append(ends, string(e.Key))
		} else {
			starts = append(starts, string(e.Key))
		}
	}
	slices.Sort(ends)
	elements := make(Elements, len(starts))
	for _, start := range starts {
		i, same := slices.BinarySearch(ends, start)
		if same {
			i++
		}
		end := string(make([]byte, len(start)))
		if i < len(ends) {
			end = ends[i]
		}
		elements[start+end] = ""
	}
	return elements
}

// Has reports whether there is a set of that name.
func (c Content) Has(set string) bool {
	_, ok := c.Sets[set]
	return ok
}

// Pods returns the pods and their marks. One that only the map or only the set has
// gets a mark that nothing has.
func (c Content) Pods() map[netip.Addr]uint32 {
	pods := make(map[netip.Addr]uint32, len(c.Sets[setMarks])+len(c.Sets[setMarks6]))
	for _, family := range [][2]string{{setMarks, rules.SetPods}, {setMarks6, rules.SetPods6}} {
		marks, known := c.Sets[family[0]], c.Sets[family[1]]
		for key, verdict := range marks {
			pods[keyAddr(key)] = podMark(verdict)
			if _, ok := known[key]; !ok {
				pods[keyAddr(key)] = noMark
			}
		}
		for key := range known {
			if _, ok := marks[key]; !ok {
				pods[keyAddr(key)] = noMark
			}
		}
	}
	return pods
}

// Addresses returns the members of a set of addresses.
func (c Content) Addresses(set string) map[netip.Addr]struct{} {
	members := make(map[netip.Addr]struct{}, len(c.Sets[set]))
	for key := range c.Sets[set] {
		members[keyAddr(key)] = struct{}{}
	}
	return members
}

// Inside returns the networks that are inside, of both families. An interval that is no
// network is left out: it is not ours, and goes when the set is changed.
func (c Content) Inside() []netip.Prefix {
	var networks []netip.Prefix
	for _, set := range []string{rules.SetInside, rules.SetInside6} {
		for key := range c.Sets[set] {
			start := keyAddr(key[:len(key)/2])
			for bits := range start.BitLen() + 1 {
				if p := netip.PrefixFrom(start, bits); p.Masked() == p && interval(p) == key {
					networks = append(networks, p)
				}
			}
		}
	}
	return networks
}
