package agent

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/scraped"
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

// testServedMetrics: what an agent serves is what docs/metrics.md says, and nothing else.
func testServedMetrics(t *testing.T, a *api) {
	t.Helper()
	s := newScene(t, a, 14)
	u := startAgent(t, a, s.node, func(u *agentUnderTest) {
		u.metrics = freeAddress(t)
		u.kernel.apply = func(_ context.Context, n int, s dataplane.State) (dataplane.Report, error) {
			r := healthyReport(s)
			r.Counts, r.IPv6.Known = n, true
			return r, nil
		}
	})
	s.settled(t, u)
	var text string
	testenv.Eventually(t, func(ctx context.Context) string {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.metrics+"/metrics", http.NoBody)
		if err != nil {
			return err.Error()
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		text = string(body)
		if err != nil || !strings.Contains(text, `egressip_agent_overlay_bytes_total{direction="transmit"} 300`) {
			return "no traffic of the overlay"
		}
		return ""
	})
	for _, wrong := range scraped.Wrong(text, MetricDefs()) {
		t.Error(wrong)
	}
}
