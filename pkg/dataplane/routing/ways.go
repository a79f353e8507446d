package routing

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// Egress IPs that are in a network of another interface than the uplink leave by that
// interface. Their packets are known by the index in their mark, as their source is still the
// pod's when the route is chosen. Each index leads to a table, each table out by one device.
const (
	// firstWay is the first of the tables.
	firstWay = 77000
	// MaxWays is the greatest number of them.
	MaxWays = 16
	// Packets of the host itself go past the indices, as they do past REMOTE: bits of others
	// in their marks mean nothing. So do lookups for the way back to a pod, as of a packet
	// that leaves by the device, where these look at marks (src_valid_mark).
	//
	// These priorities come before rulePriorityOwn, by which packets of the overlay go past:
	// it is they that have indices.
	rulePriorityWayPast  = 82
	rulePriorityWayLocal = 84
	rulePriorityWay      = 85
)

// WayTable returns the number of the nth table, from 0 to MaxWays - 1.
func WayTable(n int) int { return firstWay + n }

// Way is a table that leads out by a device.
type Way struct {
	Table int
	// Device is the index of the device, Name its name.
	Device int
	Name   string
	// Networks are those of its link, Gateway and Gateway6 the ways to all else of IPv4 and of
	// IPv6; the zero Addr where there is none: packets to elsewhere are dropped. Gateway may be
	// an address of IPv6.
	Networks          []netip.Prefix
	Gateway, Gateway6 netip.Addr
}

func (w Way) equal(o Way) bool {
	return w.Table == o.Table && w.Device == o.Device && w.Name == o.Name && w.Gateway == o.Gateway && w.Gateway6 == o.Gateway6 &&
		slices.Equal(w.Networks, o.Networks)
}

// Index leads packets with an index to a table.
type Index struct {
	Mark  uint32
	Table int
	IPv6  bool
}

// wayRoutes are the routes of the ways for a family, in the order in which they are added:
// each table is closed before anything leads into it. What is inside goes by the main table.
func (p Plan) wayRoutes(everywhere netip.Prefix, metric int) (rs []route) {
	bits := everywhere.Addr().BitLen()
	for _, w := range p.Ways {
		rs = append(rs, route{table: w.Table, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric})
		for _, dst := range p.Inside {
			if dst.Addr().BitLen() == bits {
				rs = append(rs, route{table: w.Table, dst: dst, kind: unix.RTN_THROW, metric: metric})
			}
		}
		for _, dst := range w.Networks {
			if dst.Addr().BitLen() == bits && !slices.Contains(p.Inside, dst) {
				rs = append(rs, route{table: w.Table, dst: dst, kind: unix.RTN_UNICAST, link: w.Device, metric: metric})
			}
		}
		gateway := w.Gateway
		if bits == 128 {
			gateway = w.Gateway6
		}
		if gateway.IsValid() {
			rs = append(rs, route{table: w.Table, dst: everywhere, kind: unix.RTN_UNICAST, link: w.Device, gateway: gateway, metric: metric})
		}
	}
	return rs
}

// wayRules are the policy rules of the ways for a family.
func (p Plan) wayRules(m mark.Marks, family int) (rules []*netlink.Rule) {
	six := family == netlink.FAMILY_V6
	if !slices.ContainsFunc(p.Indices, func(i Index) bool { return i.IPv6 == six }) {
		return nil
	}
	newRule := func(priority int) *netlink.Rule {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Protocol = family, priority, routeProtocol
		return r
	}
	indexed, flags := m.Index(m.FirstIndex()), m.Remote()|m.Return()
	own := newRule(rulePriorityWayPast)
	own.IifName, own.Goto = loopback, rulePriorityPast
	rules = append(rules, own)
	var devices []string
	for _, w := range p.Ways {
		if slices.Contains(devices, w.Name) {
			continue
		}
		devices = append(devices, w.Name)
		back, mask := newRule(rulePriorityWayPast), indexed|flags
		back.IifName, back.Goto, back.Mark, back.Mask = w.Name, rulePriorityPast, indexed, &mask
		rules = append(rules, back)
	}
	local, mask := newRule(rulePriorityWayLocal), indexed|flags
	local.Table, local.Mark, local.Mask = unix.RT_TABLE_LOCAL, indexed, &mask
	rules = append(rules, local)
	for _, i := range p.Indices {
		if i.IPv6 != six {
			continue
		}
		rule, mask := newRule(rulePriorityWay), m.IndexMask()|flags
		rule.Table, rule.Mark, rule.Mask = i.Table, i.Mark, &mask
		rules = append(rules, rule)
	}
	return rules
}

