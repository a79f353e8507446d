package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// Objects is what the brain knows about the cluster, as stored in the API.
// Names are unique within each list; the order of the lists means nothing.
type Objects struct {
	NetNamespaces []v1.NetNamespace
	HostSubnets   []v1.HostSubnet
	// Verdicts are the verdicts on hosts, by name, for a caller that decides who is
	// online. A host that is not in it is offline only if its published condition
	// Online is False.
	Verdicts map[string]online.Verdict
	// Evacuating names the hosts that are being evacuated; nil means those whose
	// published condition Evacuating is True.
	Evacuating map[string]bool
	// Gone names the hosts whose Node does not exist any more; nil means those whose
	// published condition NodeGone is True.
	Gone map[string]bool
	// Awaited are claims, by name of the host, that a user wrote into the list of an
	// automatic host a short while ago; see Host.
	Awaited map[string][]netip.Addr
	// Capacity is the greatest number of egress IPs that a host can have, by name.
	// DefaultCapacity is for hosts that are not in it. 0 means no limit, a negative
	// number none at all.
	Capacity        map[string]int
	DefaultCapacity int
	// Networks are the networks of hosts as a cloud reports them, by name. They
	// replace what the agent sees on the uplink, which may be a /32 there, and a
	// range that is not wholly inside is refused.
	Networks map[string]netip.Prefix
}

// Snapshot reads the objects. What cannot be used becomes a Problem and does not affect
// the rest. The objects are not changed, and the
// Cluster shares no memory with them that anyone changes.
func Snapshot(objects Objects) (Cluster, []Problem) {
	var r reader
	cluster := Cluster{
		Namespaces: make([]Namespace, 0, len(objects.NetNamespaces)),
		Hosts:      make([]Host, 0, len(objects.HostSubnets)),
	}
	for i := range objects.NetNamespaces {
		cluster.Namespaces = append(cluster.Namespaces, r.namespace(&objects.NetNamespaces[i]))
	}
	for i := range objects.HostSubnets {
		cluster.Hosts = append(cluster.Hosts, r.host(&objects.HostSubnets[i], objects))
	}
	slices.SortFunc(cluster.Namespaces, func(a, b Namespace) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(cluster.Hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	r.duplicateHostIPs(cluster.Hosts)
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(
			strings.Compare(a.Kind, b.Kind),
			strings.Compare(a.Name, b.Name),
			strings.Compare(a.Field, b.Field),
		)
	})
	return cluster, r.problems
}

const (
	kindNetNamespace = "NetNamespace"
	kindHostSubnet   = "HostSubnet"

	fieldEgressIPs   = "egressIPs"
	fieldEgressCIDRs = "egressCIDRs"
	fieldHostIP      = "hostIP"
)

// reader reads objects and collects what is wrong with them.
type reader struct{ problems []Problem }

func (r *reader) problem(kind, name, field, value string, reason Reason, format string, args ...any) {
	r.problems = append(r.problems, Problem{
		Kind: kind, Name: name, Field: field, Value: value, Reason: reason,
		Message: fmt.Sprintf("%s %s, %s: ", kind, name, field) + fmt.Sprintf(format, args...),
	})
}

func (r *reader) namespace(object *v1.NetNamespace) Namespace {
	id, numbered := object.ID()
	n := Namespace{Name: object.Name, NetID: id, Unnumbered: !numbered}
	if n.NetID > MaxNetID {
		r.problem(kindNetNamespace, n.Name, "netid", fmt.Sprint(n.NetID), ReasonBadNetID,
			"%d is not a valid netid: use a number from 0 to %d.", n.NetID, MaxNetID)
	}
	for _, written := range object.EgressIPs {
		ip, err := netip.ParseAddr(written)
		why := invalidReason(ip)
		if err != nil {
			why = "it is not an address"
		}
		if why == "" {
			if !slices.Contains(n.Requests, ip) {
				n.Requests = append(n.Requests, ip)
			}
			continue
		}
		if !slices.Contains(n.Invalid, written) {
			n.Invalid = append(n.Invalid, written)
			r.problem(kindNetNamespace, n.Name, fieldEgressIPs, written, ReasonBadAddress,
				"%q is not a valid egress IP: %s. Use a bare unicast IPv4 address, such as 192.168.7.200.", written, why)
		}
	}
	switch mode := object.Annotations[v1.AnnotationMode]; mode {
	case "", v1.ModeOrdered:
		n.Mode = Ordered
	case v1.ModeBalanced:
		n.Mode = Balanced
	default:
		r.problem(kindNetNamespace, n.Name, "annotation "+v1.AnnotationMode, mode, ReasonBadMode,
			"%q is not a valid mode: %q is used. Set it to %q or %q.", mode, v1.ModeOrdered, v1.ModeOrdered, v1.ModeBalanced)
	}
	return n
}

