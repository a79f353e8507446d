package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/record"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// recorded is what the files of a directory have about an address or a group, row by row without times.
func recorded(ctx context.Context, dir string, q record.Query) (string, error) {
	r := record.New(record.Config{Dir: dir, Writer: "reader", Term: "none", Now: time.Now})
	a, err := r.Answer(ctx, q)
	if err != nil {
		return "", err
	}
	var rows []string
	for _, row := range record.Rows(record.Merge(a.Segments), q, time.Now()) {
		switch {
		case row.Gap:
			rows = append(rows, "gap")
		case row.Found:
			rows = append(rows, row.Group+" found on "+row.Host)
		default:
			rows = append(rows, row.Group+" on "+row.Host)
		}
	}
	// On a slow machine a host may be offline for a moment: its use begins again then.
	return strings.Join(slices.Compact(rows), ", "), nil
}

// toldOfShop counts the events of namespace shop, by reason.
func (a *api) toldOfShop(ctx context.Context, t *testing.T) map[string]int {
	t.Helper()
	all, err := a.events(ctx, "NetNamespace", "shop")
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, e := range all {
		reason, _, _ := strings.Cut(e, ":")
		n, err := strconv.Atoi(strings.TrimSuffix(e[strings.LastIndex(e, "(")+1:], ")"))
		if err != nil {
			t.Fatalf("event %q: %v", e, err)
		}
		count[reason] += n
	}
	return count
}

// TestRecordOfUse: the record says who had an egress IP, over two terms of a controller. What happens
// while none runs is a gap, and no change of either term; changes are one event each, and none is told
// again by the next controller.
func TestRecordOfUse(t *testing.T) {
	a := startAPI(t)
	dir := t.TempDir()
	o := controllers.Options{NodeName: "node1", RecordDir: dir, RecordMaxSize: 1}
	stop := a.control(t, o)
	for i, name := range []string{"node1", "node2"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
	}
	await := func(q record.Query, want string) {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string {
			got, err := recorded(ctx, dir, q)
			if err != nil {
				return err.Error()
			}
			if got != want {
				return fmt.Sprintf("the record has %q, want %q", got, want)
			}
			return ""
		})
	}
	shop := record.Query{IP: "192.168.7.200"}
	a.namespace(t, "shop")
	a.namespace(t, "bank")
	a.request(t, "shop", "192.168.7.200")
	a.claim(t, "node1", "192.168.7.200")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	a.ready(t, "node1", corev1.ConditionUnknown)
	a.awaitNamespace(t, "shop", wantDropped("", ""))
	testenv.Eventually(t, func(ctx context.Context) string {
		if a.toldOfShop(ctx, t)["EgressIPOutOfUse"] == 0 {
			return "no event says that the egress IP is out of use"
		}
		return ""
	})
	a.ready(t, "node1", corev1.ConditionTrue)
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	testenv.Eventually(t, func(ctx context.Context) string {
		if a.toldOfShop(ctx, t)["EgressIPInUse"] == 0 {
			return "no event says that the egress IP is in use again"
		}
		return ""
	})
	stop()
	before := a.toldOfShop(t.Context(), t)
	const first = "gap, shop on node1, gap"
	await(shop, first)

	// While no controller runs: another namespace has the address when the next one begins.
	a.patch(t, netNamespace("shop"), `{"egressIPs": []}`)
	a.patch(t, netNamespace("bank"), `{"egressIPs": ["192.168.7.200"]}`)
	stop = a.controlAlone(t, o)
	a.awaitNamespace(t, "bank", wantActive("192.168.7.200", "node1"))
	testenv.Eventually(t, func(ctx context.Context) string {
		got, err := recorded(ctx, dir, shop)
		// The gap until now may come before what begins now.
		if err != nil || !strings.HasPrefix(strings.Replace(got, "gap, bank", "bank", 1), first+", shop found on node1, bank on node1") {
			return fmt.Sprintf("the record has %q, %v", got, err)
		}
		return ""
	})
	a.awaitEvent(t, "NetNamespace", "bank", "EgressIPAssigned", "192.168.7.200")
	a.removeNamespace(t, "bank")
	testenv.Eventually(t, func(ctx context.Context) string {
		r := record.New(record.Config{Dir: dir, Writer: "reader", Term: "none", Now: time.Now})
		answer, err := r.Answer(ctx, record.Query{Group: "bank"})
		if err != nil {
			return err.Error()
		}
		for _, s := range answer.Segments {
			for _, p := range s.Periods {
				if !p.Open && p.Ended == "Deleted" {
					return ""
				}
			}
		}
		return fmt.Sprintf("the use by a namespace that is gone goes on: %+v", answer.Segments)
	})
	stop()

	stop = a.controlAlone(t, o)
	defer stop()
	a.awaitNamespace(t, "shop", func(*v1.NetNamespace) string { return "" })
	after := a.toldOfShop(t.Context(), t)
	for _, reason := range []string{"EgressIPInUse", "EgressIPOutOfUse", "EgressIPAssigned"} {
		if after[reason] != before[reason] || after[reason] == 0 {
			t.Errorf("%d events %s at the end of the first term, %d after all: no other controller has any to tell", before[reason], reason, after[reason])
		}
	}
	if after["EgressIPUnassigned"] != 1 {
		t.Errorf("events are %v, want one EgressIPUnassigned", after)
	}
}
