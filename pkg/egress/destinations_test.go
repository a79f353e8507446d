package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// destinationObjects are a cluster of two hosts with one pod of namespace shop on the second. The
// egress IP of the namespace, if it has annotations, and those of EgressIPs are on the first.
func destinationObjects(shop map[string]string, egressIPs ...map[string]string) egress.Objects {
	host := func(name, ip string, claims ...string) v1.HostSubnet {
		return v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Host: name, HostIP: ip, EgressIPs: claims,
			Status: v1.HostSubnetStatus{Agent: &v1.AgentStatus{UplinkCIDR: ip + "/24", Families: []string{v1.FamilyIPv4, v1.FamilyIPv6}}},
		}
	}
	n := v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: shop}, NetName: "shop", NetID: new(uint32(7))}
	claims := []string{}
	if shop != nil {
		n.EgressIPs = []string{"192.168.7.200"}
		claims = append(claims, "192.168.7.200")
	}
	objects := egress.Objects{NetNamespaces: []v1.NetNamespace{n}}
	for i, annotations := range egressIPs {
		ip := fmt.Sprintf("192.168.7.%d", 201+i)
		claims = append(claims, ip)
		objects.EgressIPs = append(objects.EgressIPs, ovnv1.EgressIP{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("eip%d", i), Annotations: annotations},
			Spec:       ovnv1.EgressIPSpec{EgressIPs: []string{ip}},
			Status:     ovnv1.EgressIPStatus{NetID: new(uint32(20 + i))},
		})
	}
	objects.HostSubnets = []v1.HostSubnet{host("n1", "192.168.7.11", claims...), host("n2", "192.168.7.12")}
	return objects
}

// decideDestinations is the path of the pod, and what is wrong with the objects.
func decideDestinations(t interface {
	Helper()
	Fatal(...any)
}, objects egress.Objects, included ...netip.Prefix,
) (egress.PodPath, []egress.Problem) {
	t.Helper()
	cluster, problems := egress.Snapshot(objects)
	decided, ok := egress.DecideHost(egress.HostInput{
		Host: "n2", Cluster: cluster, Included: included,
		Pods:       []egress.Pod{{Namespace: "shop", Name: "web", UID: "1", IP: netip.MustParseAddr("10.244.2.5")}},
		Namespaces: map[string]labels.Set{"shop": {}},
	})
	if !ok || len(decided.Plan.Pods) != 1 {
		t.Fatal("no path", decided)
	}
	return decided.Plan.Pods[0], problems
}

