package egress_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// shape bounds the clusters that are drawn. They are full: more requests than
// hosts, few addresses that many want, and ranges that overlap.
type shape struct {
	hosts, namespaces, requests int
	// automatic clusters have automatic hosts alone, and nobody requests an
	// address that another requests.
	automatic bool
	// uniform clusters have one range for all, and capacity for all.
	uniform bool
	// shared clusters have hosts with a capacity for both families together.
	shared bool
}

func full() shape { return shape{hosts: 5, namespaces: 8, requests: 3, shared: true} }

// egressAddresses are few, so that conflicts abound.
func egressAddresses(count int) []string {
	ip := netip.MustParseAddr("192.168.7.200")
	addresses := make([]string, count)
	for i := range addresses {
		addresses[i] = ip.String()
		ip = ip.Next()
	}
	return addresses
}

// drawObjects draws a cluster as the API would hold it.
func drawObjects(t *rapid.T, s shape) egress.Objects {
	objects := egress.Objects{Capacity: map[string]int{}, IPv6Capacity: map[string]int{}, Gone: map[string]bool{}, Verdicts: map[string]online.Verdict{}}
	drawNamespaces(t, s, &objects)
	hosts := rapid.IntRange(1, s.hosts).Draw(t, "hosts")
	for h := range hosts {
		objects.HostSubnets = append(objects.HostSubnets, drawHost(t, s, h, objects.NetNamespaces))
		name := objects.HostSubnets[h].Name
		if !s.uniform {
			objects.Capacity[name] = rapid.SampledFrom([]int{0, 0, 1, 1, 2, 3, -1}).Draw(t, "capacity")
		}
		objects.Verdicts[name] = online.Verdict{Online: rapid.IntRange(0, 4).Draw(t, "offline") != 0}
		if !s.uniform && rapid.IntRange(0, 9).Draw(t, "gone") == 0 {
			objects.Gone[name], objects.Verdicts[name] = true, online.Verdict{}
		}
	}
	dual := rapid.Bool().Draw(t, "IPv6 too")
	if dual {
		drawIPv6(t, s, &objects)
	}
	if rapid.Bool().Draw(t, "EgressIPs too") {
		drawEgressIPs(t, s, dual, &objects)
	}
	return objects
}

