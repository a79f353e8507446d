package nftables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// ForeignChain is a base chain of others, for one family of packets.
type ForeignChain struct {
	Family, Table, Name string
	// Hook is prerouting, input, forward, output or postrouting.
	Hook     string
	Priority int
	// Translates: it is of type nat, and has rules. TranslatesHere: one of them gives
	// packets another source, and no chain that it leads to does.
	Translates, TranslatesHere bool
	// Closed: it drops or rejects what no rule accepts.
	Closed bool
	// Names: a rule of its table names the device or the port that was asked for, or
	// compares it with a set, or lets the senders' packets go on. Such a rule may accept our
	// packets.
	Names bool
}

// String names the chain as nft does.
func (c ForeignChain) String() string {
	return fmt.Sprintf("table %s %s chain %s", c.Family, c.Table, c.Name)
}

// maxTableChains is how many chains a table may have whose rules are read to see
// whether they name what was asked for. In larger ones they are taken to do so.
const maxTableChains = 200

// Question is what must be known of base chains of others.
type Question struct {
	// Device and Port are what their rules may name.
	Device string
	Port   uint16
	// Hosts are the senders of packets to the port, and Pods are senders of those that
	// the device brings.
	Hosts, Pods []netip.Addr
	// IPTables: those of iptables count too. Otherwise they are read elsewhere.
	IPTables bool
	// IPv6: the packets are of IPv6, else of IPv4.
	IPv6 bool
}

func (q Question) equal(o Question) bool {
	return q.Device == o.Device && q.Port == o.Port && q.IPTables == o.IPTables && q.IPv6 == o.IPv6 && slices.Equal(q.Hosts, o.Hosts) && slices.Equal(q.Pods, o.Pods)
}

// Foreign keeps what was last seen of base chains of others.
type Foreign struct {
	seen       []ForeignChain
	generation uint32
	known      bool
	question   Question
}

// Look lists the base chains of others at the hooks input, forward and postrouting. It
// reads nothing while the kernel's rules stay the same, and rules only of the chains
// that may matter.
func (f *Foreign) Look(d *Driver, q Question) ([]ForeignChain, error) {
	generation, err := d.absence.generation()
	if errors.Is(err, ErrAbsent) {
		return nil, nil
	}
	if err != nil || f.known && generation == f.generation && q.equal(f.question) {
		return f.seen, err
	}
	all, err := nlutil.Whole(func() (foreignChains, error) { return readForeign(q.IPTables, q.IPv6) })
	if err != nil {
		return nil, fmt.Errorf("list the chains of others: %w", err)
	}
	for i := range all.base {
		if err := d.look(&all.base[i], all.names, q); err != nil {
			return nil, fmt.Errorf("list the rules of %v: %w", all.base[i], err)
		}
	}
	f.seen, f.generation, f.known, f.question = all.base, generation, true, q
	return f.seen, nil
}

// foreignTable identifies a table.
type foreignTable struct{ family, name string }

// foreignChains are base chains, and the names of all chains of their tables.
type foreignChains struct {
	base  []ForeignChain
	names map[foreignTable][]string
	// iptables: those of iptables count.
	iptables bool
	// families are the names of tables' families that count, by their numbers.
	families map[byte]string
}

// policyDrop is the policy of a base chain to drop, as the kernel has it.
const policyDrop = 0

// readForeign lists the chains of all tables that packets of a family pass.
func readForeign(iptables, ipv6 bool) (foreignChains, error) {
	all := foreignChains{names: map[foreignTable][]string{}, iptables: iptables, families: map[byte]string{unix.NFPROTO_INET: "inet"}}
	if ipv6 {
		all.families[unix.NFPROTO_IPV6] = "ip6"
	} else {
		all.families[unix.NFPROTO_IPV4] = "ip"
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	var errParse error
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		errParse = all.add(msg)
		return errParse == nil
	})
	return all, errors.Join(err, errParse)
}

