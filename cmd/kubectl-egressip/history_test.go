package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/internal/endpoint"
	"github.com/egressip-operator/egressip-operator/internal/record"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestHistory: who had an address is read from all controllers of a real API server, and merged. What
// nobody recorded is a row, and a controller that cannot be reached is a note.
func TestHistory(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.create(t, systemNamespace())
	createReader(t, s, record.Path)
	startKubelet(t, s, "node1")
	fails := func(parts []string, args ...string) {
		t.Helper()
		var out, report strings.Builder
		cmd := rootCommand(&out, &report)
		cmd.SetArgs(append(args, "--kubeconfig", s.kubeconfig))
		err := cmd.ExecuteContext(t.Context())
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%v: %v, want %q", args, err, part)
			}
		}
	}
	fails([]string{"there is no pod of a controller"}, "history")

	// node1 led from 08:00 to 08:20, and stopped; node2 has led since 08:30.
	began := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	clock := began
	at := func(minutes int) string { return began.Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339) }
	pass := func(minutes int) { clock = clock.Add(time.Duration(minutes) * time.Minute) }
	now := func() time.Time { return clock }
	shop := func(host string) record.Use {
		return record.Use{IP: "192.168.7.200", Group: "shop", UID: "some-uid", NetID: 17, Host: host}
	}
	a := record.New(record.Config{Writer: "node1", Term: "a", Now: now})
	a.Begin([]record.Use{shop("node1")})
	pass(10)
	a.Record(record.Change{Use: shop("node2"), From: "node1", Reason: "Assigned"})
	pass(10)
	former, err := a.Answer(t.Context(), record.Query{})
	if err != nil {
		t.Fatal(err)
	}
	former.Segments[0].Live, former.Segments[0].Stopped, former.Durable = false, true, true
	pass(10)
	b := record.New(record.Config{Writer: "node2", Term: "b", Now: now})
	b.Begin([]record.Use{shop("node2"), {IP: "2001:db8::1", Group: "EgressIP/web", NetID: 19, Host: "node1"}})
	pass(10)
	b.Record(record.Change{Use: shop(""), From: "node2", Reason: "NotRequested"})
	clock = time.Now()
	stored := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(former) })
	first := serveEndpoint(t, s.env.Config, true, endpoint.Guarded{Path: record.Path, Handler: stored})
	second := serveEndpoint(t, s.env.Config, true, endpoint.Guarded{Path: record.Path, Handler: record.Handler(b)})
	runningPod(t, s, "egressip-controller-1", "node1", componentController, first)
	runningPod(t, s, "egressip-controller-2", "node1", componentController, second)
	testenv.Eventually(t, func(ctx context.Context) string { // RBAC takes a moment
		var out, report strings.Builder
		cmd := rootCommand(&out, &report) //nolint:contextcheck // it gets it below
		cmd.SetArgs([]string{"history", "--kubeconfig", s.kubeconfig})
		if err := cmd.ExecuteContext(ctx); err != nil || strings.Contains(report.String(), "one controller alone") {
			return fmt.Sprint(err, report.String())
		}
		return ""
	})

	uses := "<= " + at(0) + " " + at(10) + " 192.168.7.200 shop 17 node1\n" +
		at(10) + " >= " + at(20) + " 192.168.7.200 shop 17 node2\n" +
		at(20) + " " + at(30) + " - not recorded - -\n" +
		"<= " + at(30) + " " + at(40) + " 192.168.7.200 shop 17 node2\n"
	table := squeeze(s.says(t, "history", "192.168.7.200"))
	check(t, table, []string{"FROM UNTIL EGRESS IP GROUP NETID HOST\n- " + at(0) + " - not recorded - -\n" + uses}, []string{"web"})
	check(t, squeeze(s.says(t, "history", "SHOP", "--since", at(5))), []string{"HOST\n" + uses}, []string{"- " + at(0)})
	check(t, squeeze(s.says(t, "history", "egressip/web")), []string{"<= " + at(30) + " now 2001:db8::1 EgressIP/web 19 node1\n"}, []string{"shop"})
	check(t, squeeze(s.says(t, "history", "shop", "-o", "wide")), []string{
		"some-uid Assigned - node1\n", "not recorded - - - node1 stopped - -\n", "some-uid - NotRequested node2\n",
	}, nil)
	check(t, s.says(t, "history", "192.168.7.200", "--at", at(15)), []string{
		"At " + at(15) + " namespace shop had 192.168.7.200 (netid 17), from host node2: since " + at(10) + ", until >= " + at(20) + ".\n",
	}, []string{"node1:"})
	check(t, s.says(t, "history", "192.168.7.200", "--at", at(45)), []string{"At " + at(45) + " nobody had 192.168.7.200.\n"}, nil)
	check(t, squeeze(s.says(t, "history", "192.168.7.200", "--at", at(25))), []string{
		"It is not known who had 192.168.7.200 at " + at(25) + ": nobody recorded from " + at(20) + " to " + at(30) + ".", "node2\n<= ",
	}, nil)
	check(t, s.says(t, "history", "192.168.7.200", "--at", at(-5)), []string{"the record begins at " + at(0)}, nil)
	check(t, squeeze(s.says(t, "history", "--at", at(35))), []string{"EgressIP/web", "shop"}, nil)
	var report historyReport
	if err := json.Unmarshal([]byte(s.says(t, "history", "shop", "-o", "json", "--until", at(12))), &report); err != nil || len(report.Rows) != 3 || report.Rows[2].Host != "node2" {
		t.Errorf("%+v, %v", report, err)
	}

	// A controller that does not answer.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	silent := runningPod(t, s, "egressip-controller-3", "node1", componentController, int32(free.Addr().(*net.TCPAddr).Port)) //nolint:gosec // a port
	out, notes := runPlugin(t, "", "history", "shop", "--kubeconfig", s.kubeconfig)
	check(t, squeeze(out), []string{uses}, nil)
	check(t, notes, []string{"looks like a gap", "egressip-system/egressip-controller-3", "cannot reach the port"}, []string{"leads"})
	for _, name := range []string{"egressip-controller-1", "egressip-controller-2"} {
		pod := &corev1.Pod{ObjectMeta: silent.ObjectMeta}
		pod.Name, pod.ResourceVersion, pod.UID = name, "", ""
		if err := s.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	fails([]string{"egressip-controller-3", "cannot reach the port"}, "history")
	fails([]string{"leave --since and --until out"}, "history", "--at", "1h", "--since", "2h")
	fails([]string{"is before --since"}, "history", "--until", "2h", "--since", "1h")
	fails([]string{"still to come"}, "history", "--at", time.Now().Add(time.Hour).Format(time.RFC3339))
}