// drawEgressIPs adds EgressIPs to a cluster of NetNamespaces, and hosts for them.
func drawEgressIPs(t *rapid.T, s shape, dual bool, objects *egress.Objects) {
	const count = 3
	all := egressAddresses(s.namespaces*s.requests + count*s.requests)[s.namespaces*s.requests:]
	if dual {
		all = append(all, "fd00:7::300", "fd00:7::301")
	}
	own := rapid.Permutation(all).Draw(t, "addresses of EgressIPs")
	strange := []string{"192.168.7.10", "0.0.0.0", "10.0.0.1"}
	for i := range objects.NetNamespaces {
		strange = append(strange, objects.NetNamespaces[i].EgressIPs...)
	}
	for i := range rapid.IntRange(1, count).Draw(t, "EgressIPs") {
		e := ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("eip%d", i)}}
		if rapid.IntRange(0, 7).Draw(t, "unnumbered") > 0 || s.automatic {
			e.Status.NetID = new(uint32(3001 + i))
		}
		requests := rapid.IntRange(0, s.requests).Draw(t, "requests")
		e.Spec.EgressIPs, own = slices.Clone(own[:requests]), own[requests:]
		e.Spec.NamespaceSelector.MatchLabels = map[string]string{"team": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "team")}
		if rapid.Bool().Draw(t, "pods") {
			e.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
		}
		if !s.automatic {
			for j := range e.Spec.EgressIPs {
				if rapid.IntRange(0, 7).Draw(t, "strange") == 0 {
					e.Spec.EgressIPs[j] = rapid.SampledFrom(strange).Draw(t, "egressIP")
				}
			}
			if rapid.IntRange(0, 15).Draw(t, "joined") == 0 {
				e.Status.NetID = new(uint32(1001))
			}
			if rapid.IntRange(0, 15).Draw(t, "bad selector") == 0 {
				e.Spec.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}
			}
			e.Annotations = map[string]string{v1.AnnotationMode: rapid.SampledFrom([]string{"", v1.ModeOrdered, v1.ModeBalanced}).Draw(t, "mode")}
			if rapid.Bool().Draw(t, "other family leaves") {
				e.Annotations[v1.AnnotationOtherFamily] = v1.OtherFamilyNode
			}
		}
		objects.EgressIPs = append(objects.EgressIPs, e)
		if !s.uniform && rapid.IntRange(0, 2).Draw(t, "some hosts only") == 0 {
			if objects.OnlyOn == nil {
				objects.OnlyOn = map[string]*egress.HostSet{}
			}
			some := map[string]bool{}
			for i := range objects.HostSubnets {
				some[objects.HostSubnets[i].Name] = rapid.Bool().Draw(t, "this host")
			}
			objects.OnlyOn[e.Name] = egress.NewHostSet(some)
		}
	}
	objects.Assignable = map[string]bool{}
	for i := range objects.HostSubnets {
		h := &objects.HostSubnets[i]
		if s.uniform {
			continue
		}
		objects.Assignable[h.Name] = rapid.Bool().Draw(t, "assignable")
		h.AssignedEgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 2, rapid.ID).Draw(t, "assigned")
		if h.Status.Agent != nil && h.Status.Agent.UplinkCIDR == "" && !s.automatic {
			continue
		}
		if !s.automatic && len(strange) > 3 && rapid.IntRange(0, 3).Draw(t, "of both APIs") == 0 {
			h.AssignedEgressIPs = append(h.AssignedEgressIPs, rapid.SampledFrom(strange).Draw(t, "also assigned"))
		}
	}
}

// labelsOf are the labels of a namespace of the generator.
func labelsOf(namespace string) labels.Set {
	if podIP(namespace).As4()[3]%2 == 0 {
		return labels.Set{"team": "a"}
	}
	return labels.Set{"team": "b"}
}

// drawIPv6 adds egress IPs of IPv6 to a cluster of IPv4, which stays as it is.
func drawIPv6(t *rapid.T, s shape, objects *egress.Objects) {
	all := make([]string, s.namespaces*s.requests)
	for i := range all {
		all[i] = fmt.Sprintf("fd00:7::%x", 0x200+i)
	}
	own := rapid.Permutation(all).Draw(t, "IPv6 addresses")
	strange := append([]string{"fd00:7::10", "fd00:7::", "fd00:9::1", "fd00:244::5", "fe80::1", "FD00:7::200"}, all...)
	claims := []string{"fd00:7::10", "fd00:9::1", "fd00:7::199"}
	for i := range objects.NetNamespaces {
		n := &objects.NetNamespaces[i]
		requests := rapid.IntRange(0, s.requests).Draw(t, "IPv6 requests")
		list := slices.Clone(own[:requests])
		own = own[requests:]
		for j := range list {
			if !s.automatic && rapid.IntRange(0, 7).Draw(t, "strange") == 0 {
				list[j] = rapid.SampledFrom(strange).Draw(t, "IPv6 egressIP")
			}
		}
		claims = append(claims, list...)
		at := rapid.IntRange(0, len(n.EgressIPs)).Draw(t, "IPv6 after")
		n.EgressIPs = slices.Insert(slices.Clone(n.EgressIPs), at, list...)
		if rapid.Bool().Draw(t, "other family leaves") {
			metav1.SetMetaDataAnnotation(&n.ObjectMeta, v1.AnnotationOtherFamily, v1.OtherFamilyNode)
		}
	}
	slices.Sort(claims)
	claims = slices.Compact(claims)
	ranges := []string{"fd00:7::/64", "fd00:7::200/125", "fd00:7::200/126", "fd00:7::208/124", "fd00::/16"}
	for i := range objects.HostSubnets {
		h := &objects.HostSubnets[i]
		servesIPv6(h, i)
		if !s.uniform {
			h.EgressIPs = append(slices.Clone(h.EgressIPs), rapid.SliceOfNDistinct(rapid.SampledFrom(claims), 0, min(6, len(claims)/2), rapid.ID).Draw(t, "IPv6 claims")...)
		}
		switch {
		case s.uniform:
			h.EgressCIDRs = append(h.EgressCIDRs, "fd00:7::/64")
			continue
		case len(h.EgressCIDRs) > 0:
			h.EgressCIDRs = append(slices.Clone(h.EgressCIDRs), rapid.SampledFrom(ranges).Draw(t, "IPv6 range"))
		}
		if rapid.IntRange(0, 7).Draw(t, "IPv4 only") == 0 {
			h.Status.Agent.Families = nil
		}
		if !s.shared || rapid.Bool().Draw(t, "capacity by family") {
			objects.IPv6Capacity[h.Name] = rapid.SampledFrom([]int{100, 1, 1, 2, 3, -1}).Draw(t, "IPv6 capacity")
		}
	}
}

