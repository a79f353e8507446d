package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestManyStatuses: a controller that starts in a cluster with many namespaces has a
// status for each of them to write. It writes each once, and a host that goes offline
// meanwhile does not wait for them. How long it takes is logged, and how much processor
// time each process used: both depend on the machine, the first also on its other work.
//
// EGRESSIP_TEST_NAMESPACES sets another size.
func TestManyStatuses(t *testing.T) {
	const perHost = 100
	count := manyNamespaces(t, 1000)
	a := startAPI(t)
	noted, writes := a.watchWrites()
	a.fill(t, count, perHost)
	a.agents(t)
	limit := 4*testenv.Patience + time.Duration(count/20)*time.Second
	testenv.EventuallyWithin(t, limit, func(ctx context.Context) string {
		var list v1.HostSubnetList
		if err := a.List(ctx, &list); err != nil {
			return err.Error()
		}
		if i := slices.IndexFunc(list.Items, func(h v1.HostSubnet) bool { return h.Status.Agent == nil }); i >= 0 {
			return "the agent of " + list.Items[i].Name + " has not reported"
		}
		return ""
	})

	noted.cfg.QPS = -1 // as by default
	began, used := time.Now(), processorTime(t)
	noted.controlAlone(t, controllers.Options{})
	testenv.EventuallyWithin(t, limit, func(context.Context) string {
		if n := writes.count(); n < count/4 {
			return fmt.Sprintf("%d statuses are written", n)
		}
		return ""
	})
	offline := writes.count()
	a.ready(t, "node0", corev1.ConditionFalse)
	told, read, namespaces := make(map[string]bool), 0, 0
	testenv.EventuallyWithin(t, limit, func(context.Context) string {
		for _, name := range writes.since(read) {
			read++
			if strings.HasPrefix(name, "netnamespaces/") {
				told[name] = true
				namespaces++
			}
		}
		if n := len(told); n < count {
			return fmt.Sprintf("%d statuses of %d are written", n, count)
		}
		return ""
	})
	took, usedNow := time.Since(began), processorTime(t)
	all := writes.since(0)
	verdict := offline + slices.Index(all[offline:], "hostsubnets/node0")
	t.Logf("%d statuses in %s; the verdict came after %d and was write %d of %d", count, took.Round(time.Second), offline, verdict, len(all))
	for _, process := range slices.Sorted(maps.Keys(usedNow)) {
		each := (usedNow[process] - used[process]) / time.Duration(count)
		t.Logf("processor time for each status: %s %s", process, each.Round(10*time.Microsecond))
	}
	if verdict < offline || verdict > offline+count/4 {
		t.Errorf("the verdict was write %d of %d, want it soon after %d", verdict, len(all), offline)
	}
	// Those of the host that goes offline change once more.
	if most := count + 2*perHost; namespaces > most {
		t.Errorf("%d writes of %d statuses, want at most %d", namespaces, count, most)
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		var list v1.NetNamespaceList
		if err := a.List(ctx, &list); err != nil {
			return err.Error()
		}
		for _, n := range list.Items {
			if len(n.EgressIPs) > 0 && len(n.Status.Conditions) == 0 {
				return n.Name + " has no status"
			}
		}
		return ""
	})
}

// TestManyNamespaces: a controller that starts where there are many Namespaces and no
// NetNamespace creates all of these, each with a netid of its own. How long it takes is
// logged.
//
// EGRESSIP_TEST_NAMESPACES sets another size.
func TestManyNamespaces(t *testing.T) {
	count := manyNamespaces(t, 100)
	a := startAPI(t)
	a.cfg.QPS = -1
	c, err := client.New(a.cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	a.parallel(t, count, func(ctx context.Context, i int) error {
		return c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("team%05d", i)}})
	})
	began := time.Now()
	a.control(t, controllers.Options{})
	limit := 4*testenv.Patience + time.Duration(count/20)*time.Second
	testenv.EventuallyWithin(t, limit, func(ctx context.Context) string {
		var list v1.NetNamespaceList
		if err := a.List(ctx, &list); err != nil {
			return err.Error()
		}
		ids := make(map[uint32]bool)
		for i := range list.Items {
			if id, numbered := list.Items[i].ID(); numbered && strings.HasPrefix(list.Items[i].Name, "team") {
				ids[id] = true
			}
		}
		if len(ids) < count {
			return fmt.Sprintf("%d NetNamespaces of %d have a netid of their own", len(ids), count)
		}
		return ""
	})
	t.Logf("%d NetNamespaces in %s", count, time.Since(began).Round(time.Second))
}

// manyNamespaces is how many a test has.
func manyNamespaces(t *testing.T, count int) int {
	t.Helper()
	if text := os.Getenv("EGRESSIP_TEST_NAMESPACES"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return count
}

// processorTime is what this process and each program that it has started have used since
// they began, by name.
func processorTime(t *testing.T) map[string]time.Duration {
	t.Helper()
	const tick = time.Second / 100 // USER_HZ, the same on all machines
	used := make(map[string]time.Duration)
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state ppid ... utime stime ..."
		before, rest, _ := strings.Cut(string(stat), ") ")
		pid, name, _ := strings.Cut(before, " (")
		fields := strings.Fields(rest)
		switch strconv.Itoa(os.Getpid()) {
		case pid:
			name = "controller, agents and test"
		case fields[1]:
		default:
			continue
		}
		for _, ticks := range fields[11:13] {
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			used[name] += time.Duration(n) * tick
		}
	}
	return used
}

// fill creates namespaces with an egress IP each, and the manual hosts that claim them.
func (a *api) fill(t *testing.T, count, perHost int) {
	t.Helper()
	cfg := rest.CopyConfig(a.cfg)
	cfg.QPS = -1
	c, err := client.New(cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ip := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", 1+i/62500, i/250%250, 1+i%250) }
	var g errgroup.Group
	g.SetLimit(16)
	for i := range count {
		g.Go(func() error {
			name := fmt.Sprintf("team%05d", i)
			return c.Create(t.Context(), &v1.NetNamespace{
				ObjectMeta: metav1.ObjectMeta{Name: name}, NetName: name, NetID: new(uint32(100 + i)), EgressIPs: []string{ip(i)},
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for first := 0; first < count; first += perHost {
		name, address := fmt.Sprintf("node%d", first/perHost), fmt.Sprintf("172.16.0.%d", 1+first/perHost)
		h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: name}, Host: name, HostIP: address}
		for i := first; i < min(first+perHost, count); i++ {
			h.EgressIPs = append(h.EgressIPs, ip(i))
		}
		a.create(t, h)
		a.node(t, name, "", address)
	}
}
