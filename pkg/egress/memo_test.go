package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// A decision with a memory is the decision without: whatever changes, and changes back.
//
// Kills the mutants version-forgotten, given-forgotten, changed-host-holds,
// new-result-old-claim, other-host-holds, capacity-needs-no-allocation,
// index-of-other-claims, index-of-other-networks, index-of-other-pods, index-of-other-found,
// patch-keeps-siblings, patch-keeps-numbers, patch-counts-gone, patch-forgets-other-requests
// and places-are-forgotten.
func TestPropertyMemoryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		w.Evacuating, w.Unheard, w.Failing = map[string]bool{}, map[string]bool{}, map[string]map[netip.Addr]bool{}
		var memo egress.Memo
		versions := 0
		stamp := func(uid *types.UID, resourceVersion *string) {
			versions++
			*uid, *resourceVersion = "uid", fmt.Sprint(versions)
		}
		for i := range w.NetNamespaces {
			stamp(&w.NetNamespaces[i].UID, &w.NetNamespaces[i].ResourceVersion)
		}
		for i := range w.EgressIPs {
			stamp(&w.EgressIPs[i].UID, &w.EgressIPs[i].ResourceVersion)
		}
		for i := range w.HostSubnets {
			stamp(&w.HostSubnets[i].UID, &w.HostSubnets[i].ResourceVersion)
		}
		for range 4 {
			cluster, problems := egress.Snapshot(w.Objects)
			want := egress.Decision{Cluster: cluster, Problems: problems, Resolution: egress.Resolve(cluster), Allocation: egress.Allocate(cluster)}
			if d := diff(want, memo.Decide(w.Objects)); d != "" {
				t.Fatalf("without and with a memory:\n%s", d)
			}
			w = w.clone()
			for range rapid.IntRange(0, 2).Draw(t, "changes") {
				w.change(t, stamp)
			}
		}
	})
}

// Changes that random clusters are rarely affected by: one host changes, and the result of
// a namespace on another host must.
//
// Kills the mutants missing-pods-are-forgotten and index-of-other-addresses.
func TestMemoryOfRareChanges(t *testing.T) {
	for name, test := range map[string]struct {
		ip     string
		change func(*v1.HostSubnet)
		want   egress.Reason
	}{
		"pods in networks that nobody knows": {
			"192.168.7.200", func(h *v1.HostSubnet) { h.Status.Agent.PodNetworksMissing = notFound }, egress.ReasonPodNetworksMissing,
		},
		"the egress IP becomes an address of another host": {
			"fd00:7::200", func(h *v1.HostSubnet) { h.Status.IPv6Networks[1] = "fd00:7::200/128" }, egress.ReasonHostAddress,
		},
	} {
		g := new(given).namespace("red", test.ip).host("w0", test.ip).reports("w0", test.ip, "").host("w1").ipv6()
		for i := range g.NetNamespaces {
			g.NetNamespaces[i].UID, g.NetNamespaces[i].ResourceVersion = "uid", "1"
		}
		for i := range g.HostSubnets {
			g.HostSubnets[i].UID, g.HostSubnets[i].ResourceVersion = "uid", "1"
		}
		var memo egress.Memo
		if red, _ := memo.Decide(g.Objects).Resolution.Group("red"); red.Reason != egress.ReasonAssigned {
			t.Fatalf("%s: before it, red is %+v", name, red)
		}
		g.HostSubnets = slices.Clone(g.HostSubnets)
		other := g.HostSubnets[1].DeepCopy()
		test.change(other)
		other.ResourceVersion = "2"
		g.HostSubnets[1] = *other
		if red, _ := memo.Decide(g.Objects).Resolution.Group("red"); red.Reason != test.want {
			t.Errorf("%s: red is %+v, want reason %s", name, red, test.want)
		}
	}
}

// The controller takes over what was claimed by hand, as when the administrator clears the list: the
// claims are the same, and the allocation is another one.
//
// Kills the mutant index-of-others-to-manage.
func TestMemoryOfWhoManages(t *testing.T) {
	const ip = "192.168.7.200"
	g := new(given).egressIP("x", ip).labelled("w0").claims("w0", ip)
	g.HostSubnets[0].UID, g.HostSubnets[0].ResourceVersion = "uid", "1"
	var memo egress.Memo
	assigned := func() []netip.Addr { return memo.Decide(g.Objects).Allocation.Hosts[0].Assigned }
	if got := assigned(); len(got) > 0 {
		t.Errorf("what is claimed by hand is assigned: %v", got)
	}
	h := g.HostSubnets[0].DeepCopy()
	h.EgressIPs, h.AssignedEgressIPs, h.ResourceVersion = nil, []string{ip}, "2"
	g.HostSubnets = []v1.HostSubnet{*h}
	if got := assigned(); len(got) != 1 {
		t.Errorf("assigned are %v", got)
	}
}

