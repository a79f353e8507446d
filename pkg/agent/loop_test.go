package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// fakeKernel keeps what it is told, and does what a test says.
type fakeKernel struct {
	// apply answers for the kernel; nil means success.
	apply func(ctx context.Context, n int, s dataplane.State) (dataplane.Report, error)

	mu     sync.Mutex
	states []dataplane.State // each that was applied, in order
	stayed int               // calls of StayPresent
	// cleaned counts calls of Cleanup.
	cleaned int
	drift   func()       // nil while nobody listens
	busy    atomic.Int32 // Apply calls that run
}

func (k *fakeKernel) StayPresent() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stayed++
	return nil
}

func (k *fakeKernel) Cleanup(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cleaned++
	return nil
}

func (k *fakeKernel) stays() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stayed
}

func (k *fakeKernel) Apply(ctx context.Context, s dataplane.State) (dataplane.Report, error) {
	if k.busy.Add(1) > 1 {
		panic("two Apply calls at once")
	}
	defer k.busy.Add(-1)
	k.mu.Lock()
	k.states = append(k.states, s)
	n := len(k.states)
	k.mu.Unlock()
	r := healthyReport(s)
	var err error
	if k.apply != nil {
		r, err = k.apply(ctx, n, s)
	}
	return r, err
}

func (*fakeKernel) OverlayTraffic() (overlay.Traffic, bool, error) {
	return overlay.Traffic{Sent: overlay.Counts{Packets: 3, Bytes: 300}}, true, nil
}

func (*fakeKernel) AnswerProbes(dataplane.Answer) error { return nil }

func (k *fakeKernel) Run(ctx context.Context, drift func()) error {
	k.mu.Lock()
	k.drift = drift
	k.mu.Unlock()
	<-ctx.Done()
	return nil
}

// drifts says that something has changed in the kernel.
func (k *fakeKernel) drifts() {
	k.mu.Lock()
	drift := k.drift
	k.mu.Unlock()
	if drift != nil {
		drift()
	}
}

func (k *fakeKernel) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.states)
}

// last is the state that was applied last, an empty one before the first.
func (k *fakeKernel) last() dataplane.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.states) == 0 {
		return dataplane.State{}
	}
	return k.states[len(k.states)-1]
}

func (k *fakeKernel) all() []dataplane.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]dataplane.State(nil), k.states...)
}

// healthyReport is what a kernel says in which everything has worked.
func healthyReport(s dataplane.State) dataplane.Report {
	r := dataplane.Report{
		Uplink: "eth0", UplinkCIDR: netip.PrefixFrom(s.HostIP, 24), Backends: []dataplane.Backend{dataplane.NFT},
	}
	for _, h := range s.Hosted {
		r.Hosted = append(r.Hosted, dataplane.HostedReport{IP: h.IP, Configured: true})
	}
	return r
}

// bench is a loop with a fake kernel and objects that a test changes, on the
// clock of the bubble that it runs in.
type bench struct {
	loop   *loop
	kernel *fakeKernel
	end    context.CancelFunc
	done   chan error

	mu        sync.Mutex
	objects   input
	gatherErr error
	told      []observation
}

func newBench(t *testing.T, k *fakeKernel) *bench {
	t.Helper()
	b := &bench{kernel: k, objects: given(), done: make(chan error, 1)}
	b.loop = &loop{
		log: testr.New(t), clock: clock.RealClock{}, applier: k, metrics: newMetrics("test"),
		health: &health{clock: clock.RealClock{}, waiting: "the caches"}, resync: time.Second,
		gather: func(context.Context) (input, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.objects, b.gatherErr
		},
		publish: func(o observation) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.told = append(b.told, o)
		},
		objects: newSignal(), drift: newSignal(),
	}
	return b
}

func (b *bench) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b.end = cancel
	go func() { b.done <- b.loop.run(ctx) }()
	synctest.Wait()
}

