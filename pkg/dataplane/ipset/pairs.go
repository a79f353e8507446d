package ipset

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
)

// Pair is an entry of a set of type hash:net,net: two networks, each of which may be of one
// address.
type Pair struct{ First, Second netip.Prefix }

// Pairs is the content of such a set.
type Pairs map[Pair]struct{}

// ListPairs returns the content of a set of pairs; one that does not exist is empty.
func ListPairs(name string) (Pairs, error) {
	pairs := Pairs{}
	err := each(name, func(data []byte) error {
		pair, err := parsePair(data)
		pairs[pair] = struct{}{}
		return err
	})
	return pairs, err
}

// parsePair reads an entry. The kernel leaves out the length of a network of one address.
func parsePair(data []byte) (pair Pair, err error) {
	err = eachAttr(data, func(typ int, value []byte) error {
		switch {
		case typ == nl.IPSET_ATTR_IP:
			return parseAddr(value, &pair.First)
		case typ == nl.IPSET_ATTR_IP2:
			return parseAddr(value, &pair.Second)
		case typ == nl.IPSET_ATTR_CIDR && len(value) == 1:
			pair.First = netip.PrefixFrom(pair.First.Addr(), int(value[0]))
		case typ == nl.IPSET_ATTR_CIDR2 && len(value) == 1:
			pair.Second = netip.PrefixFrom(pair.Second.Addr(), int(value[0]))
		}
		return nil
	})
	return pair, err
}

// parseAddr reads an address, as the network of it alone.
func parseAddr(data []byte, into *netip.Prefix) error {
	return eachAttr(data, func(typ int, value []byte) error {
		if typ == nl.IPSET_ATTR_IPADDR_IPV4 || typ == nl.IPSET_ATTR_IPADDR_IPV6 {
			ip, _ := netip.AddrFromSlice(value)
			*into = netip.PrefixFrom(ip, ip.BitLen())
		}
		return nil
	})
}

// PutPairs adds pairs to a set of type hash:net,net.
func PutPairs(k Set, pairs Pairs) error { return change(nl.IPSET_CMD_ADD, k, pairs.all) }

// DeletePairs deletes pairs; one that is not there is no error.
func DeletePairs(k Set, pairs Pairs) error { return change(nl.IPSET_CMD_DEL, k, pairs.all) }

func (p Pairs) all(yield func(encoded) bool) {
	for pair := range p {
		if !yield(pair.data) {
			return
		}
	}
}

func (p Pair) data(k Set, line uint32) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	add := func(ipAttr, bitsAttr int, network netip.Prefix) {
		data.AddChild(nl.NewRtAttr(ipAttr|int(nl.NLA_F_NESTED), addrData(k, network.Addr())))
		data.AddChild(nl.NewRtAttr(bitsAttr, nl.Uint8Attr(uint8(network.Bits()))))
	}
	add(nl.IPSET_ATTR_IP, nl.IPSET_ATTR_CIDR, p.First)
	add(nl.IPSET_ATTR_IP2, nl.IPSET_ATTR_CIDR2, p.Second)
	data.AddChild(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_LINENO | nl.NLA_F_NET_BYTEORDER, Value: line})
	return data
}

func addrData(k Set, ip netip.Addr) []byte {
	family := nl.IPSET_ATTR_IPADDR_IPV4
	if k.IPv6 {
		family = nl.IPSET_ATTR_IPADDR_IPV6
	}
	return nl.NewRtAttr(family|int(nl.NLA_F_NET_BYTEORDER), ip.AsSlice()).Serialize()
}
