package warning

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Facts are what was seen on a host. What could not be looked at is in Unknown, and
// absent elsewhere.
type Facts struct {
	// Uplink is the interface with the host's own address, Overlay our device, Port its
	// UDP port, Mask the bits of marks that are ours.
	Uplink, Overlay string
	Port            uint16
	Mask            uint32
	// OverIPv6: the host's own address is one of IPv6, and so are the overlay's packets.
	// Then DefaultRoute and Chains are of IPv6, and there are no Settings.
	OverIPv6 bool
	// Settings are sysctls below net.ipv4, by name, such as conf.eth0.rp_filter.
	Settings map[string]string
	// DefaultRoute is the interface of the default route. It is empty where there is
	// none, and equal to Uplink where that is not known.
	DefaultRoute string
	// Rules are the policy rules of others that compare marks.
	Rules []MarkRule
	// Marking are other software that is known to mark packets and that is here.
	Marking []Software
	// Chains are the base chains of others, those of iptables included.
	Chains []Chain
	// IPTables: our own rules are in iptables.
	IPTables bool
	// Ousted are the chains of iptables in which others have put rules before ours, again and
	// again.
	Ousted []Ousted
	// Restoring is a set of software that is known to write back all sets of a host; empty if
	// there is none.
	Restoring string
	// SharePort are other VXLAN devices at the overlay's port.
	SharePort []string
	// Ways are the ways of some pods' packets, as the kernel would route them.
	Ways []Way
	// Unknown are errors of looking.
	Unknown []error
}

// MarkRule is a policy rule that compares the packet's mark.
type MarkRule struct {
	Priority, Table int
	Mark, Mask      uint32
}

// Software is other software, by what it leaves on the host, and its bits of marks.
type Software struct {
	Name, Device string
	Bits         uint32
}

// Ousted is a base chain in which ours do not stay first.
type Ousted struct {
	// Chain is as in "iptables-nft, table mangle, chain PREROUTING"; Rule is the rule of others
	// that stood first there, as iptables-save prints it.
	Chain, Rule string
}

// Chain is a base chain of others.
type Chain struct {
	// Name is as the tools of the host show it, such as "table inet filter chain input".
	Name string
	// Hook is prerouting, input, forward, output or postrouting.
	Hook string
	// NATFirst: it translates sources, and comes before ours or may come.
	NATFirst bool
	// BehindTable: in a table of our own, our source NAT would come before it.
	BehindTable bool
	// Closed: it drops or rejects what no rule accepts. Opens: a rule there accepts our
	// packets, or seems to.
	Closed, Opens bool
}

// Way is how the kernel would route a pod's packets to the outside.
type Way struct {
	Pod netip.Addr
	// Wanted are the interfaces by which they may leave, Got is that by which they
	// would; Err is why the kernel would drop them.
	Wanted []string
	Got    string
	Err    error
	// Rule is a policy rule of others that matches the pod; empty if none was found.
	Rule string
}

// From returns the warnings that follow from facts, without order.
func From(f Facts) (list []Warning) {
	for _, find := range []func(Facts) []Warning{
		forwarding, defaultRoute, reversePath, marks, chains, flushes, ousted, sets, devices, ways,
	} {
		list = append(list, find(f)...)
	}
	for _, err := range f.Unknown {
		list = append(list, Warning{
			Reason: Unknown, Object: "host", Problem: fmt.Sprintf("what would deserve a warning may go unnoticed: %v", err),
			Remedy: "see the agent's log; the agent keeps trying",
		})
	}
	return list
}

func forwarding(f Facts) (list []Warning) {
	if v, known := f.Settings["ip_forward"]; known && v != "1" {
		return []Warning{{
			Reason: ForwardingOff, Object: "net.ipv4.ip_forward",
			Problem: "the host forwards no packets: net.ipv4.ip_forward is " + v + ", not 1",
			Remedy:  "set it to 1, also in /etc/sysctl.d",
		}}
	}
	for _, device := range []string{f.Uplink, f.Overlay} {
		name := "conf." + device + ".forwarding"
		if v, known := f.Settings[name]; device != "" && known && v != "1" {
			list = append(list, Warning{
				Reason: ForwardingOff, Object: "net.ipv4." + name,
				Problem: fmt.Sprintf("packets that come in by %s are not forwarded: the setting is %s, not 1", device, v),
				Remedy:  "set it to 1, and net.ipv4.conf.default.forwarding, which new devices begin with",
			})
		}
	}
	if v, known := f.Settings["conf.default.forwarding"]; known && v != "1" {
		list = append(list, Warning{
			Reason: ForwardingOff, Object: "net.ipv4.conf.default.forwarding",
			Problem: "packets of new pods are not forwarded: their interfaces begin with this setting, which is " + v + ", not 1",
			Remedy:  "set it to 1, also in /etc/sysctl.d",
		})
	}
	return list
}

