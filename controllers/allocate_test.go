package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestClaimWaitsForTheFormerHost: an address that an online host still has is
// claimed for another only when that host's agent has taken it off, or has been
// silent for too long; of an offline host nobody waits for a word.
func TestClaimWaitsForTheFormerHost(t *testing.T) {
	const ip = "192.168.7.200"
	for _, tc := range []struct {
		name string
		then func(*store, *testclock.FakeClock)
		want []string
	}{
		{"still configured there", func(_ *store, c *testclock.FakeClock) { c.Step(awaitReleaseFor / 2) }, nil},
		{"taken off", func(s *store, _ *testclock.FakeClock) {
			s.hosts["node1"].Status.EgressIPs = nil
			s.stamp(s.hosts["node1"], false)
		}, []string{ip}},
		{"silent", func(_ *store, c *testclock.FakeClock) { c.Step(awaitReleaseFor + time.Millisecond) }, []string{ip}},
		{"offline", func(s *store, _ *testclock.FakeClock) {
			setReady(s.nodes["node1"], false)
			s.stamp(s.nodes["node1"], false)
		}, []string{ip}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore()
			s.twoHosts("192.168.7.128/25", "192.168.7.128/25")
			// Its range was taken from it a moment ago.
			node1 := s.hosts["node1"]
			node1.EgressIPs, node1.EgressCIDRs = []string{ip}, []string{"10.0.0.0/24"}
			node1.Status.EgressIPs = []v1.ClaimStatus{{IP: ip, State: v1.StateActive, Configured: true}}
			s.namespaces["shop"] = &v1.NetNamespace{
				ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "shop"}, NetName: "shop", NetID: new(uint32(10)), EgressIPs: []string{ip},
			}
			s.stamp(s.namespaces["shop"], true)

			cache := &lagging{store: s}
			clock := testclock.NewFakeClock(time.Unix(1e9, 0))
			job := onStore(s, cache, clock)
			pass := func() {
				cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
				if _, err := passAndPublish(job); err != nil {
					t.Fatal(err)
				}
			}
			pass()
			if len(s.hosts["node1"].EgressIPs)+len(s.hosts["node2"].EgressIPs) > 0 {
				t.Fatalf("claims are %v and %v, want the release alone", s.hosts["node1"].EgressIPs, s.hosts["node2"].EgressIPs)
			}
			tc.then(s, clock)
			pass()
			if got := s.hosts["node2"].EgressIPs; !slices.Equal(got, tc.want) {
				t.Errorf("claims of node2 are %v, want %v", got, tc.want)
			}
			if active := s.namespaces["shop"].Status.Active; (active != nil) != (tc.want != nil) {
				t.Errorf("active is %v", active)
			}
		})
	}
}

// TestAnOverdueClaimDoesNotWaitAgain: a claim has waited long enough for the former host,
// and the write of it fails: it is written as soon as that is possible.
//
// Mutant: overdue-waits-again.
func TestAnOverdueClaimDoesNotWaitAgain(t *testing.T) {
	const ip = "192.168.7.200"
	s := newStore()
	s.twoHosts("10.0.0.0/24", "192.168.7.128/25")
	s.hosts["node1"].Status.EgressIPs = []v1.ClaimStatus{{IP: ip, State: v1.StateActive, Configured: true}}
	s.namespaces["shop"] = &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "shop"}, NetName: "shop", NetID: new(uint32(10)), EgressIPs: []string{ip},
	}
	s.stamp(s.namespaces["shop"], true)
	cache := &lagging{store: s}
	clock := testclock.NewFakeClock(time.Unix(1e9, 0))
	job := onStore(s, cache, clock)
	pass := func() error {
		cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		_, err := passAndPublish(job)
		return err
	}
	if err := pass(); err != nil || len(s.hosts["node2"].EgressIPs) > 0 {
		t.Fatalf("%v, claims of node2 are %v, want none yet", err, s.hosts["node2"].EgressIPs)
	}
	clock.Step(awaitReleaseFor + time.Millisecond)
	s.refused = "node2"
	if err := pass(); err == nil {
		t.Fatal("the refusal is not reported")
	}
	s.refused = ""
	if err := pass(); err != nil || !slices.Equal(s.hosts["node2"].EgressIPs, []string{ip}) {
		t.Errorf("%v, claims of node2 are %v, want %s", err, s.hosts["node2"].EgressIPs, ip)
	}
}