func lists(exclude, include string) map[string]string {
	return map[string]string{v1.AnnotationExcludeCIDRs: exclude, v1.AnnotationIncludeCIDRs: include}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// tooManyNetworks are more than a list may have.
func tooManyNetworks() string {
	var list []string
	for i := range egress.MaxDestinations + 1 {
		list = append(list, fmt.Sprintf("198.51.%d.0/24", i))
	}
	return strings.Join(list, ",")
}

// To which addresses outside a pod's egress IP applies, by the lists of its object and of the cluster.
//
// Mutant killed: mistakes-let-others-decide.
func TestDestinations(t *testing.T) {
	for _, c := range []struct {
		name             string
		exclude, include string
		cluster          []netip.Prefix
		applies, not     string
	}{
		{name: "none", applies: "203.0.113.9 10.1.1.1"},
		{name: "excluded", exclude: "10.0.0.0/8", applies: "203.0.113.9 11.0.0.0", not: "10.0.0.0 10.255.255.255"},
		{name: "a single address", exclude: "10.1.1.1", applies: "10.1.1.0 10.1.1.2", not: "10.1.1.1"},
		{name: "included", include: "203.0.113.0/24, 198.51.100.7", applies: "203.0.113.9 198.51.100.7", not: "10.1.1.1 198.51.100.8 203.0.112.255"},
		{name: "the most specific one counts", exclude: "10.0.0.0/8,10.1.2.0/24", include: "10.1.0.0/16", applies: "10.1.1.1 10.1.3.1", not: "10.2.0.1 10.1.2.1 203.0.113.9"},
		{name: "everything is excluded", exclude: "0.0.0.0/0", not: "0.0.0.1 203.0.113.9 255.255.255.254"},
		{name: "everything is included", include: "0.0.0.0/0", applies: "203.0.113.9 10.1.1.1"},
		{name: "all but some", exclude: "10.0.0.0/8", include: "0.0.0.0/0", applies: "203.0.113.9", not: "10.1.1.1"},
		{name: "included for all", cluster: prefixes("203.0.113.0/24"), applies: "203.0.113.9", not: "10.1.1.1"},
		{name: "included for all, and more", include: "10.0.0.0/8", cluster: prefixes("203.0.113.0/24"), applies: "203.0.113.9 10.1.1.1", not: "198.51.100.1"},
		{name: "included for all, but not for it", exclude: "203.0.113.0/25", cluster: prefixes("203.0.113.0/24"), applies: "203.0.113.200", not: "203.0.113.9"},
		{name: "the same network for all and not for it", exclude: "203.0.113.0/24", cluster: prefixes("203.0.113.0/24"), not: "203.0.113.9 10.1.1.1"},
		{name: "for all, and it wants all", include: "0.0.0.0/0", cluster: prefixes("203.0.113.0/24"), applies: "203.0.113.9 10.1.1.1"},
		// On the safe side.
		{name: "excluded is no network", exclude: "10.0.0.0/40, 192.0.2.0/24", applies: "10.1.1.1", not: "192.0.2.1"},
		{name: "included is no network", include: "203.0.113.0/240", applies: "203.0.113.9 10.1.1.1"},
		{name: "excluded has host bits", exclude: "203.0.113.7/8, 192.0.2.0/24", applies: "203.0.113.7 203.0.113.9 203.1.1.1", not: "192.0.2.1"},
		{name: "included has host bits", include: "203.0.113.9/24", applies: "203.0.113.9 203.0.113.1", not: "10.1.1.1"},
		{name: "one included is no network", exclude: "192.0.2.0/24", include: "203.0.113.0/24, everything", applies: "203.0.113.9 10.1.1.1 192.0.2.1"},
		{name: "one included is no network, and all is excluded", exclude: "0.0.0.0/0", include: "203.0.113.0/24, everything", applies: "203.0.113.9"},
		{name: "one included is no network, and others are for all", include: "203.0.113.0/24, everything", cluster: prefixes("10.0.0.0/8"), applies: "203.0.113.9 10.1.1.1 192.0.2.1"},
		{name: "too many are included, and others are for all", include: tooManyNetworks(), cluster: prefixes("10.0.0.0/8"), applies: "198.51.0.1 203.0.113.9"},
		{name: "in both lists", exclude: "203.0.113.0/24", include: "203.0.113.0/24", applies: "203.0.113.9", not: "10.1.1.1"},
	} {
		for kind, objects := range map[string]egress.Objects{
			"NetNamespace": destinationObjects(lists(c.exclude, c.include)),
			"EgressIP":     destinationObjects(nil, lists(c.exclude, c.include)),
		} {
			path, _ := decideDestinations(t, objects, c.cluster...)
			if path.Kind != egress.PathRemote {
				t.Fatalf("%s, %s: path %v", c.name, kind, path)
			}
			excluded := func(ip string) bool {
				return slices.ContainsFunc(path.Excluded, func(n netip.Prefix) bool { return n.Contains(netip.MustParseAddr(ip)) })
			}
			for ip := range strings.FieldsSeq(c.applies) {
				if excluded(ip) {
					t.Errorf("%s, %s: the egress IP does not apply to %s", c.name, kind, ip)
				}
			}
			for ip := range strings.FieldsSeq(c.not) {
				if !excluded(ip) {
					t.Errorf("%s, %s: the egress IP applies to %s", c.name, kind, ip)
				}
			}
		}
	}
}

// given: lists of networks, with one another in them, for several objects that say egress IPs for
// one pod; then an address is excluded exactly if by each object's lists the most specific network
// that it is in says so; and no network contains another.
//
// Mutants killed: least-specific-counts, first-groups-destinations-alone, cluster-before-group.
func TestMostSpecificDestinationCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		network := rapid.Custom(func(t *rapid.T) string {
			bits := rapid.IntRange(0, 6).Draw(t, "bits")
			if rapid.IntRange(0, 5).Draw(t, "address") == 0 {
				bits = 32
			}
			ip := netip.AddrFrom4([4]byte{byte(rapid.IntRange(0, 63).Draw(t, "network")) << 2, 0, 0, 1})
			return netip.PrefixFrom(ip, bits).Masked().String()
		})
		list := rapid.SliceOfN(network, 0, 4)
		var all []map[string]string
		for range rapid.IntRange(1, 3).Draw(t, "objects") {
			all = append(all, lists(strings.Join(list.Draw(t, "exclude"), ","), strings.Join(list.Draw(t, "include"), ",")))
		}
		var cluster []netip.Prefix
		for _, text := range list.Draw(t, "cluster") {
			cluster = append(cluster, netip.MustParsePrefix(text))
		}
		objects := destinationObjects(nil, all...)
		if rapid.Bool().Draw(t, "namespace, too") {
			objects = destinationObjects(all[0], all[1:]...)
		}
		path, _ := decideDestinations(t, objects, cluster...)
		for i, n := range path.Excluded {
			if i > 0 && path.Excluded[i-1].Overlaps(n) {
				t.Fatalf("%v overlap", path.Excluded)
			}
		}
		for i := range 64 {
			for _, last := range []byte{1, 2} {
				ip := netip.AddrFrom4([4]byte{byte(i) << 2, 0, 0, last})
				want := !slices.ContainsFunc(all, func(annotations map[string]string) bool { return appliesTo(ip, annotations, cluster) })
				got := slices.ContainsFunc(path.Excluded, func(n netip.Prefix) bool { return n.Contains(ip) })
				if got != want {
					t.Fatalf("%v is excluded: %t, want %t; lists %v, cluster %v: %v", ip, got, want, all, cluster, path.Excluded)
				}
			}
		}
	})
}

