package controllers_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/scraped"
)

// freeAddress returns an address of this machine on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// TestRunThroughTrouble: endpoints, one of whose ports is taken at first, a change of the
// leader, and an API server that goes away and comes back.
func TestRunThroughTrouble(t *testing.T) {
	whole := t
	a := startAPI(t)
	a.metrics = ctrlmetrics.Registry // which the endpoint serves
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.node(t, "node2", "10.254.2.0/24", "192.168.7.12")
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	options := controllers.Options{
		LeaderElection: true, LeaderElectionNamespace: system,
		MetricsAddress: other.Addr().String(), HealthAddress: freeAddress(t),
	}
	stop := a.control(t, options)
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	for _, name := range []string{"node1", "node2"} {
		a.ranges(t, name, "192.168.7.0/24")
	}
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	other.Close()

	t.Run("endpoints", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz"} {
			testenv.Eventually(t, func(ctx context.Context) string {
				_, err := get(ctx, "http://"+options.HealthAddress+path)
				return text(err)
			})
		}
		testenv.Eventually(t, func(ctx context.Context) string {
			body, err := get(ctx, "http://"+options.MetricsAddress+"/metrics")
			if err != nil {
				return err.Error()
			}
			for _, line := range []string{
				`egressip_requests{family="IPv4",state="Active"} 1`, `egressip_claims{family="IPv4",state="Active"} 1`, `egressip_requests{family="IPv6",state="Active"} 0`, `egressip_dropped_namespaces 0`,
				`egressip_hosts{online="true"} 2`, `egressip_moves_total{reason="HostOffline"} 0`, `egressip_leading 1`,
				`egressip_host_online{host="node1"} 1`, `egressip_host_agent_ready{host="node2"} 1`,
				`egressip_allocation_duration_seconds_count`, `egressip_reconcile_duration_seconds_count`,
			} {
				if !strings.Contains(body, line) {
					return "no " + line
				}
			}
			// What is served is what docs/metrics.md says, and nothing else. There are no pools here.
			return strings.Join(scraped.Wrong(body, controllers.MetricDefs(), "egressip_pool_addresses", "egressip_pool_refused_requests", "egressip_unserved_requests"), "\n")
		})
	})

	t.Run("another takes the lead and goes on", func(t *testing.T) {
		holder := func(ctx context.Context) (string, error) {
			var lease coordinationv1.Lease
			err := a.Get(ctx, client.ObjectKey{Namespace: system, Name: "egressip-controller"}, &lease)
			if err != nil || lease.Spec.HolderIdentity == nil {
				return "", err
			}
			return *lease.Spec.HolderIdentity, nil
		}
		first, err := holder(t.Context())
		if err != nil || first == "" {
			t.Fatalf("the Lease is held by %q, %v", first, err)
		}
		stop()
		stop = a.control(whole, controllers.Options{LeaderElection: true, LeaderElectionNamespace: system})
		a.ready(t, "node1", corev1.ConditionFalse)
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node2"))
		if second, err := holder(t.Context()); err != nil || second == first {
			t.Errorf("the Lease is held by %q, %v; want another than %q", second, err, first)
		}
		testenv.Eventually(t, func(context.Context) string { return movedFor(a.metrics, "HostOffline") })
	})

	t.Run("the API server goes away and comes back", func(t *testing.T) {
		stop()
		line := newLine(whole, strings.Trim(strings.TrimPrefix(a.cfg.Host, "https:"), "/"))
		behind := *a
		behind.cfg = rest.CopyConfig(a.cfg)
		behind.cfg.Host = "https://" + line.address
		stop = behind.control(whole, controllers.Options{LeaderElection: true, LeaderElectionNamespace: system})
		a.namespace(t, "before")
		a.awaitNamespaces(t)

		// For so long that it loses the lead.
		line.cut()
		testenv.Eventually(t, func(ctx context.Context) string {
			var lease coordinationv1.Lease
			if err := a.Get(ctx, client.ObjectKey{Namespace: system, Name: "egressip-controller"}, &lease); err != nil {
				return err.Error()
			}
			if held := time.Since(lease.Spec.RenewTime.Time); held < 8*time.Second {
				return fmt.Sprintf("the Lease was renewed %s ago", held)
			}
			return ""
		})
		a.namespace(t, "after")
		a.ready(t, "node1", corev1.ConditionTrue)
		a.ready(t, "node2", corev1.ConditionFalse)
		line.mend()
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
		a.awaitNamespaces(t)
	})
}

// movedFor returns "" if one egress IP has moved, for the reason, and it is known how long that took.
func movedFor(metrics prometheus.Gatherer, reason string) string {
	families, err := metrics.Gather()
	if err != nil {
		return err.Error()
	}
	var moves, timed float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case f.GetName() == "egressip_move_duration_seconds" && m.GetHistogram().GetSampleSum() > 0:
				timed += float64(m.GetHistogram().GetSampleCount())
			case f.GetName() == "egressip_moves_total" && m.GetLabel()[0].GetValue() == reason:
				moves += m.GetCounter().GetValue()
			}
		}
	}
	if moves != 1 || timed != 1 {
		return fmt.Sprintf("%v moves for reason %s, %v of known duration; want 1", moves, reason, timed)
	}
	return ""
}

// line is a connection to a server that can be cut.
type line struct {
	address, server string
	mu              sync.Mutex
	broken          bool
	open            []net.Conn
}

func newLine(t *testing.T, server string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{address: listener.Addr().String(), server: server}
	var g sync.WaitGroup
	g.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			g.Go(func() { l.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		g.Wait()
	})
	return l
}

// serve carries bytes both ways until one side ends.
func (l *line) serve(conn net.Conn) {
	defer conn.Close()
	onward, err := net.Dial("tcp", l.server)
	if err != nil {
		return
	}
	defer onward.Close()
	l.mu.Lock()
	if l.broken {
		l.mu.Unlock()
		return
	}
	l.open = append(l.open, conn, onward)
	l.mu.Unlock()
	var g sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, onward}, {onward, conn}} {
		g.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // its end is all that matters
			conn.Close()
			onward.Close()
		})
	}
	g.Wait()
}

// cut ends all connections, and those to come.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = true
	for _, conn := range l.open {
		conn.Close()
	}
	l.open = nil
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = false
}