// add reads one chain. There may be very many: kube-proxy has some for each service.
func (f *foreignChains) add(msg []byte) error {
	if len(msg) < nl.SizeofNfgenmsg {
		return fmt.Errorf("parse a message of nftables: it has %d bytes", len(msg))
	}
	family, ok := f.families[msg[0]]
	if !ok {
		return nil
	}
	list, err := nl.ParseRouteAttr(msg[nl.SizeofNfgenmsg:])
	if err != nil {
		return fmt.Errorf("parse a message of nftables: %w", err)
	}
	c, hook := parseChain(list)
	c.Family = family
	if c.Table == Name && family == "inet" || !f.iptables && family != "inet" && slices.Contains(iptablesTables(), c.Table) {
		return nil
	}
	table := foreignTable{family, c.Table}
	if len(f.names[table]) <= maxTableChains {
		f.names[table] = append(f.names[table], c.Name)
	}
	if hook == nil {
		return nil
	}
	if c.Hook, c.Priority, err = parseHook(hook); err != nil {
		return err
	}
	if c.Hook != "" && c.Translates == (c.Hook == "postrouting") {
		f.base = append(f.base, c)
	}
	return nil
}

// parseChain reads the attributes of a chain. Only base chains have a hook.
func parseChain(list []syscall.NetlinkRouteAttr) (c ForeignChain, hook []byte) {
	for _, a := range list {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = text(a.Value)
		case unix.NFTA_CHAIN_NAME:
			c.Name = text(a.Value)
		case unix.NFTA_CHAIN_HOOK:
			hook = a.Value
		case unix.NFTA_CHAIN_POLICY:
			c.Closed = len(a.Value) == 4 && binary.BigEndian.Uint32(a.Value) == policyDrop
		case unix.NFTA_CHAIN_TYPE:
			c.Translates = text(a.Value) == "nat"
		}
	}
	return c, hook
}

func iptablesTables() []string { return []string{"raw", "mangle", "nat", "filter", "security"} }

// parseHook reads the place of a base chain. The hook is empty for those that do not
// matter here.
func parseHook(data []byte) (hook string, priority int, err error) {
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return "", 0, fmt.Errorf("parse the hook of a chain: %w", err)
	}
	for _, a := range list {
		if len(a.Value) != 4 {
			continue
		}
		switch value := binary.BigEndian.Uint32(a.Value); a.Attr.Type & nl.NLA_TYPE_MASK {
		case unix.NFTA_HOOK_HOOKNUM:
			hook = map[uint32]string{
				unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward", unix.NF_INET_POST_ROUTING: "postrouting",
			}[value]
		case unix.NFTA_HOOK_PRIORITY:
			priority = int(int32(value)) //nolint:gosec // as the kernel has it
		}
	}
	return hook, priority, nil
}

func text(value []byte) string { return strings.TrimRight(string(value), "\x00") }

// look reads the rules of a base chain, and of its table where they matter.
func (d *Driver) look(c *ForeignChain, names map[foreignTable][]string, q Question) error {
	own, err := d.rulesOf(*c, c.Name)
	if err != nil {
		return err
	}
	c.Translates = c.Translates && len(own) > 0
	for _, r := range own {
		c.TranslatesHere = c.TranslatesHere || c.Translates && translates(r)
		c.Closed = c.Closed || dropsAll(r)
	}
	if !c.Closed {
		return nil
	}
	all := names[foreignTable{c.Family, c.Table}]
	if len(all) > maxTableChains {
		c.Names = true
		return nil
	}
	for _, name := range all {
		rules, err := d.rulesOf(*c, name)
		if err != nil {
			return err
		}
		for _, r := range rules {
			c.Names = c.Names || c.Hook == "forward" && namesDevice(r, q.Device) || c.Hook == "input" && namesPort(r, q.Port) ||
				c.Hook == "forward" && letsPass(r, q.Pods) || c.Hook == "input" && letsPass(r, q.Hosts)
		}
	}
	return nil
}