// stop ends the loop and waits for it.
func (b *bench) stop(t *testing.T) {
	t.Helper()
	b.end()
	if err := <-b.done; err != nil {
		t.Errorf("run ended with %v", err)
	}
}

// change changes the objects and lets the loop know.
func (b *bench) change(f func(*input)) {
	b.mu.Lock()
	f(&b.objects)
	b.mu.Unlock()
	b.loop.objects.raise()
}

// pass lets time go by in the bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// withoutClaim takes node1's claim away.
func withoutClaim(in *input) {
	in.hostSubnets = append(in.hostSubnets[:0:0], in.hostSubnets...)
	in.hostSubnets[0].EgressIPs = nil
}

func TestLoopAppliesAtOnceThenEverySecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{}
		b := newBench(t, k)
		b.start(t)
		if k.count() != 1 {
			t.Fatalf("%d passes at the start, want 1", k.count())
		}
		pass(10 * time.Second)
		if n := k.count(); n < 10 || n > 12 {
			t.Errorf("%d passes in 10 s without events, want one each second", n)
		}
		before := k.count()
		b.change(withoutClaim)
		pass(2 * minRest)
		if s := k.last(); k.count() != before+1 || len(s.Hosted) != 0 {
			t.Errorf("after a change of objects: %d passes more, hosted %v", k.count()-before, s.Hosted)
		}
		before = k.count()
		pass(2 * minRest)
		k.drifts()
		pass(2 * minRest)
		if k.count() != before+1 {
			t.Errorf("after drift: %d passes more, want 1", k.count()-before)
		}
		b.stop(t)
	})
}

// TestLoopServesAStormAtHalfPower: events all the time make the loop work for
// at most half of the time. A mutant without the rest fails.
func TestLoopServesAStormAtHalfPower(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const takes = 100 * time.Millisecond
		k := &fakeKernel{apply: func(_ context.Context, _ int, s dataplane.State) (dataplane.Report, error) {
			time.Sleep(takes)
			return healthyReport(s), nil
		}}
		b := newBench(t, k)
		b.start(t)
		for range 10_000 { // 10 s
			k.drifts()
			b.loop.objects.raise()
			pass(time.Millisecond)
		}
		if n := k.count(); n > 51 || n < 40 {
			t.Errorf("%d passes of %s in 10 s, want about 50", n, takes)
		}
		b.stop(t)
	})
}

// TestLoopLooksAtTheKernelInAStormOfObjects: changes that do not concern this
// node cost no pass over the kernel, and do not keep it from the passes that
// repair drift. Mutants: always apply; skip whenever the state is the same;
// forget drift that comes with a change of objects.
func TestLoopLooksAtTheKernelInAStormOfObjects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{}
		b := newBench(t, k)
		b.start(t)
		for range 500 { // 10 s
			b.loop.objects.raise()
			pass(20 * time.Millisecond)
		}
		if n := k.count(); n < 9 || n > 13 {
			t.Errorf("%d passes over the kernel in 10 s, want one each second", n)
		}
		for i := range 50 {
			before := k.count()
			b.loop.objects.raise()
			k.drifts()
			pass(100 * time.Millisecond)
			if k.count() == before {
				t.Fatalf("round %d: drift was forgotten", i)
			}
		}
		b.stop(t)
	})
}

