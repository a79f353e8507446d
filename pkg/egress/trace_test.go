package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// traced is a cluster whose objects say the same as agents: shop has an egress IP on b, free none.
func traced() egress.Objects {
	o := egress.Objects{
		NetNamespaces: []v1.NetNamespace{objects.NetNamespace("free", 16), objects.NetNamespace("shop", 17, "10.1.8.200")},
		HostSubnets:   []v1.HostSubnet{objects.ReportedHostSubnet("a", "10.1.8.11"), objects.ReportedHostSubnet("b", "10.1.8.12", "10.1.8.200")},
	}
	o.HostSubnets[0].Subnet, o.HostSubnets[1].Subnet = "10.244.1.0/24", "10.244.2.0/24"
	return o
}

// What becomes of a packet to the outside, by what is planned and by what agents report of it.
//
// Mutants killed: trace-believes-plans, trace-forgets-agents, trace-counts-any-report.
func TestTracePod(t *testing.T) {
	t.Parallel()
	shop, free := pod("shop", "10.244.1.5"), pod("free", "10.244.1.6")
	for name, c := range map[string]struct {
		pod     egress.Pod
		change  func(*egress.Objects, *egress.HostInput)
		planned egress.Outcome
		want    egress.Outcome
		why     string
		host    string // of the first hop
	}{
		"over the overlay":  {pod: shop, planned: egress.OutcomeEgressIP, want: egress.OutcomeEgressIP, why: "Namespace shop has active egress IPs.", host: "b"},
		"nothing requested": {pod: free, planned: egress.OutcomeAsIs, want: egress.OutcomeAsIs, why: "Namespace free requests no egress IPs."},
		"no NetNamespace":   {pod: pod("new", "10.244.1.7"), planned: egress.OutcomeAsIs, want: egress.OutcomeAsIs, why: "Namespace new has no NetNamespace"},
		"a NetNamespace that cannot be used": {
			pod:     pod("new", "10.244.1.7"),
			change:  func(_ *egress.Objects, in *egress.HostInput) { in.Managed["new"] = true },
			planned: egress.OutcomeDropped, want: egress.OutcomeDropped, why: "strict mode drops",
		},
		"the same without strict mode": {
			pod:     pod("new", "10.244.1.7"),
			change:  func(_ *egress.Objects, in *egress.HostInput) { in.Managed["new"], in.Strict = true, false },
			planned: egress.OutcomeAsIs, want: egress.OutcomeAsIs, why: "strict mode is off",
		},
		"from its own host": {
			pod: shop,
			change: func(o *egress.Objects, _ *egress.HostInput) {
				o.HostSubnets[0] = objects.ReportedHostSubnet("a", "10.1.8.11", "10.1.8.200")
				o.HostSubnets[1].EgressIPs = nil
			},
			planned: egress.OutcomeEgressIP, want: egress.OutcomeEgressIP, host: "a",
		},
		"nobody claims it": {
			pod:     shop,
			change:  func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[1].EgressIPs = nil },
			planned: egress.OutcomeDropped, want: egress.OutcomeDropped, why: "No host claims 10.1.8.200",
		},
		"the egress host could not": {
			pod: shop,
			change: func(o *egress.Objects, _ *egress.HostInput) {
				o.HostSubnets[1].Status.EgressIPs[0] = v1.ClaimStatus{IP: "10.1.8.200", Reason: "NotConfigured", Message: "no room"}
			},
			planned: egress.OutcomeEgressIP, want: egress.OutcomeDropped, why: "host b does not have 10.1.8.200 (NotConfigured): no room", host: "b",
		},
		"the egress host has not said so": {
			pod:     shop,
			change:  func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[1].Status.EgressIPs = nil },
			planned: egress.OutcomeEgressIP, want: egress.OutcomeUnknown, why: "has not reported on 10.1.8.200 yet", host: "b",
		},
		"no agent has ever run on its host": {
			pod:     shop,
			change:  func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[0].Status = v1.HostSubnetStatus{} },
			planned: egress.OutcomeEgressIP, want: egress.OutcomeUnknown, why: "no agent has reported from host a", host: "b",
		},
		"nor does that matter without egress IPs": {
			pod:     free,
			change:  func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[0].Status = v1.HostSubnetStatus{} },
			planned: egress.OutcomeAsIs, want: egress.OutcomeAsIs,
		},
		"its agent has ended": {
			pod: shop,
			change: func(o *egress.Objects, _ *egress.HostInput) {
				judged(o, "a", "True", "NoAgent")
			},
			planned: egress.OutcomeEgressIP, want: egress.OutcomeUnknown, why: "the agent of host a does not run", host: "b",
		},
		"its agent fails": {
			pod:     shop,
			change:  func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[0].Status.Conditions = nil },
			planned: egress.OutcomeEgressIP, want: egress.OutcomeUnknown, why: "does not report that the kernel is as planned", host: "b",
		},
		"its host is not in the API": {
			pod: shop,
			change: func(o *egress.Objects, in *egress.HostInput) {
				o.HostSubnets, in.HostIP = o.HostSubnets[1:], testenv.Addr("10.1.8.11")
			},
			planned: egress.OutcomeEgressIP, want: egress.OutcomeUnknown, why: "host a has no HostSubnet", host: "b",
		},
		"of the other family": {
			pod:     pod("shop", "fd00:1::5"),
			planned: egress.OutcomeRefused, want: egress.OutcomeRefused, why: "and none of IPv6",
		},
		"the other family is let out": {
			pod: pod("shop", "fd00:1::5"),
			change: func(o *egress.Objects, _ *egress.HostInput) {
				o.NetNamespaces[1].Annotations = map[string]string{v1.AnnotationOtherFamily: v1.OtherFamilyNode}
			},
			planned: egress.OutcomeAsIs, want: egress.OutcomeAsIs, why: "requests egress IPs of IPv4 only",
		},
		"two pods with one address": {
			pod: shop,
			change: func(_ *egress.Objects, in *egress.HostInput) {
				in.Pods = append(in.Pods, pod("free", "10.244.1.5"))
			},
			planned: egress.OutcomeDropped, want: egress.OutcomeDropped, why: "Another pod has the address 10.244.1.5 too",
		},
		"labels of the namespace are unknown while there are EgressIPs": {
			pod: shop,
			change: func(o *egress.Objects, _ *egress.HostInput) {
				o.EgressIPs = []ovnv1.EgressIP{objectOfEgressIP("web", 19, "10.1.8.210")}
			},
			planned: egress.OutcomeDropped, want: egress.OutcomeDropped, why: "The labels of namespace shop are not known",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := traced()
			in := egress.HostInput{
				Host: "a", Pods: []egress.Pod{shop, free, pod("new", "10.244.1.7"), pod("shop", "fd00:1::5")},
				Managed: map[string]bool{"free": true, "shop": true}, Strict: true,
			}
			if c.change != nil {
				c.change(&o, &in)
			}
			in.Cluster, _ = egress.Snapshot(o)
			got, ok := egress.TracePod(in, c.pod)
			if !ok || got.Planned != c.planned || got.Outcome != c.want || !strings.Contains(got.Why, c.why) {
				t.Errorf("planned %s, outcome %s (%s); want %s, %s (%s)", got.Planned, got.Outcome, got.Why, c.planned, c.want, c.why)
			}
			if c.host != "" && (len(got.Hops) != 1 || got.Hops[0].Host != c.host || got.Hops[0].Local != (c.host == "a")) {
				t.Errorf("hops %+v, want one at %s", got.Hops, c.host)
			}
		})
	}
	if _, ok := egress.TracePod(egress.HostInput{Host: "nowhere"}, shop); ok {
		t.Error("a host without address has a trace")
	}
}

