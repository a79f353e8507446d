package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func automatic() shape { return shape{hosts: 5, namespaces: 7, requests: 3, automatic: true} }

func uniform() shape {
	return shape{hosts: 5, namespaces: 12, requests: 2, automatic: true, uniform: true}
}

// From any state, writing the answers comes to an end, and then each automatic
// host lists nothing but what it may: requested by one namespace, in one of its
// ranges, one of a namespace, within capacity, and none if it is offline.
//
// Kills the mutants rebalance-for-ever, unrequested-kept and capacity-for-each.
func TestPropertyConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		w.settle(t)
		cluster := w.cluster()
		requested := make(map[netip.Addr]int)
		for _, n := range cluster.Groups {
			for _, ip := range n.Requests {
				requested[ip]++
			}
		}
		for _, h := range cluster.Hosts {
			managed := h.Assigned
			if h.Automatic {
				managed = h.Claims
			}
			if len(managed) > 0 && !h.Online {
				t.Fatalf("%s is offline and claims %v", h.Name, managed)
			}
			if exceeds(h, managed) {
				t.Fatalf("%s claims %v with capacity %d, of IPv6 %d", h.Name, h.Claims, h.Capacity, h.IPv6Capacity)
			}
			for _, ip := range managed {
				if requested[ip] != 1 {
					t.Fatalf("%s claims %s, which %d groups request", h.Name, ip, requested[ip])
				}
				if slices.Contains(h.Assigned, ip) != w.ofEgressIP(ip) {
					t.Fatalf("%s claims %s, of an EgressIP %t, on the other list", h.Name, ip, w.ofEgressIP(ip))
				}
				contains := func(p netip.Prefix) bool { return p.Contains(ip) }
				for _, n := range cluster.Groups {
					if !n.OnlyOn.Has(h.Name) && slices.Contains(n.Requests, ip) {
						t.Fatalf("%s claims %s of %s, which may be on %v", h.Name, ip, n.Name, n.OnlyOn)
					}
				}
				byLabel := w.ofEgressIP(ip) && h.Assignable && slices.ContainsFunc(allNetworks(h), contains)
				if !slices.ContainsFunc(h.Ranges, contains) && !byLabel {
					t.Fatalf("%s claims %s, which is in none of %v, and in %v of which is assignable %t", h.Name, ip, h.Ranges, h.Networks, h.Assignable)
				}
			}
		}
		if wrong := siblings(cluster, cluster.Hosts); wrong != "" {
			t.Fatal(wrong)
		}
	})
}

// ofEgressIP reports whether an EgressIP requests the address.
func (w *world) ofEgressIP(ip netip.Addr) bool {
	return slices.ContainsFunc(w.EgressIPs, func(e ovnv1.EgressIP) bool { return slices.Contains(e.Spec.EgressIPs, ip.String()) })
}

// exceeds reports whether a host claims more than it has capacity for, of a family of which the
// controller has put something there.
func exceeds(h egress.Host, managed []netip.Addr) bool {
	var counts, ours [2]int
	for _, ip := range h.Claims {
		counts[egress.FamilyOf(ip)]++
		if slices.Contains(managed, ip) {
			ours[egress.FamilyOf(ip)]++
		}
	}
	above := func(count, capacity int) bool { return capacity != 0 && count > max(capacity, 0) }
	if h.IPv6Capacity == 0 {
		return ours[0]+ours[1] > 0 && above(counts[0]+counts[1], h.Capacity)
	}
	return ours[egress.IPv4] > 0 && above(counts[egress.IPv4], h.Capacity) || ours[egress.IPv6] > 0 && above(counts[egress.IPv6], h.IPv6Capacity)
}

// siblings names two egress IPs of one group and family on one host, one of which the controller
// has put there.
func siblings(c egress.Cluster, hosts []egress.Host) string {
	owner := make(map[netip.Addr]string)
	for _, n := range c.Groups {
		for _, ip := range n.Requests {
			owner[ip] = n.Name + " " + egress.FamilyOf(ip).String()
		}
	}
	for _, h := range hosts {
		seen := make(map[string]netip.Addr)
		for _, ip := range h.Claims {
			name := owner[ip]
			assigned := slices.Contains(h.Assigned, ip) || slices.Contains(h.Assigned, seen[name])
			if other, two := seen[name]; (h.Automatic || assigned) && name != "" && two {
				return fmt.Sprintf("%s has %s and %s of %s", h.Name, other, ip, name)
			}
			seen[name] = ip
		}
	}
	return ""
}

