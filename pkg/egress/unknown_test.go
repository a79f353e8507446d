package egress_test

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// What is published about a namespace is what is known about the host that serves it.
//
// Mutants killed: reports-ignored, doubt-is-ready, unreported-is-ready,
// unconfirmed-serves, anyone-has-the-address.
func TestReadyIsWhatTheHostReports(t *testing.T) {
	const ip, second = "192.168.7.200", "192.168.7.201"
	red := func() *given { return new(given).namespace("red", ip) }
	for name, test := range map[string]struct {
		given  *given
		ready  egress.Readiness
		reason egress.Reason
		// active is "ip@host", "" if the namespace is dropped.
		active string
	}{
		"configured": {
			red().host("w0", ip).reports("w0", ip, ""), egress.ReadyTrue, egress.ReasonAssigned, ip + "@w0",
		},
		"not reported yet": {
			red().host("w0", ip), egress.ReadyUnknown, egress.ReasonNotReported, ip + "@w0",
		},
		"not configured": {
			red().host("w0", ip).reports("w0", ip, egress.ReasonNotConfigured), egress.ReadyFalse, egress.ReasonNotConfigured, ip + "@w0",
		},
		"another machine has it": {
			red().host("w0", ip).reports("w0", ip, egress.ReasonAddressInUse), egress.ReadyFalse, egress.ReasonAddressInUse, ip + "@w0",
		},
		"another machine has it, and the namespace has another": {
			new(given).namespace("red", ip, second).host("w0", ip).reports("w0", ip, egress.ReasonAddressInUse).
				host("w1", second).reports("w1", second, ""), egress.ReadyTrue, egress.ReasonAssigned, second + "@w1",
		},
		"the agent is gone": {
			red().host("w0", ip).reports("w0", ip, "").agentGone("w0"), egress.ReadyUnknown, egress.ReasonAgentGone, ip + "@w0",
		},
		"the host is silent, and there is no other": {
			red().host("w0", ip).reports("w0", ip, "").doubtful("w0"), egress.ReadyUnknown, egress.ReasonHostSilent, ip + "@w0",
		},
		"the host is silent, and there is another": {
			new(given).namespace("red", ip, second).host("w0", ip).doubtful("w0").
				host("w1", second).reports("w1", second, ""), egress.ReadyTrue, egress.ReasonAssigned, second + "@w1",
		},
		"all hosts are silent": {
			new(given).namespace("red", ip, second).host("w0", ip).reports("w0", ip, "").doubtful("w0").
				host("w1", second).reports("w1", second, "").doubtful("w1"), egress.ReadyUnknown, egress.ReasonHostSilent, ip + "@w0",
		},
		"a host that is being evacuated is better than a silent one": {
			new(given).namespace("red", ip, second).host("w0", ip).doubtful("w0").
				host("w1", second).reports("w1", second, "").evacuating("w1"), egress.ReadyTrue, egress.ReasonAssigned, second + "@w1",
		},
		"the agent has never reported": {
			red().host("w0", ip).unreported("w0"), egress.ReadyFalse, egress.ReasonAgentUnknown, "",
		},
		"the agent does not see the hostIP": {
			red().host("w0", ip).uplink("w0", "192.168.7.99/24"), egress.ReadyFalse, egress.ReasonAgentUnknown, "",
		},
		"one of several is not configured": {
			new(given).namespace("red", ip, second).balanced().host("w0", ip).reports("w0", ip, "").
				host("w1", second).reports("w1", second, egress.ReasonNotConfigured), egress.ReadyFalse, egress.ReasonNotConfigured, ip + "@w0 " + second + "@w1",
		},
		"another Node claims the host's address": {
			red().host("w0", ip).reports("w0", ip, "").host("w1").unreported("w1").sameHostIP("w1", "w0"),
			egress.ReadyTrue, egress.ReasonAssigned, ip + "@w0",
		},
		"a stale Node has the host's address, and its agent had it once": {
			red().host("w0", ip).reports("w0", ip, "").host("w1").hostIP("w1", "192.168.7.10").offline("w1"),
			egress.ReadyTrue, egress.ReasonAssigned, ip + "@w0",
		},
		"two Nodes have one address and nothing distinguishes them": {
			red().host("w0", ip).host("w1").hostIP("w1", "192.168.7.10"), egress.ReadyFalse, egress.ReasonNotClaimed, "",
		},
		"a Node claims the egress IP as its own": {
			red().host("w0", ip).reports("w0", ip, "").host("w1").unreported("w1").claimsAsHostIP("w1", ip),
			egress.ReadyTrue, egress.ReasonAssigned, ip + "@w0",
		},
		"nothing is requested": {new(given).namespace("red"), egress.ReadyTrue, egress.ReasonNotRequested, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			n := egress.Resolve(cluster).Groups[0]
			var active []string
			for _, a := range n.Active {
				active = append(active, a.IP.String()+"@"+a.Host)
			}
			if n.Ready != test.ready || n.Reason != test.reason || strings.Join(active, " ") != test.active || n.Message == "" {
				t.Errorf("got %s, %s, active %v, want %s, %s, %q: %s", n.Ready, n.Reason, active, test.ready, test.reason, test.active, n.Message)
			}
		})
	}
}