// servesIPv6 is what is known of a host with IPv6.
func servesIPv6(h *v1.HostSubnet, number int) {
	h.Status.IPv6Networks = []string{fmt.Sprintf("fd00:244:0:%x::/64", number), fmt.Sprintf("fd00:7::%x/128", 0x10+number)}
	h.Status.Agent.Families = []string{v1.FamilyIPv4, v1.FamilyIPv6}
	h.Status.Agent.UplinkNetworks = []string{"fd00:7::/64"}
}

// drawNamespaces gives most namespaces addresses and a netid of their own, and
// some what another has, or what nobody can have.
func drawNamespaces(t *rapid.T, s shape, objects *egress.Objects) {
	all := egressAddresses(s.namespaces * s.requests)
	own := rapid.Permutation(all).Draw(t, "addresses")
	strange := append([]string{"192.168.7.10", "192.168.7.11", "0.0.0.0", "192.168.7.255", "10.0.0.1"}, all...)
	for n := range rapid.IntRange(1, s.namespaces).Draw(t, "namespaces") {
		namespace := v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ns%d", n)}, NetID: new(uint32(1001 + n))}
		requests := rapid.IntRange(0, s.requests).Draw(t, "requests")
		namespace.EgressIPs, own = slices.Clone(own[:requests]), own[requests:]
		if !s.automatic {
			for i := range namespace.EgressIPs {
				if rapid.IntRange(0, 7).Draw(t, "strange") == 0 {
					namespace.EgressIPs[i] = rapid.SampledFrom(strange).Draw(t, "egressIP")
				}
			}
			if rapid.IntRange(0, 7).Draw(t, "joined") == 0 {
				namespace.NetID = new(uint32(rapid.IntRange(1001, 1000+s.namespaces).Draw(t, "netid")))
			} else if rapid.IntRange(0, 15).Draw(t, "unnumbered") == 0 {
				namespace.NetID = nil
			}
			mode := rapid.SampledFrom([]string{"", v1.ModeOrdered, v1.ModeBalanced}).Draw(t, "mode")
			namespace.Annotations = map[string]string{v1.AnnotationMode: mode}
			if len(namespace.EgressIPs) > 0 && rapid.IntRange(0, 3).Draw(t, "keeps") == 0 {
				namespace.Annotations[v1.AnnotationFailBack] = v1.FailBackNever
				namespace.Status.Active = &v1.Assignment{IP: rapid.SampledFrom(namespace.EgressIPs).Draw(t, "used")}
			}
		}
		objects.NetNamespaces = append(objects.NetNamespaces, namespace)
	}
}