func (r *reader) host(object *v1.HostSubnet, objects Objects) Host {
	h := Host{
		Name:      object.Name,
		Automatic: len(object.EgressCIDRs) > 0,
		Capacity:  objects.DefaultCapacity,
		Witnesses: object.Status.Witnesses,
	}
	if verdict, ok := objects.Verdicts[h.Name]; ok {
		h.Online, h.Closed = verdict.Online, verdict.Closed
	} else {
		// Unknown means that there is no verdict, not that the host is gone.
		h.Online = !published(object, v1.ConditionOnline, metav1.ConditionFalse)
	}
	if objects.Evacuating != nil {
		h.Evacuating = objects.Evacuating[h.Name]
	} else {
		h.Evacuating = published(object, v1.ConditionEvacuating, metav1.ConditionTrue)
	}
	if objects.Gone != nil {
		h.Gone = objects.Gone[h.Name]
	} else {
		h.Gone = published(object, v1.ConditionNodeGone, metav1.ConditionTrue)
	}
	h.Awaited = sortedUnique(slices.Clone(objects.Awaited[h.Name]))
	if capacity, ok := objects.Capacity[h.Name]; ok {
		h.Capacity = capacity
	}
	if ip, err := netip.ParseAddr(object.HostIP); err == nil && invalidReason(ip) == "" {
		h.IP = ip
	} else if object.HostIP == "" {
		r.problem(kindHostSubnet, h.Name, fieldHostIP, "", ReasonBadHost,
			"there is none yet, so the host takes no egress traffic: the controller sets it when a Node of that name reports its IPv4 address.")
	} else {
		r.problem(kindHostSubnet, h.Name, fieldHostIP, object.HostIP, ReasonBadHost,
			"%q is not a valid host address, so the host takes no egress traffic. Set it to the node's IPv4 address.", object.HostIP)
	}
	r.networks(&h, object, objects.Networks)
	r.claims(&h, object.EgressIPs)
	r.ranges(&h, object.EgressCIDRs, objects.Networks[h.Name])
	return h
}

// published reports whether a condition is published with that status.
func published(object *v1.HostSubnet, condition string, status metav1.ConditionStatus) bool {
	return slices.ContainsFunc(object.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == condition && c.Status == status
	})
}

func (r *reader) networks(h *Host, object *v1.HostSubnet, clouds map[string]netip.Prefix) {
	if object.Subnet != "" {
		// A subnet of everything would make all traffic inside traffic, and
		// let it out with the node's address.
		if subnet, _, ok := parseRange(object.Subnet); ok && subnet.Bits() > 0 {
			h.Subnets = []netip.Prefix{subnet}
		} else {
			r.problem(kindHostSubnet, h.Name, "subnet", object.Subnet, ReasonBadCIDR,
				"%q is not a valid IPv4 pod CIDR. Use one such as 10.244.1.0/24, or leave it empty.", object.Subnet)
		}
	}
	if network, ok := clouds[h.Name]; ok && network.IsValid() && network.Addr().Is4() {
		h.Network = network.Masked()
		return
	}
	if object.Status.Agent == nil || object.Status.Agent.UplinkCIDR == "" {
		return
	}
	network, _, ok := parseRange(object.Status.Agent.UplinkCIDR)
	if !ok {
		r.problem(kindHostSubnet, h.Name, "status.agent.uplinkCIDR", object.Status.Agent.UplinkCIDR, ReasonBadCIDR,
			"%q is not an IPv4 CIDR: the uplink's network is not known.", object.Status.Agent.UplinkCIDR)
		return
	}
	// An uplink with a /32 does not tell which addresses its segment carries.
	if network.Bits() < 32 {
		h.Network = network
	}
}

func (r *reader) claims(h *Host, claims []string) {
	for _, written := range claims {
		ip, ok := parseClaim(written)
		why := invalidReason(ip)
		if !ok {
			why = "it is not an IPv4 address"
		}
		if why == "" {
			h.Claims = append(h.Claims, ip)
			continue
		}
		if !slices.Contains(h.Invalid, written) {
			h.Invalid = append(h.Invalid, written)
			r.problem(kindHostSubnet, h.Name, fieldEgressIPs, written, ReasonBadAddress,
				"%q is not a valid egress IP: %s. Use a unicast IPv4 address, such as 192.168.7.200.", written, why)
		}
	}
	h.Claims = sortedUnique(h.Claims)
}

func (r *reader) ranges(h *Host, ranges []string, cloud netip.Prefix) {
	for _, written := range ranges {
		masked, exact, ok := parseRange(written)
		if !ok {
			r.problem(kindHostSubnet, h.Name, fieldEgressCIDRs, written, ReasonBadCIDR,
				"%q is not an IPv4 CIDR and is ignored. Use one such as 192.168.7.128/25.", written)
			continue
		}
		if cloud.IsValid() && !within(masked, cloud.Masked()) {
			r.problem(kindHostSubnet, h.Name, fieldEgressCIDRs, written, ReasonOutsideNetwork,
				"%s is not inside %s, the host's network as the cloud reports it, and is ignored. Use a range inside it.",
				written, cloud.Masked())
			continue
		}
		if !exact {
			r.problem(kindHostSubnet, h.Name, fieldEgressCIDRs, written, ReasonBadCIDR,
				"%s has host bits: %s is used. Write that instead.", written, masked)
		}
		h.Ranges = append(h.Ranges, masked)
	}
	slices.SortFunc(h.Ranges, netip.Prefix.Compare)
	h.Ranges = slices.Compact(h.Ranges)
}

// duplicateHostIPs reports hosts that share an address; Resolve lets none of
// their claims count.
func (r *reader) duplicateHostIPs(hosts []Host) {
	byIP := hostsByIP(hosts)
	for _, h := range hosts {
		if same := byIP[h.IP]; h.IP.IsValid() && len(same) > 1 {
			r.problem(kindHostSubnet, h.Name, fieldHostIP, h.IP.String(), ReasonBadHost,
				"%s is the hostIP of several hosts (%s), so none of them takes egress traffic. Correct or delete all but one.",
				h.IP, names(same, func(i int) string { return hosts[i].Name }))
		}
	}
}
