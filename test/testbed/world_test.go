package testbed

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// world is what pods reach by one family.
type world struct {
	// family is its name in a Service.
	family           string
	bastion, lanHost string
	// room is how many bytes a datagram has that fills a packet.
	room int
	icmp uint8
	node func(c *Cluster, name string) netip.Addr
	pod  func(Pod) netip.Addr
}

func worldIPv4() world {
	return world{
		family: "IPv4", bastion: BastionIP, lanHost: LANHostIP, room: 1472, icmp: unix.IPPROTO_ICMP,
		node: (*Cluster).NodeIP, pod: func(p Pod) netip.Addr { return p.IP },
	}
}

func worldIPv6() world {
	return world{
		family: "IPv6", bastion: BastionIPv6, lanHost: LANHostIPv6, room: 1452, icmp: unix.IPPROTO_ICMPV6,
		node: (*Cluster).NodeIPv6, pod: func(p Pod) netip.Addr { return p.IPv6 },
	}
}

// testWorld has each pod send to outside, to other pods, a Service and the API server, and
// looks at the sources that are seen.
func testWorld(c *Cluster, pods []Pod, w world) func(*testing.T) {
	return func(t *testing.T) {
		service := w.service(t, c)
		ours := netip.MustParseAddr(w.bastion)
		k, err := c.Capture(t.Context(), Bastion, "eth0", func(p Packet) bool {
			return p.ARP == 0 && (p.Source.Addr().Is6() == ours.Is6() || p.Destination.Addr().Is6() == ours.Is6())
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods {
			w.outside(t, c, p)
			w.inside(t, c, p, pods, service)
			// A neighbour on the LAN that is no node reaches pods directly.
			if out, err := c.Exec(t.Context(), LANHost, "traffic", "get", "http://"+netip.AddrPortFrom(w.pod(p), 8080).String()); err != nil || !strings.Contains(out, w.lanHost) {
				t.Errorf("from the LAN to %s: %q, %v", p.Name, out, err)
			}
		}
		packets, err := k.Stop()
		if err != nil {
			t.Fatal(err)
		}
		protocols := map[uint8]int{}
		for _, p := range packets {
			protocols[p.Protocol]++
			if p.Source.Addr() != ours && p.Destination.Addr() != ours {
				t.Errorf("captured %v to %v", p.Source, p.Destination)
			}
		}
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, w.icmp} {
			if protocols[protocol] < 2*len(pods) {
				t.Errorf("captured %d packets of protocol %d, want 2 of each pod at least", protocols[protocol], protocol)
			}
		}
	}
}

// service makes a Service of the family, and returns its address.
func (w world) service(t *testing.T, c *Cluster) string {
	t.Helper()
	const manifest = `
apiVersion: v1
kind: Service
metadata: {name: web-%s, namespace: default}
spec: {selector: {app: web}, ipFamilies: [%s], ports: [{port: 80, targetPort: 8080}]}
`
	name := strings.ToLower(w.family)
	if _, err := c.Apply(t.Context(), fmt.Sprintf(manifest, name, w.family)); err != nil {
		t.Fatal(err)
	}
	address, err := c.Kubectl(t.Context(), "-n", "default", "get", "service", "web-"+name, "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// outside: the bastion sees a pod with its node's address, whatever it sends.
func (w world) outside(t *testing.T, c *Cluster, p Pod) {
	t.Helper()
	node := w.node(c, p.Node)
	bastion, echo := net.JoinHostPort(w.bastion, strconv.Itoa(BastionPort)), net.JoinHostPort(w.bastion, strconv.Itoa(BastionEchoPort))
	mark := w.family + "=" + p.Name
	for _, command := range []string{
		"get http://" + bastion + "/?" + mark,
		"post -size 3000000 http://" + bastion + "/?bytes=3000000",
		fmt.Sprintf("udp -df -size %d %s", w.room, bastion),
		"watch -for 1ms udp://" + bastion,
		"stream -for 1ms " + echo,
	} {
		out, err := c.Exec(t.Context(), p.Place(), strings.Fields("traffic "+command)...)
		if err != nil || !strings.Contains(out, net.JoinHostPort(node.String(), "")) {
			t.Errorf("%s on %s: traffic %s: %q, %v; want it seen as %s", p.Name, p.Node, command, out, err, node)
		}
	}
	if out, err := c.Exec(t.Context(), p.Place(), "traffic", "ping", w.bastion); err != nil {
		t.Errorf("%s on %s: ping: %q, %v", p.Name, p.Node, out, err)
	}
	entries, err := c.AccessLog().Find(mark)
	if err != nil || len(entries) != 1 || entries[0].Source != node {
		t.Errorf("access log of %s: %v, %v; want one line of %s", p.Name, entries, err, node)
	}
}

// inside: a pod reaches the others with its own address, and a Service and the API server.
func (w world) inside(t *testing.T, c *Cluster, p Pod, pods []Pod, service string) {
	t.Helper()
	for _, to := range pods {
		out, err := c.Exec(t.Context(), p.Place(), "traffic", "get", "http://"+netip.AddrPortFrom(w.pod(to), 8080).String())
		if own := net.JoinHostPort(w.pod(p).String(), ""); err != nil || !strings.Contains(out, own) {
			t.Errorf("%s on %s to %s on %s: %q, %v; want it seen as %s", p.Name, p.Node, to.Name, to.Node, out, err, own)
		}
	}
	// kube-proxy takes a moment for a new Service.
	err := Poll(t.Context(), 30*time.Second, func() error {
		_, err := c.Exec(t.Context(), p.Place(), "traffic", "get", "http://"+net.JoinHostPort(service, "80"))
		return err
	})
	if err != nil {
		t.Errorf("%s on %s to the Service: %v", p.Name, p.Node, err)
	}
	// With the pod's token, which is in its file system.
	if out, err := c.PodExec(t.Context(), p.Namespace, p.Name, "/traffic", "api", "/version"); err != nil {
		t.Errorf("%s on %s to the API server: %q, %v", p.Name, p.Node, out, err)
	}
}

// testNoIPv4 looks for addresses of IPv4 in every place and pod.
func testNoIPv4(c *Cluster, pods []Pod) func(*testing.T) {
	return func(t *testing.T) {
		places := append([]string{Router, Bastion, LANHost, ControlPlane}, c.Nodes()...)
		for _, p := range pods {
			places = append(places, p.Place())
		}
		for _, place := range places {
			out, err := c.Exec(t.Context(), place, "ip", "-4", "-oneline", "address", "show")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out) {
				if fields := strings.Fields(line); len(fields) < 2 || fields[1] != "lo" {
					t.Errorf("%s has an address of IPv4: %s", place, line)
				}
			}
		}
	}
}

// testBlockUDP: a node drops the datagrams of a port, and no others, until it is told otherwise.
func testBlockUDP(c *Cluster) func(*testing.T) {
	return func(t *testing.T) {
		const blocked, other = 8080, 8090
		node := c.Nodes()[0]
		for _, port := range []uint16{blocked, other} {
			wait, err := c.Background(t.Context(), node, "traffic", "serve", netip.AddrPortFrom(c.NodeIP(node), port).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = wait(true) }) // the context ends it, too
		}
		answers := func(port uint16) error {
			_, err := c.Exec(t.Context(), LANHost, "traffic", "udp", "-timeout", "500ms", netip.AddrPortFrom(c.NodeIP(node), port).String())
			return err
		}
		eventually := func(port uint16) {
			t.Helper()
			if err := Poll(t.Context(), 20*time.Second, func() error { return answers(port) }); err != nil {
				t.Errorf("UDP port %d: %v", port, err)
			}
		}
		eventually(blocked)
		if err := c.BlockUDP(t.Context(), node, blocked); err != nil {
			t.Fatal(err)
		}
		if err := answers(blocked); err == nil {
			t.Error("the port is blocked, and answers")
		}
		eventually(other)
		if err := c.UnblockUDP(t.Context(), node, blocked); err != nil {
			t.Fatal(err)
		}
		eventually(blocked)
	}
}