// appliesTo asks all networks one by one.
func appliesTo(ip netip.Addr, annotations map[string]string, cluster []netip.Prefix) bool {
	best, applies := -1, true
	consider := func(n netip.Prefix, include bool) {
		if n.Contains(ip) && n.Bits() >= best {
			best, applies = n.Bits(), include
		}
	}
	read := func(annotation string) (list []netip.Prefix) {
		for text := range strings.SplitSeq(annotations[annotation], ",") {
			if text != "" {
				list = append(list, netip.MustParsePrefix(text))
			}
		}
		return list
	}
	included := read(v1.AnnotationIncludeCIDRs)
	if len(included)+len(cluster) > 0 {
		applies = false
	}
	for _, n := range cluster {
		consider(n, true)
	}
	for _, n := range read(v1.AnnotationExcludeCIDRs) {
		consider(n, false)
	}
	for _, n := range included { // of the same network in both lists, the egress IP applies
		consider(n, true)
	}
	return applies
}

// What pods are not concerned: those that leave with their node's address anyway, and addresses of
// which two pods with different lists are the owners, which are dropped.
func TestDestinationsOfOtherPaths(t *testing.T) {
	objects := destinationObjects(lists("10.0.0.0/8", ""))
	objects.NetNamespaces[0].EgressIPs = nil
	if path, _ := decideDestinations(t, objects); path.Kind != egress.PathNode || len(path.Excluded) > 0 {
		t.Errorf("without egress IPs: %v", path)
	}
	objects = destinationObjects(lists("10.0.0.0/8", ""))
	objects.HostSubnets[0].EgressIPs = nil
	if path, _ := decideDestinations(t, objects); path.Kind != egress.PathDrop || !slices.Equal(path.Excluded, prefixes("10.0.0.0/8")) {
		t.Errorf("dropped: %v", path)
	}
	other := objects.NetNamespaces[0]
	other.Name, other.NetName, other.Annotations = "store", "store", nil
	objects.NetNamespaces = append(objects.NetNamespaces, other)
	objects.HostSubnets[0].EgressIPs = []string{"192.168.7.200"}
	cluster, _ := egress.Snapshot(objects)
	ip := netip.MustParseAddr("10.244.2.5")
	decided, _ := egress.DecideHost(egress.HostInput{
		Host: "n2", Cluster: cluster,
		Pods: []egress.Pod{{Namespace: "shop", Name: "a", UID: "1", IP: ip}, {Namespace: "store", Name: "b", UID: "2", IP: ip}},
	})
	if path := decided.Plan.Pods[0]; path.Kind != egress.PathDrop || len(path.Excluded) > 0 {
		t.Errorf("shared by pods with other lists: %v", path)
	}
}

