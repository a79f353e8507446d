package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Each property names the mutant that it kills; hack/mutants plants them one
// by one.

func diff(a, b any) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty())
}

// The answer does not depend on the order of objects, nor on that of ranges and
// claims within one; but where a manual host claims more than it has capacity for, the
// first of its list count.
//
// Kills the mutants hosts-unsorted and claims-unsorted.
func TestPropertyOrderOfObjectsMeansNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		other := w.clone()
		other.NetNamespaces = rapid.Permutation(other.NetNamespaces).Draw(t, "namespaces in order")
		other.EgressIPs = rapid.Permutation(other.EgressIPs).Draw(t, "EgressIPs in order")
		other.HostSubnets = rapid.Permutation(other.HostSubnets).Draw(t, "hosts in order")
		for i := range other.HostSubnets {
			h := &other.HostSubnets[i]
			if len(h.EgressCIDRs) > 0 || w.Capacity[h.Name] == 0 && w.IPv6Capacity[h.Name] == 0 {
				h.EgressIPs = rapid.Permutation(h.EgressIPs).Draw(t, "claims in order")
			}
			h.EgressCIDRs = rapid.Permutation(h.EgressCIDRs).Draw(t, "ranges in order")
		}
		if d := diff(egress.Resolve(w.cluster()), egress.Resolve(other.cluster())); d != "" {
			t.Fatalf("resolutions differ:\n%s", d)
		}
		if d := diff(egress.Allocate(w.cluster()), egress.Allocate(other.cluster())); d != "" {
			t.Fatalf("allocations differ:\n%s", d)
		}
		for _, h := range w.HostSubnets {
			a, _ := egress.PlanFor(w.cluster(), egress.Resolve(w.cluster()), h.Name, podsOf(w), nil)
			b, _ := egress.PlanFor(other.cluster(), egress.Resolve(other.cluster()), h.Name, podsOf(other), nil)
			if d := diff(a, b); d != "" {
				t.Fatalf("plans of %s differ:\n%s", h.Name, d)
			}
		}
	})
}

// podsOf gives each namespace two pods, with addresses of both families. One of them has a
// label.
func podsOf(w *world) []egress.Pod {
	var pods []egress.Pod
	namespaces := make(map[string]labels.Set)
	for _, n := range w.NetNamespaces {
		namespaces[n.Name] = labelsOf(n.Name)
		for _, ip := range []netip.Addr{podIP(n.Name), podIPv6(n.Name)} {
			pods = append(pods, egress.Pod{Namespace: n.Name, Name: "pod", UID: n.Name, IP: ip})
		}
		web := podIP(n.Name).As4()
		web[2] = 1
		pods = append(pods, egress.Pod{
			Namespace: n.Name, Name: "web", UID: "web-" + n.Name, IP: netip.AddrFrom4(web), Labels: labels.Set{"app": "web"},
		})
	}
	grouped, _ := egress.Grouped(w.cluster(), pods, namespaces)
	return grouped
}

// sourceOf says what the API says about a pod of podsOf: the egress IPs that it leaves with, and
// whether a family without any leaves with the node's address.
func (w *world) sourceOf(namespace, pod string) (egressIPs []string, otherLeaves bool) {
	var first *ovnv1.EgressIP
	for i := range w.EgressIPs {
		e := &w.EgressIPs[i]
		selects := e.Spec.NamespaceSelector.MatchLabels["team"] == labelsOf(namespace)["team"] &&
			(len(e.Spec.PodSelector.MatchLabels) == 0 || pod == "web") && len(e.Spec.PodSelector.MatchExpressions) == 0
		if selects && len(e.Spec.EgressIPs) > 0 && (first == nil || e.Name < first.Name) {
			first = e
		}
	}
	if first != nil {
		return first.Spec.EgressIPs, first.Annotations[v1.AnnotationOtherFamily] == v1.OtherFamilyNode
	}
	i := slices.IndexFunc(w.NetNamespaces, func(n v1.NetNamespace) bool { return n.Name == namespace })
	n := &w.NetNamespaces[i]
	return n.EgressIPs, n.Annotations[v1.AnnotationOtherFamily] == v1.OtherFamilyNode
}

