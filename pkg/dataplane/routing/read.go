package routing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// observe lists our routes of a family, and adds to inUse which tables that matter have routes of
// others.
func (c contents) observe(inUse map[int]error) (own map[route]sighting, err error) {
	own, foreign, err := tableRoutes(c.family)
	for _, r := range foreign {
		if c.wanted && c.uses[r.table] && inUse[r.table] == nil {
			inUse[r.table] = routeOfOthers(r)
		}
	}
	return own, err
}

// WaysOfOthers returns which of our tables of ways others use, for whatever family: with a
// route there, or a policy rule. It works in the network namespace of the calling thread, which
// must be that of the handle.
func WaysOfOthers(h *netlink.Handle) (map[int]bool, error) {
	_, rules, err := leadingRules(h, families()...)
	if err != nil {
		return nil, err
	}
	_, routes, err := tableRoutes(families()...)
	if err != nil {
		return nil, err
	}
	tables := map[int]bool{}
	for _, r := range rules {
		tables[r.Table] = r.Table >= firstWay
	}
	for _, r := range routes {
		tables[r.table] = r.table >= firstWay
	}
	maps.DeleteFunc(tables, func(_ int, way bool) bool { return !way })
	return tables, nil
}

// Others6 is why our tables cannot have anything of IPv6: the error names a route or policy
// rule of others there, and is ErrTableInUse. It is nil if there is none. err is that of
// finding out. It works in the network namespace of the calling thread, which must be that
// of the handle.
func Others6(h *netlink.Handle) (inUse, err error) {
	_, foreignRules, err := leadingRules(h, netlink.FAMILY_V6)
	if err != nil {
		return nil, err
	}
	for _, rule := range foreignRules {
		if slices.Contains(both(), rule.Table) {
			return ruleOfOthers(rule), nil
		}
	}
	for _, table := range both() {
		found, err := nlutil.Whole(func() (found *route, err error) {
			err = eachRoute(netlink.FAMILY_V6, table, func(r route, _ sighting, own bool) {
				if !own && found == nil {
					found = &r
				}
			})
			return found, err
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("list routes of table %d: %w", table, err)
		case found != nil:
			return routeOfOthers(*found), nil
		}
	}
	return nil, nil
}

func routeOfOthers(r route) error {
	return fmt.Errorf("table %d has a route of others to %v: %w", r.table, r.dst, ErrTableInUse)
}

func ruleOfOthers(r netlink.Rule) error {
	command := "ip rule"
	if r.Family == netlink.FAMILY_V6 {
		command = "ip -6 rule"
	}
	return fmt.Errorf("%s of others with priority %d leads to table %d: %w", command, r.Priority, r.Table, ErrTableInUse)
}

// both are our tables that are always there.
func both() []int { return []int{tableRemote, tableReturn} }

// all are all tables that may be ours.
func all() []int {
	tables := both()
	for n := range MaxWays {
		tables = append(tables, WayTable(n))
	}
	return tables
}

// IsOurTable reports whether a routing table is one of ours.
func IsOurTable(table int) bool {
	return table == tableRemote || table == tableReturn || table >= firstWay && table < firstWay+MaxWays
}

// sighting is what was read about an observed route in addition to the fields of route.
type sighting struct {
	scope, tos uint8
	gateway    netip.Addr
	flags      uint32
	// hops are the next hops of a route that has several; no route of ours has.
	hops []nlutil.NextHop
}

// gatewayAt returns the gateway of the first next hop by a device that the kernel has not given up;
// the zero Addr if there is none.
func (s sighting) gatewayAt(r route, link int) netip.Addr {
	hops := s.hops
	if len(hops) == 0 {
		hops = []nlutil.NextHop{{Link: r.link, Gateway: s.gateway, Flags: s.flags}}
	}
	for _, hop := range hops {
		if hop.Link == link && hop.Gateway.IsValid() && hop.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) == 0 {
			return hop.Gateway
		}
	}
	return netip.Addr{}
}

// tableRoutes lists the routes of our tables in some families: ours, and those of others. It
// works in the network namespace of the calling thread.
func tableRoutes(families ...int) (own map[route]sighting, foreign []route, err error) {
	own = map[route]sighting{}
	for _, family := range families {
		for _, table := range all() {
			others, err := nlutil.Whole(func() ([]route, error) { return listTable(family, table, own) })
			if err != nil {
				return nil, nil, fmt.Errorf("list routes of table %d: %w", table, err)
			}
			foreign = append(foreign, others...)
		}
	}
	return own, foreign, nil
}

// listTable adds our routes of a family in a table to own, and returns those of others.
func listTable(family, table int, own map[route]sighting) (foreign []route, err error) {
	maps.DeleteFunc(own, func(r route, _ sighting) bool { return r.table == table && r.family() == family })
	err = eachRoute(family, table, func(r route, seen sighting, isOwn bool) {
		if isOwn {
			own[r] = seen
		} else {
			foreign = append(foreign, r)
		}
	})
	return foreign, err
}

// eachRoute calls each with the routes of a family in a table.
func eachRoute(family, table int, each func(r route, seen sighting, own bool)) error {
	request := make([]byte, unix.SizeofRtMsg, unix.SizeofRtMsg+8)
	request[0] = byte(family)
	request = binary.NativeEndian.AppendUint16(request, 8)
	request = binary.NativeEndian.AppendUint16(request, unix.RTA_TABLE)
	request = binary.NativeEndian.AppendUint32(request, uint32(table))
	err := nlutil.Dump(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, request, func(typ uint16, data []byte) error {
		r, seen, protocol, ok := parseRoute(family, data)
		if typ == unix.RTM_NEWROUTE && ok && r.table == table {
			each(r, seen, protocol == routeProtocol)
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // there is no such table, or the kernel has no IPv6
	}
	return err
}

// parseRoute reads a route of a family. It is not ok for another family, and for what is no
// entry of a table.
func parseRoute(family int, b []byte) (r route, seen sighting, protocol uint8, ok bool) {
	if len(b) < unix.SizeofRtMsg || int(b[0]) != family {
		return r, seen, 0, false
	}
	r = route{table: int(b[4]), kind: int(b[7])}
	seen = sighting{tos: b[3], scope: b[6], flags: binary.NativeEndian.Uint32(b[8:])}
	dst := netip.IPv4Unspecified()
	if family == netlink.FAMILY_V6 {
		dst = netip.IPv6Unspecified()
	}
	nlutil.EachAttr(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
		switch {
		case typ == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case typ == unix.RTA_GATEWAY, typ == unix.RTA_VIA:
			seen.gateway, _ = nlutil.Gateway(typ, value)
		case typ == unix.RTA_MULTIPATH:
			nlutil.EachNextHop(value, func(h nlutil.NextHop) { seen.hops = append(seen.hops, h) })
		case len(value) != 4:
		case typ == unix.RTA_TABLE:
			r.table = int(binary.NativeEndian.Uint32(value))
		case typ == unix.RTA_PRIORITY:
			r.metric = int(binary.NativeEndian.Uint32(value))
		case typ == unix.RTA_OIF:
			r.link = int(binary.NativeEndian.Uint32(value))
		}
	})
	r.dst = netip.PrefixFrom(dst, int(b[1]))
	switch {
	case r.kind != unix.RTN_UNICAST:
		r.link = 0 // the kernel may show the loopback here
	case seen.flags&unix.RTNH_F_ONLINK != 0:
		r.gateway = seen.gateway
	}
	return r, seen, b[5], seen.flags&unix.RTM_F_CLONED == 0
}
