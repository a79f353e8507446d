package address

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// Further is an interface other than the uplink on which egress IPs may be, if its kind and
// name allow that.
type Further struct {
	Link netlink.Link
	// CIDRs are the host's own global addresses with their prefix lengths, of networks of more
	// than one address, in order.
	CIDRs []netip.Prefix
}

// Name is that of the interface.
func (f Further) Name() string { return f.Link.Attrs().Name }

// Networks are those of the host's addresses, in order.
func (f Further) Networks() []netip.Prefix {
	networks := make([]netip.Prefix, 0, len(f.CIDRs))
	for _, p := range f.CIDRs {
		networks = append(networks, p.Masked())
	}
	return slices.Compact(networks)
}

// Furthers lists the interfaces other than the uplink that are up, with a carrier, speak
// Ethernet, are no ports of others, and have a global address of the host's own.
func Furthers(nlh *netlink.Handle, uplink int) ([]Further, error) {
	all, err := listBoth(nlh)
	if err != nil {
		return nil, err
	}
	byLink := map[int][]netip.Prefix{}
	for _, h := range all {
		if h.addr.LinkIndex != uplink && h.inNetwork() && h.form.flags&unix.IFA_F_TENTATIVE == 0 {
			byLink[h.addr.LinkIndex] = append(byLink[h.addr.LinkIndex], Prefix(h.addr))
		}
	}
	if len(byLink) == 0 {
		return nil, nil
	}
	links, err := nlutil.Whole(nlh.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var found []Further
	for _, link := range links {
		if cidrs := byLink[link.Attrs().Index]; len(cidrs) > 0 && carries(link.Attrs()) {
			slices.SortFunc(cidrs, netip.Prefix.Compare)
			found = append(found, Further{Link: link, CIDRs: cidrs})
		}
	}
	slices.SortFunc(found, func(a, b Further) int { return a.Link.Attrs().Index - b.Link.Attrs().Index })
	return found, nil
}

// carries reports whether an interface carries packets to machines that can be asked for
// addresses.
func carries(a *netlink.LinkAttrs) bool {
	return a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_RUNNING != 0 && a.RawFlags&unix.IFF_NOARP == 0 &&
		a.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0 && a.EncapType == "ether" && len(a.HardwareAddr) == 6 && a.MasterIndex == 0
}

// Place returns the interface as one that has egress IPs.
func (f Further) Place(nlh *netlink.Handle) (Uplink, error) {
	u := Uplink{Link: f.Link, Name: f.Name(), MTU: f.Link.Attrs().MTU, further: true}
	if len(f.CIDRs) > 0 {
		u.CIDR = f.CIDRs[0]
	}
	var err error
	u.form, err = formAt(nlh, u)
	return u, err
}
