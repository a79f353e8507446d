package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/feature"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// observed is the outcome of a pass over given.
func observed(t *testing.T, change ...func(*observation)) observation {
	t.Helper()
	d, ok := decide(given())
	if !ok {
		t.Fatal("decide knew no answer")
	}
	o := observation{decision: d, report: healthyReport(d.state)}
	for _, c := range change {
		c(&o)
	}
	return o
}

// TestStatusOf: what the admin reads of each outcome.
func TestStatusOf(t *testing.T) {
	t.Parallel()
	fine := ownStatus{
		generation: 4,
		agent:      v1.AgentStatus{Version: "v1", Uplink: "eth0", UplinkCIDR: "10.1.8.11/24", Families: []string{v1.FamilyIPv4}, Backend: "iptables", IPTables: []string{"nft"}},
		claims: []v1.ClaimStatus{
			{IP: "10.1.8.200", Namespace: "shop", State: v1.StateActive, Configured: true, Reason: "Assigned"},
		},
		ready: metav1.Condition{
			Type: "AgentReady", Status: "True", Reason: "Ready", Message: "The kernel is as planned.", ObservedGeneration: 4,
		},
		warnings: metav1.Condition{
			Type: "Warnings", Status: "False", Reason: "NoWarnings", Message: "Nothing was found on the host that weakens egress IPs.", ObservedGeneration: 4,
		},
	}
	for name, c := range map[string]struct {
		change func(*observation)
		want   func(*ownStatus)
	}{
		"all is well": {func(*observation) {}, func(*ownStatus) {}},
		"the kernel lacks a feature": {
			func(o *observation) {
				o.report.Kernel, o.report.Missing = "6.1.0", feature.Missing(feature.Kernel{Lacks: []feature.Name{feature.TableOwner}})
			},
			func(s *ownStatus) {
				s.agent.Kernel = "6.1.0"
				s.agent.KernelLacks = []string{"TableOwner (Linux 6.9): other software can flush or change our rules; the next pass repairs them"}
			},
		},
		"a pod of shop has an IPv6 address": {
			func(o *observation) {
				o.decision.state.Pods = append(o.decision.state.Pods, dataplane.Pod{IP: testenv.Addr("fd00::5"), Kind: dataplane.Drop})
				o.report.IPv6Locked = true
			},
			func(s *ownStatus) { s.agent.IPv6 = "Dropped" },
		},
		"a pod of shop has an IPv6 address, and there is no ip6tables": {
			func(o *observation) {
				o.decision.state.Pods = append(o.decision.state.Pods, dataplane.Pod{IP: testenv.Addr("fd00::5"), Kind: dataplane.Drop})
			},
			func(s *ownStatus) {
				s.agent.IPv6 = "NotDropped"
			},
		},
		"the host serves IPv6": {
			func(o *observation) {
				o.report.IPv6 = dataplane.IPv6Report{Known: true, Networks: testenv.Prefixes("2001:db8:7::/64", "fd00:7::/64")}
			},
			func(s *ownStatus) {
				s.agent.Families, s.agent.UplinkNetworks = []string{"IPv4", "IPv6"}, []string{"2001:db8:7::/64", "fd00:7::/64"}
			},
		},
		"the hostIP is one of IPv6": {
			func(o *observation) {
				o.decision.state.HostIP = testenv.Addr("fd00:7::11")
				o.report.IPv6 = dataplane.IPv6Report{Known: true, Networks: testenv.Prefixes("fd00:7::/64")}
			},
			func(s *ownStatus) {
				s.agent.Families, s.agent.UplinkNetworks = []string{"IPv6"}, []string{"fd00:7::/64"}
			},
		},
		"the hostIP is one of IPv6, and the host cannot serve that": {
			func(o *observation) {
				o.decision.state.HostIP = testenv.Addr("fd00:7::11")
				o.report.IPv6 = dataplane.IPv6Report{Known: true, Reason: "no forwarding"}
			},
			func(s *ownStatus) { s.agent.Families, s.agent.IPv6Reason = nil, "no forwarding" },
		},
		"the host cannot serve IPv6": {
			func(o *observation) { o.report.IPv6 = dataplane.IPv6Report{Known: true, Reason: "no forwarding"} },
			func(s *ownStatus) { s.agent.IPv6Reason = "no forwarding" },
		},
		"whether the host serves IPv6 is not known": {
			func(o *observation) { o.report.IPv6 = dataplane.IPv6Report{Networks: testenv.Prefixes("fd00:7::/64")} },
			func(s *ownStatus) { s.agent.UplinkNetworks = []string{"fd00:7::/64"} },
		},
		"pods leave with egress IPs of IPv6": {
			func(o *observation) {
				o.decision.state.Pods = append(o.decision.state.Pods, dataplane.Pod{IP: testenv.Addr("fd00::5"), Kind: dataplane.Remote})
				o.report.IPv6, o.report.IPv6Locked = dataplane.IPv6Report{Known: true}, true
			},
			func(s *ownStatus) { s.agent.Families = []string{"IPv4", "IPv6"} },
		},
		"pods have egress IPs of IPv6, and the host cannot serve them": {
			func(o *observation) {
				o.decision.state.Pods = append(o.decision.state.Pods, dataplane.Pod{IP: testenv.Addr("fd00::5"), Kind: dataplane.Remote})
				o.report.IPv6, o.report.IPv6Locked = dataplane.IPv6Report{Known: true, Reason: "no forwarding"}, true
			},
			func(s *ownStatus) { s.agent.IPv6Reason, s.agent.IPv6 = "no forwarding", "Dropped" },
		},
		"a pod of another namespace has one": {
			func(o *observation) {
				o.decision.state.Pods = append(o.decision.state.Pods, dataplane.Pod{IP: testenv.Addr("fd00::6"), Kind: dataplane.Node})
			},
			func(*ownStatus) {},
		},
		"one address could not be added": {
			func(o *observation) {
				o.report.Hosted[0] = dataplane.HostedReport{IP: testenv.Addr("10.1.8.200"), Error: "add 10.1.8.200 to eth0: no room"}
				o.err = errors.New("add 10.1.8.200 to eth0: no room")
			},
			func(s *ownStatus) {
				s.claims[0].Configured, s.claims[0].Reason, s.claims[0].Message = false, "NotConfigured", "add 10.1.8.200 to eth0: no room"
				s.ready.Status, s.ready.Reason, s.ready.Message = "False", "ApplyFailed", "add 10.1.8.200 to eth0: no room"
			},
		},
		"the kernel has not told of the address": {
			func(o *observation) { o.report.Hosted = nil },
			func(s *ownStatus) {
				s.claims[0].Configured, s.claims[0].Reason = false, "NotConfigured"
				s.claims[0].Message = "The kernel is not configured for it yet."
			},
		},
		"something else went wrong": {
			func(o *observation) { o.err = errors.New("attach the program: not permitted") },
			func(s *ownStatus) {
				s.ready.Status, s.ready.Reason, s.ready.Message = "False", "ApplyFailed", "attach the program: not permitted"
			},
		},
		"warnings": {
			func(o *observation) {
				o.report.Warnings = []warning.Warning{
					{Reason: warning.ForeignNATFirst, Object: "table ip cni", Problem: "it translates", Remedy: "exempt"}, {Reason: warning.MTUDiffers, Problem: "less"},
				}
			},
			func(s *ownStatus) {
				s.ready.Reason, s.ready.Message = "ReadyWithWarnings", "The kernel is as planned. Condition Warnings says what deserves attention."
				s.warnings.Status, s.warnings.Reason = "True", "ForeignNATFirst"
				s.warnings.Message = "ForeignNATFirst (table ip cni): it translates. Remedy: exempt\nMTUDiffers: less"
			},
		},
		"warnings, and something went wrong": {
			func(o *observation) {
				o.report.Warnings, o.err = []warning.Warning{{Reason: warning.ForwardingOff, Problem: "off"}}, errors.New("no room")
			},
			func(s *ownStatus) {
				s.ready.Status, s.ready.Reason, s.ready.Message = "False", "ApplyFailed", "no room"
				s.warnings.Status, s.warnings.Reason, s.warnings.Message = "True", "ForwardingOff", "ForwardingOff: off"
			},
		},
		"further addresses": {
			func(o *observation) { o.decision.addresses = testenv.Addrs("10.1.8.98", "10.1.8.99") },
			func(s *ownStatus) { s.agent.Addresses = []string{"10.1.8.98", "10.1.8.99"} },
		},
		"pods in networks that nobody names": {
			func(o *observation) {
				o.decision.podNetworks, o.missing = testenv.Prefixes("10.9.1.0/24", "10.9.2.7/32"), "Pod red/a"
			},
			func(s *ownStatus) {
				s.agent.PodNetworks, s.agent.PodNetworksMissing = []string{"10.9.1.0/24", "10.9.2.7/32"}, "Pod red/a"
			},
		},
		"a claim that nobody requests is not to be configured": {
			func(o *observation) {
				o.decision.result.Claims = append(o.decision.result.Claims, egress.ClaimResult{
					IP: testenv.Addr("10.1.8.201"), State: egress.Unassigned, Reason: egress.ReasonNotRequested, Message: "nobody",
				})
			},
			func(s *ownStatus) {
				s.claims = append(s.claims, v1.ClaimStatus{
					IP: "10.1.8.201", State: v1.StateUnassigned, Reason: "NotRequested", Message: "nobody",
				})
			},
		},
		"a claim that is no address": {
			func(o *observation) {
				o.decision.problems = []egress.Problem{
					{Kind: "HostSubnet", Name: "node1", Field: "egressIPs", Value: "0.0.0.0", Reason: "BadAddress", Message: "no"},
					{Kind: "HostSubnet", Name: "node1", Field: "egressCIDRs", Value: "1.2.3.4/33", Reason: "BadCIDR", Message: "no"},
				}
			},
			func(s *ownStatus) {
				s.claims = append([]v1.ClaimStatus{{IP: "0.0.0.0", State: v1.StateInvalid, Reason: "BadAddress", Message: "no"}}, s.claims...)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := fine
			want.claims = append([]v1.ClaimStatus(nil), fine.claims...)
			c.want(&want)
			got := statusOf(observed(t, c.change), "v1", 4)
			for i := range got.claims {
				if got.claims[i].State == v1.StateActive && got.claims[i].Configured {
					got.claims[i].Message = "" // the brain's own words
				}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(ownStatus{})); diff != "" {
				t.Errorf("statusOf (-want +got):\n%s", diff)
			}
			if !got.equal(got) || got.equal(ownStatus{}) {
				t.Error("equal does not hold with itself alone")
			}
		})
	}
}

