package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// everyone lets all namespaces have addresses.
func everyone(string) bool { return true }

// drawing is one of pool "p", with requests of namespaces "a", "b" and so on, in order of age.
func drawing(cidr string, requests ...string) egress.Drawing {
	d := egress.Drawing{
		Pools: []egress.Pool{{Name: "p", CIDRs: testenv.Prefixes(cidr), Allows: everyone, PerNamespace: -1}},
		Now:   time.Unix(1e9, 0), Retention: time.Hour,
	}
	for i, name := range requests {
		d.Requests = append(d.Requests, egress.PoolRequest{Namespace: name, Name: "r", Pool: "p", Created: time.Unix(int64(i), 0)})
	}
	return d
}

// result is what requests have, or the reason why not, in order.
func result(d egress.Drawn) string {
	var all []string
	for _, r := range d.Requests {
		switch {
		case len(r.Addresses) > 0:
			all = append(all, fmt.Sprint(r.Addresses))
		default:
			all = append(all, string(r.Reason))
		}
	}
	return fmt.Sprint(all)
}

// Requests are given the first free address that can be an egress IP, the oldest first, one of each
// family that the pool has; and each that has none is told why.
//
// Mutants killed: addresses-of-hosts-are-given, claims-are-free, quota-is-off-by-one, one-family-is-enough,
// anyone-may-draw.
func TestDraw(t *testing.T) {
	cluster := func(g *given) egress.Cluster {
		c, _ := egress.Snapshot(g.Objects)
		return c
	}
	with := func(d egress.Drawing, change func(*egress.Drawing)) egress.Drawing {
		change(&d)
		return d
	}
	for name, c := range map[string]struct {
		drawing egress.Drawing
		want    string
	}{
		"in order of age":      {drawing("192.168.7.8/30", "b", "a"), "[[192.168.7.8] [192.168.7.9]]"},
		"until there is none":  {drawing("192.168.7.8/31", "a", "b", "c"), "[[192.168.7.8] [192.168.7.9] Exhausted]"},
		"no address of a host": {with(drawing("192.168.7.10/31", "a", "b"), func(d *egress.Drawing) { d.Cluster = cluster(new(given).host("w0")) }), "[[192.168.7.11] Exhausted]"},
		"no network's own":     {with(drawing("192.168.7.254/31", "a", "b"), func(d *egress.Drawing) { d.Cluster = cluster(new(given).labelled("w0")) }), "[[192.168.7.254] Exhausted]"},
		"none that is claimed": {with(drawing("192.168.7.200/31", "a"), func(d *egress.Drawing) { d.Cluster = cluster(new(given).host("w0", "192.168.7.200")) }), "[[192.168.7.201]]"},
		"none that is asked":   {with(drawing("192.168.7.200/31", "a"), func(d *egress.Drawing) { d.Cluster = cluster(new(given).namespace("x", "192.168.7.200")) }), "[[192.168.7.201]]"},
		"a pool that is full": {with(drawing("192.168.7.8/32", "a"), func(d *egress.Drawing) {
			d.Given = []egress.Given{{Name: "z.r", Request: "z/r", Pool: "p", Addresses: []netip.Addr{testenv.Addr("192.168.7.8")}}}
		}), "[Exhausted]"},
		"no such pool":          {with(drawing("192.168.7.8/32", "a"), func(d *egress.Drawing) { d.Requests[0].Pool = "q" }), "[NoPool]"},
		"a pool that is broken": {with(drawing("192.168.7.8/32", "a"), func(d *egress.Drawing) { d.Pools[0].Broken = "x" }), "[BadPool]"},
		"not for everyone":      {with(drawing("192.168.7.8/30", "a", "b"), func(d *egress.Drawing) { d.Pools[0].Allows = func(n string) bool { return n == "b" } }), "[NotAllowed [192.168.7.8]]"},
		"one for each": {with(drawing("192.168.7.8/30", "a", "a", "b"), func(d *egress.Drawing) {
			d.Requests[1].Name, d.Pools[0].PerNamespace = "s", 1
		}), "[[192.168.7.8] Quota [192.168.7.9]]"},
		"both families": {with(drawing("192.168.7.8/32", "a", "b"), func(d *egress.Drawing) {
			d.Pools[0].CIDRs = append(d.Pools[0].CIDRs, testenv.Prefix("fd00:7::8/125"))
		}), "[[192.168.7.8 fd00:7::8] Exhausted]"},
		"another has the name": {with(drawing("192.168.7.8/32", "a"), func(d *egress.Drawing) { d.Foreign = map[string]bool{"a.r": true} }), "[NameTaken]"},
	} {
		t.Run(name, func(t *testing.T) {
			d := egress.Draw(c.drawing)
			if got := result(d); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			for _, r := range d.Requests {
				if len(r.Message) < 20 || r.Reason == "" {
					t.Errorf("%s is explained by %q", r.Reason, r.Message)
				}
			}
		})
	}
}