// change changes one thing of the cluster, as the API server, an agent or the controller
// does.
func (w *world) change(t *rapid.T, stamp func(*types.UID, *string)) {
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		w.changeNamespace(t, stamp)
		return
	case 1:
		if len(w.EgressIPs) > 0 {
			w.changeEgressIP(t, stamp)
			return
		}
	}
	h := &w.HostSubnets[rapid.IntRange(0, len(w.HostSubnets)-1).Draw(t, "host")]
	flip := func(m map[string]bool) { m[h.Name] = !m[h.Name] }
	switch rapid.IntRange(0, 17).Draw(t, "of the host") {
	case 16:
		h.AssignedEgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(egressAddresses(33)), 0, 3, rapid.ID).Draw(t, "assigned")
		stamp(&h.UID, &h.ResourceVersion)
	case 17:
		if w.Assignable == nil {
			w.Assignable = map[string]bool{}
		}
		flip(w.Assignable)
	case 15:
		h.Status.FoundNetworks = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) v1.FoundNetwork {
			return network(rapid.SampledFrom([]string{v1.UsePods, v1.UseServices, v1.UseNodePods, v1.UseAPIServers}).Draw(t, "use"),
				rapid.SampledFrom([]string{"192.168.7.200/30", "192.168.8.0/24", "10.0.0.0/8", "192.168.7.201/32"}).Draw(t, "cidr"))
		}), 0, 2).Draw(t, "found")
		stamp(&h.UID, &h.ResourceVersion)
	case 12:
		h.EgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(egressAddresses(24)), 0, 4, rapid.ID).Draw(t, "claims")
		stamp(&h.UID, &h.ResourceVersion)
	case 13:
		servesIPv6(h, 0x20)
		if rapid.Bool().Draw(t, "IPv4 only") {
			h.Status.Agent.Families = nil
		}
		stamp(&h.UID, &h.ResourceVersion)
	case 14:
		w.IPv6Capacity[h.Name] = rapid.IntRange(-1, 3).Draw(t, "IPv6 capacity")
	case 11:
		h.Status.Agent.Overlaps = rapid.SliceOfN(rapid.SampledFrom([]v1.Overlap{
			{Used: "EgressIP/eip0", Ignored: "EgressIP/eip1", Pod: "ns1/web"},
			{Used: "EgressIP/eip0", Ignored: "ns1", Pod: "ns1/web"},
		}), 0, 2).Draw(t, "overlaps")
		h.Status.Agent.PodNetworksMissing = rapid.SampledFrom([]string{"", "Pod a/b is nowhere.", "Pod a/c is nowhere."}).Draw(t, "missing")
		stamp(&h.UID, &h.ResourceVersion)
	case 0:
		w.Verdicts[h.Name] = rapid.SampledFrom([]online.Verdict{
			{Online: true},
			{Doubtful: true},
			{Online: true, Closed: true},
			{},
			{Reason: online.ReasonNoAgent, Online: true},
		}).Draw(t, "verdict")
	case 1:
		flip(w.Evacuating)
	case 2:
		flip(w.Unheard)
	case 3:
		flip(w.Gone)
	case 4:
		w.Capacity[h.Name] = rapid.IntRange(-1, 3).Draw(t, "capacity")
	case 5:
		ip, _ := netip.ParseAddr(rapid.SampledFrom(egressAddresses(24)).Draw(t, "failing"))
		w.Failing[h.Name] = map[netip.Addr]bool{ip: true}
	case 6:
		for i := range h.Status.EgressIPs {
			c := &h.Status.EgressIPs[i]
			c.Configured = rapid.Bool().Draw(t, "configured")
			c.Reason = rapid.SampledFrom([]string{"", "AddressInUse", "NotConfigured"}).Draw(t, "reason")
		}
		stamp(&h.UID, &h.ResourceVersion)
	case 7:
		*h = drawHost(t, full(), slices.IndexFunc(w.HostSubnets, func(o v1.HostSubnet) bool { return o.Name == h.Name }), w.NetNamespaces)
		stamp(&h.UID, &h.ResourceVersion)
	case 8:
		if rapid.Bool().Draw(t, "another uplink") {
			h.Status.Agent.UplinkCIDR = h.HostIP + rapid.SampledFrom([]string{"/24", "/29", "/32"}).Draw(t, "uplink")
		}
		h.Status.Agent.OtherNetworks = rapid.SliceOfN(rapid.SampledFrom(otherNetworks()), 0, 2).Draw(t, "networks")
		h.Status.Agent.Addresses = rapid.SliceOfN(rapid.SampledFrom(egressAddresses(24)), 0, 2).Draw(t, "addresses")
		stamp(&h.UID, &h.ResourceVersion)
	case 9:
		h.Subnet = rapid.SampledFrom([]string{"", "10.244.9.0/24", "192.168.7.200/29"}).Draw(t, "subnet")
		stamp(&h.UID, &h.ResourceVersion)
	case 10:
		if len(w.HostSubnets) > 1 {
			w.HostSubnets = slices.DeleteFunc(w.HostSubnets, func(o v1.HostSubnet) bool { return o.Name == h.Name })
		}
	}
}