// TestClip: the API refuses a condition's message of more than 32 KiB, and with
// it the whole status.
func TestClip(t *testing.T) {
	t.Parallel()
	o := observed(t, func(o *observation) { o.err = errors.New(strings.Repeat("ä", 40_000)) })
	got := statusOf(o, "v1", 4).ready.Message
	if len(got) > maxMessage+100 || !strings.HasPrefix(got, "ää") || !strings.HasSuffix(got, "bytes more)") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-30:])
	}
	// A host has up to 512 claims.
	o = observed(t, func(o *observation) {
		o.report.Hosted[0] = dataplane.HostedReport{IP: testenv.Addr("10.1.8.200"), Error: strings.Repeat("ä", 40_000)}
	})
	got = statusOf(o, "v1", 4).claims[0].Message
	if len(got) > maxClaimMessage+100 || !strings.HasSuffix(got, "bytes more)") {
		t.Errorf("%d bytes for one claim, ending in %q", len(got), got[len(got)-30:])
	}
}

// fakeAPI is the HostSubnet on the API server and in the cache.
type fakeAPI struct {
	mu     sync.Mutex
	stored *v1.HostSubnet // nil: there is none
	cached *v1.HostSubnet
	lag    bool // the cache does not follow
	err    error
	hang   bool
	writes []*unstructured.Unstructured
	tries  int
}