// No answer ever gives a host two egress IPs of one namespace.
//
// Kills the mutant siblings-together.
func TestPropertyNamespaceNeverTwiceOnAHost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, automatic())}
		for range 4 {
			answer := w.round()
			cluster := w.cluster()
			for i, h := range cluster.Hosts {
				cluster.Hosts[i].Claims = answer.Hosts[slices.IndexFunc(answer.Hosts,
					func(c egress.HostClaims) bool { return c.Host == h.Name })].All()
			}
			if wrong := siblings(cluster, cluster.Hosts); wrong != "" {
				t.Fatal(wrong)
			}
		}
	})
}

// No egress IP is ever claimed by two automatic hosts, whatever the order in
// which the writes of an answer land, with the controller killed at any point
// and a new one that asks again, while hosts and namespaces come, go and change.
// Each answer rests on a list that holds all earlier writes, and a write fails
// if its HostSubnet has changed since, as the API server sees to.
//
// Kills the mutant claim-before-release.
func TestPropertyNoDoubleClaim(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, automatic())}
		w.settle(t)
		for range rapid.IntRange(1, 12).Draw(t, "passes") {
			disturb(t, w)
			writes := egress.Allocate(w.cluster()).Hosts
			writes = rapid.Permutation(writes).Draw(t, "order of writes")
			writes = writes[:rapid.IntRange(0, len(writes)).Draw(t, "writes before the crash")]
			for _, claims := range writes {
				w.write(claims)
				if wrong := claimedTwice(w); wrong != "" {
					t.Fatal(wrong)
				}
			}
		}
	})
}

// disturb changes one thing.
func disturb(t *rapid.T, w *world) {
	h := &w.HostSubnets[rapid.IntRange(0, len(w.HostSubnets)-1).Draw(t, "host")]
	n := &w.NetNamespaces[rapid.IntRange(0, len(w.NetNamespaces)-1).Draw(t, "namespace")]
	switch rapid.IntRange(0, 5).Draw(t, "change") {
	case 0:
		w.setOnline(h.Name, !w.Verdicts[h.Name].Online)
	case 1:
		h.EgressCIDRs = rapid.SliceOfN(rapid.SampledFrom([]string{"192.168.7.0/24", "192.168.7.200/29", "192.168.7.208/28"}), 1, 2).Draw(t, "ranges")
	case 2:
		w.Capacity[h.Name] = rapid.IntRange(0, 3).Draw(t, "capacity")
	case 3:
		n.EgressIPs = rapid.SliceOfNDistinct(rapid.SampledFrom(egressAddresses(21)), 0, 3, rapid.ID).Draw(t, "requests")
	case 4:
		if len(w.HostSubnets) < 6 {
			name := fmt.Sprintf("w%d", len(w.HostSubnets))
			w.HostSubnets = append(w.HostSubnets, v1.HostSubnet{
				ObjectMeta: metav1.ObjectMeta{Name: name}, Host: name,
				HostIP: fmt.Sprintf("192.168.7.%d", 10+len(w.HostSubnets)), EgressCIDRs: []string{"192.168.7.0/24"},
			})
			objects.AgentReports(&w.HostSubnets[len(w.HostSubnets)-1])
		}
	}
}

func claimedTwice(w *world) string {
	claimant := make(map[string]string)
	for _, h := range w.HostSubnets {
		for _, ip := range h.AllEgressIPs() {
			if other, taken := claimant[ip]; taken {
				return fmt.Sprintf("%s and %s claim %s", other, h.Name, ip)
			}
			claimant[ip] = h.Name
		}
	}
	return ""
}