// TestLoopFailsCalmly: a kernel that cannot be changed is tried again at least
// each second, and its own events do not set the pace.
func TestLoopFailsCalmly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k *fakeKernel
		var repaired atomic.Bool // the loop's goroutine reads it
		k = &fakeKernel{apply: func(_ context.Context, n int, s dataplane.State) (dataplane.Report, error) {
			r := healthyReport(s)
			if repaired.Load() {
				return r, nil
			}
			k.drifts()
			r.Hosted = []dataplane.HostedReport{{IP: testenv.Addr("10.1.8.200"), Error: "no room"}}
			return r, fmt.Errorf("add 10.1.8.200 to eth0, attempt %d: no room", n)
		}}
		b := newBench(t, k)
		b.start(t)
		pass(10 * time.Second)
		if n := k.count(); n < 10 || n > 15 {
			t.Errorf("%d attempts in 10 s, want about 13", n)
		}
		if err := b.loop.health.ready(); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("ready says %v", err)
		}
		last := b.told[len(b.told)-1]
		if last.err == nil || len(last.report.Hosted) != 1 || last.report.Hosted[0].Configured {
			t.Errorf("told %+v", last)
		}
		before := k.count()
		b.change(withoutClaim)
		pass(2 * minRest)
		if s := k.last(); k.count() != before+1 || len(s.Hosted) != 0 {
			t.Errorf("a change of objects had to wait for the retry")
		}
		repaired.Store(true)
		pass(2 * time.Second)
		if err := b.loop.health.ready(); err != nil {
			t.Errorf("repaired, and ready says %v", err)
		}
		if last := b.told[len(b.told)-1]; last.err != nil {
			t.Errorf("repaired, and told %v", last.err)
		}
		b.stop(t)
	})
}

// TestLoopWithoutReadableObjects: what was decided last is still kept in the
// kernel.
func TestLoopWithoutReadableObjects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{}
		b := newBench(t, k)
		b.gatherErr = errors.New("cache is broken")
		b.start(t)
		pass(5 * time.Second)
		if k.count() != 0 {
			t.Fatalf("%d passes over the kernel without any objects", k.count())
		}
		b.mu.Lock()
		b.gatherErr = nil
		b.mu.Unlock()
		pass(2 * time.Second) // no event needed
		if k.count() == 0 {
			t.Fatal("the objects can be read, and were not")
		}
		b.mu.Lock()
		b.gatherErr = errors.New("cache is broken")
		b.mu.Unlock()
		before := k.count()
		b.change(withoutClaim)
		pass(5 * time.Second)
		s := k.last()
		if n := k.count() - before; n < 4 || n > 10 || len(s.Hosted) != 1 {
			t.Errorf("%d passes in 5 s, hosted %v; want what was decided last, kept up", n, s.Hosted)
		}
		b.mu.Lock()
		b.gatherErr = nil
		b.mu.Unlock()
		pass(2 * time.Second)
		if s := k.last(); len(s.Hosted) != 0 {
			t.Errorf("hosted %v after the objects could be read again", s.Hosted)
		}
		b.stop(t)
	})
}

// TestLoopWarnsOfOtherMTUs: what the kernel reports and what other hosts report are
// compared, and what the kernel warns of stays.
//
// Mutant killed: mtus-of-others-are-not-read.
func TestLoopWarnsOfOtherMTUs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{apply: func(_ context.Context, _ int, s dataplane.State) (dataplane.Report, error) {
			r := healthyReport(s)
			r.UplinkMTU, r.Warnings = 9000, []warning.Warning{{Reason: warning.ForwardingOff, Problem: "off"}}
			return r, nil
		}}
		b := newBench(t, k)
		b.start(t)
		reasons := func() (list []warning.Reason) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, w := range b.told[len(b.told)-1].report.Warnings {
				list = append(list, w.Reason)
			}
			return list
		}
		other := func(mtu int32) func(*input) {
			return func(in *input) {
				in.hostSubnets = slices.Insert(given().hostSubnets, 0, v1.HostSubnet{
					ObjectMeta: metav1.ObjectMeta{Name: "node9"}, Host: "node9", HostIP: "10.1.8.19",
					Status: v1.HostSubnetStatus{Agent: &v1.AgentStatus{UplinkMTU: mtu}},
				})
			}
		}
		for _, c := range []struct {
			mtu  int32
			want []warning.Reason
		}{{9000, []warning.Reason{warning.ForwardingOff}}, {1500, []warning.Reason{warning.ForwardingOff, warning.MTUDiffers}}, {0, []warning.Reason{warning.ForwardingOff}}} {
			b.change(other(c.mtu))
			pass(3 * time.Second)
			if got := reasons(); !slices.Equal(got, c.want) {
				t.Errorf("with a host of MTU %d: %v", c.mtu, got)
			}
		}
		b.stop(t)
	})
}

