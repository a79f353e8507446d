package agent

import (
	"context"
	"net"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// testTakenPort: an agent whose health port is taken serves its node's pods, and health
// as soon as the port is free.
func testTakenPort(t *testing.T, a *api) {
	t.Helper()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := newScene(t, a, 13)
	u := startAgent(t, a, s.node, func(u *agentUnderTest) { u.health = other.Addr().String() })
	s.createPod(t, 0)
	testenv.Eventually(t, wantPaths(u.kernel, map[string]dataplane.PodKind{s.podIP(0): dataplane.Local}))
	testenv.Eventually(t, func(ctx context.Context) string {
		if e := s.hostSubnet(ctx, t).Status.EgressIPs; len(e) != 1 || !e[0].Configured {
			return "the egress IP is not reported as configured"
		}
		return ""
	})
	other.Close()
	s.settled(t, u)
}