// TestTraceNamesGroups: the group that counts, and those that do not.
func TestTraceNamesGroups(t *testing.T) {
	t.Parallel()
	o := traced()
	o.EgressIPs = []ovnv1.EgressIP{objectOfEgressIP("web", 19, "10.1.8.210"), objectOfEgressIP("all", 20, "10.1.8.211")}
	cluster, _ := egress.Snapshot(o)
	p := pod("shop", "10.244.1.5")
	got, _ := egress.TracePod(egress.HostInput{
		Host: "a", Cluster: cluster, Pods: []egress.Pod{p}, Namespaces: map[string]labels.Set{"shop": {"kubernetes.io/metadata.name": "shop"}},
	}, p)
	if ignored := strings.Join(got.Ignored, " "); got.Group.Name != "EgressIP/all" || ignored != "EgressIP/web shop" {
		t.Errorf("%s counts, and not %s", got.Group.Name, ignored)
	}
}

// What is inside is what the plan says, and its name is that of the networks which have it.
//
// Mutants killed: trace-sends-inside-out, trace-mixes-families.
func TestTraceToward(t *testing.T) {
	t.Parallel()
	o := traced()
	cluster, _ := egress.Snapshot(o)
	p := pod("shop", "10.244.1.5")
	trace, _ := egress.TracePod(egress.HostInput{
		Host: "a", Cluster: cluster, Pods: []egress.Pod{p}, Inside: []netip.Prefix{testenv.Prefix("10.244.0.0/16")},
	}, p)
	for to, want := range map[string]struct {
		outcome egress.Outcome
		network string
		named   int
	}{
		"203.0.113.9":     {egress.OutcomeEgressIP, "invalid Prefix", 0},
		"10.244.2.9":      {egress.OutcomeInside, "10.244.2.0/24", 1},
		"10.244.3.9":      {egress.OutcomeInside, "10.244.0.0/16", 0},
		"10.1.8.12":       {egress.OutcomeInside, "10.1.8.12/32", 1},
		"10.1.8.13":       {egress.OutcomeEgressIP, "invalid Prefix", 0},
		"169.254.169.254": {egress.OutcomeInside, "169.254.0.0/16", 0},
		"2001:db8::1":     {egress.OutcomeNoFamily, "invalid Prefix", 0},
		"224.0.0.1":       {egress.OutcomeInside, "invalid Prefix", 0},
	} {
		d := trace.Toward(testenv.Addr(to), egress.Networks(cluster))
		if d.Outcome != want.outcome || d.Network.String() != want.network || len(d.Named) != want.named {
			t.Errorf("%s: %s by %s of %v; want %+v", to, d.Outcome, d.Network, d.Named, want)
		}
	}
}