func defaultRoute(f Facts) []Warning {
	object := "ip route show default"
	if f.OverIPv6 {
		object = "ip -6 route show default"
	}
	switch f.DefaultRoute {
	case f.Uplink:
		return nil
	case "":
		problem := "the host has no default route: packets of pods whose egress IP it has cannot leave"
		if !f.OverIPv6 {
			problem += ", and the answers to pods whose egress IP is on another host are dropped by the reverse path filter"
		}
		return []Warning{{Reason: NoDefaultRoute, Object: object, Problem: problem, Remedy: "add a default route"}}
	}
	return []Warning{{
		Reason: DefaultRouteElsewhere, Object: object,
		Problem: fmt.Sprintf("the default route leads out of %s, but egress IPs are on %s, which has the host's address: "+
			"their packets leave by %[1]s, and the answers come by %[2]s", f.DefaultRoute, f.Uplink),
		Remedy: fmt.Sprintf("move the default route to %s, or make an address of %s the node's InternalIP", f.Uplink, f.DefaultRoute),
	}}
}

// reversePath finds the strict filter where the way back is another one.
func reversePath(f Facts) []Warning {
	if f.DefaultRoute == f.Uplink || f.DefaultRoute == "" {
		return nil
	}
	name := "conf." + f.Uplink + ".rp_filter"
	// The greater value of both is in force: 2 is loose.
	value := max(f.Settings["conf.all.rp_filter"], f.Settings[name])
	if value != "1" {
		return nil
	}
	return []Warning{{
		Reason: ReversePathFilter, Object: "net.ipv4." + name,
		Problem: fmt.Sprintf("the filter is strict: answers to egress IPs that come by %s are dropped, as the way back leads out of %s", f.Uplink, f.DefaultRoute),
		Remedy:  "set it to 2, or move the default route to " + f.Uplink,
	}}
}

func marks(f Facts) (list []Warning) {
	const remedy = "give that software another mark, or choose other bits with --mark-mask (in the chart: markMask), the same on every node"
	for _, r := range f.Rules {
		all := r.Mask == ^uint32(0)
		set, compared := r.Mark&r.Mask&f.Mask, r.Mask&f.Mask
		if set == 0 && (all || compared == 0) {
			continue
		}
		list = append(list, Warning{
			Reason: MarksOverlap, Object: fmt.Sprintf("ip rule %d: fwmark %#x/%#x lookup %d", r.Priority, r.Mark, r.Mask, r.Table),
			Problem: fmt.Sprintf("the rule has bits of ours, which are %#x: forwarded packets that others mark so are taken for those of pods with "+
				"egress IPs, and those may take that rule", f.Mask),
			Remedy: remedy,
		})
	}
	for _, s := range f.Marking {
		if s.Bits&f.Mask != 0 {
			list = append(list, Warning{
				Reason: MarksOverlap, Object: "device " + s.Device,
				Problem: fmt.Sprintf("%s uses the bits %#x of marks, and ours are %#x: either may take packets for its own", s.Name, s.Bits, f.Mask),
				Remedy:  remedy,
			})
		}
	}
	return list
}

func chains(f Facts) (list []Warning) {
	for _, c := range f.Chains {
		switch {
		case c.NATFirst:
			remedy := fmt.Sprintf("exempt packets with our marks there (meta mark & %#x != 0 accept), or give the chain priority 100", f.Mask)
			if f.IPTables && c.BehindTable {
				// A chain of a CNI, such as kindnet's, cannot be changed.
				remedy = "set --backend=nftables; or " + remedy
			}
			list = append(list, Warning{
				Reason: ForeignNATFirst, Object: c.Name,
				Problem: "source NAT there comes before ours, or may come: packets that it translates are dropped where they would leave",
				Remedy:  remedy,
			})
		case c.Closed && !c.Opens && c.Hook == "forward":
			list = append(list, Warning{
				Reason: ForwardRejects, Object: c.Name,
				Problem: fmt.Sprintf("it drops or rejects forwarded packets that none of its rules accepts, and no rule of its table names %s: "+
					"packets between pods and egress hosts may end there", f.Overlay),
				Remedy: fmt.Sprintf("accept packets that come in or leave by %s there (firewalld: firewall-cmd --permanent --zone=trusted --add-interface=%[1]s)", f.Overlay),
			})
		case c.Closed && !c.Opens && c.Hook == "input":
			list = append(list, Warning{
				Reason: OverlayPortClosed, Object: c.Name,
				Problem: fmt.Sprintf("it drops or rejects packets that none of its rules accepts, and no rule of its table names UDP port %d: "+
					"what other hosts send over the overlay may end there", f.Port),
				Remedy: fmt.Sprintf("accept UDP port %d from all nodes there (firewalld: firewall-cmd --permanent --add-port=%[1]d/udp; ufw allow %[1]d/udp)", f.Port),
			})
		}
	}
	return list
}