// TestLoopWarnsOfUnreachedHosts: a host that does not answer this one is named as long as
// the API says that it is online. If it says otherwise, others do not reach it either.
//
// Kills the mutant silent-to-all-is-a-pair.
func TestLoopWarnsOfUnreachedHosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &fakeKernel{})
		var silent []string
		b.loop.unreached = func() []string { return slices.Clone(silent) }
		b.start(t)
		for _, c := range []struct {
			silent []string
			online metav1.ConditionStatus
			want   string
		}{
			{nil, metav1.ConditionTrue, ""},
			{[]string{"node2"}, metav1.ConditionTrue, "host node2"},
			{[]string{"node2"}, metav1.ConditionUnknown, ""},
			{[]string{"node2"}, metav1.ConditionFalse, ""},
			{[]string{"node1", "nowhere"}, metav1.ConditionTrue, ""},
		} {
			silent = c.silent
			b.change(func(in *input) {
				in.hostSubnets = slices.Clone(given().hostSubnets)
				in.hostSubnets[1].Status.Conditions = append(slices.Clone(in.hostSubnets[1].Status.Conditions),
					metav1.Condition{Type: v1.ConditionOnline, Status: c.online})
			})
			pass(3 * time.Second)
			b.mu.Lock()
			var got string
			for _, w := range b.told[len(b.told)-1].report.Warnings {
				if w.Reason == warning.HostUnreachable {
					got = w.Object
				}
			}
			b.mu.Unlock()
			if got != c.want {
				t.Errorf("%v are silent, node2 is online: %s: warned of %q, want %q", c.silent, c.online, got, c.want)
			}
		}
		b.stop(t)
	})
}

// TestLoopDecidesAnewOnTheUplink: the network that the kernel reports may rule
// a claim out.
func TestLoopDecidesAnewOnTheUplink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{apply: func(_ context.Context, _ int, s dataplane.State) (dataplane.Report, error) {
			r := healthyReport(s)
			r.UplinkCIDR = netip.PrefixFrom(s.HostIP, 28)
			return r, nil
		}}
		b := newBench(t, k)
		b.start(t)
		pass(2 * minRest)
		if s := k.last(); k.count() != 2 || len(s.Hosted) != 0 || s.Pods[0].Kind != dataplane.Drop {
			t.Errorf("%d passes, hosted %v, pods %v; want the claim refused at once", k.count(), s.Hosted, s.Pods)
		}
		b.stop(t)
	})
}

// TestLoopEndsInAPass: the end cuts a pass short, and nothing is published.
func TestLoopEndsInAPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{apply: func(ctx context.Context, _ int, _ dataplane.State) (dataplane.Report, error) {
			<-ctx.Done()
			return dataplane.Report{}, ctx.Err()
		}}
		b := newBench(t, k)
		b.start(t)
		pass(stuckAfter - time.Second)
		if err := b.loop.health.live(); err != nil {
			t.Errorf("a slow pass, and live says %v", err)
		}
		pass(2 * time.Second)
		if err := b.loop.health.live(); err == nil {
			t.Error("the loop is stuck, and live says nothing")
		}
		b.stop(t)
		if len(b.told) != 0 {
			t.Errorf("told %+v", b.told)
		}
	})
}

// TestLoopHealth: what readyz says, from the start on, also when passes begin to fail
// and go on failing.
//
// Mutant killed: ready-for-ever.
func TestLoopHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool // the loop's goroutine reads it
		b := newBench(t, &fakeKernel{apply: func(_ context.Context, _ int, s dataplane.State) (dataplane.Report, error) {
			if broken.Load() {
				return healthyReport(s), errors.New("no room")
			}
			return healthyReport(s), nil
		}})
		says := func(want string) {
			t.Helper()
			err := b.loop.health.ready()
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("ready says %v, want %q", err, want)
			}
		}
		says("waiting for the caches")
		b.objects.hostSubnets, b.objects.pods = nil, nil
		b.start(t)
		says("HostSubnet node1 does not exist")
		b.change(func(in *input) { in.pods = given().pods })
		pass(2 * time.Second)
		says("no HostSubnet for this node")
		b.change(func(in *input) { in.hostSubnets = given().hostSubnets })
		pass(2 * time.Second)
		says("")
		if err := b.loop.health.live(); err != nil {
			t.Errorf("live says %v", err)
		}
		broken.Store(true)
		pass(unreadyAfter - 5*time.Second)
		says("")
		pass(10 * time.Second)
		says("the kernel has not been as planned for 3")
		broken.Store(false)
		pass(2 * time.Second)
		says("")
		b.stop(t)
	})
}

