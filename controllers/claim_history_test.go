package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// restoring is a cluster into which an export is restored, and its clock.
type restoring struct {
	*store
	t     *testing.T
	cache *lagging
	clock *testclock.FakeClock
	job   *egressReconciler
}

// newRestoring is a cluster with two Nodes, that are Ready, and their HostSubnets.
func newRestoring(t *testing.T) *restoring {
	t.Helper()
	r := &restoring{store: newStore(), t: t, clock: testclock.NewFakeClock(time.Unix(1e9, 0))}
	for i, name := range []string{"node1", "node2"} {
		r.nodes[name] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		setReady(r.nodes[name], true)
		r.hosts[name] = &v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("host " + name)}, Host: name, HostIP: fmt.Sprintf("192.168.7.%d", 11+i),
		}
		objects.AgentReports(r.hosts[name])
		r.stamp(r.hosts[name], true)
	}
	r.cache = &lagging{store: r.store}
	r.start()
	return r
}

// start replaces the controller by another one.
func (r *restoring) start() {
	r.job = onStore(r.store, r.cache, r.clock)
	r.job.history.retention = 5 * time.Minute
}

// settle lets the controller work until it has nothing to write.
func (r *restoring) settle() {
	r.t.Helper()
	for before := -1; before != r.version; {
		before = r.version
		r.cache.namespaces, r.cache.hosts, r.cache.node = len(r.past)-1, len(r.past)-1, len(r.past)-1
		if _, err := passAndPublish(r.job); err != nil {
			r.t.Fatal(err)
		}
	}
}

// claims are the lists of all hosts, as "ip@host".
func (r *restoring) claims() []string {
	var all []string
	for name, h := range r.hosts {
		for _, ip := range h.EgressIPs {
			all = append(all, ip+"@"+name)
		}
	}
	slices.Sort(all)
	return all
}

func (r *restoring) want(claims ...string) {
	r.t.Helper()
	if got := r.claims(); !slices.Equal(got, claims) {
		r.t.Errorf("the claims are %v, want %v", got, claims)
	}
}

func (r *restoring) namespace(name string, egressIPs ...string) {
	r.namespaces[name] = &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, NetID: new(uint32(len(r.namespaces) + 10)), EgressIPs: egressIPs,
	}
	r.stamp(r.namespaces[name], true)
}

func (r *restoring) host(name string, change func(*v1.HostSubnet)) {
	change(r.hosts[name])
	r.stamp(r.hosts[name], true)
}