// otherNetworks are those that hosts may have at other interfaces.
func otherNetworks() []v1.OtherNetwork {
	return []v1.OtherNetwork{
		{Interface: "eth1", CIDR: "192.168.7.128/25", Gateway: "192.168.7.129"},
		{Interface: "eth2", CIDR: "192.168.7.200/29"},
		{Interface: "bond0", CIDR: "192.168.7.200/29", Gateway: "192.168.7.207"},
		{Interface: "eth3", CIDR: "192.168.0.0/16"},
	}
}

func drawHost(t *rapid.T, s shape, h int, namespaces []v1.NetNamespace) v1.HostSubnet {
	name := fmt.Sprintf("w%d", h)
	host := v1.HostSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Host: name,
		HostIP: fmt.Sprintf("192.168.7.%d", 10+h),
		Subnet: fmt.Sprintf("10.244.%d.0/24", h),
	}
	agentReports(&host)
	if s.uniform {
		host.EgressCIDRs = []string{"192.168.7.0/24"}
		return host
	}
	ranges := []string{"192.168.7.0/24", "192.168.7.200/29", "192.168.7.200/30", "192.168.7.204/30", "192.168.7.208/28", "192.168.0.0/16"}
	if s.automatic || rapid.Bool().Draw(t, "automatic") {
		host.EgressCIDRs = rapid.SliceOfN(rapid.SampledFrom(ranges), 1, 2).Draw(t, "egressCIDRs")
	}
	if rapid.Bool().Draw(t, "reported") {
		host.Status.Agent.UplinkCIDR = host.HostIP + "/24"
	}
	if rapid.IntRange(0, 3).Draw(t, "further networks") == 0 {
		// What the uplink does not have may be in networks of other interfaces.
		host.Status.Agent.UplinkCIDR = host.HostIP + "/25"
		host.Status.Agent.OtherNetworks = rapid.SliceOfNDistinct(rapid.SampledFrom(otherNetworks()), 0, 3, func(n v1.OtherNetwork) string { return n.Interface }).Draw(t, "networks")
	}
	claims := []string{"192.168.7.10", "10.0.0.1", "192.168.7.199"}
	for _, n := range namespaces {
		claims = append(claims, n.EgressIPs...)
	}
	slices.Sort(claims)
	host.EgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(slices.Compact(claims)), 0, min(6, len(claims)/2), rapid.ID).Draw(t, "claims")
	if !s.automatic && rapid.IntRange(0, 15).Draw(t, "bad") == 0 {
		host.HostIP = rapid.SampledFrom([]string{"", "192.168.7.10"}).Draw(t, "hostIP")
		agentReports(&host)
	}
	return host
}

// world is a cluster that changes: what the API holds.
type world struct{ egress.Objects }

func (w *world) setOnline(host string, is bool) { w.Verdicts[host] = online.Verdict{Online: is} }

func (w *world) cluster() egress.Cluster {
	cluster, _ := egress.Snapshot(w.Objects)
	return cluster
}

func (w *world) host(name string) *v1.HostSubnet {
	i := slices.IndexFunc(w.HostSubnets, func(h v1.HostSubnet) bool { return h.Name == name })
	return &w.HostSubnets[i]
}

// write stores the claims of one host.
func (w *world) write(claims egress.HostClaims) {
	list := func(ips []netip.Addr) []string {
		texts := make([]string, 0, len(ips))
		for _, ip := range ips {
			texts = append(texts, ip.String())
		}
		return texts
	}
	h := w.host(claims.Host)
	if claims.Automatic {
		h.EgressIPs = list(claims.Claims)
	}
	h.AssignedEgressIPs = list(claims.Assigned)
}

// round writes one answer of the allocation and returns it.
func (w *world) round() egress.Allocation {
	answer := egress.Allocate(w.cluster())
	for _, claims := range answer.Hosts {
		w.write(claims)
	}
	return answer
}