func podIP(namespace string) netip.Addr {
	var number byte
	fmt.Sscanf(namespace, "ns%d", &number) //nolint:errcheck // the generator wrote it
	return netip.AddrFrom4([4]byte{10, 244, 0, 10 + number})
}

func podIPv6(namespace string) netip.Addr {
	ipv4 := podIP(namespace).As4()
	return netip.AddrFrom16([16]byte{0xfd, 0, 2, 0x44, 15: ipv4[3]})
}

// Reading and deciding change no object.
func TestPropertyObjectsAreNotChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		before := w.clone()
		cluster, _ := egress.Snapshot(w.Objects)
		again, _ := egress.Snapshot(w.Objects)
		resolution := egress.Resolve(cluster)
		egress.Allocate(cluster)
		pods := podsOf(w)
		egress.PlanFor(cluster, resolution, w.HostSubnets[0].Name, pods, nil)
		if d := diff(before.Objects, w.Objects); d != "" {
			t.Fatalf("objects were changed:\n%s", d)
		}
		if d := diff(again, cluster); d != "" {
			t.Fatalf("the cluster was changed:\n%s", d)
		}
		if d := diff(podsOf(before), pods); d != "" {
			t.Fatalf("the pods were changed:\n%s", d)
		}
	})
}

// A packet of a pod leaves with an egress IP of the one object that says which it has, an EgressIP
// before the NetNamespace, and of its own family, or not at all, unless it is of a family that
// the object leaves alone: locally with an address that the host has, remotely through a
// host that knows the netid and has for it one address, of that namespace.
//
// Kills the mutants netid-shared, same-host-used, invalid-forgotten, unknown-is-node,
// other-family-leaves, other-familys-way and dropped-family-leaves.
func TestPropertyNoPacketLeavesWithAnotherAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		pods := append(podsOf(w), egress.Pod{Namespace: "unknown", Name: "pod", IP: netip.MustParseAddr("10.244.0.9")})
		plans := plansOf(w, pods)
		for name, plan := range plans {
			for _, path := range plan.Pods {
				if path.Namespace == "unknown" {
					t.Fatalf("a pod of an unknown namespace has a path on %s: %+v", name, path)
				}
				if wrong := trace(w, plans, plan, path); wrong != "" {
					t.Fatalf("pod of %s on %s: %s", path.Namespace, name, wrong)
				}
			}
		}
	})
}

func plansOf(w *world, pods []egress.Pod) map[string]egress.Plan {
	plans := make(map[string]egress.Plan)
	cluster := w.cluster()
	resolution := egress.Resolve(cluster)
	for _, h := range w.HostSubnets {
		plans[h.Name], _ = egress.PlanFor(cluster, resolution, h.Name, pods, nil)
	}
	return plans
}

// trace follows a packet and says what is wrong with its source.
func trace(w *world, plans map[string]egress.Plan, plan egress.Plan, path egress.PodPath) string {
	all, leaves := w.sourceOf(path.Namespace, path.Name)
	requests := slices.DeleteFunc(slices.Clone(all), func(ip string) bool { return strings.Contains(ip, ":") != path.IP.Is6() })
	if path.IP.Is6() {
		for i, written := range requests {
			requests[i] = netip.MustParseAddr(written).String()
		}
	}
	switch path.Kind {
	case egress.PathNode:
		if len(requests) > 0 || len(all) > 0 && !leaves {
			return "leaves with the node's address"
		}
	case egress.PathLocal:
		if !slices.ContainsFunc(plan.Hosted, func(h egress.HostedIP) bool { return h.IP == path.EgressIP }) {
			return fmt.Sprintf("leaves with %s, which the host does not have", path.EgressIP)
		}
		if !slices.Contains(requests, path.EgressIP.String()) {
			return fmt.Sprintf("leaves with %s, which it does not request", path.EgressIP)
		}
	case egress.PathRemote:
		if len(path.Via) == 0 {
			return "goes to no host"
		}
		for _, via := range path.Via {
			if wrong := traceRemote(w, plans, via, path, requests); wrong != "" {
				return wrong
			}
		}
	case egress.PathDrop, egress.PathRefuse:
		if len(all) == 0 {
			return "is dropped without having requested anything"
		}
	}
	return ""
}