// firewalldTable begins the names of firewalld's chains in nftables.
const firewalldTable = "table inet firewalld "

// flushes finds software that is known to take the rules of iptables away, of everybody.
func flushes(f Facts) []Warning {
	if !f.IPTables || !slices.ContainsFunc(f.Chains, func(c Chain) bool { return strings.HasPrefix(c.Name, firewalldTable) }) {
		return nil
	}
	return []Warning{{
		Reason: RulesFlushed, Object: "firewalld",
		Problem: "ours are in iptables, and some versions of firewalld remove all rules there when they reload, whoever made them: " +
			"until the next pass, pods leave without their egress IPs",
		Remedy: "set --backend=nftables (in the chart: backend)",
	}}
}

// ousted names the chains in which ours do not stay first.
func ousted(f Facts) (list []Warning) {
	for _, o := range f.Ousted {
		list = append(list, Warning{
			Reason: FirstPlaceLost, Object: o.Chain,
			Problem: fmt.Sprintf("other software puts its rules before ours there again and again, such as %q: until the agent's next pass, which puts ours "+
				"first, packets of pods with egress IPs that these rules accept are dropped; and where rules of others accept in FORWARD of table mangle "+
				"and in FORWARD of table filter before ours, established connections may leave without their egress IPs", o.Rule),
			Remedy: "set --backend=nftables (in the chart: backend), or have that software append its rules (Calico: chainInsertMode Append)",
		})
	}
	return list
}

// sets finds software that is known to write to the sets of others.
func sets(f Facts) []Warning {
	if !f.IPTables || f.Restoring == "" {
		return nil
	}
	return []Warning{{
		Reason: SetsRestored, Object: "ipset " + f.Restoring,
		Problem: "kube-router is here, and versions of it, such as 2.1.0, write back every ipset of the host as it was some time before, " +
			"when pods or policies change: until the agent's next pass, pods may be sent by entries of ours that are old",
		Remedy: "set --backend=nftables (in the chart: backend), whose sets kube-router does not see, or run a kube-router that writes its own sets only",
	}}
}

func devices(f Facts) (list []Warning) {
	for _, device := range f.SharePort {
		list = append(list, Warning{
			Reason: OverlayPortShared, Object: "device " + device,
			Problem: fmt.Sprintf("this VXLAN device has the overlay's UDP port %d: only one of both can be up", f.Port),
			Remedy:  "choose another port with --overlay-port (in the chart: overlayPort), the same on every node",
		})
	}
	return list
}

func ways(f Facts) (list []Warning) {
	if v, known := f.Settings["ip_forward"]; known && v != "1" {
		return nil // nothing has a way
	}
	for _, w := range f.Ways {
		object, remedy := "pod "+w.Pod.String(), "see ip route get 192.0.2.1 from "+w.Pod.String()+" iif DEVICE mark MARK"
		if w.Rule != "" {
			object, remedy = w.Rule, "let that rule not match pods with egress IPs, or remove it"
		}
		switch {
		case w.Err != nil:
			list = append(list, Warning{
				Reason: RoutedElsewhere, Object: object,
				Problem: fmt.Sprintf("the host drops what pod %v sends to the outside: %v", w.Pod, w.Err), Remedy: remedy,
			})
		case !slices.Contains(w.Wanted, w.Got):
			list = append(list, Warning{
				Reason: RoutedElsewhere, Object: object,
				Problem: fmt.Sprintf("what pod %v sends to the outside would leave by %s, not by %s", w.Pod, w.Got, strings.Join(w.Wanted, " or ")),
				Remedy:  remedy,
			})
		}
	}
	return list
}