func (f *fakeAPI) get(context.Context) (*v1.HostSubnet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cached == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "hostsubnets"}, "node1")
	}
	return f.cached.DeepCopy(), nil
}

func (f *fakeAPI) apply(ctx context.Context, u *unstructured.Unstructured) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries++
	if f.hang {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return ctx.Err()
	}
	if f.err != nil {
		return f.err
	}
	f.writes = append(f.writes, u)
	var h v1.HostSubnet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &h); err != nil {
		return err
	}
	f.stored = f.stored.DeepCopy()
	f.stored.Status = h.Status
	f.stored.ResourceVersion = fmt.Sprint(len(f.writes) + 1)
	if !f.lag {
		f.cached = f.stored
	}
	return nil
}

// inBubble runs f with a publisher on a fake API, on the bubble's clock.
func inBubble(t *testing.T, f func(t *testing.T, p *publisher, api *fakeAPI)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := hostSubnet("node1", "10.1.8.11", "10.244.1.0/24", "10.1.8.200")
		h.UID, h.ResourceVersion = "uid-1", "1"
		api := &fakeAPI{stored: &h, cached: &h}
		p := &publisher{
			log: testr.New(t), clock: clock.RealClock{}, node: "node1", version: "v1", metrics: newMetrics("v1"),
			cached: api.get, apply: api.apply, wake: newSignal(),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		f(t, p, api)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
}

func (f *fakeAPI) expectWrites(t *testing.T, want int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.writes) != want {
		t.Fatalf("%d writes, want %d", len(f.writes), want)
	}
}