// Networks to which egress IPs do not apply are reached as without them, even while the pod is dropped
// or its egress host fails; not if nothing says that the pod's host carries that out.
//
// Mutant killed: trace-forgets-excluded.
func TestTraceTowardExcluded(t *testing.T) {
	t.Parallel()
	p := pod("shop", "10.244.1.5")
	for name, c := range map[string]struct {
		change func(*egress.Objects, *egress.HostInput)
		want   egress.Outcome
		why    string
	}{
		"by the annotation": {func(*egress.Objects, *egress.HostInput) {}, egress.OutcomeAsIs, "those of namespace shop apply to all destinations but 198.51.100.0/24."},
		"while it is dropped": {
			func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[1].EgressIPs = nil }, egress.OutcomeAsIs, "Egress IPs do not apply to 198.51.100.7",
		},
		"while the egress host is silent about it": {
			func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[1].Status.EgressIPs = nil }, egress.OutcomeAsIs, "Egress IPs do not apply to 198.51.100.7",
		},
		"while its agent fails": {
			func(o *egress.Objects, _ *egress.HostInput) { o.HostSubnets[0].Status.Conditions = nil }, egress.OutcomeUnknown, "does not report that the kernel is as planned",
		},
		"by the flag": {
			func(o *egress.Objects, in *egress.HostInput) {
				o.NetNamespaces[1].Annotations = nil
				in.Included = []netip.Prefix{testenv.Prefix("203.0.113.0/24")}
			}, egress.OutcomeAsIs, "--include-cidrs of the agents.",
		},
	} {
		o := traced()
		o.NetNamespaces[1].Annotations = map[string]string{v1.AnnotationExcludeCIDRs: "198.51.100.0/24"}
		in := egress.HostInput{Host: "a", Pods: []egress.Pod{p}}
		c.change(&o, &in)
		in.Cluster, _ = egress.Snapshot(o)
		trace, _ := egress.TracePod(in, p)
		d := trace.Toward(testenv.Addr("198.51.100.7"), nil)
		if d.Outcome != c.want || !d.Excluded.Contains(d.To) || !strings.Contains(d.Why, c.why) {
			t.Errorf("%s: %s by %s: %s", name, d.Outcome, d.Excluded, d.Why)
		}
		if d = trace.Toward(testenv.Addr("203.0.113.9"), nil); d.Excluded.IsValid() || d.Outcome != trace.Outcome {
			t.Errorf("%s: to others %+v", name, d)
		}
	}
}

// objectOfEgressIP selects the pods of the namespace shop.
func objectOfEgressIP(name string, netID uint32, ips ...string) ovnv1.EgressIP {
	return ovnv1.EgressIP{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: ovnv1.EgressIPSpec{
			EgressIPs: ips, NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "shop"}},
		},
		Status: ovnv1.EgressIPStatus{NetID: &netID},
	}
}

// judged publishes a verdict on a host.
func judged(o *egress.Objects, host string, status metav1.ConditionStatus, reason string) {
	for i := range o.HostSubnets {
		if h := &o.HostSubnets[i]; h.Name == host {
			h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: v1.ConditionOnline, Status: status, Reason: reason})
		}
	}
}