// What a request that is gone had is kept for it, and for nobody else, until its time is over; what
// a request has stays, whatever becomes of quota and selector, and of the pool itself.
//
// Mutants killed: nothing-is-kept, kept-for-ever, the-quota-takes-away,
// a-broken-pool-takes-away.
func TestGivenStays(t *testing.T) {
	d := drawing("192.168.7.8/30", "a", "b")
	d.Given = egress.Draw(d).Given
	d.Requests = d.Requests[1:]
	gone := egress.Draw(d)
	if len(gone.Given) != 2 || gone.Given[0].ReleasedAt != d.Now || gone.Pools[0] != (egress.DrawnPool{Given: 1, Kept: 1}) || gone.Next != time.Hour {
		t.Errorf("a request is gone: %+v", gone)
	}
	d.Given, d.Now = gone.Given, d.Now.Add(59*time.Minute)
	d.Requests = append(d.Requests, egress.PoolRequest{Namespace: "c", Name: "r", Pool: "p", Created: d.Now})
	if got := result(egress.Draw(d)); got != "[[192.168.7.9] [192.168.7.10]]" {
		t.Errorf("before its time is over another one gets %s", got)
	}
	back := d
	back.Requests = append(slices.Clone(d.Requests), egress.PoolRequest{Namespace: "a", Name: "r", Pool: "p", Created: d.Now})
	if again := egress.Draw(back); result(again) != "[[192.168.7.9] [192.168.7.10] [192.168.7.8]]" || !again.Given[0].ReleasedAt.IsZero() {
		t.Errorf("it is back: %+v", again)
	}
	d.Now = d.Now.Add(time.Minute)
	over := egress.Draw(d)
	if !slices.Equal(over.Forgotten, []string{"a.r"}) {
		t.Errorf("its time is over: %+v", over)
	}
	back.Pools = []egress.Pool{{Name: "p", CIDRs: back.Pools[0].CIDRs, Allows: func(string) bool { return false }}}
	back.Given = egress.Draw(d).Given
	if got := result(egress.Draw(back)); got != "[[192.168.7.9] [192.168.7.10] NotAllowed]" {
		t.Errorf("the pool is for nobody any more: %s", got)
	}
	back.Pools = []egress.Pool{{Name: "p", Broken: `"192.168.7.x" in spec.cidrs is not a CIDR.`, Allows: everyone, PerNamespace: -1}}
	if got := egress.Draw(back); result(got) != "[[192.168.7.9] [192.168.7.10] BadPool]" || got.Requests[0].Reason != egress.ReasonGiven {
		t.Errorf("the pool cannot be read any more: %+v", got)
	}
	back.Pools = nil
	if got := egress.Draw(back); len(got.Requests[0].Addresses) == 0 || got.Given[0].Name != "b.r" || got.Requests[0].Reason != egress.ReasonOutOfPool {
		t.Errorf("the pool is gone: %+v", got)
	}
}