// ready is the condition as stored.
func (f *fakeAPI) ready(t *testing.T) metav1.Condition {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.stored.Status.Conditions {
		if c.Type == v1.ConditionAgentReady {
			return c
		}
	}
	t.Fatal("no condition AgentReady is stored")
	return metav1.Condition{}
}

// TestPublishOnlyWhatDiffers: a node that is well writes once. Mutants: write
// always; compare with the cache alone, which shows the write only later.
func TestPublishOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	for name, lag := range map[string]bool{"the cache follows": false, "the cache lags behind": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
				t.Helper()
				api.lag = lag
				for range 100 {
					p.publish(observed(t))
					pass(time.Second)
				}
				api.expectWrites(t, 1)
				began := api.ready(t).LastTransitionTime
				p.publish(observed(t, func(o *observation) { o.err = errors.New("broken") }))
				pass(time.Second)
				api.expectWrites(t, 2)
				if c := api.ready(t); c.Status != metav1.ConditionFalse || !c.LastTransitionTime.After(began.Time) {
					t.Errorf("broken, and the condition is %+v", c)
				}
				broke := api.ready(t).LastTransitionTime
				pass(time.Minute)
				p.publish(observed(t, func(o *observation) { o.err = errors.New("broken in another way") }))
				pass(time.Second)
				api.expectWrites(t, 3)
				if c := api.ready(t); !c.LastTransitionTime.Equal(&broke) {
					t.Errorf("still broken, and the transition moved from %v to %v", broke, c.LastTransitionTime)
				}
			})
		})
	}
}

// TestPublishWordsSeldom: an error that is told in other words each second is
// written every ten. A change that matters is written at once.
func TestPublishWordsSeldom(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		for i := range 100 {
			p.publish(observed(t, func(o *observation) { o.err = fmt.Errorf("took %d ms", i) }))
			pass(time.Second)
		}
		api.mu.Lock()
		n := len(api.writes)
		api.mu.Unlock()
		if n < 9 || n > 11 {
			t.Fatalf("%d writes in 100 s, want one every 10", n)
		}
		p.publish(observed(t))
		pass(time.Millisecond)
		api.expectWrites(t, n+1)
	})
}

// TestPublishToAnAPIServerThatIsAway: publishing never blocks, the attempts
// become rare, and the newest observation is written in the end.
func TestPublishToAnAPIServerThatIsAway(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]bool{"refuses": false, "does not answer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
				t.Helper()
				api.err, api.hang = errors.New("connection refused"), hang
				for range 300 {
					before := time.Now()
					p.publish(observed(t))
					if waited := time.Since(before); waited > 0 {
						t.Fatalf("publish took %s", waited)
					}
					pass(time.Second)
				}
				api.mu.Lock()
				tries := api.tries
				api.mu.Unlock()
				if tries < 5 || tries > 20 {
					t.Errorf("%d attempts in 300 s", tries)
				}
				p.publish(observed(t, func(o *observation) { o.decision.generation = 9 }))
				api.mu.Lock()
				api.err, api.hang = nil, false
				api.mu.Unlock()
				pass(time.Minute)
				api.expectWrites(t, 1)
				if g := api.stored.Status.ObservedGeneration; g != 9 {
					t.Errorf("observedGeneration %d, want the newest, 9", g)
				}
			})
		})
	}
}