// The condition says to which destinations the egress IPs apply.
func TestDestinationsAreTold(t *testing.T) {
	many := make([]string, 10)
	for i := range many {
		many[i] = fmt.Sprintf("198.51.100.%d/32", i)
	}
	for want, annotations := range map[string]map[string]string{
		"The egress IPs apply to 203.0.113.0/24 only. Pods reach the rest as without egress IPs.":                                                                                               lists("", "203.0.113.0/24"),
		"The egress IPs apply to all destinations but 10.0.0.0/8, 192.0.2.0/24. Pods":                                                                                                           lists("192.0.2.0/24,10.0.0.0/8", ""),
		"apply to 10.1.0.0/16 only, and not to 10.1.2.0/24; the most specific network counts. Pods":                                                                                             lists("10.1.2.0/24", "10.1.0.0/16"),
		"apply to all destinations but 198.51.100.0/32, 198.51.100.1/32, 198.51.100.2/32, 198.51.100.3/32, 198.51.100.4/32, 198.51.100.5/32, 198.51.100.6/32, 198.51.100.7/32 and 2 more. Pods": lists(strings.Join(many, ","), ""),
	} {
		cluster, _ := egress.Snapshot(destinationObjects(annotations))
		group, _ := egress.Resolve(cluster).Group("shop")
		if !strings.Contains(group.Message, want) {
			t.Errorf("message %q, want %q", group.Message, want)
		}
	}
	for want, annotations := range map[string]map[string]string{
		"apply to 198.51.100.0/24 only. Pods":                                                  {},
		"apply to 198.51.100.0/24, 203.0.113.0/24 only. Pods":                                  lists("", "203.0.113.0/24"),
		"apply to 198.51.100.0/24 only, and not to 198.51.100.7/32; the most specific network": lists("198.51.100.7", ""),
	} {
		objects := destinationObjects(annotations)
		objects.Included = prefixes("198.51.100.0/24")
		cluster, _ := egress.Snapshot(objects)
		if group, _ := egress.Resolve(cluster).Group("shop"); !strings.Contains(group.Message, want) {
			t.Errorf("with networks for all, message %q, want %q", group.Message, want)
		}
	}
	cluster, _ := egress.Snapshot(destinationObjects(map[string]string{}))
	if group, _ := egress.Resolve(cluster).Group("shop"); strings.Contains(group.Message, "apply") {
		t.Errorf("message without destinations: %q", group.Message)
	}
}

// given: a pod with several objects, each of which may exclude what it does, while they exclude too many
// networks together; then its egress IP applies to all destinations, and the plan names the objects.
//
// Mutant killed: too-many-together-are-not-named.
func TestTooManyNetworksTogetherAreNamed(t *testing.T) {
	all := make([]map[string]string, 3)
	for i := range all {
		var list []string
		for n := range egress.MaxDestinations {
			list = append(list, fmt.Sprintf("%d.%d.%d.%d", 1+13*n+4*i, 85, 171*(i%2), 1+2*n))
		}
		all[i] = lists("", strings.Join(list, ","))
	}
	for count := 1; count <= len(all); count++ {
		cluster, problems := egress.Snapshot(destinationObjects(nil, all[:count]...))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		decided, ok := egress.DecideHost(egress.HostInput{
			Host: "n2", Cluster: cluster, Namespaces: map[string]labels.Set{"shop": {}},
			Pods: []egress.Pod{
				{Namespace: "shop", Name: "web", UID: "1", IP: netip.MustParseAddr("10.244.2.5")},
				{Namespace: "shop", Name: "db", UID: "2", IP: netip.MustParseAddr("10.244.2.6")},
			},
		})
		if !ok || len(decided.Plan.Pods) != 2 {
			t.Fatal("no paths", decided)
		}
		excluded, named := len(decided.Plan.Pods[0].Excluded), decided.Plan.NotExcluded
		if count < len(all) && (excluded == 0 || len(named) > 0) {
			t.Errorf("%d objects: %d networks are excluded, named are %q", count, excluded, named)
		}
		if count == len(all) && (excluded > 0 || !slices.Equal(named, []string{"EgressIP eip0, EgressIP eip1, EgressIP eip2"})) {
			t.Errorf("%d objects: %d networks are excluded, named are %q", count, excluded, named)
		}
	}
}
