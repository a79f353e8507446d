package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Egress IPs. All of them are in these ranges, and no other machine is.
const (
	egressIP4     = "192.168.7.200"
	egressRange   = "192.168.7.192/27"
	egressIP6     = "fd00:7::200"
	egressRange6  = "fd00:7::200/123"
	firstEight4   = "192.168.7.200/29"
	firstEight6   = "fd00:7::200/125"
	uplinkLength4 = "/24"
	uplinkLength6 = "/64"
)

// family is what differs between the same steps by IPv4 and by IPv6.
type family struct {
	// name is what objects of Kubernetes call it.
	name string
	// egressIP is requested by egressNamespace and claimed by egressHost, secondIP by
	// secondHost, besideIP by besideHost. egressIPAsWritten is egressIP in another form.
	egressIP, secondIP, besideIP, egressIPAsWritten string
	// egressCIDR has the first two of these.
	egressCIDR string
	// bastion and lanHost are addresses of the machines that are no nodes.
	bastion, lanHost string
	// headers is how many bytes of a packet are before a datagram's payload, bits how many an
	// address has.
	headers, bits int
}

func ipv4() family {
	return family{
		name: "IPv4", egressIP: egressIP4, secondIP: "192.168.7.201", besideIP: "192.168.7.210",
		egressIPAsWritten: egressIP4 + uplinkLength4, egressCIDR: firstEight4,
		bastion: testbed.BastionIP, lanHost: testbed.LANHostIP, headers: 20 + 8, bits: 32,
	}
}

func ipv6() family {
	return family{
		name: "IPv6", egressIP: egressIP6, secondIP: "fd00:7::201", besideIP: "fd00:7::210",
		egressIPAsWritten: strings.ToUpper(egressIP6) + uplinkLength6, egressCIDR: firstEight6,
		bastion: testbed.BastionIPv6, lanHost: testbed.LANHostIPv6, headers: 40 + 8, bits: 128,
	}
}

// by plays a step by a family, in a test bed that has it.
func (b *bed) by(f family, step func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		was := b.family
		b.family = f
		// After what the step does when it ends.
		t.Cleanup(func() { b.family = was })
		step(t)
	}
}

// server and echo are the bastion's: HTTP and datagrams, and connections. bastionURL is that
// of its web server.
func (f family) server() string {
	return net.JoinHostPort(f.bastion, strconv.Itoa(testbed.BastionPort))
}

func (f family) echo() string {
	return net.JoinHostPort(f.bastion, strconv.Itoa(testbed.BastionEchoPort))
}

func (f family) bastionURL() string { return "http://" + f.server() }

// is6 reports whether it is IPv6.
func (f family) is6() bool { return f.name == "IPv6" }

// egressIPOnUplink is the egress IP as its host has it. ip and iptables are the commands for the
// family, named is a set of ours for it.
func (f family) egressIPOnUplink() string {
	if f.is6() {
		return f.egressIP + "/128"
	}
	return f.egressIP + uplinkLength4
}

func (f family) ip() string {
	if f.is6() {
		return "ip -6"
	}
	return "ip"
}

func (f family) iptables() string {
	if f.is6() {
		return "ip6tables"
	}
	return "iptables"
}

func (f family) named(set string) string {
	if f.is6() {
		return set + "6"
	}
	return set
}

// isEgressIP reports whether a server has seen the egress IP: what it saw is ADDRESS:PORT.
func (f family) isEgressIP(saw string) bool {
	seen, err := netip.ParseAddrPort(saw)
	return err == nil && seen.Addr().String() == f.egressIP
}

// automatic is a patch that makes a host automatic.
func (f family) automatic() string { return fmt.Sprintf(`{"egressCIDRs": [%q]}`, f.egressCIDR) }

// nodeIP and podIP are the addresses that nodes and pods have themselves.
func (b *bed) nodeIP(node string) string {
	if b.is6() {
		return b.NodeIPv6(node).String()
	}
	return b.NodeIP(node).String()
}

func (b *bed) podIP(p testbed.Pod) string {
	if b.is6() {
		return p.IPv6.String()
	}
	return p.IP.String()
}

// hasEgressIP reports whether a node has an egress IP, the way that its family has it: that of
// IPv4 as with OpenShift.
func (b *bed) hasEgressIP(t *testing.T, node, ip string, want bool) error {
	t.Helper()
	out, err := b.NodeExec(t.Context(), node, "ip", "-oneline", "address", "show", "dev", "eth0")
	if err != nil {
		return err
	}
	begins, has := " inet "+ip+"/", []string{uplinkLength4 + " ", "scope global secondary eth0:eip"}
	if netip.MustParseAddr(ip).Is6() {
		begins, has = " inet6 "+ip+"/", []string{"/128 ", "deprecated"}
	}
	for line := range strings.Lines(out) {
		if !strings.Contains(line, begins) {
			continue
		}
		if !want {
			return fmt.Errorf("%s still has %s", node, line)
		}
		for _, text := range has {
			if !strings.Contains(line, text) {
				t.Errorf("the address is there, but otherwise than it should, without %q: %s", text, line)
			}
		}
		return nil
	}
	if want {
		return fmt.Errorf("%s has no %s:\n%s", node, ip, out)
	}
	return nil
}