// Whatever comes, goes and changes: no address is given to two, what a request has stays, and the
// answer does not depend on the order of the lists.
//
// Mutants killed: free-forgets-what-it-gave, drawn-in-order-of-the-list.
func TestPropertyDraw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawing("192.168.7.8/29")
		d.Pools = append(d.Pools, egress.Pool{Name: "q", CIDRs: testenv.Prefixes("192.168.7.12/30", "fd00:7::8/126"), Allows: everyone, PerNamespace: 2})
		has := map[string][]netip.Addr{}
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "namespace")
			pool := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "pool")
			r := egress.PoolRequest{Namespace: name, Name: pool, Pool: pool, Created: time.Unix(rapid.Int64Range(0, 3).Draw(t, "created"), 0)}
			i := slices.IndexFunc(d.Requests, func(o egress.PoolRequest) bool { return o.Namespace == r.Namespace && o.Name == r.Name })
			switch {
			case i < 0:
				d.Requests = append(d.Requests, r)
			default:
				delete(has, r.Namespace+"."+r.Name)
				d.Requests = slices.Delete(slices.Clone(d.Requests), i, i+1)
			}
			if rapid.Bool().Draw(t, "something else changes at the same time") {
				continue
			}
			d.Now = d.Now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "minutes")) * time.Minute)
			drawn := egress.Draw(d)
			other := d
			other.Requests = rapid.Permutation(d.Requests).Draw(t, "requests in order")
			other.Given = rapid.Permutation(d.Given).Draw(t, "given in order")
			if diff := diff(drawn.Given, egress.Draw(other).Given); diff != "" {
				t.Fatalf("in another order:\n%s", diff)
			}
			owner := map[netip.Addr]string{}
			for _, g := range drawn.Given {
				for _, ip := range g.Addresses {
					if two, taken := owner[ip]; taken {
						t.Fatalf("%s and %s have %s", two, g.Name, ip)
					}
					owner[ip] = g.Name
				}
			}
			for name, ips := range has {
				j := slices.IndexFunc(drawn.Given, func(g egress.Given) bool { return g.Name == name })
				if j < 0 || !slices.Equal(drawn.Given[j].Addresses, ips) {
					t.Fatalf("%s had %v, and has not any more: %+v", name, ips, drawn.Given)
				}
			}
			for i, r := range d.Requests {
				if len(drawn.Requests[i].Addresses) > 0 {
					has[r.Namespace+"."+r.Name] = drawn.Requests[i].Addresses
				}
			}
			d.Given = drawn.Given
		}
	})
}

// A request that is made again has what it had only if it would be given anything.
//
// Mutants killed: again-whoever-asks, again-beyond-the-quota, again-although-it-is-used.
func TestMadeAgain(t *testing.T) {
	released := func(namespace, name, ip string) egress.Given {
		return egress.Given{
			Name: namespace + "." + name, Request: namespace + "/" + name, Pool: "p", Addresses: []netip.Addr{testenv.Addr(ip)},
			ReleasedAt: time.Unix(1e9-60, 0),
		}
	}
	d := drawing("192.168.7.8/29", "a", "a")
	d.Requests[1].Name = "s"
	d.Given = []egress.Given{released("a", "r", "192.168.7.9"), released("a", "s", "192.168.7.10")}
	if got := result(egress.Draw(d)); got != "[[192.168.7.9] [192.168.7.10]]" {
		t.Errorf("both are made again: %s", got)
	}
	d.Pools[0].PerNamespace = 1
	got := egress.Draw(d)
	if result(got) != "[[192.168.7.9] Quota]" || !slices.Equal(got.Forgotten, []string{"a.s"}) {
		t.Errorf("beyond the quota: %+v", got)
	}
	used := d
	used.Cluster, _ = egress.Snapshot(new(given).namespace("billing", "192.168.7.9").Objects)
	if got = egress.Draw(used); result(got) != "[Quota [192.168.7.10]]" {
		t.Errorf("what it had is requested by another one now: %+v", got)
	}
	d.Pools[0].Allows = func(string) bool { return false }
	if got = egress.Draw(d); result(got) != "[NotAllowed NotAllowed]" || len(got.Given) != 1 || got.Given[0].ReleasedAt.IsZero() {
		t.Errorf("of a namespace that the pool is not for any more: %+v", got)
	}
}

// What is kept for requests that are gone is within the quota of their namespace: one that makes
// requests and deletes them does not use a pool up.
//
// Mutant killed: kept-beyond-the-quota.
func TestKeptWithinQuota(t *testing.T) {
	d := drawing("192.168.7.8/29")
	d.Pools[0].PerNamespace = 2
	for i := range 6 {
		d.Now = d.Now.Add(time.Minute)
		d.Requests = []egress.PoolRequest{{Namespace: "a", Name: fmt.Sprint("r", i), Pool: "p", Created: d.Now}}
		drawn := egress.Draw(d)
		if len(drawn.Given) > 2 || len(drawn.Requests[0].Addresses) == 0 {
			t.Fatalf("request %d: %+v", i, drawn)
		}
		d.Given = drawn.Given
	}
	if d.Given[0].Name != "a.r4" {
		t.Errorf("the newest is kept, not %+v", d.Given)
	}
}

