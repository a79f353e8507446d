package controllers_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestZoneFails: a third of all automatic hosts goes offline at once, and the others have
// all egress IPs afterwards. How long the first claim and the last one take after the
// first verdict is logged: it depends on how fast the API server is.
//
// EGRESSIP_TEST_HOSTS sets another number of hosts.
func TestZoneFails(t *testing.T) {
	hosts := 12
	if text := os.Getenv("EGRESSIP_TEST_HOSTS"); text != "" {
		var err error
		if hosts, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const perHost = 3
	a := startAPI(t)
	a.cfg.QPS = -1
	c, err := client.NewWithWatch(a.cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	a.Client = c
	a.zone(t, hosts, perHost)
	a.controlAlone(t, controllers.Options{})
	claimed := func(ctx context.Context) (byHost map[string]int, all int, err error) {
		var list v1.HostSubnetList
		if err := a.List(ctx, &list); err != nil {
			return nil, 0, err
		}
		byHost = make(map[string]int)
		for _, h := range list.Items {
			byHost[h.Name] = len(h.EgressIPs)
			all += len(h.EgressIPs)
		}
		return byHost, all, nil
	}
	limit := 4*testenv.Patience + time.Duration(hosts)*100*time.Millisecond
	testenv.EventuallyWithin(t, limit, func(ctx context.Context) string {
		if _, all, err := claimed(ctx); err != nil || all < hosts*perHost {
			return fmt.Sprintf("%v, %d egress IPs are claimed", err, all)
		}
		return ""
	})

	before, _, err := claimed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	times := a.watchZone(t, c, before)
	a.zoneReady(t, hosts/3, corev1.ConditionFalse)
	testenv.EventuallyWithin(t, limit, func(ctx context.Context) string {
		byHost, _, err := claimed(ctx)
		if err != nil {
			return err.Error()
		}
		alive := 0
		for i := hosts / 3; i < hosts; i++ {
			alive += byHost[zoneHost(i)]
		}
		if alive < hosts*perHost {
			return fmt.Sprintf("%d egress IPs of %d are on hosts that are online", alive, hosts*perHost)
		}
		return ""
	})
	all := time.Now()
	verdict, claim := <-times, <-times
	t.Logf("%d of %d hosts failed, with %d egress IPs each: the first claim came %s after the first verdict, the last %s after it",
		hosts/3, hosts, perHost, claim.Sub(verdict).Round(time.Millisecond), all.Sub(verdict).Round(time.Millisecond))
}

func zoneHost(i int) string { return fmt.Sprintf("node%04d", i) }

// zone creates automatic hosts, as their agents report them, and namespaces.
func (a *api) zone(t *testing.T, hosts, perHost int) {
	t.Helper()
	a.parallel(t, hosts, func(ctx context.Context, i int) error {
		name, address := zoneHost(i), fmt.Sprintf("172.16.%d.%d", i/250, 1+i%250)
		h := objects.ReportedHostSubnet(name, address)
		h.EgressCIDRs = []string{"10.2.0.0/16"}
		status := h.Status
		if err := a.Create(ctx, &h); err != nil {
			return err
		}
		h.Status = status
		for c := range h.Status.Conditions {
			h.Status.Conditions[c].LastTransitionTime = metav1.Now()
		}
		if err := a.Status().Update(ctx, &h); err != nil {
			return err
		}
		node := objects.Node(name, corev1.ConditionTrue, address)
		status2 := node.Status
		if err := a.Create(ctx, node); err != nil {
			return err
		}
		node.Status = status2
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
		return a.Status().Update(ctx, node)
	})
	a.parallel(t, hosts*perHost, func(ctx context.Context, i int) error {
		n := objects.NetNamespace(fmt.Sprintf("team%05d", i), uint32(100+i), fmt.Sprintf("10.2.%d.%d", i/250, 1+i%250)) //nolint:gosec // small
		return a.Create(ctx, &n)
	})
}

// zoneReady sets the condition Ready of the first Nodes, eight at a time, as the node
// lifecycle controller of Kubernetes does (nodeUpdateWorkerSize in 1.37).
func (a *api) zoneReady(t *testing.T, nodes int, status corev1.ConditionStatus) {
	t.Helper()
	parallel(t, 8, nodes, func(ctx context.Context, i int) error {
		patch := fmt.Sprintf(`{"status": {"conditions": [{"type": "Ready", "status": %q, "reason": "Test"}]}}`, status)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: zoneHost(i)}}
		return a.Status().Patch(ctx, node, client.RawPatch("application/strategic-merge-patch+json", []byte(patch)))
	})
}

// parallel creates a test's objects.
func (a *api) parallel(t *testing.T, count int, do func(ctx context.Context, i int) error) {
	t.Helper()
	parallel(t, 32, count, do)
}

// parallel calls do for 0 to count-1, so many at once.
func parallel(t *testing.T, atOnce, count int, do func(ctx context.Context, i int) error) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(atOnce)
	for i := range count {
		g.Go(func() error { return do(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// watchZone returns when the first host is offline, and then when the first host has more
// claims than before.
func (a *api) watchZone(t *testing.T, c client.WithWatch, before map[string]int) <-chan time.Time {
	t.Helper()
	w, err := c.Watch(t.Context(), &v1.HostSubnetList{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	times := make(chan time.Time, 2)
	go func() {
		offline := false
		for event := range w.ResultChan() {
			h, ok := event.Object.(*v1.HostSubnet)
			switch {
			case !ok:
			case !offline && meta.IsStatusConditionFalse(h.Status.Conditions, v1.ConditionOnline):
				offline = true
				times <- time.Now()
			case offline && len(h.EgressIPs) > before[h.Name]:
				times <- time.Now()
				return
			}
		}
	}()
	return times
}
