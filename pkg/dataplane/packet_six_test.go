package dataplane

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// eip63 is an egress IP of IPv6, like eip61.
const eip63 = "fd00:7::203"

// ofIPv6 are the same rules in a world of IPv6, for tests that ask the same of both families.
// There, pods, egress IPs and the bastion have addresses of IPv6, the capture is one of IPv6,
// and the CNI masquerades. Between hosts and in the overlay's outer packets, IPv4 is used as
// ever.
func (r rulesOf) ofIPv6() rulesOf {
	r.name += ", IPv6"
	r.six = true
	return r
}

// withoutIPv4 are rules of IPv6 in a world whose hosts have neither addresses nor routes of
// IPv4: the overlay, probes and all else is over IPv6.
func (r rulesOf) withoutIPv4() rulesOf {
	r = r.ofIPv6()
	r.name += " alone"
	r.alone = true
	return r
}

// takeIPv4 takes IPv4 away from the hosts of a world of IPv6.
func (w *world) takeIPv4(t *testing.T) {
	t.Helper()
	four := func(p netip.Prefix) bool { return p.Addr().Is4() }
	for _, n := range w.nodes {
		n.alone, n.ip = true, testenv.Addr(n.ip6())
		n.Run(t, `sysctl -qw net.ipv4.ip_forward=0
			for d in eth0 cni0; do ip -4 address flush dev $d; done; ip -4 route flush table main`)
		n.state.HostIP, n.state.Hosts = n.ip, nil
		n.state.Inside, n.state.Subnets = slices.DeleteFunc(n.state.Inside, four), slices.DeleteFunc(n.state.Subnets, four)
		for _, o := range w.nodes {
			n.state.Hosts = append(n.state.Hosts, testenv.Addr(o.ip6()))
		}
	}
}

// named is the name of a set or chain of our table, in its form for the world's family.
func (r rulesOf) named(name string) string {
	if r.six {
		return name + "6"
	}
	return name
}

// ethertype is that of packets of the world's family.
func (r rulesOf) ethertype() uint16 {
	if r.six {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// ip is the command for addresses, routes and policy rules of the world's family.
func (r rulesOf) ip() string {
	if r.six {
		return "ip -6"
	}
	return "ip"
}

// egressBits is the prefix length of an egress IP on the uplink.
func (r rulesOf) egressBits() string {
	if r.six {
		return "/128"
	}
	return "/24"
}

// iptablesOfFamily is iptables of the world's family.
func (r rulesOf) iptablesOfFamily() string {
	if r.six {
		return "ip6tables-" + string(r.masquerade[0])
	}
	return r.iptables()
}

// servingIPv6 are one way for each of our backends that serves egress IPs of IPv6.
func servingIPv6() []rulesOf {
	switch matrix() {
	case everyWay:
		return []rulesOf{ownTable(), onlyNFT(), onlyLegacy(), bothLegacyFirst()}
	case legacyAlone:
		return []rulesOf{onlyLegacy()}
	default:
		return []rulesOf{ownTable(), onlyNFT()}
	}
}

// rulesOfIPv6 are these in a world of IPv6.
func rulesOfIPv6() (list []rulesOf) {
	for _, rules := range servingIPv6() {
		list = append(list, rules.ofIPv6())
	}
	return list
}

// rulesWithoutIPv4 are these in a world without IPv4.
func rulesWithoutIPv4() (list []rulesOf) {
	for _, rules := range servingIPv6() {
		list = append(list, rules.withoutIPv4())
	}
	return list
}

// bothFamilies are rules in a table of our own, in a world of each family.
func bothFamilies() []rulesOf { return []rulesOf{ownTable(), ownTable().ofIPv6()} }

// turnToIPv6 makes a world one of IPv6.
func (w *world) turnToIPv6(t *testing.T, rules rulesOf) {
	t.Helper()
	w.seen = w.withIPv6(t).seen6
	w.bastion.serveWhoami(t, net.JoinHostPort(bastionIP6, "8080"))
	w.router.six, w.bastion.six = true, true
	// While a host has no address, the bastion was seen to learn by a redirect that the host is on
	// its own segment, and to keep that after the address was back.
	w.bastion.Run(t, "sysctl -qw net.ipv6.conf.eth0.accept_redirects=0")
	for _, n := range w.nodes {
		n.six = true
		for _, b := range rules.masquerade {
			n.Run(t, "ip6tables-"+string(b)+" -t nat -A POSTROUTING -s fd00:10:244::/48 ! -d fd00:10:244::/48 -j MASQUERADE")
		}
		n.Run(t, rules.iptablesOfFamily()+" -A FORWARD -m conntrack --ctstate INVALID -j DROP")
	}
}

// eip returns one of three egress IPs, by its number from 1 on.
func (w *world) eip(number int) string { return w.egressIPs()[number-1] }

// egressIPs are those of the first hosts.
func (w *world) egressIPs() []string {
	if w.bastion.six {
		return []string{eip61, eip62, eip63}
	}
	return []string{eip1, eip2, eip3}
}

// own is the host's own address, of the world's family.
func (n *node) own() string {
	if n.six {
		return n.ip6()
	}
	return n.ip.String()
}

// outside is a port of the bastion, of the machine's family.
func (m *machine) outside(port int) string {
	if m.six {
		return net.JoinHostPort(bastionIP6, strconv.Itoa(port))
	}
	return net.JoinHostPort(bastionIP, strconv.Itoa(port))
}

// over is the name of a protocol over the machine's family.
func (m *machine) over(protocol string) string {
	if m.six {
		return protocol + "6"
	}
	return protocol + "4"
}

// web is port 80 of a pod.
func (p *podMachine) web() string { return net.JoinHostPort(p.ip.String(), "80") }