// A settled cluster does not move, nor does it when something changes that has
// nothing to do with egress IPs: a manual host, a namespace that requests
// nothing, another order of lists.
//
// Kills the mutant last-claim-forgotten.
func TestPropertySettledClusterDoesNotMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		w.settle(t)
		before := w.placement()
		w.NetNamespaces = append(w.NetNamespaces, v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: "a-new-one"}, NetID: new(uint32(99))})
		w.HostSubnets = append(w.HostSubnets, v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: "a-manual-one"}, HostIP: "192.168.7.99", EgressIPs: []string{"192.168.7.199"},
		})
		w.HostSubnets = rapid.Permutation(w.HostSubnets).Draw(t, "hosts in order")
		if answer := w.round(); len(answer.Released) > 0 || !equal(before, w.placement()) {
			t.Fatalf("moved from %v to %v: %v", before, w.placement(), answer.Released)
		}
	})
}

// When a host goes, only its addresses move. (Where ranges differ, the share
// of another host may grow by more than double; then the rule of half the share
// applies, and says so.)
//
// Kills the mutant balance-at-any-price.
func TestPropertyHostGoesOthersStay(t *testing.T) {
	for name, s := range map[string]shape{"uniform": uniform(), "any": automatic()} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := &world{Objects: drawObjects(t, s)}
				w.settle(t)
				before := homes(w)
				gone := rapid.SampledFrom(w.HostSubnets).Draw(t, "gone").Name
				if rapid.Bool().Draw(t, "deleted") {
					w.HostSubnets = slices.DeleteFunc(w.HostSubnets, func(h v1.HostSubnet) bool { return h.Name == gone })
				} else {
					w.setOnline(gone, false)
				}
				rebalanced := make(map[string]bool)
				for _, r := range w.settle(t) {
					rebalanced[r.IP.String()] = r.Reason == egress.ReasonRebalanced
				}
				after := homes(w)
				for ip, host := range before {
					if host != gone && after[ip] != host && (s.uniform || !rebalanced[ip]) {
						t.Fatalf("%s went, and %s moved from %s to %q", gone, ip, host, after[ip])
					}
				}
			})
		})
	}
}

// homes are the hosts of all claims.
func homes(w *world) map[string]string {
	homes := make(map[string]string)
	for _, h := range w.HostSubnets {
		for _, ip := range h.AllEgressIPs() {
			homes[ip] = h.Name
		}
	}
	return homes
}

// When a host comes, no more addresses move than its share, which is what a
// fresh allocation gives it; and all that move go to it.
//
// Kills the mutant all-move.
func TestPropertyHostComesFewMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, uniform())}
		w.settle(t)
		before := homes(w)
		w.HostSubnets = append(w.HostSubnets, v1.HostSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: "new"}, Host: "new", HostIP: "192.168.7.99", EgressCIDRs: []string{"192.168.7.0/24"},
		})
		objects.AgentReports(&w.HostSubnets[len(w.HostSubnets)-1])
		if w.host("w0").Status.Agent.Families != nil {
			servesIPv6(w.host("new"), 0x70)
			w.host("new").EgressCIDRs = append(w.host("new").EgressCIDRs, "fd00:7::/64")
		}
		fresh := w.clone()
		for i := range fresh.HostSubnets {
			fresh.HostSubnets[i].EgressIPs, fresh.HostSubnets[i].AssignedEgressIPs = nil, nil
		}
		fresh.settle(t)
		share := countFamilies(fresh.host("new").AllEgressIPs())
		w.settle(t)
		after := homes(w)
		var moved []string
		for ip, host := range before {
			if after[ip] != host {
				moved = append(moved, ip)
				if after[ip] != "new" {
					t.Fatalf("%s moved from %s to %q", ip, host, after[ip])
				}
			}
		}
		counts, have := countFamilies(moved), countFamilies(w.host("new").AllEgressIPs())
		for f := range share {
			if counts[f] > share[f] {
				t.Fatalf("the share of the new host is %v of each family, and %v moved", share, moved)
			}
			if have[f] < share[f]/2 {
				t.Fatalf("the share of the new host is %v of each family, and it has %v", share, have)
			}
		}
	})
}

// countFamilies counts addresses by family.
func countFamilies(ips []string) (counts [2]int) {
	for _, ip := range ips {
		counts[egress.RequestFamily(ip)]++
	}
	return counts
}