// rulesOf lists the rules of a chain in the table of another.
func (d *Driver) rulesOf(c ForeignChain, name string) ([]*nftables.Rule, error) {
	family := nftables.TableFamilyINet
	switch c.Family {
	case "ip":
		family = nftables.TableFamilyIPv4
	case "ip6":
		family = nftables.TableFamilyIPv6
	}
	table := &nftables.Table{Name: c.Table, Family: family}
	rules, err := d.conn.GetRules(table, &nftables.Chain{Name: name, Table: table})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // gone meanwhile
	}
	return rules, err
}

// translates reports whether a rule gives packets another source.
func translates(r *nftables.Rule) bool {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Masq:
			return true
		case *expr.NAT:
			if e.Type == expr.NATTypeSourceNAT {
				return true
			}
		}
	}
	return false
}

// dropsAll reports whether a rule drops or rejects every packet.
func dropsAll(r *nftables.Rule) bool {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return false
}

// namesDevice reports whether a rule compares a device with the given one, or with a
// set.
func namesDevice(r *nftables.Rule, device string) bool {
	compares := false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			compares = e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME
		case *expr.Lookup:
			if compares {
				return true
			}
		case *expr.Cmp:
			if compares && (string(bytes.TrimRight(e.Data, "\x00")) == device || len(e.Data) < len(device) && strings.HasPrefix(device, string(e.Data))) {
				return true
			}
		}
	}
	return false
}

// namesPort reports whether a rule compares the destination port with the given one or
// with a set.
func namesPort(r *nftables.Rule, port uint16) bool {
	want := binary.BigEndian.AppendUint16(nil, port)
	var last *expr.Payload
	for _, e := range r.Exprs {
		if p, ok := e.(*expr.Payload); ok {
			last = p
		} else if isDestinationPort(last) && mayMatch(e, want) {
			return true
		}
	}
	return false
}

// letsPass reports whether a rule compares the source with one of the given ones, or with
// a set, and does not end there: it accepts the packet, or leads to rules that may.
func letsPass(r *nftables.Rule, sources []netip.Addr) bool {
	var last *expr.Payload
	var mask []byte
	matches := false
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Payload:
			last, mask = e, nil
		case *expr.Bitwise:
			mask = e.Mask
		case *expr.Meta, *expr.Ct:
			last = nil
		case *expr.Verdict:
			return matches && e.Kind != expr.VerdictDrop && e.Kind != expr.VerdictReturn
		default:
			matches = matches || slices.ContainsFunc(sources, func(ip netip.Addr) bool {
				return isSource(last, ip) && mayMatch(e, underMask(ip.AsSlice()[:last.Len], mask))
			})
			if l, ok := e.(*expr.Lookup); ok && matches && l.IsDestRegSet {
				return true // a map to verdicts
			}
		}
	}
	return false
}

// isSource reports whether the source of a packet of an address's family is read, or the part
// of it that a prefix of whole bytes has.
func isSource(p *expr.Payload, ip netip.Addr) bool {
	offset := uint32(12)
	if ip.Is6() {
		offset = 8
	}
	return p != nil && p.Base == expr.PayloadBaseNetworkHeader && p.Offset == offset && int(p.Len) <= ip.BitLen()/8
}

func underMask(value, mask []byte) []byte {
	out := bytes.Clone(value)
	for i := range min(len(out), len(mask)) {
		out[i] &= mask[i]
	}
	return out
}

func isDestinationPort(p *expr.Payload) bool {
	return p != nil && p.Base == expr.PayloadBaseTransportHeader && p.Offset == 2 && p.Len == 2
}

// mayMatch reports whether a comparison is true of a value, or with a set.
func mayMatch(e expr.Any, want []byte) bool {
	switch e := e.(type) {
	case *expr.Lookup:
		return true
	case *expr.Range:
		return bytes.Compare(e.FromData, want) <= 0 && bytes.Compare(want, e.ToData) <= 0
	case *expr.Cmp:
		return e.Op != expr.CmpOpEq || bytes.Equal(e.Data, want)
	default:
		return false
	}
}