// sameHostIP is what a Node says that claims another's address.
func (g *given) sameHostIP(name, other string) *given {
	for _, h := range g.HostSubnets {
		if h.Name == other {
			return g.claimsAsHostIP(name, h.HostIP)
		}
	}
	return g
}

func (g *given) claimsAsHostIP(name, ip string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.HostIP = ip })
	return g
}

func (g *given) evacuating(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: v1.ConditionEvacuating, Status: metav1.ConditionTrue})
	})
	return g
}

// Of two hosts with one address and the same evidence, the older one has it.
func TestTheOlderOfTwoHostsHasTheAddress(t *testing.T) {
	g := new(given).namespace("red", "192.168.7.200").host("w0").host("w1", "192.168.7.200").hostIP("w1", "192.168.7.10")
	for i, name := range []string{"w1", "w0"} {
		g.edit(name, func(h *v1.HostSubnet) { h.CreationTimestamp = metav1.NewTime(time.Unix(int64(1000+i), 0)) })
	}
	cluster, problems := egress.Snapshot(g.Objects)
	if n := egress.Resolve(cluster).Groups[0]; len(n.Active) != 1 {
		t.Errorf("the older host does not serve: %s", n.Message)
	}
	if len(problems) != 1 || problems[0].Name != "w0" {
		t.Errorf("problems %v, want one, of the newer host", problems)
	}
}

// What a Node says about its addresses is inside the cluster once its agent has seen it.
//
// Kills the mutant a-nodes-word.
func TestHostsAreConfirmed(t *testing.T) {
	g := new(given).host("w0").host("w1").host("w2").unreported("w2").claimsAsHostIP("w2", "203.0.113.9")
	cluster, _ := egress.Snapshot(g.Objects)
	plan, _ := egress.PlanFor(cluster, egress.Resolve(cluster), "w0", nil, nil)
	if got := plan.Hosts; len(got) != 2 || got[1].String() != "192.168.7.11" {
		t.Errorf("hosts are %v, want w0 and w1", got)
	}
	if plan, _ = egress.PlanFor(cluster, egress.Resolve(cluster), "w2", nil, nil); len(plan.Hosts) != 3 {
		t.Errorf("w2 has hosts %v, want itself among them", plan.Hosts)
	}
}

// Mutants killed: unready-takes, unknown-takes, unknown-keeps, failing-stays.
func TestAllocationOfWhatIsUnknown(t *testing.T) {
	const all, ip, second = "192.168.7.0/24", "192.168.7.200", "192.168.7.201"
	for name, test := range map[string]struct {
		given *given
		// want is the placement after it has settled.
		want string
	}{
		"a host whose agent never reported is given nothing": {
			new(given).namespace("red", ip).automatic("w0", all).unreported("w0"), "",
		},
		"a host whose agent does not report in time gives up what it has": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).unheard("w0").automatic("w1", all), ip + "@w1",
		},
		"a host whose agent has not reported yet keeps what it has": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).unreported("w0").automatic("w1", all), ip + "@w0",
		},
		"a host whose agent is not ready is given nothing": {
			new(given).namespace("red", ip).automatic("w0", all).notReady("w0"), "",
		},
		"a host whose agent is not ready keeps what it has": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).notReady("w0").automatic("w1", all), ip + "@w0",
		},
		"a new host without an agent takes none of ten": {
			tenOn("w0").automatic("w1", all).unreported("w1"), strings.Join(tenAt("w0"), " "),
		},
		"a silent host's egress IP moves": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).doubtful("w0").automatic("w1", all), ip + "@w1",
		},
		"all are silent, nothing moves": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).doubtful("w0").automatic("w1", all).doubtful("w1"), ip + "@w0",
		},
		"a silent host keeps what no other has capacity for": {
			new(given).namespace("red", ip).namespace("blue", second).automatic("w0", all).claims("w0", ip, second).doubtful("w0").
				automatic("w1", all).capacity("w1", 1), ip + "@w0 " + second + "@w1",
		},
		"all fall silent, and it was released already": {
			new(given).namespace("red", ip).automatic("w0", all).doubtful("w0").automatic("w1", all).doubtful("w1"), ip + "@w0",
		},
		"a silent host takes what no other can": {
			new(given).namespace("red", ip).namespace("blue", second).automatic("w0", all).doubtful("w0").
				automatic("w1", all).capacity("w1", 1), ip + "@w0 " + second + "@w1",
		},
		"a silent host takes no more than it may": {
			new(given).namespace("red", ip).namespace("blue", second).automatic("w0", all).capacity("w0", 1).doubtful("w0"), second + "@w0",
		},
		"a silent host with an agent that is not ready takes nothing": {
			new(given).namespace("red", ip).automatic("w0", all).doubtful("w0").notReady("w0"), "",
		},
		"a dead host keeps nothing": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).offline("w0"), "",
		},
		"what would be its again if a gone host came back stays where it works": {
			new(given).namespace("red", ip).host("w0", ip).offline("w0").gone("w0").automatic("w1", all).claims("w1", ip).doubtful("w1").
				automatic("w2", all), ip + "@w1",
		},
		"so it does while its host is being evacuated": {
			new(given).namespace("red", ip).host("w0", ip).offline("w0").gone("w0").automatic("w1", all).claims("w1", ip).evacuating("w1").
				automatic("w2", all), ip + "@w1",
		},
		"and while others have less": {
			new(given).namespace("red", ip).host("w0", ip).offline("w0").gone("w0").
				namespace("blue", second).namespace("green", "192.168.7.202").namespace("cyan", "192.168.7.203").
				automatic("w1", all).claims("w1", ip, second, "192.168.7.202", "192.168.7.203").automatic("w2", all),
			ip + "@w1 " + second + "@w2 192.168.7.202@w2 192.168.7.203@w1",
		},
		"what cannot be configured moves": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).failing("w0", ip).automatic("w1", all), ip + "@w1",
		},
		"what cannot be configured on any host stays": {
			new(given).namespace("red", ip).automatic("w0", all).claims("w0", ip).failing("w0", ip).automatic("w1", all).failing("w1", ip), ip + "@w0",
		},
		"what cannot be configured there is not placed there": {
			new(given).namespace("red", ip).automatic("w0", all).failing("w0", ip).automatic("w1", all), ip + "@w1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{Objects: test.given.Objects}
			for range 10 {
				w.round()
			}
			if got := strings.Join(w.placement(), " "); got != test.want {
				t.Errorf("settled at %q, want %q", got, test.want)
			}
		})
	}
}