// TestOnePassMovesClaims: when a host goes offline, its verdict is written, its claims are
// released and claimed for another host, all in one pass.
//
// Mutant: claims-of-the-judged.
func TestOnePassMovesClaims(t *testing.T) {
	const ip = "192.168.7.200"
	s := newStore()
	s.twoHosts("192.168.7.128/25", "192.168.7.128/25")
	s.namespaces["shop"] = &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "shop"}, NetName: "shop", NetID: new(uint32(10)), EgressIPs: []string{ip},
	}
	s.stamp(s.namespaces["shop"], true)
	cache := &lagging{store: s}
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	pass := func() {
		cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		if _, err := passAndPublish(job); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	pass()
	if got := s.hosts["node1"].EgressIPs; !slices.Equal(got, []string{ip}) {
		t.Fatalf("claims of node1 are %v", got)
	}
	setReady(s.nodes["node1"], false)
	s.stamp(s.nodes["node1"], false)
	pass()
	if got := s.hosts["node2"].EgressIPs; !slices.Equal(got, []string{ip}) {
		t.Errorf("after one pass, claims of node1 are %v and of node2 %v", s.hosts["node1"].EgressIPs, got)
	}
}

// twoHosts adds node1 and node2, automatic hosts with the given ranges whose Nodes are
// Ready and whose agents report that all is well.
func (s *store) twoHosts(ranges ...string) {
	for i, name := range []string{"node1", "node2"} {
		s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		setReady(s.nodes[name], true)
		s.hosts[name] = &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Host:       name, HostIP: "192.168.7.1" + name[4:], EgressCIDRs: []string{ranges[i]},
		}
		objects.AgentReports(s.hosts[name])
		s.stamp(s.hosts[name], true)
	}
}

