package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// How long what was seen of others counts: lookEvery, or lookSoon after the kernel has
// reported a change.
const (
	lookEvery = 10 * time.Second
	lookSoon  = 3 * time.Second
)

// iptablesNAT is the priority of source NAT in iptables.
const iptablesNAT = 100

// maxWays bounds for how many pods the kernel is asked which way their packets take.
const maxWays = 8

// outlook is what was last seen of others on the host, at a time.
type outlook struct {
	facts warning.Facts
	at    time.Duration
	// uplink is the interface that it was seen with.
	uplink string
	// chains are the base chains of nftables.
	chains nftables.Foreign
}

// look adds the warnings that follow from what others have on the host. It changes
// nothing there.
func (r *round) look() {
	changed, rest := r.d.changed.Load(), lookEvery
	if changed {
		rest = lookSoon
	}
	o := &r.d.outlook
	if o.at == 0 || o.uplink != r.uplink.Name || o.facts.OverIPv6 != r.state.overIPv6() || monotonic()-o.at >= rest {
		r.d.changed.Store(false)
		o.facts, o.at, o.uplink = r.facts(), monotonic(), r.uplink.Name
	}
	f := o.facts
	f.DefaultRoute = r.defaultRoute
	f.Ousted = r.d.ousted.often(monotonic())
	r.readSettings(&f)
	r.report.Warnings = append(r.report.Warnings, warning.From(f)...)
}

// facts reads what is not read in each pass.
func (r *round) facts() warning.Facts {
	f := warning.Facts{
		Uplink: r.uplink.Name, Overlay: overlayName, Port: r.d.cfg.OverlayPort, Mask: r.d.cfg.Marks.Mask, OverIPv6: r.state.overIPv6(),
	}
	note := func(what string, err error) {
		if err != nil {
			f.Unknown = append(f.Unknown, fmt.Errorf("%s: %w", what, err))
		}
	}
	others, err := routing.Others(r.d.nl)
	note("look at the ip rules of others", err)
	for _, rule := range others {
		if rule.Mask != nil && rule.Mark|*rule.Mask != 0 {
			f.Rules = append(f.Rules, warning.MarkRule{Priority: rule.Priority, Table: rule.Table, Mark: rule.Mark, Mask: *rule.Mask})
		}
	}
	note("look at devices of others", r.readDevices(&f))
	note("look at chains of others", r.readChains(&f))
	note("look at sets of others", r.readSets(&f))
	if r.uplinkErr == nil && r.defaultRoute != "" {
		note("look at the ways of pods", r.readWays(&f, others))
	}
	return f
}

// readSettings reads settings of the host that are not ours to change. They are of IPv4, which
// a host with an address of IPv6 may not use at all.
func (r *round) readSettings(f *warning.Facts) {
	f.Settings = map[string]string{}
	if r.state.overIPv6() {
		return
	}
	f.Unknown = slices.Clone(f.Unknown)
	read := func(name, path string) {
		value, err := sysctl.Get(path)
		if err != nil {
			f.Unknown = append(f.Unknown, err)
			return
		}
		f.Settings[name] = value
	}
	read("ip_forward", sysctl.IPv4Forward)
	read("conf.default.forwarding", sysctl.OfDevice("default", "forwarding"))
	if f.Uplink == "" {
		return
	}
	names := [][2]string{{f.Uplink, "forwarding"}, {"all", "rp_filter"}, {f.Uplink, "rp_filter"}}
	if r.report.Overlay {
		names = append(names, [2]string{f.Overlay, "forwarding"})
	}
	for _, n := range names {
		read("conf."+n[0]+"."+n[1], sysctl.OfDevice(n[0], n[1]))
	}
}

// marking lists software that a device gives away, with the bits of marks that it uses on
// hosts. Those of Antrea are for its Egress, but for the highest two.
func marking() []warning.Software {
	return []warning.Software{
		{Name: "Cilium", Device: "cilium_host", Bits: 0xffff0f00},
		{Name: "Antrea", Device: "antrea-gw0", Bits: 0xc00000ff},
	}
}

func (r *round) readDevices(f *warning.Facts) error {
	links, err := nlutil.Whole(r.d.nl.LinkList)
	if err != nil {
		return err
	}
	for _, link := range links {
		name := link.Attrs().Name
		if vxlan, ok := link.(*netlink.Vxlan); ok && name != overlayName && vxlan.Port == int(r.d.cfg.OverlayPort) {
			f.SharePort = append(f.SharePort, name)
		}
		for _, s := range marking() {
			if name == s.Device {
				f.Marking = append(f.Marking, s)
			}
		}
	}
	return nil
}

// kubeRouterSet is there where kube-router is.
const kubeRouterSet = "kube-router-pod-subnets"

// readSets looks for software that writes to sets of others, where ours are ipsets.
func (r *round) readSets(f *warning.Facts) error {
	if r.members.table {
		return nil
	}
	names, err := ipset.Names()
	if slices.Contains(names, kubeRouterSet) {
		f.Restoring = kubeRouterSet
	}
	return err
}

