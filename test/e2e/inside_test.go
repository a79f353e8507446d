package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testInbound: answers to connections that come from outside must go back the
// way they came, whatever egress IP the pod's namespace has.
func (b *bed) testInbound(t *testing.T) {
	b.givenEgressIP(t)
	for _, p := range b.egress {
		other := b.Nodes()[0]
		if other == p.Node {
			other = b.Nodes()[1]
		}
		for _, policy := range []string{"Cluster", "Local"} {
			s := b.service(t, fmt.Sprintf("in-%s-%s", p.Node, map[string]string{"Cluster": "c", "Local": "l"}[policy]), policy, endpoint{b.podIP(p), p.Node})
			b.reaches(t, testbed.Bastion, b.nodeIP(p.Node), s.tcpPort, s.udpPort, map[string]string{"Local": b.bastion}[policy])
			if policy == "Cluster" {
				b.reaches(t, testbed.Bastion, b.nodeIP(other), s.tcpPort, s.udpPort, "")
				continue
			}
			if out, err := b.Exec(t.Context(), testbed.Bastion, "traffic", "get", "-timeout", quick(), "http://"+net.JoinHostPort(b.nodeIP(other), s.tcpPort)); err == nil {
				t.Errorf("policy Local, through %s, where there is no endpoint: answered %q", other, out)
			}
		}
		b.reaches(t, testbed.LANHost, b.podIP(p), "8080", "8080", b.lanHost)
	}
}

// reaches asks an address from a place, in small and large, by TCP and UDP; the
// pod must see the client as wantSaw, if that is not empty.
func (b *bed) reaches(t *testing.T, place, address, tcp, udp, wantSaw string) {
	t.Helper()
	url := "http://" + net.JoinHostPort(address, tcp)
	for i, args := range [][]string{
		{"get", url},
		{"post", "-timeout", "20s", "-size", megabytes, url + "/?bytes=" + megabytes},
		{"udp", net.JoinHostPort(address, udp)},
	} {
		check := func() error {
			out, err := b.Exec(t.Context(), place, append([]string{"traffic"}, args...)...)
			if err != nil {
				return err
			}
			saw, err := sawIn(out)
			if err == nil && wantSaw != "" && saw != wantSaw {
				err = fmt.Errorf("from %s to %s: seen as %s, want %s", place, url, saw, wantSaw)
			}
			return err
		}
		if i == 0 {
			b.eventually(t, check) // kube-proxy takes a moment for a new service
		} else if err := check(); err != nil {
			t.Error(err)
		}
	}
}

// testInside: whatever stays inside the cluster looks the same from pods with
// and without egress IP.
func (b *bed) testInside(t *testing.T) {
	b.givenEgressIP(t)
	for _, node := range b.Nodes() {
		wait, err := b.Background(context.WithoutCancel(t.Context()), node, "traffic", "serve", net.JoinHostPort(b.nodeIP(node), "9080"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := wait(true); err != nil {
				t.Log(err)
			}
		})
	}
	services := map[string]service{}
	for _, p := range b.plain {
		services[p.Name] = b.service(t, "to-"+p.Node, "Cluster", endpoint{b.podIP(p), p.Node})
	}
	for i, from := range b.egress {
		plain := b.plain[i]
		if plain.Node != from.Node {
			t.Fatalf("pods are not in the same order: %v, %v", b.egress, b.plain)
		}
		b.insideFrom(t, from, plain, services)
	}
	// The egress host's own traffic, and that of its other pods.
	if out, err := b.NodeExec(t.Context(), egressHost, "traffic", "get", b.bastionURL()); err != nil {
		t.Error(err)
	} else if saw, err := sawIn(out); err != nil || saw != b.nodeIP(egressHost) {
		t.Errorf("%s itself is seen as %s, %v", egressHost, saw, err)
	}
	for _, p := range b.plain {
		if saw, err := b.traffic(t, p, "get", b.bastionURL()); err != nil || saw != b.nodeAddress(p) {
			t.Errorf("%s on %s: seen as %s, %v", p.Name, p.Node, saw, err)
		}
	}
	// Also while the namespace is dropped.
	b.claim(t)
	b.dropped(t, b.egress)
	for i, from := range b.egress {
		b.insideFrom(t, from, b.plain[i], services)
	}
}

// insideFrom sends from a pod with an egress IP to pods, services, nodes and the API
// server. plain is a pod without one on the same node.
func (b *bed) insideFrom(t *testing.T, from, plain testbed.Pod, services map[string]service) {
	t.Helper()
	for _, to := range slices.Concat(b.plain, b.egress) {
		if to.Name != from.Name {
			b.sees(t, from, "http://"+net.JoinHostPort(b.podIP(to), "8080"), b.podIP(from))
		}
	}
	for _, to := range b.plain {
		b.sees(t, from, "http://"+net.JoinHostPort(services[to.Name].clusterIP, "80"), b.podIP(from))
	}
	for _, node := range b.Nodes() {
		url := "http://" + net.JoinHostPort(b.nodeIP(node), "9080")
		want, err := b.traffic(t, plain, "get", url)
		if err != nil {
			t.Fatal(err)
		}
		if node == from.Node || want == b.podIP(plain) {
			want = b.podIP(from) // no masquerading to the own node, nor by some CNIs to others
		}
		b.sees(t, from, url, want)
	}
	if _, err := b.PodExec(t.Context(), from.Namespace, from.Name, "/traffic", "api", "/version"); err != nil {
		t.Errorf("%s on %s does not reach the API server: %v", from.Name, from.Node, err)
	}
}

// sees sends from a pod and compares the address that the other side sees.
func (b *bed) sees(t *testing.T, from testbed.Pod, url, want string) {
	t.Helper()
	b.eventually(t, func() error {
		saw, err := b.traffic(t, from, "get", url)
		if err == nil && saw != want {
			err = fmt.Errorf("seen as %s, want %s", saw, want)
		}
		if err != nil {
			return fmt.Errorf("%s on %s to %s: %w", from.Name, from.Node, url, err)
		}
		return nil
	})
}