// TestHistoryNotes: it is said if the record is in memory alone, or nobody records.
func TestHistoryNotes(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.create(t, systemNamespace())
	createReader(t, s, record.Path)
	startKubelet(t, s, "node1")
	r := record.New(record.Config{Writer: "node1", Term: "a", Now: time.Now})
	runningPod(t, s, "egressip-controller-1", "node1", componentController, serveEndpoint(t, s.env.Config, true, endpoint.Guarded{Path: record.Path, Handler: record.Handler(r)}))
	expect := func(row string, notes ...string) {
		t.Helper()
		testenv.Eventually(t, func(ctx context.Context) string {
			var out, report strings.Builder
			cmd := rootCommand(&out, &report) //nolint:contextcheck // it gets it below
			cmd.SetArgs([]string{"history", "--kubeconfig", s.kubeconfig})
			err := cmd.ExecuteContext(ctx)
			if err != nil || !strings.Contains(squeeze(out.String()), row) || strings.Count(report.String(), "note:") != len(notes) {
				return fmt.Sprint(err, out.String(), report.String())
			}
			for _, note := range notes {
				if !strings.Contains(report.String(), note) {
					return fmt.Sprintf("%s has no %q", report.String(), note)
				}
			}
			return ""
		})
	}
	expect("- now - not recorded - -\n", "controller.record.enabled", "nobody records")
	r.Begin([]record.Use{{IP: "192.168.7.200", Group: "shop", Host: "node1"}})
	expect("now 192.168.7.200 shop 0 node1\n", "controller.record.enabled")
}

// TestMoments: times are read in the user's zone.
func TestMoments(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 2*60*60)
	now := time.Date(2026, 11, 28, 16, 30, 15, 0, zone)
	for written, want := range map[string]string{
		"2026-11-24T14:00:00Z": "2026-11-24T14:00:00Z", "2026-11-24 14:00": "2026-11-24T12:00:00Z", "2026-11-24T14:00:05": "2026-11-24T12:00:05Z",
		"14:00": "2026-11-28T12:00:00Z", "90m": "2026-11-28T13:00:15Z", "7d": "2026-11-21T14:30:15Z", "2026-11-24": "2026-11-23T22:00:00Z",
		"yesterday": "", "-2h": "", "-7d": "", "7.5d": "", "": "", "d": "",
	} {
		got, err := parseMoment("--since", written, now)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "--since") {
				t.Errorf("%q is %s, %v", written, got, err)
			}
			continue
		}
		if err != nil || stamp(got) != want {
			t.Errorf("%q is %s, %v, want %s", written, stamp(got), err, want)
		}
	}
	if _, err := parseMoment("--at", "2026-11-24", now); err == nil || !strings.Contains(err.Error(), "time of that day") {
		t.Errorf("a day is no moment: %v", err)
	}
}

// TestHistoryGolden: the page of the record in the README is what is printed.
func TestHistoryGolden(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	use := func(host string) record.Use {
		return record.Use{IP: "192.168.7.200", Group: "shop", NetID: 17, Host: host}
	}
	segments := []record.Segment{
		{Term: "a", Writer: "node1", From: at("2026-11-20T06:00:00Z"), To: at("2026-11-24T22:10:31Z"), Periods: []record.Period{
			{Use: use("node2"), From: at("2026-11-20T09:12:04Z"), To: at("2026-11-24T13:41:55Z"), Began: "Assigned", Ended: "Assigned"},
			{Use: use("node3"), From: at("2026-11-24T13:41:55Z"), To: at("2026-11-24T22:10:31Z"), Began: "Assigned", Open: true},
		}},
		{Term: "b", Writer: "node3", From: at("2026-11-24T22:10:36Z"), To: at("2026-11-28T12:00:00Z"), Live: true, Periods: []record.Period{
			{Use: use("node3"), From: at("2026-11-24T22:10:36Z"), To: at("2026-11-28T12:00:00Z"), Found: true, Open: true},
		}},
	}
	h := history{query: record.Query{IP: "192.168.7.200"}, now: at("2026-11-28T12:00:00Z"), segments: segments}
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, moment := range []string{"", "2026-11-24T14:00:00Z"} {
		if moment != "" {
			h.at = at(moment)
		}
		var out strings.Builder
		if err := h.print(&out, h.report(), false); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(readme), out.String()) {
			t.Errorf("README.md does not have:\n%s", out.String())
		}
	}
}