// TestPublishGeneration: observedGeneration is what the kernel has, not what
// the agent has read; and it outlives a restart.
func TestPublishGeneration(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		api.cached.Status.ObservedGeneration = 3 // of the agent before
		p.publish(observed(t, func(o *observation) { o.err = errors.New("broken") }))
		pass(time.Second)
		if g := api.stored.Status.ObservedGeneration; g != 3 {
			t.Errorf("failed, and observedGeneration is %d, want 3", g)
		}
		p.publish(observed(t))
		pass(time.Second)
		if g := api.stored.Status.ObservedGeneration; g != 4 {
			t.Errorf("applied, and observedGeneration is %d, want 4", g)
		}
	})
}

// TestPublishKeepsTheUplinksNetwork: other nodes decide by it.
func TestPublishKeepsTheUplinksNetwork(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		p.publish(observed(t))
		pass(time.Second)
		p.publish(observed(t, func(o *observation) {
			o.report = dataplane.Report{}
			o.err = errors.New("no interface has this address")
		}))
		pass(time.Second)
		api.expectWrites(t, 2)
		if a := api.stored.Status.Agent; a.Uplink != "eth0" || a.UplinkCIDR != "10.1.8.11/24" {
			t.Errorf("agent is %+v", a)
		}
	})
}

// TestPublishKeepsFamilies: a pass that could not find out must not take egress IPs of IPv6
// away, and one that found out that the host cannot serve them must.
//
// Kills the mutants unknown-takes-ipv6-away and unknown-gives-ipv6.
func TestPublishKeepsFamilies(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		serves := dataplane.IPv6Report{Known: true, Networks: testenv.Prefixes("fd00:7::/64")}
		for i, step := range []struct {
			report             dataplane.IPv6Report
			families, networks []string
			reason             string
		}{
			{dataplane.IPv6Report{}, []string{"IPv4"}, nil, ""},
			{serves, []string{"IPv4", "IPv6"}, []string{"fd00:7::/64"}, ""},
			{dataplane.IPv6Report{}, []string{"IPv4", "IPv6"}, []string{"fd00:7::/64"}, ""},
			{dataplane.IPv6Report{Known: true, Reason: "no forwarding"}, []string{"IPv4"}, nil, "no forwarding"},
			{dataplane.IPv6Report{}, []string{"IPv4"}, nil, "no forwarding"},
			{serves, []string{"IPv4", "IPv6"}, []string{"fd00:7::/64"}, ""},
		} {
			p.publish(observed(t, func(o *observation) { o.report.IPv6 = step.report }))
			pass(time.Second)
			a := api.stored.Status.Agent
			if !slices.Equal(a.Families, step.families) || !slices.Equal(a.UplinkNetworks, step.networks) || a.IPv6Reason != step.reason {
				t.Errorf("step %d: published %q, %q, %q; want %q, %q, %q", i, a.Families, a.UplinkNetworks, a.IPv6Reason,
					step.families, step.networks, step.reason)
			}
		}
	})
}

// TestPublishKeepsFurtherNetworks: networks of other interfaces are published as the kernel has
// them, and stay while it has not been read; what is at another interface says so, and if only
// its neighbours are reached.
//
// Kills the mutant unknown-networks-are-none.
func TestPublishKeepsFurtherNetworks(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		second := egress.FurtherNetwork{Interface: "eth1", CIDR: testenv.Prefix("172.16.5.0/24"), Gateway: testenv.Addr("172.16.5.1")}
		third := egress.FurtherNetwork{Interface: "eth2", CIDR: testenv.Prefix("172.16.6.0/24")}
		for i, step := range []struct {
			unknown  bool
			networks []egress.FurtherNetwork
			want     []v1.OtherNetwork
		}{
			{true, nil, nil},
			{false, []egress.FurtherNetwork{second, third}, []v1.OtherNetwork{
				{Interface: "eth1", CIDR: "172.16.5.0/24", Gateway: "172.16.5.1"}, {Interface: "eth2", CIDR: "172.16.6.0/24"},
			}},
			{true, nil, []v1.OtherNetwork{
				{Interface: "eth1", CIDR: "172.16.5.0/24", Gateway: "172.16.5.1"}, {Interface: "eth2", CIDR: "172.16.6.0/24"},
			}},
			{false, []egress.FurtherNetwork{third}, []v1.OtherNetwork{{Interface: "eth2", CIDR: "172.16.6.0/24"}}},
			{false, nil, nil},
		} {
			p.publish(observed(t, func(o *observation) { o.decision.networks, o.decision.networksUnknown = step.networks, step.unknown }))
			pass(time.Second)
			if got := api.stored.Status.Agent.OtherNetworks; !slices.Equal(got, step.want) {
				t.Errorf("step %d: published %+v, want %+v", i, got, step.want)
			}
		}
		for gateway, says := range map[string]bool{"": true, "172.16.5.1": false} {
			p.publish(observed(t, func(o *observation) {
				h := &o.decision.state.Hosted[0]
				h.Interface = "eth1"
				if gateway != "" {
					h.Gateway = testenv.Addr(gateway)
				}
			}))
			pass(time.Minute)
			claim := api.stored.Status.EgressIPs[0]
			if claim.Interface != "eth1" || strings.Contains(claim.Message, "name no gateway") != says {
				t.Errorf("gateway %q: %+v", gateway, claim)
			}
		}
	})
}