// export reads testdata/export.yaml.
func export(t *testing.T) (objects []any) {
	t.Helper()
	text, err := os.ReadFile("testdata/export.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []json.RawMessage }
	if err := yaml.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		var kind metav1.TypeMeta
		var h v1.HostSubnet
		var n v1.NetNamespace
		if err := json.Unmarshal(item, &kind); err != nil {
			t.Fatal(err)
		}
		if kind.Kind == "HostSubnet" {
			err, objects = json.Unmarshal(item, &h), append(objects, &h)
		} else {
			err, objects = json.Unmarshal(item, &n), append(objects, &n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return objects
}

// permutations are all orders of the positions up to count.
func permutations(count int) [][]int {
	if count == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, p := range permutations(count - 1) {
		for at := range count {
			all = append(all, slices.Insert(slices.Clone(p), at, count-1))
		}
	}
	return all
}

// TestExportIsRestoredInEveryOrder: each address ends on the host where it was, and
// stays there, whatever came first.
//
// Kills the mutant nobody-waits-here.
func TestExportIsRestoredInEveryOrder(t *testing.T) {
	objects := export(t)
	for _, order := range permutations(len(objects)) {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			r := newRestoring(t)
			for _, i := range order {
				switch o := objects[i].(type) {
				case *v1.HostSubnet:
					r.host(o.Name, func(h *v1.HostSubnet) {
						h.EgressCIDRs, h.EgressIPs = slices.Clone(o.EgressCIDRs), slices.Clone(o.EgressIPs)
					})
				case *v1.NetNamespace:
					r.namespace(o.Name, o.EgressIPs...)
				}
				r.clock.Step(time.Minute)
				r.settle()
			}
			r.want("192.168.7.200@node1", "192.168.7.201@node1", "192.168.7.202@node2")
			r.clock.Step(time.Hour)
			r.settle()
			r.want("192.168.7.200@node1", "192.168.7.201@node1", "192.168.7.202@node2")
		})
	}
}

// TestClaimsWaitForRequests: what a user wrote waits for a while; what somebody gave
// up does not.
//
// Kills the mutants awaited-for-ever, had-is-forgotten and requested-is-forgotten.
func TestClaimsWaitForRequests(t *testing.T) {
	automatic := func(r *restoring, egressIPs ...string) {
		r.host("node1", func(h *v1.HostSubnet) { h.EgressCIDRs, h.EgressIPs = []string{"192.168.7.192/26"}, egressIPs })
	}
	for name, test := range map[string]func(r *restoring){
		"for five minutes": func(r *restoring) {
			automatic(r, "192.168.7.200")
			r.settle()
			r.clock.Step(5*time.Minute - time.Second)
			r.settle()
			r.want("192.168.7.200@node1")
			r.clock.Step(2 * time.Second)
			r.settle()
			r.want()
		},
		"the controller looks again by itself": func(r *restoring) {
			automatic(r, "192.168.7.200")
			r.settle()
			r.clock.Step(time.Minute)
			r.cache.hosts, r.cache.node = len(r.past)-1, len(r.past)-1
			result, err := r.job.Reconcile(context.Background(), reconcile.Request{})
			if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter > 4*time.Minute {
				r.t.Errorf("result %v, %v; want another pass within four minutes", result, err)
			}
		},
		"not if the request was withdrawn": func(r *restoring) {
			automatic(r)
			r.namespace("shop", "192.168.7.200")
			r.settle()
			r.want("192.168.7.200@node1")
			r.namespace("shop")
			r.settle()
			r.want()
		},
		"not if the request of a restored claim was withdrawn": func(r *restoring) {
			automatic(r, "192.168.7.200")
			r.namespace("shop", "192.168.7.200")
			r.settle()
			delete(r.namespaces, "shop")
			r.stamp(r.hosts["node1"], false)
			r.settle()
			r.want()
		},
		"not if it was withdrawn while no controller ran": func(r *restoring) {
			automatic(r)
			r.namespace("shop", "192.168.7.200")
			r.settle()
			status := r.namespaces["shop"].Status
			r.namespace("shop")
			r.namespaces["shop"].Status = status
			r.stamp(r.namespaces["shop"], false)
			r.start()
			r.settle()
			r.want()
		},
		"not if the agent says who had it": func(r *restoring) {
			automatic(r, "192.168.7.200")
			r.host("node1", func(h *v1.HostSubnet) {
				h.Status.EgressIPs = []v1.ClaimStatus{{IP: "192.168.7.200", Namespace: "shop", State: v1.StateActive}}
			})
			r.settle()
			r.want()
		},
		"again after a restart": func(r *restoring) {
			automatic(r, "192.168.7.200")
			r.settle()
			r.clock.Step(4 * time.Minute)
			r.start()
			r.clock.Step(4 * time.Minute)
			r.settle()
			r.want("192.168.7.200@node1")
		},
		"a new HostSubnet of the name starts again": func(r *restoring) {
			automatic(r)
			r.namespace("shop", "192.168.7.200")
			r.settle()
			delete(r.namespaces, "shop")
			r.host("node1", func(h *v1.HostSubnet) { h.UID = "restored" })
			r.settle()
			r.want("192.168.7.200@node1")
		},
	} {
		t.Run(name, func(t *testing.T) { test(newRestoring(t)) })
	}
}

// TestOwnClaimsAreNotAwaited: what the controller wrote itself is released as soon as it
// is not requested any more, even if no look has shown it with its request. So it yields to
// a list that is restored just then.
//
// Kills the mutant own-claims-are-awaited.
func TestOwnClaimsAreNotAwaited(t *testing.T) {
	c := claimHistory{retention: time.Minute}
	h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "a"}, EgressCIDRs: []string{"10.0.0.0/24"}}
	now := time.Unix(1e9, 0)
	c.awaited(view{hosts: []*v1.HostSubnet{h}}, now)
	h.EgressIPs = []string{"10.0.0.1"}
	c.wrote(h.UID, h.EgressIPs)
	if all := c.awaited(view{hosts: []*v1.HostSubnet{h}}, now); len(all) > 0 {
		t.Errorf("%v are awaited, which the controller wrote", all)
	}
	h.EgressIPs = []string{"10.0.0.1", "10.0.0.2"}
	if all := c.awaited(view{hosts: []*v1.HostSubnet{h}}, now); len(all["node1"]) != 1 || all["node1"][0].String() != "10.0.0.2" {
		t.Errorf("%v are awaited, want what someone else wrote", all)
	}
}

// The history holds no claims that are gone.
func TestClaimHistoryForgets(t *testing.T) {
	c := claimHistory{retention: time.Minute}
	h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "a"}, EgressCIDRs: []string{"10.0.0.0/24"}, EgressIPs: []string{"10.0.0.1"}}
	c.wrote(h.UID, h.EgressIPs)
	c.awaited(view{hosts: []*v1.HostSubnet{h}}, time.Unix(1e9, 0))
	c.awaited(view{}, time.Unix(1e9, 0))
	if all := slices.Collect(maps.Keys(c.known)); len(all) > 0 {
		t.Errorf("it knows %v", all)
	}
}