// keeping is the plan of a family with the indices to keep that rules, which were found, lead to a
// table, and these tables. One that the plan has for another way is not among them.
func (p Plan) keeping(rules []netlink.Rule, family int) (_ Plan, tables map[int]bool) {
	tables, p.Indices = map[int]bool{}, slices.Clone(p.Indices)
	for _, r := range rules {
		six := r.Family == netlink.FAMILY_V6
		if r.Family != family || r.Priority != rulePriorityWay || !slices.Contains(p.Keep, r.Mark) ||
			slices.ContainsFunc(p.Indices, func(i Index) bool { return i.Mark == r.Mark && i.IPv6 == six }) {
			continue
		}
		p.Indices = append(p.Indices, Index{Mark: r.Mark, Table: r.Table, IPv6: six})
		if !slices.ContainsFunc(p.Ways, func(w Way) bool { return w.Table == r.Table }) {
			tables[r.Table] = true
		}
	}
	return p, tables
}

// WaysFound returns by which device, and by which gateway of IPv4 or else IPv6, each of our
// tables of ways leads out, as found in the kernel. It works in the network namespace of the
// calling thread.
func WaysFound() (map[int]Way, error) {
	own, _, err := tableRoutes(families()...)
	ways := map[int]Way{}
	for r, seen := range own {
		if r.table < firstWay || r.kind != unix.RTN_UNICAST {
			continue
		}
		w := ways[r.table]
		w.Table, w.Device = r.table, r.link
		switch {
		case r.dst.Bits() > 0:
		case r.dst.Addr().Is4():
			w.Gateway = seen.gateway
		default:
			w.Gateway6 = seen.gateway
		}
		ways[r.table] = w
	}
	return ways, err
}

// Gateways returns the gateways to everywhere that routes of the host give for a device: those of
// the main table first, then of the least metric; of a route over several gateways, the first by
// the device. That of IPv4 may be an address of IPv6, as routes with "via inet6" have it. It is the
// zero Addr of a family for which there is none. It works in the network namespace of the calling thread.
func Gateways(link int) (four, six netip.Addr, err error) {
	four, err4 := gateway(netlink.FAMILY_V4, link)
	six, err6 := gateway(netlink.FAMILY_V6, link)
	return four, six, errors.Join(err4, err6)
}

// gateway is Gateways for a family.
func gateway(family, link int) (netip.Addr, error) {
	request := make([]byte, unix.SizeofRtMsg, unix.SizeofRtMsg+8)
	request[0] = byte(family)
	request = binary.NativeEndian.AppendUint16(request, 8)
	request = binary.NativeEndian.AppendUint16(request, unix.RTA_OIF)
	request = binary.NativeEndian.AppendUint32(request, uint32(link)) //nolint:gosec // the kernel's numbers fit
	type candidate struct {
		route
		gateway netip.Addr
	}
	found, err := nlutil.Whole(func() (best candidate, err error) {
		err = nlutil.Dump(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, request, func(typ uint16, data []byte) error {
			r, seen, protocol, ok := parseRoute(family, data)
			if typ != unix.RTM_NEWROUTE || !ok || protocol == routeProtocol || r.kind != unix.RTN_UNICAST || r.dst.Bits() != 0 {
				return nil
			}
			gateway := seen.gatewayAt(r, link)
			if gateway.IsValid() && (!best.gateway.IsValid() || compareGateways(r, best.route) < 0) {
				best = candidate{r, gateway}
			}
			return nil
		})
		return best, err
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) {
		return netip.Addr{}, nil // the kernel has no IPv6, or the device is gone
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list routes of interface %d: %w", link, err)
	}
	return found.gateway, nil
}

func compareGateways(a, b route) int {
	other := func(r route) int {
		if r.table == unix.RT_TABLE_MAIN {
			return 0
		}
		return 1
	}
	return cmp.Or(other(a)-other(b), cmp.Compare(a.metric, b.metric), a.table-b.table)
}
