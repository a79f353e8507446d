package dataplane

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// guardPins are by which interfaces egress IPs may leave that belong on one: by that, and by
// those below it.
func guardPins(nl *netlink.Handle, pinned map[netip.Addr]int) (bpf.Pins, error) {
	if len(pinned) == 0 {
		return nil, nil
	}
	links, err := nlutil.Whole(nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	of := map[int]map[int]bpf.Tag{}
	pins := bpf.Pins{}
	for ip, link := range pinned {
		if of[link] == nil {
			of[link] = below(links, link)
		}
		pins[ip] = of[link]
	}
	return pins, nil
}

// below returns the interfaces that packets pass which leave by one, and the tag that they have
// there: that interface, the one that a VLAN or macvlan was made on, the ports of a bridge or bond,
// and so on. Where packets come to one with several tags, no tag is asked for.
func below(links []netlink.Link, from int) map[int]bpf.Tag {
	tags := map[int]bpf.Tag{}
	if from <= 0 {
		return tags
	}
	tags[from] = 0
	pass := func(index int, tag bpf.Tag) (news bool) {
		was, known := tags[index]
		if known && (was == tag || was == 0) {
			return false
		}
		if known {
			tag = 0
		}
		tags[index] = tag
		return true
	}
	for todo := []int{from}; len(todo) > 0; todo = todo[1:] {
		for _, link := range links {
			a := link.Attrs()
			switch {
			case a.MasterIndex == todo[0]:
				if pass(a.Index, tags[todo[0]]) {
					todo = append(todo, a.Index)
				}
			case a.Index == todo[0] && a.ParentIndex > 0 && a.NetNsID < 0 && slices.Contains([]string{"vlan", "macvlan", "macvtap", "ipvlan"}, link.Type()):
				tag := tags[a.Index]
				if vlan, is := link.(*netlink.Vlan); is {
					tag = bpf.VLANTag(vlan.VlanId)
				}
				if pass(a.ParentIndex, tag) {
					todo = append(todo, a.ParentIndex)
				}
			}
		}
	}
	return tags
}