// settle writes answers until one changes nothing, and returns the reasons of
// all releases on the way.
func (w *world) settle(t *rapid.T) (released []egress.Release) {
	for range 60 {
		before := w.placement()
		answer := w.round()
		released = append(released, answer.Released...)
		if equal(before, w.placement()) {
			return released
		}
	}
	t.Fatalf("60 answers, and each changes something")
	return nil
}

// placement is what the controller manages of the lists of all hosts, as "ip@host", in order.
func (w *world) placement() []string {
	var list []string
	for _, h := range w.HostSubnets {
		if len(h.EgressCIDRs) > 0 {
			for _, ip := range h.EgressIPs {
				list = append(list, ip+"@"+h.Name)
			}
		}
		for _, ip := range h.AssignedEgressIPs {
			list = append(list, ip+"@"+h.Name+" assigned")
		}
	}
	slices.Sort(list)
	return list
}

// sharedHostIP reports whether two hosts have one address.
func (w *world) sharedHostIP() bool {
	seen := make(map[string]bool)
	for _, h := range w.HostSubnets {
		if h.HostIP != "" && seen[h.HostIP] {
			return true
		}
		seen[h.HostIP] = true
	}
	return false
}

func equal(a, b []string) bool { return slices.Equal(a, b) }

// clone makes a world that can be changed on its own.
func (w *world) clone() *world {
	c := &world{Objects: egress.Objects{
		Verdicts: maps.Clone(w.Verdicts), Capacity: maps.Clone(w.Capacity), IPv6Capacity: maps.Clone(w.IPv6Capacity), DefaultCapacity: w.DefaultCapacity, Networks: w.Networks,
		OnlyOn: maps.Clone(w.OnlyOn),
		Gone:   maps.Clone(w.Gone), Awaited: maps.Clone(w.Awaited),
		Assignable: maps.Clone(w.Assignable), Evacuating: maps.Clone(w.Evacuating), Unheard: maps.Clone(w.Unheard), Failing: maps.Clone(w.Failing),
	}}
	for _, n := range w.NetNamespaces {
		c.NetNamespaces = append(c.NetNamespaces, *n.DeepCopy())
	}
	for _, e := range w.EgressIPs {
		c.EgressIPs = append(c.EgressIPs, *e.DeepCopy())
	}
	for _, h := range w.HostSubnets {
		c.HostSubnets = append(c.HostSubnets, *h.DeepCopy())
	}
	return c
}

// The generator has to draw what the properties speak of; a cluster that is
// next to empty proves nothing.
func TestGeneratorDrawsFullClusters(t *testing.T) {
	seen := map[egress.Reason]int{}
	draw := func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		for _, n := range egress.Resolve(w.cluster()).Groups {
			for _, request := range n.Requests {
				seen[request.Reason]++
			}
		}
		for _, release := range egress.Allocate(w.cluster()).Released {
			seen["release:"+release.Reason]++
		}
	}
	for range 10 {
		rapid.Check(t, draw)
	}
	t.Log(seen)
	for _, reason := range []egress.Reason{
		egress.ReasonAssigned, egress.ReasonNotClaimed, egress.ReasonNoEligibleHost, egress.ReasonHostOffline,
		egress.ReasonMultipleNamespaces, egress.ReasonMultipleHosts, egress.ReasonSameHost, egress.ReasonDuplicateNetID,
		egress.ReasonHostAddress, egress.ReasonOutsideNetwork, egress.ReasonBadAddress, egress.ReasonDropped,
		"release:" + egress.ReasonNotRequested, "release:" + egress.ReasonOutsideRange, "release:" + egress.ReasonHostOffline,
		"release:" + egress.ReasonCapacity, "release:" + egress.ReasonSameHost, "release:" + egress.ReasonMultipleHosts,
		"release:" + egress.ReasonBadHost,
	} {
		if seen[reason] == 0 {
			t.Errorf("no drawn cluster has %s: %v", reason, seen)
		}
	}
}
