package controllers_test

import (
	"context"
	"fmt"
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
	return strings.Join(rows, ", "), nil
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
	a.awaitEvent(t, "NetNamespace", "shop", "EgressIPOutOfUse", "192.168.7.200 of namespace shop is not in use any more on host node1")
	a.ready(t, "node1", corev1.ConditionTrue)
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	a.awaitEvent(t, "NetNamespace", "shop", "EgressIPInUse", "192.168.7.200 of namespace shop is in use on host node1")
	stop()
	const first = "gap, shop on node1, shop on node1, gap"
	await(shop, first)

	// While no controller runs: another namespace has the address when the next one begins.
	a.patch(t, netNamespace("shop"), `{"egressIPs": []}`)
	a.patch(t, netNamespace("bank"), `{"egressIPs": ["192.168.7.200"]}`)
	stop = a.controlAlone(t, o)
	a.awaitNamespace(t, "bank", wantActive("192.168.7.200", "node1"))
	testenv.Eventually(t, func(ctx context.Context) string {
		got, err := recorded(ctx, dir, shop)
		if err != nil || !strings.HasPrefix(got, first+", shop found on node1, bank on node1") {
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
	all, err := a.events(t.Context(), "NetNamespace", "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"EgressIPAssigned", "EgressIPInUse", "EgressIPOutOfUse", "EgressIPUnassigned"} {
		n := 0
		for _, e := range all {
			if strings.HasPrefix(e, reason+":") && strings.HasSuffix(e, "(1)") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d events %s, want 1: %q", n, reason, all)
		}
	}
}