// A request that can be placed is placed: as many as a brute-force search
// finds room for, beside what stands.
//
// Kills the mutants no-augmenting-path and capacity-off-by-one.
func TestPropertyWhatCanBePlacedIsPlaced(t *testing.T) {
	small := shape{hosts: 3, namespaces: 4, requests: 3, automatic: true}
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, small)}
		if rapid.Bool().Draw(t, "fresh") {
			for i := range w.HostSubnets {
				w.HostSubnets[i].EgressIPs, w.HostSubnets[i].AssignedEgressIPs = nil, nil
			}
		}
		// What must go goes first; what the next answer adds is then compared.
		for len(w.round().Released) > 0 {
			continue
		}
		for i := range w.HostSubnets {
			if rapid.Bool().Draw(t, "emptied") {
				w.HostSubnets[i].EgressIPs, w.HostSubnets[i].AssignedEgressIPs = nil, nil
			}
		}
		want := len(homes(w)) + bruteForce(w.only(egress.IPv4).cluster()) + bruteForce(w.only(egress.IPv6).cluster())
		answer := w.round()
		if got := len(homes(w)); len(answer.Released) == 0 && got != want {
			t.Fatalf("placed %d of %d: %v", got, want, w.placement())
		}
	})
}

// bruteForce is the greatest number of requests that find room beside the
// claims that stand.
func bruteForce(c egress.Cluster) int {
	var open []request
	claims := make([]map[netip.Addr]bool, len(c.Hosts))
	listed := make(map[netip.Addr]bool)
	for h, host := range c.Hosts {
		claims[h] = make(map[netip.Addr]bool)
		for _, ip := range host.Claims {
			claims[h][ip] = true
			listed[ip] = true
		}
	}
	for _, n := range c.Groups {
		for _, ip := range n.Requests {
			if !listed[ip] {
				open = append(open, request{ip, n})
			}
		}
	}
	return place(c, claims, open)
}

type request struct {
	ip    netip.Addr
	group egress.Group
}

func place(c egress.Cluster, claims []map[netip.Addr]bool, open []request) int {
	if len(open) == 0 {
		return 0
	}
	best := place(c, claims, open[1:])
	for h, host := range c.Hosts {
		if best == len(open) {
			break
		}
		if !roomFor(host, claims[h], open[0]) {
			continue
		}
		claims[h][open[0].ip] = true
		best = max(best, 1+place(c, claims, open[1:]))
		delete(claims[h], open[0].ip)
	}
	return best
}

// allNetworks are those of a host, at the uplink and elsewhere.
func allNetworks(host egress.Host) []netip.Prefix {
	networks := slices.Clone(host.Networks)
	for _, n := range host.FurtherNetworks {
		networks = append(networks, n.CIDR)
	}
	return networks
}

// inNetworks reports whether the networks of a host let it have an address: where the uplink's is not
// known, any that is in no other.
func inNetworks(host egress.Host, ip netip.Addr) bool {
	known := false
	for _, network := range host.Networks {
		if network.Contains(ip) {
			return true
		}
		known = known || network.Addr().Is4() == ip.Is4()
	}
	var best egress.FurtherNetwork
	for _, n := range host.FurtherNetworks {
		if n.CIDR.Contains(ip) && (!best.CIDR.IsValid() || n.CIDR.Bits() > best.CIDR.Bits() || n.CIDR == best.CIDR && n.Interface < best.Interface) {
			best = n
		}
	}
	if !best.CIDR.IsValid() {
		return !known
	}
	first := ip == best.CIDR.Addr()
	last := !best.CIDR.Contains(ip.Next())
	return !first && !last && ip != best.Gateway
}

func roomFor(host egress.Host, claims map[netip.Addr]bool, r request) bool {
	capacity := host.Capacity
	if r.ip.Is6() && host.IPv6Capacity != 0 {
		capacity = host.IPv6Capacity
	}
	if !host.Online || (capacity != 0 && len(claims) >= capacity) || r.ip.Is6() && !host.ServesIPv6 {
		return false
	}
	if !inNetworks(host, r.ip) {
		return false
	}
	contains := func(p netip.Prefix) bool { return p.Contains(r.ip) }
	label := host.Assignable && strings.HasPrefix(r.group.Name, "EgressIP/") && slices.ContainsFunc(allNetworks(host), contains)
	if !r.group.OnlyOn.Has(host.Name) {
		return false
	}
	return (label || slices.ContainsFunc(host.Ranges, contains)) &&
		!slices.ContainsFunc(r.group.Requests, func(ip netip.Addr) bool { return claims[ip] })
}
