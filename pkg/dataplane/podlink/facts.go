package podlink

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Link is a link of the host.
type Link struct {
	Name string
	// Master is the bridge that it is a port of; 0 for none.
	Master int
	// Crosses: it is a veth whose other end is in another network namespace, and it has no
	// network of its own. A link to another machine, as in a node that is itself a
	// container, has one.
	Crosses bool
	// space and peer are the namespace and the index of the other end.
	space, peer int
}

// Facts are what the host says about links and pods.
type Facts struct {
	// Links are all links by index.
	Links map[int]Link
	// Routes are the links by which the host reaches pods without a gateway.
	Routes map[netip.Addr]int
	// Ends are the addresses at the other ends of ports of bridges to which Routes lead.
	Ends map[int][]netip.Addr
}

// Read reads what the host says about the links of pods.
func Read(nl *netlink.Handle, pods []netip.Addr) (_ Facts, err error) {
	f := Facts{Routes: map[netip.Addr]int{}, Ends: map[int][]netip.Addr{}}
	if f.Links, err = readLinks(nl); err != nil {
		return f, err
	}
	ways, err := nlutil.OpenWays()
	if err != nil {
		return f, fmt.Errorf("open netlink: %w", err)
	}
	defer func() { err = errors.Join(err, ways.Close()) }()
	bridges, ipv6 := map[int]bool{}, false
	for _, ip := range pods {
		if via := route(ways, ip); via != 0 {
			f.Routes[ip] = via
			bridges[via] = !f.Links[via].Crosses
			ipv6 = ipv6 || !ip.Is4()
		}
	}
	ends, err := openEnds()
	if err != nil {
		return f, err
	}
	defer ends.Close()
	var errs []error
	for index, l := range f.Links {
		if !l.Crosses || !bridges[l.Master] {
			continue
		}
		addrs, err := ends.addresses(l, ipv6)
		if err != nil {
			errs = append(errs, fmt.Errorf("list the addresses at the other end of %s: %w", l.Name, err))
			continue
		}
		f.Ends[index] = addrs
	}
	return f, errors.Join(errs...)
}

func readLinks(nl *netlink.Handle) (map[int]Link, error) {
	all, err := nlutil.Whole(nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addrs, err := nlutil.Whole(func() ([]netlink.Addr, error) { return nl.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	networks := map[int]bool{}
	for _, a := range addrs {
		if bits, of := a.Mask.Size(); bits < of {
			networks[a.LinkIndex] = true
		}
	}
	links := make(map[int]Link, len(all))
	for _, link := range all {
		a := link.Attrs()
		links[a.Index] = Link{
			Name: a.Name, Master: a.MasterIndex, space: a.NetNsID, peer: a.ParentIndex,
			Crosses: link.Type() == "veth" && a.NetNsID >= 0 && !networks[a.Index],
		}
	}
	return links, nil
}

// route returns the link by which the host reaches an address without a gateway; 0 for
// none.
func route(ways *nlutil.Ways, ip netip.Addr) int {
	way, err := ways.To(ip)
	if err != nil || way.ByGateway {
		return 0 // the pod is not there yet, or no more
	}
	return way.Link
}

// Holders returns the ports of a bridge whose other ends have an address, in order.
func (f Facts) Holders(bridge int, ip netip.Addr) []int {
	var found []int
	for index, addrs := range f.Ends {
		if f.Links[index].Master == bridge && slices.Contains(addrs, ip) {
			found = append(found, index)
		}
	}
	slices.Sort(found)
	return found
}