// TestLoopListensAgain: a listener that fails is started again, and what it
// missed is looked for.
func TestLoopListensAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &deafKernel{}
		b := newBench(t, &k.fakeKernel)
		b.loop.applier = k
		b.loop.resync = time.Hour
		b.start(t)
		pass(10 * time.Second)
		if n := k.listened.Load(); n < 9 || n > 11 {
			t.Errorf("listened %d times in 10 s, want one each second", n)
		}
		if n := k.count(); n < 9 || n > 11 {
			t.Errorf("%d passes, want one after each deaf time", n)
		}
		b.stop(t)
	})
}

type deafKernel struct {
	fakeKernel
	listened atomic.Int32
}

func (k *deafKernel) Run(context.Context, func()) error {
	k.listened.Add(1)
	return errors.New("no buffer space available")
}

// TestLoopMetrics: what a node's dashboard shows.
func TestLoopMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{apply: func(_ context.Context, n int, s dataplane.State) (dataplane.Report, error) {
			r := healthyReport(s)
			r.Changes = 3
			if n == 1 {
				r.Hosted[0].Configured = false
				return r, errors.New("not yet")
			}
			return r, nil
		}}
		b := newBench(t, k)
		registry := prometheus.NewRegistry()
		unregister, err := b.loop.metrics.Register(registry)
		if err != nil {
			t.Fatal(err)
		}
		defer unregister()
		expect := func(want map[string]float64) {
			t.Helper()
			got := gathered(t, registry)
			for name, v := range want {
				if got[name] != v {
					t.Errorf("%s is %v, want %v", name, got[name], v)
				}
			}
		}
		b.start(t)
		expect(map[string]float64{
			"egressip_agent_hosted_egress_ips{false}{IPv4}": 1,
			"egressip_agent_hosted_egress_ips{true}{IPv4}":  0,
			"egressip_agent_apply_errors_total":             1,
		})
		pass(200 * time.Millisecond)
		expect(map[string]float64{
			"egressip_agent_hosted_egress_ips{false}{IPv4}": 0,
			"egressip_agent_hosted_egress_ips{true}{IPv4}":  1,
			"egressip_agent_pods{IPv4}{drop}":               0,
			"egressip_agent_pods{IPv4}{local}":              1,
			"egressip_agent_pods{IPv4}{node}":               1,
			"egressip_agent_pods{IPv4}{remote}":             0,
			"egressip_agent_kernel_changes_total":           6,
			"egressip_agent_apply_duration_seconds":         2,
			"egressip_agent_build_info{test}":               1,
			"egressip_agent_repairs_total":                  0, // the first pass had failed
		})
		pass(time.Second)
		expect(map[string]float64{"egressip_agent_repairs_total": 3, "egressip_agent_kernel_changes_total": 9})
		b.change(withoutClaim)
		pass(10 * time.Millisecond)
		expect(map[string]float64{"egressip_agent_repairs_total": 3, "egressip_agent_kernel_changes_total": 12}) // as planned
		b.stop(t)
	})
}

// gathered returns the value of each metric, of histograms the count, by name
// and label values.
func gathered(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "{" + l.GetValue() + "}"
			}
			switch {
			case m.GetCounter() != nil:
				values[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				values[name] = m.GetGauge().GetValue()
			default:
				values[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return values
}
