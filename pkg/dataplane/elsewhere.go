package dataplane

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// elsewhere is what a pass has found of networks that egress IPs can be in. It says which
// messages of the kernel are news of these that are not of everything else. It never changes.
type elsewhere struct {
	// uplink is its index; 0 where there is none. links are the other interfaces that egress IPs
	// can be on.
	uplink int
	links  map[int]bool
	// furthers are all interfaces but the uplink, whether egress IPs can be there or not.
	furthers []address.Further
}

// concerned reports whether a message is news: a default route of another table than main, as hosts
// have it with rules by source; an address of IPv6 that goes, or was not there; or a setting, such
// as a reverse path filter. Nil knows of no interface.
func (e *elsewhere) concerned(typ uint16, data []byte) bool {
	if e == nil {
		return false
	}
	switch typ {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(e.links) > 0 && e.leadsOut(data)
	case unix.RTM_DELADDR:
		n, ok := address.NetworkOf(data)
		return ok && (n.Link == e.uplink || e.links[n.Link])
	case unix.RTM_NEWADDR:
		// A router's advertisements report all that follow from them again and again.
		n, ok := address.NetworkOf(data)
		return ok && n.Settled && n.Link != e.uplink && !slices.ContainsFunc(e.furthers, func(f address.Further) bool {
			return f.Link.Attrs().Index == n.Link && slices.Contains(f.CIDRs, n.CIDR)
		})
	case unix.RTM_NEWNETCONF:
		return len(e.links) > 0 && e.configures(data)
	}
	return false
}

// leadsOut reports whether a route is a default route by one of the interfaces, or may be.
func (e *elsewhere) leadsOut(data []byte) bool {
	if len(data) < unix.SizeofRtMsg {
		return true
	}
	if data[1] != 0 { // rtm_dst_len
		return false
	}
	known, ours := false, false
	link := func(index int) { known, ours = true, ours || e.links[index] }
	nlutil.EachAttr(data[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.RTA_OIF && len(value) == 4:
			link(int(binary.NativeEndian.Uint32(value)))
		case typ == unix.RTA_MULTIPATH:
			nlutil.EachNextHop(value, func(h nlutil.NextHop) { link(h.Link) })
		}
	})
	return ours || !known
}

// Of struct netconfmsg, which is a family and room up to the attributes; NETCONFA_IFINDEX, and what
// that is for settings of all interfaces.
const (
	sizeofNetConf = 4
	netConfLink   = 1
	netConfAll    = -1
)

// configures reports whether a setting is one of an interface, or of all.
func (e *elsewhere) configures(data []byte) (ours bool) {
	if len(data) < sizeofNetConf {
		return true
	}
	nlutil.EachAttr(data[sizeofNetConf:], func(typ uint16, value []byte) {
		if typ == netConfLink && len(value) == 4 {
			index := int(int32(binary.NativeEndian.Uint32(value))) //nolint:gosec // the kernel's numbers are signed
			ours = index == netConfAll || e.links[index]
		}
	})
	return ours
}

// noteElsewhere keeps what the round has found of networks for those who hear the kernel.
func (r *round) noteElsewhere() {
	e := &elsewhere{uplink: r.d.news.uplink, links: map[int]bool{}, furthers: r.d.furthers}
	for _, f := range r.further.links {
		e.links[f.Link.Attrs().Index] = true
	}
	r.d.elsewhere.Store(e)
	r.d.news.elsewhere = e
}