func (w *world) changeEgressIP(t *rapid.T, stamp func(*types.UID, *string)) {
	i := rapid.IntRange(0, len(w.EgressIPs)-1).Draw(t, "EgressIP")
	e := &w.EgressIPs[i]
	switch rapid.IntRange(0, 5).Draw(t, "of the EgressIP") {
	case 5:
		if w.OnlyOn == nil {
			w.OnlyOn = map[string]*egress.HostSet{}
		}
		w.OnlyOn[e.Name] = egress.NewHostSet(map[string]bool{"w0": rapid.Bool().Draw(t, "w0"), "w1": true})
		return
	case 4:
		var bad []metav1.LabelSelectorRequirement
		if len(e.Spec.PodSelector.MatchExpressions) == 0 {
			bad = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}
		}
		e.Spec.PodSelector.MatchExpressions = bad
	case 0:
		e.Spec.EgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(egressAddresses(33)), 0, 3, rapid.ID).Draw(t, "egressIPs")
	case 1:
		e.Status.NetID = new(uint32(rapid.IntRange(1001, 1008).Draw(t, "netid")))
	case 2:
		e.Spec.NamespaceSelector.MatchLabels = map[string]string{"team": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "team")}
	case 3:
		w.EgressIPs = slices.Delete(w.EgressIPs, i, i+1)
		return
	}
	stamp(&e.UID, &e.ResourceVersion)
}

func (w *world) changeNamespace(t *rapid.T, stamp func(*types.UID, *string)) {
	i := rapid.IntRange(0, len(w.NetNamespaces)-1).Draw(t, "namespace")
	n := &w.NetNamespaces[i]
	switch rapid.IntRange(0, 3).Draw(t, "of the namespace") {
	case 3:
		n.Status.Active = &v1.Assignment{IP: rapid.SampledFrom(egressAddresses(24)).Draw(t, "used")}
	case 0:
		n.EgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(egressAddresses(24)), 0, 3, rapid.ID).Draw(t, "egressIPs")
	case 1:
		n.NetID = new(uint32(rapid.IntRange(1001, 1008).Draw(t, "netid")))
	case 2:
		if len(w.NetNamespaces) > 1 {
			w.NetNamespaces = slices.Delete(w.NetNamespaces, i, i+1)
			return
		}
	}
	stamp(&n.UID, &n.ResourceVersion)
}

// Where nothing changes, or one object does, a decision about a cluster twice as large
// allocates little more than twice as much, and much less than one without a memory.
//
// Kills the mutants nothing-holds and always-allocates.
func TestMemoryCostsLittle(t *testing.T) {
	small, large := remembered(t, 100, 1000), remembered(t, 200, 2000)
	o := scale(200, 2000)
	afresh := testing.AllocsPerRun(3, func() { new(egress.Memo).Decide(o) })
	t.Logf("allocations: %.0f, of the double %.0f; without a memory %.0f", small, large, afresh)
	if large > 2.5*small {
		t.Errorf("the double takes %.0f allocations instead of %.0f", large, small)
	}
	if large > afresh/20 {
		t.Errorf("a decision takes %.0f allocations, and %.0f without a memory", large, afresh)
	}
}

// remembered is how much a decision allocates where one host's agent has reported.
func remembered(t *testing.T, hosts, namespaces int) float64 {
	t.Helper()
	o := scale(hosts, namespaces)
	var memo egress.Memo
	memo.Decide(o)
	reports := 0
	return testing.AllocsPerRun(5, func() {
		reports++
		h := &o.HostSubnets[reports]
		h.ResourceVersion = fmt.Sprint("later", reports)
		h.Status.EgressIPs[0].Configured = !h.Status.EgressIPs[0].Configured
		memo.Decide(o)
	})
}

// Where requests and claims change, the index is changed, and not made again; but where so
// many addresses have come that most may be gone.
//
// Kills the mutants always-indexes, never-indexes and patch-in-any-order.
func TestMemoryChangesTheIndex(t *testing.T) {
	const hosts, namespaces = 20, 100
	o := scale(hosts, namespaces)
	var memo egress.Memo
	memo.Decide(o)
	for i := range 100 {
		n, h := &o.NetNamespaces[i%namespaces], &o.HostSubnets[i%hosts]
		ip := fmt.Sprintf("10.3.%d.%d", i/250, 1+i%250)
		n.EgressIPs, n.ResourceVersion = []string{ip}, fmt.Sprint("later", i)
		memo.Decide(o)
		h.EgressIPs[0], h.ResourceVersion = ip, fmt.Sprint("later", i)
		memo.Decide(o)
	}
	if !memo.InOrder() {
		t.Error("the addresses of the index are not in order")
	}
	if made := memo.Indexes(); made != 1 {
		t.Errorf("the index was made %d times", made)
	}
	for i := range 500 {
		n := &o.NetNamespaces[i%namespaces]
		n.EgressIPs, n.ResourceVersion = []string{fmt.Sprintf("10.2.%d.%d", 100+i/250, 1+i%250)}, fmt.Sprint("last", i)
		memo.Decide(o)
	}
	if made := memo.Indexes(); made < 2 || made > 4 {
		t.Errorf("the index was made %d times where 600 addresses more were listed and 120 are", made)
	}
}