// readChains reads the base chains of others, those of iptables from what was read of
// them already.
func (r *round) readChains(f *warning.Facts) error {
	six := r.state.overIPv6()
	ofIPTables, program := r.d.iptablesSeen, "iptables"
	if six {
		ofIPTables, program = r.d.ip6tablesSeen, "ip6tables"
	}
	_, iptablesKnown := ofIPTables[NFT]
	arrive := iptables.Arrivals{Port: r.d.cfg.OverlayPort, Hosts: r.otherHosts(), Uplink: r.uplink.Name}
	seen, err := r.d.outlook.chains.Look(r.d.nft, nftables.Question{
		Device: overlayName, Port: arrive.Port, IPTables: !iptablesKnown, Hosts: arrive.Hosts, Pods: r.otherPods(), IPv6: six,
	})
	for _, c := range seen {
		f.Chains = append(f.Chains, warning.Chain{
			Name: c.String(), Hook: c.Hook, Closed: c.Closed, Opens: c.Names,
			NATFirst:    c.Translates && c.Priority < r.natPriority() || c.TranslatesHere && c.Priority == r.natPriority(),
			BehindTable: c.Priority > nftables.NATPriority,
		})
	}
	f.IPTables = !r.members.table
	for _, b := range iptables.Backends() {
		table := ofIPTables[b][rules.Filter]
		name := fmt.Sprintf("%s-%s, table filter, chain ", program, b)
		f.Chains = append(f.Chains,
			warning.Chain{Name: name + "INPUT", Hook: "input", Closed: table.Closed("INPUT"), Opens: table.Opens(arrive)},
			warning.Chain{Name: name + "FORWARD", Hook: "forward", Closed: table.Closed("FORWARD"), Opens: slices.Contains(table.Base["FORWARD"], "-j "+rules.ChainAccept)})
	}
	return err
}

// otherHosts are the hosts that send packets over the overlay to this one.
func (r *round) otherHosts() []netip.Addr {
	return only(r.state.Hosts, func(ip netip.Addr) bool { return ip != r.state.HostIP && ip.Is6() == r.state.overIPv6() })
}

// otherPods are addresses of the networks that pods on other hosts may be in, one for each, of
// the family of hosts.
func (r *round) otherPods() (list []netip.Addr) {
	for _, p := range r.state.Inside {
		if p.Addr().Is6() == r.state.overIPv6() {
			list = append(list, p.Addr())
		}
	}
	return list
}

// natPriority is that of our source NAT.
func (r *round) natPriority() int {
	if r.members.table {
		return nftables.NATPriority
	}
	return iptablesNAT
}

// readWays asks the kernel which way packets of some pods take to the outside: of those
// that rules of others match, and of one for each path.
func (r *round) readWays(f *warning.Facts, others []netlink.Rule) error {
	wanted := map[PodKind][]string{Local: {f.Uplink, r.defaultRoute}, Remote: {overlayName}}
	asked := map[PodKind]int{}
	ways := 0
	for _, p := range r.state.Pods {
		if len(wanted[p.Kind]) == 0 || p.Kind == Remote && !r.report.Overlay || !p.IP.Is4() {
			continue
		}
		rule := matching(others, p.IP)
		if asked[p.Kind] > 0 && rule == nil || ways >= maxWays {
			continue
		}
		mark, marked := r.desired.pods[p.IP]
		if !marked {
			continue
		}
		way, known, err := r.way(p.IP, mark)
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		asked[p.Kind]++
		ways++
		way.Wanted = slices.Compact(slices.Clone(wanted[p.Kind]))
		if name := r.further.of[p.EgressIP]; p.Kind == Local && name != "" {
			way.Wanted = []string{name}
		}
		if rule != nil {
			way.Rule = fmt.Sprintf("ip rule %d: from %v lookup %d", rule.Priority, rule.Src, rule.Table)
		}
		f.Ways = append(f.Ways, way)
	}
	return nil
}

// way asks for the way of packets with a mark from a pod. It is not known where the pod
// is not there yet, or no more.
func (r *round) way(pod netip.Addr, mark uint32) (w warning.Way, known bool, err error) {
	toPod, err := r.d.nl.RouteGet(pod.AsSlice())
	if err != nil || len(toPod) == 0 || toPod[0].LinkIndex == 0 || toPod[0].Gw != nil {
		return w, false, nil //nolint:nilerr // it is not there
	}
	w.Pod = pod
	routes, err := r.d.nl.RouteGetWithOptions(net.IPv4(192, 0, 2, 1), &netlink.RouteGetOptions{
		IifIndex: toPod[0].LinkIndex, SrcAddr: pod.AsSlice(), Mark: mark,
	})
	if err != nil {
		w.Err = err
		return w, true, nil //nolint:nilerr // it is the answer
	}
	if len(routes) == 0 {
		return w, false, nil
	}
	link, err := r.d.nl.LinkByIndex(routes[0].LinkIndex)
	if nlutil.IsLinkNotFound(err) {
		return w, false, nil
	}
	if err != nil {
		return w, false, err
	}
	w.Got = link.Attrs().Name
	return w, true, nil
}

// matching returns the first rule of others before the main table's that matches
// packets from an address, and looks in another table; nil for none.
func matching(others []netlink.Rule, ip netip.Addr) *netlink.Rule {
	for i, rule := range others {
		if rule.Src == nil || rule.Priority >= 32766 || rule.Table == unix.RT_TABLE_MAIN || rule.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		if rule.Src.Contains(ip.AsSlice()) {
			return &others[i]
		}
	}
	return nil
}