// TestFirstClaimsWaitForFewVerdicts: if very many hosts fail at once, the first egress IPs
// are claimed by others before all verdicts are written; nothing is released before the
// verdict on its host is; and each verdict is logged once.
//
// Kills the mutants all-verdicts-first, released-before-the-verdict and
// verdicts-are-logged-again.
func TestFirstClaimsWaitForFewVerdicts(t *testing.T) {
	const dead, hosts = 3*verdictsAtOnce + 8, 3*verdictsAtOnce + 24
	s := newStore()
	name := func(i int) string { return fmt.Sprintf("node%03d", i) }
	for i := range hosts {
		name, ip := name(i), fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250)
		s.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		setReady(s.nodes[name], true)
		s.hosts[name] = &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Host:       name, HostIP: fmt.Sprintf("192.168.%d.%d", 7+i/250, 1+i%250), EgressCIDRs: []string{"10.1.0.0/16"},
		}
		if i < dead {
			s.hosts[name].EgressIPs = []string{ip}
			s.namespaces[name] = &v1.NetNamespace{
				ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, NetName: name, NetID: new(uint32(10 + i)), EgressIPs: []string{ip},
			}
		}
		objects.AgentReports(s.hosts[name])
	}
	s.stamp(s.hosts[name(0)], true)
	cache := &lagging{store: s}
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	logged := 0
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) {
		if strings.Contains(args, "went offline") {
			logged++
		}
	}, funcr.Options{}))
	pass := func() {
		cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		if _, err := job.Reconcile(ctx, reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	logged = 0
	for i := range dead {
		setReady(s.nodes[name(i)], false)
	}
	s.stamp(s.nodes[name(0)], false)
	began := len(s.past)
	pass()

	first := 0
	for _, m := range s.past[began:] {
		offline, claimed := 0, 0
		for _, h := range m.hosts {
			isOffline := conditionStatus(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionTrue) == metav1.ConditionFalse
			if isOffline {
				offline++
			}
			if h.Name >= name(dead) {
				claimed += len(h.EgressIPs)
			} else if len(h.EgressIPs) == 0 && !isOffline {
				t.Fatalf("the claims of %s are released before the verdict on it is written", h.Name)
			}
		}
		if claimed > 0 {
			first = offline
			break
		}
	}
	if first == 0 || first >= dead {
		t.Errorf("%d of %d verdicts were written before the first claim", first, dead)
	}
	for range 3 {
		pass()
	}
	if logged != dead {
		t.Errorf("%d lines about %d hosts that went offline", logged, dead)
	}
	for i := range dead {
		if left := s.hosts[name(i)].EgressIPs; len(left) > 0 {
			t.Fatalf("%s still has %v", name(i), left)
		}
	}
}

// TestOneRefusedHostHoldsUpNoOther: a host whose list cannot be written, for
// instance because someone writes it all the time, leaves the others their
// egress IPs.
func TestOneRefusedHostHoldsUpNoOther(t *testing.T) {
	s := newStore()
	s.twoHosts("10.1.0.0/24", "10.2.0.0/24")
	for i, ip := range []string{"10.1.0.1", "10.2.0.1"} {
		name := []string{"shop", "bank"}[i]
		s.namespaces[name] = &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, NetName: name, NetID: new(uint32(10 + i)), EgressIPs: []string{ip},
		}
		s.stamp(s.namespaces[name], true)
	}
	cache := &lagging{store: s, namespaces: len(s.past) - 1, hosts: len(s.past) - 1, node: len(s.past) - 1}
	s.busy = "node1"
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	if result, err := passAndPublish(job); err != nil || result.RequeueAfter != catchUp {
		t.Errorf("result %v, %v; want another pass soon, and no error", result, err)
	}
	if got := s.hosts["node2"].EgressIPs; !slices.Equal(got, []string{"10.2.0.1"}) {
		t.Errorf("claims of node2 are %v", got)
	}

	// Refused for good: told as an error, and all others are told their status.
	s.refused, s.busy = "node1", ""
	cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
	if _, err := passAndPublish(job); err == nil {
		t.Error("the refusal is not told")
	}
	if s.namespaces["bank"].Status.Active == nil || len(s.namespaces["shop"].Status.Conditions) == 0 {
		t.Errorf("status of bank is %+v, of shop %+v", s.namespaces["bank"].Status, s.namespaces["shop"].Status)
	}
}

// TestRefusalIsLoggedWhileAClaimWaits: a host whose list is refused, while a claim of
// another waits for the address's former host, is logged once, and holds up no claim.
//
// Kills the mutants waiting-swallows-errors and waiting-repeats-errors.
func TestRefusalIsLoggedWhileAClaimWaits(t *testing.T) {
	const ip = "192.168.7.200"
	s := newStore()
	s.twoHosts("192.168.7.128/25", "192.168.7.128/25")
	s.hosts["node1"].EgressIPs = []string{ip}
	for i, name := range []string{"shop", "bank"} {
		s.namespaces[name] = &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, NetName: name, NetID: new(uint32(10 + i)), EgressIPs: []string{ip},
		}
	}
	s.namespaces["bank"].EgressIPs = nil
	s.stamp(s.namespaces["shop"], true)
	s.stamp(s.namespaces["bank"], true)
	cache := &lagging{store: s}
	job := onStore(s, cache, testclock.NewFakeClock(time.Unix(1e9, 0)))
	var errs []string
	ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) {
		if strings.Contains(args, `"error"`) {
			errs = append(errs, args)
		}
	}, funcr.Options{}))
	pass := func() (reconcile.Result, error) {
		cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
		return job.Reconcile(ctx, reconcile.Request{})
	}

	// The range is taken from node1, whose agent is slow, and bank needs node2.
	s.hosts["node1"].EgressCIDRs = []string{"10.0.0.0/24"}
	s.hosts["node1"].Status.EgressIPs = []v1.ClaimStatus{{IP: ip, State: v1.StateActive, Configured: true}}
	s.stamp(s.hosts["node1"], true)
	s.namespaces["bank"].EgressIPs = []string{"192.168.7.201"}
	s.stamp(s.namespaces["bank"], true)
	s.refused = "node2"
	_, _ = pass() // releases
	for range 3 {
		if result, err := pass(); err != nil || result.RequeueAfter != catchUp {
			t.Fatalf("result %v, %v; want another pass after %s", result, err, catchUp)
		}
	}
	if len(errs) != 1 || !strings.Contains(errs[0], "node2") {
		t.Errorf("logged: %q, want the refusal of node2 once", errs)
	}
}

