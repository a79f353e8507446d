package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: a pod with a connection; when its node's agent is started again with another setting
// of source ports, then the connection goes on as it was, and new ones have such ports.
//
// Mutants killed: ports-are-never-random, ports-of-a-tree-are-never-random.
func TestSourcePorts(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			p := n.addPod(t, "p", 2)
			n.host(eip1, 7)
			p.set(local(eip1, 7))
			n.apply(t)
			w.seen.only(9001, eip1)
			preserved := func(port int) (near net.Conn, same bool) {
				conn, far := w.connects(t, p, "tcp4", port)
				seen, ok := far.(net.Conn)
				if !ok {
					t.Fatalf("the far end is a %T", far)
				}
				return conn, netip.MustParseAddrPort(conn.LocalAddr().String()).Port() == netip.MustParseAddrPort(seen.RemoteAddr().String()).Port()
			}
			conn, same := preserved(9001)
			if !same {
				t.Error("the port is another one")
			}
			for _, setting := range []SNATPorts{RandomPorts, PreservePorts} {
				n.cfg.SNATPorts = setting
				n.start(t)
				n.apply(t)
				n.settled(t)
				before := w.seen.from(9001, eip1)
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				testenv.UntilWithin(t, patience, "the connection to go on", func() bool { return w.seen.from(9001, eip1) > before })
				random := 0
				for i := range 3 {
					if _, same := preserved(9002 + i); !same {
						random++
					}
				}
				if (random > 0) != (setting == RandomPorts) {
					t.Errorf("%s: %d of 3 new connections have another port", setting, random)
				}
			}
		})
	}
}