func tenOn(host string) *given {
	g := new(given)
	addresses := egressAddresses(10)
	for i, ip := range addresses {
		g.namespace("ns"+string(rune('a'+i)), ip)
	}
	return g.automatic(host, "192.168.7.0/24").claims(host, addresses...)
}

func tenAt(host string) []string {
	var at []string
	for _, ip := range egressAddresses(10) {
		at = append(at, ip+"@"+host)
	}
	slices.Sort(at)
	return at
}

// unheard is a host whose agent has not reported in time.
func (g *given) unheard(name string) *given {
	g.Unheard = map[string]bool{name: true}
	return g.unreported(name)
}

func (g *given) failing(host string, ips ...string) *given {
	if g.Failing == nil {
		g.Failing = make(map[string]map[netip.Addr]bool)
	}
	g.Failing[host] = make(map[netip.Addr]bool)
	for _, ip := range ips {
		g.Failing[host][netip.MustParseAddr(ip)] = true
	}
	return g
}

// Probes alone never take the last way of a namespace: a namespace that is served while
// hosts are online is served while any of them are doubtful, before and after the
// allocation has settled. And so it is at the end if they fall silent one after the other,
// while what the ones before had is between two hosts.
//
// Kills the mutants silent-releases-all, doubtful-is-dead and nothing-in-doubt.
func TestPropertyProbesTakeNoLastWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		if w.sharedHostIP() {
			t.Skip("which of two hosts has an address depends on who is online")
		}
		w.settle(t)
		served := make(map[string]bool)
		for _, n := range egress.Resolve(w.cluster()).Groups {
			served[n.Name] = len(n.Active) > 0
		}
		atOnce := rapid.Bool().Draw(t, "at once")
		for _, name := range slices.Sorted(maps.Keys(w.Verdicts)) {
			if w.Verdicts[name].Online && rapid.Bool().Draw(t, name+" falls silent") {
				w.Verdicts[name] = online.Verdict{Doubtful: true}
				if !atOnce {
					w.round()
				}
			}
		}
		check := func(when string) {
			for _, n := range egress.Resolve(w.cluster()).Groups {
				if served[n.Name] && len(n.Active) == 0 {
					t.Fatalf("%s: %s was served, and is dropped: %s", when, n.Name, n.Message)
				}
			}
		}
		if atOnce {
			check("at once")
		}
		w.settle(t)
		check("settled")
	})
}

// In mode balanced as many egress IPs are active as the kernel uses.
func TestBalancedOverMoreThanTheKernelUses(t *testing.T) {
	addresses := egressAddresses(egress.MaxActive + 2)
	g := new(given).namespace("red", addresses...).balanced()
	for i, ip := range addresses {
		g.host("w"+string(rune('a'+i)), ip)
	}
	cluster, _ := egress.Snapshot(g.Objects)
	n := egress.Resolve(cluster).Groups[0]
	var left int
	for _, r := range n.Requests {
		if r.State == egress.Standby && r.Reason == egress.ReasonTooMany {
			left++
		}
	}
	if len(n.Active) != egress.MaxActive || left != 2 {
		t.Errorf("%d are active, and %d left over", len(n.Active), left)
	}
}