// TestStatusDuringAMove: while an address moves, and the next host's claim waits for the
// former one, its namespace keeps its status, because nothing is wrong yet; everything
// else is reported meanwhile. An address that finds no host in time is reported so.
//
// Mutants: move-is-an-outage, waiting-pass-publishes-nothing, move-never-ends.
func TestStatusDuringAMove(t *testing.T) {
	const ip = "192.168.7.200"
	s := newStore()
	s.twoHosts("192.168.7.128/25", "192.168.7.128/25")
	s.hosts["node1"].EgressIPs = []string{ip}
	s.namespaces["shop"] = &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "shop"}, NetName: "shop", NetID: new(uint32(10)), EgressIPs: []string{ip},
	}
	s.stamp(s.namespaces["shop"], true)
	cache := &lagging{store: s}
	clock := testclock.NewFakeClock(time.Unix(1e9, 0))
	job := onStore(s, cache, clock)
	events := record.NewFakeRecorder(100)
	job.publisher.recorder = events
	pass := func() {
		for range 2 { // the second sees what the first has written
			cache.namespaces, cache.hosts, cache.node = len(s.past)-1, len(s.past)-1, len(s.past)-1
			if _, err := passAndPublish(job); err != nil && s.refused == "" {
				t.Fatal(err)
			}
		}
	}
	told := func() (all []string) {
		for len(events.Events) > 0 {
			all = append(all, <-events.Events)
		}
		return all
	}
	pass()
	if active := s.namespaces["shop"].Status.Active; active == nil || active.Host != "node1" {
		t.Fatalf("active is %v, want on node1", active)
	}
	told()

	// Its range is taken from it, and its agent is slow.
	s.hosts["node1"].EgressCIDRs = []string{"10.0.0.0/24"}
	s.hosts["node1"].Status.EgressIPs = []v1.ClaimStatus{{IP: ip, State: v1.StateActive, Configured: true}}
	s.stamp(s.hosts["node1"], true)
	s.namespaces["other"] = &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: "other", UID: "other"}, NetName: "other", NetID: new(uint32(11)), EgressIPs: []string{"172.16.0.1"},
	}
	s.stamp(s.namespaces["other"], true)
	pass()
	clock.Step(awaitReleaseFor / 2)
	pass()
	if claims := slices.Concat(s.hosts["node1"].EgressIPs, s.hosts["node2"].EgressIPs); len(claims) > 0 {
		t.Fatalf("claims are %v, want none: the claim waits", claims)
	}
	if active := s.namespaces["shop"].Status.Active; active == nil || active.Host != "node1" {
		t.Errorf("active is %v in the middle of the move, want on node1 as before", active)
	}
	if len(s.namespaces["other"].Status.Conditions) == 0 {
		t.Error("the status of another namespace waits for the move")
	}
	if all := told(); len(all) != 0 && slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, "shop") }) {
		t.Errorf("events in the middle of the move: %q", all)
	}

	// It cannot be claimed.
	s.refused = "node2"
	clock.Step(awaitReleaseFor)
	pass()
	if active := s.namespaces["shop"].Status.Active; active != nil {
		t.Errorf("active is %v, and the address has had no host for longer than a move may take", active)
	}
	s.refused = ""
	pass()
	clock.Step(awaitReleaseFor) // the claim waits for the agent of node1 again
	pass()
	if active := s.namespaces["shop"].Status.Active; active == nil || active.Host != "node2" {
		t.Errorf("active is %v, want on node2", active)
	}
}