// An address that the pool has no more stays with its request until it is given another one.
//
// Mutant killed: out-of-the-pool-is-out-at-once.
func TestOutOfPool(t *testing.T) {
	d := drawing("192.168.7.8/32", "a")
	d.Given = egress.Draw(d).Given
	d.Pools[0].CIDRs = testenv.Prefixes("192.168.7.11/32")
	d.Given = append(d.Given, egress.Given{Name: "z.r", Request: "z/r", Pool: "p", Addresses: []netip.Addr{testenv.Addr("192.168.7.11")}})
	drawn := egress.Draw(d)
	if result(drawn) != "[[192.168.7.8]]" || drawn.Requests[0].Reason != egress.ReasonOutOfPool || len(drawn.Given) != 2 || drawn.Pools[0].Refused != 1 {
		t.Errorf("no other is free: %+v", drawn)
	}
	broken := d
	broken.Requests = slices.Clone(d.Requests)
	broken.Requests[0].Broken = "spec.podSelector: x."
	if drawn = egress.Draw(broken); result(drawn) != "[[192.168.7.8]]" || drawn.Requests[0].Reason != egress.ReasonBadRequest {
		t.Errorf("the request is broken, too: %+v", drawn)
	}
	d.Given = d.Given[:1]
	if drawn = egress.Draw(d); result(drawn) != "[[192.168.7.11]]" || drawn.Requests[0].Reason != egress.ReasonGiven {
		t.Errorf("another is free: %+v", drawn)
	}
}

// While a namespace is being deleted, its pods may outlive the request: they keep their addresses.
//
// Mutant killed: released-before-the-pods.
func TestNamespaceEnds(t *testing.T) {
	d := drawing("192.168.7.8/30", "a")
	d.Given, d.Requests = egress.Draw(d).Given, nil
	d.Ending = map[string]bool{"a": true}
	if drawn := egress.Draw(d); len(drawn.Given) != 1 || !drawn.Given[0].ReleasedAt.IsZero() {
		t.Errorf("the namespace is being deleted: %+v", drawn)
	}
	d.Ending = nil
	if drawn := egress.Draw(d); len(drawn.Given) != 1 || drawn.Given[0].ReleasedAt.IsZero() {
		t.Errorf("it is gone: %+v", drawn)
	}
}

// A selector that cannot be used any more changes nothing for those that have an address: the EgressIP
// goes on with the pods that it had, and no host loses an address of the pool.
//
// Mutants killed: broken-pods-are-written, broken-nodes-are-none.
func TestSelectorsThatBreak(t *testing.T) {
	bad := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "in"}}}
	web := metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	g := egress.Given{Name: "a.r", Request: "a/r", Pool: "p", Addresses: []netip.Addr{testenv.Addr("192.168.7.9")}}
	e, request := &ovnv1.EgressIP{}, &v1alpha1.EgressIPRequest{Spec: v1alpha1.EgressIPRequestSpec{PodSelector: web}}
	g.Write(e, request)
	request.Spec.PodSelector = bad
	g.Write(e, request)
	if diff := diff(e.Spec.PodSelector, web); diff != "" || len(e.Spec.EgressIPs) != 1 {
		t.Errorf("it has %v, and selects other pods:\n%s", e.Spec.EgressIPs, diff)
	}
	pool := &v1alpha1.EgressIPPool{Spec: v1alpha1.EgressIPPoolSpec{NodeSelector: &bad}}
	if hosts := egress.HostsOf(pool, map[string]labels.Set{"w0": nil}); !hosts.Has("w0") {
		t.Error("w0 may not have what it has any more")
	}
	if broken := egress.ReadPool(pool, nil).Broken; !strings.Contains(broken, "spec.nodeSelector") {
		t.Errorf("the pool says %q", broken)
	}
}

// Two requests have one address, as a controller may have given it that had not seen the other's: the
// older one keeps it, and the other one is given another.
//
// Mutant killed: two-keep-one-address.
func TestOneAddressOfTwo(t *testing.T) {
	d := drawing("192.168.7.8/30", "b", "a")
	for _, name := range []string{"a", "b"} {
		d.Given = append(d.Given, egress.Given{Name: name + ".r", Request: name + "/r", Pool: "p", Addresses: []netip.Addr{testenv.Addr("192.168.7.9")}})
	}
	if got := result(egress.Draw(d)); got != "[[192.168.7.9] [192.168.7.8]]" {
		t.Errorf("got %s", got)
	}
	d.Pools[0].CIDRs = testenv.Prefixes("192.168.7.9/32")
	if got := egress.Draw(d); result(got) != "[[192.168.7.9] Exhausted]" || !slices.Equal(got.Forgotten, []string{"a.r"}) {
		t.Errorf("no other is free: %+v", got)
	}
}