// replaced reports whether the Node of the host is gone, and another host has its
// address.
func replaced(w *world, name string) bool {
	return w.Gone[name] && slices.ContainsFunc(w.HostSubnets, func(h v1.HostSubnet) bool {
		return !w.Gone[h.Name] && h.HostIP == w.host(name).HostIP
	})
}

func traceRemote(w *world, plans map[string]egress.Plan, via netip.Addr, path egress.PodPath, requests []string) string {
	hosts := 0
	var sources []string
	for name, plan := range plans {
		if plan.HostIP != via || replaced(w, name) {
			continue
		}
		hosts++ // more than one where Nodes contradict each other
		for _, hosted := range plan.Hosted {
			if hosted.NetID == path.NetID && hosted.IP.Is6() == path.IP.Is6() {
				sources = append(sources, hosted.IP.String())
			}
		}
	}
	if hosts == 0 {
		return fmt.Sprintf("goes to %s, which is no host", via)
	}
	if len(sources) != 1 || !slices.Contains(requests, sources[0]) {
		return fmt.Sprintf("host %s makes %v of it; requested are %v", via, sources, requests)
	}
	return ""
}

// Two hosts never have one address.
//
// Kills the mutant two-hosts-have-it.
func TestPropertyOneHostHasAnAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		holder := make(map[netip.Addr]string)
		for name, plan := range plansOf(w, nil) {
			for _, hosted := range plan.Hosted {
				if other, taken := holder[hosted.IP]; taken {
					t.Fatalf("%s and %s have %s", name, other, hosted.IP)
				}
				holder[hosted.IP] = name
			}
		}
	})
}

// A host that is considered offline moves no address: it changes which one is
// active, and nobody else's.
//
// Kills the mutant offline-releases.
func TestPropertyOfflineHostKeepsItsAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		off := w.clone()
		if w.sharedHostIP() {
			t.Skip("which of two hosts has an address depends on who is online")
		}
		gone := rapid.SampledFrom(w.HostSubnets).Draw(t, "gone").Name
		w.setOnline(gone, true)
		off.setOnline(gone, false)
		before, after := plansOf(w, nil), plansOf(off, nil)
		for name := range before {
			if d := diff(before[name].Hosted, after[name].Hosted); d != "" {
				t.Fatalf("%s has other addresses when %s is offline:\n%s", name, gone, d)
			}
		}
		was := egress.Resolve(w.cluster()).Groups
		for i, n := range egress.Resolve(off.cluster()).Groups {
			used := slices.ContainsFunc(was[i].Active, func(a egress.Assignment) bool { return a.Host == gone })
			if !used && !equalAssignments(was[i].Active, n.Active) {
				t.Fatalf("%s did not use %s, but changes from %v to %v", n.Name, gone, was[i].Active, n.Active)
			}
			for _, a := range n.Active {
				if a.Host == gone {
					t.Fatalf("%s uses %s on %s, which is offline", n.Name, a.IP, gone)
				}
			}
		}
	})
}

func equalAssignments(a, b []egress.Assignment) bool { return slices.Equal(a, b) }

// A mistake harms only those that it concerns: a namespace that requests no
// address of another and shares no netid changes nothing for the others, nor
// does a host that claims nothing.
//
// Kills the mutant anyone-sinks-all.
func TestPropertyStrangersDoNoHarm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		more := w.clone()
		more.NetNamespaces = append(more.NetNamespaces, v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: "stranger"}, NetID: new(uint32(99)),
			EgressIPs: rapid.SliceOfN(rapid.SampledFrom([]string{"172.16.0.1", "", "0.0.0.0", "fd00::1"}), 0, 3).Draw(t, "requests"),
		})
		more.HostSubnets = append(more.HostSubnets, v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: "x-stranger"}, HostIP: rapid.SampledFrom([]string{"", "172.16.0.9"}).Draw(t, "hostIP"),
		})
		before, after := egress.Resolve(w.cluster()), egress.Resolve(more.cluster())
		after.Groups = slices.DeleteFunc(after.Groups, func(n egress.GroupResult) bool { return n.Name == "stranger" })
		after.Hosts = slices.DeleteFunc(after.Hosts, func(h egress.HostResult) bool { return h.Name == "x-stranger" })
		if d := diff(before, after); d != "" {
			t.Fatalf("others are harmed:\n%s", d)
		}
	})
}

