package e2e

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// megabytes is the size of large transfers: many times any window or MTU.
const megabytes = "3000000"

// testPackets sends every kind of packet out of the cluster, from the egress
// host itself and over the overlay: each is answered, and all that the bastion
// ever sees comes from the egress IP.
func (b *bed) testPackets(t *testing.T) {
	b.givenEgressIP(t)
	outside := b.serviceOutside(t)
	verify := b.watchBastion(t, b.egressIP)
	symmetric := b.watchReturn(t)
	bastion := b.server()
	for _, p := range b.egress {
		room := b.room(t, p)
		for _, c := range []struct {
			what string
			args []string
		}{
			{"HTTP", []string{"get", b.bastionURL()}},
			{"3 MB both ways", []string{"post", "-timeout", "20s", "-size", megabytes, b.bastionURL() + "/?bytes=" + megabytes}},
			{"UDP", []string{"udp", bastion}},
			{"UDP at the path's MTU, without fragments", []string{"udp", "-df", "-size", fmt.Sprint(room), bastion}},
			{"UDP in fragments", []string{"udp", "-size", "4000", bastion}},
			{"a service with its endpoint outside", []string{"get", "http://" + net.JoinHostPort(outside, "80")}},
			{"3 MB to a service with its endpoint outside", []string{"post", "-timeout", "20s", "-size", megabytes, "http://" + net.JoinHostPort(outside, "80")}},
		} {
			b.answeredAtOnce(t, func() error {
				if saw, err := b.traffic(t, p, c.args...); err != nil || saw != b.egressIP {
					return fmt.Errorf("%s on %s: %s: seen as %q, %w", p.Name, p.Node, c.what, saw, err)
				}
				return nil
			})
		}
		for _, args := range [][]string{
			{"ping", b.bastion},
			{"ping", "-size", "4000", b.bastion},
			{"ping", "-df", "-size", fmt.Sprint(room), b.bastion},
		} {
			b.answeredAtOnce(t, func() error {
				_, err := b.Exec(t.Context(), p.Place(), append([]string{"traffic"}, args...)...)
				return err
			})
		}
		b.tooLong(t, p, room+1)
	}
	verify()
	symmetric()
}

// answeredAtOnce asks once by IPv4. By IPv6 it may ask again: there is nobody on the way to make
// fragments, so that a sender learns by its first large packet what the path carries.
func (b *bed) answeredAtOnce(t *testing.T, ask func() error) {
	t.Helper()
	if b.is6() {
		b.eventually(t, ask)
	} else if err := ask(); err != nil {
		t.Error(err)
	}
}

// room is how many bytes of a datagram fit the path without fragments: the MTU of the pod,
// which the CNI may have made smaller, or that of the uplink, less what the overlay adds for
// pods of other nodes.
func (b *bed) room(t *testing.T, p testbed.Pod) int {
	t.Helper()
	path := 1500 // of the uplink
	if p.Node != egressHost {
		path -= b.overlay()
	}
	out, err := b.Exec(t.Context(), p.Place(), "traffic", "mtu", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	pod, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	return min(path, pod) - b.headers
}

// overlay is how many bytes it adds to a packet: its Ethernet header, and those of VXLAN, UDP and
// IP between hosts, which have their first address for that.
func (b *bed) overlay() int {
	if b.NodeIP(egressHost).Is6() {
		return 14 + 8 + 8 + 40
	}
	return 14 + 8 + 8 + 20
}

// watchReturn records answers that the egress host sends on to pods of other
// nodes past the overlay: that works with this CNI's plain routes, but not with
// every one. The function that it returns fails the test if there are any.
func (b *bed) watchReturn(t *testing.T) (verify func()) {
	t.Helper()
	k, err := b.Capture(t.Context(), egressHost, "eth0", func(p testbed.Packet) bool {
		return p.Outgoing && p.Source.Addr().String() == b.bastion
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if packets, err := k.Stop(); err != nil || len(packets) > 0 {
			t.Errorf("%d answers went to pods past the overlay, %v", len(packets), err)
		}
	}
}

// tooLong: a datagram that must not be fragmented and does not fit is refused
// with the ICMP message that path MTU discovery needs.
func (b *bed) tooLong(t *testing.T, p testbed.Pod, size int) {
	t.Helper()
	b.eventually(t, func() error {
		_, err := b.Exec(t.Context(), p.Place(), "traffic", "udp", "-df", "-timeout", quick(), "-size", fmt.Sprint(size), b.server())
		if err == nil {
			return fmt.Errorf("%s on %s: %d bytes without fragments were answered", p.Name, p.Node, size)
		}
		if !strings.Contains(err.Error(), "message too long") {
			return fmt.Errorf("%s on %s: %d bytes without fragments: want \"message too long\", got: %w", p.Name, p.Node, size, err)
		}
		return nil
	})
}

// serviceOutside makes a Service whose only endpoint is the bastion, and
// returns its ClusterIP once each node has rules for it.
func (b *bed) serviceOutside(t *testing.T) string {
	t.Helper()
	s := b.service(t, "outside", "Cluster", endpoint{address: b.bastion})
	for _, p := range b.plain {
		b.sees(t, p, "http://"+net.JoinHostPort(s.clusterIP, "80"), b.nodeAddress(p))
	}
	return s.clusterIP
}

// endpoint of a Service without selector; node is empty for one outside the
// cluster.
type endpoint struct{ address, node string }

// service is a Service as its clients see it: TCP on port 80, UDP on 81.
type service struct{ clusterIP, tcpPort, udpPort string }

// service makes a Service of type NodePort with one endpoint, to go with the
// test.
func (b *bed) service(t *testing.T, name, policy string, e endpoint) service {
	t.Helper()
	node := ""
	if e.node != "" {
		node = ", nodeName: " + e.node
	}
	manifest := fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default}
spec:
  type: NodePort
  ipFamilies: [%[5]s]
  externalTrafficPolicy: %[2]s
  ports:
  - {name: tcp, port: 80, targetPort: 8080, protocol: TCP}
  - {name: udp, port: 81, targetPort: 8080, protocol: UDP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: %[5]s
endpoints: [{addresses: ["%[3]s"], conditions: {ready: true}%[4]s}]
ports:
- {name: tcp, port: 8080, protocol: TCP}
- {name: udp, port: 8080, protocol: UDP}
`, name, policy, e.address, node, b.name)
	if _, err := b.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := b.Kubectl(context.WithoutCancel(t.Context()), "-n", "default", "delete", "service/"+name, "endpointslice/"+name+"-1"); err != nil {
			t.Error(err)
		}
	})
	out, err := b.Kubectl(t.Context(), "-n", "default", "get", "service", name, "-o",
		"jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort} {.spec.ports[1].nodePort}")
	if err != nil {
		t.Fatal(err)
	}
	var s service
	if _, err := fmt.Sscan(out, &s.clusterIP, &s.tcpPort, &s.udpPort); err != nil {
		t.Fatalf("service %s: %q: %v", name, out, err)
	}
	return s
}