// TestPublishKeepsAddressesUntilTheKernelIsRead: what an agent published before it was
// started again stays inside for all nodes.
//
// Kills the mutants that publish none at first.
func TestPublishKeepsAddressesUntilTheKernelIsRead(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		for _, o := range []struct {
			known bool
			now   []netip.Addr
			want  []string
		}{
			{true, testenv.Addrs("10.1.8.99"), []string{"10.1.8.99"}},
			{false, nil, []string{"10.1.8.99"}},
			{true, testenv.Addrs("10.1.8.98"), []string{"10.1.8.98"}},
			{true, nil, nil},
		} {
			p.publish(observed(t, func(ob *observation) {
				ob.decision.addresses, ob.decision.addressesUnknown = o.now, !o.known
				ob.decision.podNetworks, ob.decision.podNetworksUnknown = nil, !o.known
				for _, ip := range o.now {
					ob.decision.podNetworks = append(ob.decision.podNetworks, netip.PrefixFrom(ip, 32))
				}
			}))
			pass(time.Second)
			if got := api.stored.Status.Agent.Addresses; !slices.Equal(got, o.want) {
				t.Errorf("published %v, want %v", got, o.want)
			}
			if got := api.stored.Status.Agent.PodNetworks; len(got) != len(o.want) || len(got) > 0 && got[0] != o.want[0]+"/32" {
				t.Errorf("published pod networks %v, want those of %v", got, o.want)
			}
		}
	})
}

// TestPublishWithoutHostSubnet: nothing is written, nothing fails, and a
// HostSubnet that comes later is told everything.
func TestPublishWithoutHostSubnet(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *publisher, api *fakeAPI) {
		t.Helper()
		p.publish(observed(t))
		pass(time.Second)
		api.expectWrites(t, 1)

		gone := api.cached
		api.mu.Lock()
		api.cached = nil
		api.mu.Unlock()
		p.publish(observed(t))
		pass(time.Minute)
		api.expectWrites(t, 1)

		again := gone.DeepCopy()
		again.UID, again.ResourceVersion, again.Status = "uid-2", "1", v1.HostSubnetStatus{}
		api.mu.Lock()
		api.stored, api.cached = again, again
		api.mu.Unlock()
		p.publish(observed(t))
		pass(time.Second)
		api.expectWrites(t, 2)

		api.mu.Lock()
		api.cached = api.cached.DeepCopy()
		api.cached.Status.EgressIPs = nil // somebody else took it away
		api.cached.ResourceVersion = "77"
		api.mu.Unlock()
		p.publish(observed(t))
		pass(time.Second)
		api.expectWrites(t, 3)
	})
}

// Each field of an agent's status that changes is written: one that is not compared would stay as
// it was, until another one changes.
//
// Mutant killed: overlaps-are-not-compared.
func TestEachFieldOfTheStatusCounts(t *testing.T) {
	fields := reflect.TypeFor[v1.AgentStatus]()
	for i := range fields.NumField() {
		var changed ownStatus
		field := reflect.ValueOf(&changed.agent).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString("x")
		case reflect.Int32:
			field.SetInt(1)
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		default:
			t.Fatalf("field %s has kind %s: set it here", fields.Field(i).Name, field.Kind())
		}
		if changed.equal(ownStatus{}) {
			t.Errorf("a change of status.agent.%s is not written", fields.Field(i).Name)
		}
	}
}