// Each request and claim has a message that names the address, and nothing
// has a reason without a sentence.
//
// Kills the mutant silent-offline.
func TestPropertyEverythingIsExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		explained := func(what, message string) {
			if len(message) < 20 || !strings.HasSuffix(message, ".") || strings.Contains(message, "%!") {
				t.Fatalf("%s is explained by %q", what, message)
			}
		}
		resolution := egress.Resolve(w.cluster())
		for _, n := range resolution.Groups {
			explained(n.Name, n.Message)
			for _, r := range n.Requests {
				explained(n.Name+" "+r.IP, r.Message)
			}
		}
		for _, h := range resolution.Hosts {
			explained(h.Name, h.Message)
			for _, c := range h.Claims {
				explained(h.Name+" "+c.IP.String(), c.Message)
			}
		}
		answer := egress.Allocate(w.cluster())
		for _, r := range answer.Released {
			explained(r.Host+" releases", r.Message)
		}
		for _, u := range answer.Unplaced {
			explained(u.Group+" unplaced", u.Message)
		}
	})
}

// Each family is decided as if there were no other, but for what they share: the netid, and
// capacities for both together.
//
// Kills the mutant loads-of-both.
func TestPropertyFamiliesAreDecidedByThemselves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := full()
		s.shared = false
		w := &world{Objects: drawObjects(t, s)}
		for i := range w.NetNamespaces {
			if w.NetNamespaces[i].NetID != nil {
				w.NetNamespaces[i].NetID = new(uint32(2000 + i))
			}
		}
		for i := range w.EgressIPs {
			if w.EgressIPs[i].Status.NetID != nil {
				w.EgressIPs[i].Status.NetID = new(uint32(3000 + i))
			}
		}
		for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
			alone := w.only(f)
			if d := diff(ofFamily(egress.Resolve(alone.cluster()), f), ofFamily(egress.Resolve(w.cluster()), f)); d != "" {
				t.Fatalf("%s is resolved otherwise with the other family:\n%s", f, d)
			}
			if d := diff(placedOf(egress.Allocate(alone.cluster()), f), placedOf(egress.Allocate(w.cluster()), f)); d != "" {
				t.Fatalf("%s is allocated otherwise with the other family:\n%s", f, d)
			}
		}
	})
}

// only returns the world without egress IPs of the other family. Its ranges stay, which
// make a host automatic.
func (w *world) only(f egress.Family) *world {
	alone := w.clone()
	others := func(written string) bool { return egress.RequestFamily(written) != f }
	for i := range alone.NetNamespaces {
		n := &alone.NetNamespaces[i]
		n.EgressIPs = slices.DeleteFunc(n.EgressIPs, others)
	}
	for i := range alone.EgressIPs {
		e := &alone.EgressIPs[i]
		e.Spec.EgressIPs = slices.DeleteFunc(e.Spec.EgressIPs, others)
	}
	for i := range alone.HostSubnets {
		h := &alone.HostSubnets[i]
		h.EgressIPs = slices.DeleteFunc(h.EgressIPs, others)
		h.AssignedEgressIPs = slices.DeleteFunc(h.AssignedEgressIPs, others)
	}
	return alone
}

// ofFamily are the results of one family, of namespaces and hosts.
func ofFamily(r egress.Resolution, f egress.Family) (results []any) {
	for _, n := range r.Groups {
		for _, request := range n.Requests {
			if egress.RequestFamily(request.IP) == f {
				results = append(results, request)
			}
		}
		for _, a := range n.Active {
			if egress.FamilyOf(a.IP) == f {
				results = append(results, a)
			}
		}
	}
	for _, h := range r.Hosts {
		for _, claim := range h.Claims {
			if egress.FamilyOf(claim.IP) == f {
				results = append(results, claim)
			}
		}
	}
	return results
}

// placedOf is the allocation of one family.
func placedOf(a egress.Allocation, f egress.Family) (results []any) {
	for _, h := range a.Hosts {
		for _, ip := range h.All() {
			if egress.FamilyOf(ip) == f {
				results = append(results, h.Host+" "+ip.String())
			}
		}
	}
	for _, r := range a.Released {
		if egress.FamilyOf(r.IP) == f {
			results = append(results, r)
		}
	}
	for _, u := range a.Unplaced {
		if egress.FamilyOf(u.IP) == f {
			results = append(results, u)
		}
	}
	return results
}
