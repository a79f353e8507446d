package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// What the API calls families, and annotations that messages name.
const (
	familyIPv4            = v1.FamilyIPv4
	familyIPv6            = v1.FamilyIPv6
	otherFamilyAnnotation = v1.AnnotationOtherFamily
	gatewaysAnnotation    = v1.AnnotationGateways
	failBackAnnotation    = v1.AnnotationFailBack
	assignableLabel       = ovnv1.LabelEgressAssignable
)

// Objects is what the brain knows about the cluster, as stored in the API.
// Names are unique within each list; the order of the lists means nothing.
type Objects struct {
	NetNamespaces []v1.NetNamespace
	EgressIPs     []ovnv1.EgressIP
	HostSubnets   []v1.HostSubnet
	// Verdicts are the verdicts on hosts, by name, for a caller that decides who is
	// online. Of a host that is not in it the published condition Online counts: the
	// host is offline if it is False, and doubtful if it is Unknown. So does
	// status.placement.closed.
	Verdicts map[string]online.Verdict
	// Evacuating names the hosts that are being evacuated; nil means those whose
	// published condition Evacuating is True.
	Evacuating map[string]bool
	// Gone names the hosts whose Node does not exist any more; nil means those whose
	// published condition NodeGone is True.
	Gone map[string]bool
	// Assignable names the hosts whose Nodes have the label for EgressIPs; nil means those of
	// which that is published.
	Assignable map[string]bool
	// OnlyOn names, by the name of an EgressIP, the hosts that its egress IPs may be assigned to.
	// Those that are not in it may be assigned to all.
	OnlyOn map[string]*HostSet
	// Awaited are claims, by name of the host, that a user wrote into the list of an
	// automatic host a short while ago; see Host.
	Awaited map[string][]netip.Addr
	// Capacity is the greatest number of egress IPs that a host can have, by name.
	// DefaultCapacity is for hosts that are not in it. 0 means no limit, a negative
	// number none at all. If both are missing, the published capacity counts.
	// That is for both families together, but for hosts in IPv6Capacity: theirs is for
	// IPv4, and IPv6Capacity for IPv6.
	Capacity, IPv6Capacity map[string]int
	DefaultCapacity        int
	// Failing are, by host, the egress IPs for which it could not be configured for a
	// while, or could not a short time ago.
	Failing map[string]map[netip.Addr]bool
	// Unheard names the hosts whose agents have not reported in the time that they have
	// for it.
	Unheard map[string]bool
	// Included are the networks outside to which egress IPs apply, for Cluster.
	Included []netip.Prefix
	// Networks are the networks of hosts as a cloud reports them, by name. They
	// replace what the agent sees on the uplink, which may be a /32 there, and a
	// range that is not wholly inside is refused. If the map is nil, the published
	// networks count.
	Networks map[string][]netip.Prefix
}

// Snapshot reads the objects. What cannot be used becomes a Problem and does not affect
// the rest. The objects are not changed, and the
// Cluster shares no memory with them that anyone changes.
func Snapshot(objects Objects) (Cluster, []Problem) {
	return new(Memo).Snapshot(objects)
}

// sorted brings what was read in canonical order, and finds hosts that share an address.
func (r *reader) sorted(cluster Cluster) (Cluster, []Problem) {
	slices.SortFunc(cluster.Groups, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(cluster.Hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	r.duplicateHostIPs(cluster.Hosts)
	findFurther(cluster.Hosts)
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
	kindEgressIP     = "EgressIP"
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

func (r *reader) namespace(object *v1.NetNamespace) Group {
	id, numbered := object.ID()
	n := Group{Name: object.Name, NetID: id, Unnumbered: !numbered}
	if n.NetID > MaxNetID {
		r.problem(kindNetNamespace, n.Name, "netid", fmt.Sprint(n.NetID), ReasonBadNetID,
			"%d is not a valid netid: use a number from 0 to %d.", n.NetID, MaxNetID)
	}
	r.requests(&n, kindNetNamespace, object.Name, object.EgressIPs)
	if r.annotations(&n, kindNetNamespace, object, Ordered) {
		n.Keeps = used(object)
	}
	return n
}

// requests reads the egress IPs that an object requests.
func (r *reader) requests(n *Group, kind, name string, egressIPs []string) {
	for _, written := range egressIPs {
		ip, _ := netip.ParseAddr(written) // what is none is not valid
		why := invalidReason(ip)
		if why == "" {
			if !slices.Contains(n.Requests, ip) {
				n.Requests = append(n.Requests, ip)
			}
			continue
		}
		if !slices.Contains(n.Invalid, written) {
			n.Invalid = append(n.Invalid, written)
			r.problem(kind, name, fieldEgressIPs, written, ReasonBadAddress,
				"%q is not a valid egress IP: %s. Use a bare unicast %s.", written, why, addressLike(written))
		}
	}
}

// annotations reads those that say how a group uses its egress IPs; unless is the mode without
// any. It reports whether the group keeps what it uses.
func (r *reader) annotations(n *Group, kind string, object metav1.Object, unless Mode) (keeps bool) {
	annotations, name := object.GetAnnotations(), object.GetName()
	n.Destinations = r.destinations(kind, name, annotations)
	switch mode := annotations[v1.AnnotationMode]; mode {
	case "":
		n.Mode = unless
	case v1.ModeOrdered:
		n.Mode = Ordered
	case v1.ModeBalanced:
		n.Mode = Balanced
	default:
		n.Mode = unless
		r.problem(kind, name, "annotation "+v1.AnnotationMode, mode, ReasonBadMode,
			"%q is not a valid mode: %q is used. Set it to %q or %q.", mode, unless, v1.ModeOrdered, v1.ModeBalanced)
	}
	switch other := annotations[v1.AnnotationOtherFamily]; other {
	case "", v1.OtherFamilyDropped:
	case v1.OtherFamilyNode:
		n.Other = OtherNode
	default:
		r.problem(kind, name, "annotation "+v1.AnnotationOtherFamily, other, ReasonBadOtherFamily,
			"%q is not known: %q is used. Set it to %q or %q.", other, v1.OtherFamilyDropped, v1.OtherFamilyDropped, v1.OtherFamilyNode)
	}
	n.Gateways = r.gateways(kind, name, annotations[v1.AnnotationGateways])
	switch back := annotations[v1.AnnotationFailBack]; back {
	case "", v1.FailBackAlways:
	case v1.FailBackNever:
		return true
	default:
		r.problem(kind, name, "annotation "+v1.AnnotationFailBack, back, ReasonBadFailBack,
			"%q is not known: %q is used. Set it to %q or %q.", back, v1.FailBackAlways, v1.FailBackAlways, v1.FailBackNever)
	}
	return false
}

// used are the egress IPs that a namespace uses, as its status says.
func used(object *v1.NetNamespace) (ips []netip.Addr) {
	active := object.Status.ActiveIPs
	if object.Status.Active != nil {
		active = append([]v1.Assignment{*object.Status.Active}, active...)
	}
	for _, a := range active {
		if ip, err := netip.ParseAddr(a.IP); err == nil && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}

func (r *reader) host(object *v1.HostSubnet, given given) Host {
	h := Host{
		Name:      object.Name,
		Automatic: len(object.EgressCIDRs) > 0,
		Witnesses: object.Status.Witnesses,
	}
	if verdict := given.verdict; given.judged {
		h.Online, h.Doubtful, h.Closed = verdict.Online, verdict.Doubtful, verdict.Closed
		h.AgentGone = verdict.Reason == online.ReasonNoAgent
	} else {
		// Without the condition there is no verdict, which does not mean that the host
		// is gone.
		reason := online.Reason(publishedReason(object, v1.ConditionOnline))
		h.Doubtful = published(object, v1.ConditionOnline, metav1.ConditionUnknown) && !reason.Online(false)
		h.Online = !h.Doubtful && !published(object, v1.ConditionOnline, metav1.ConditionFalse)
		h.AgentGone = reason == online.ReasonNoAgent
		h.Closed = object.Status.Placement != nil && object.Status.Placement.Closed
	}
	h.AnswersOverlay = object.Status.Agent != nil && object.Status.Agent.Probes == v1.ProbesOverlay
	h.AgentReady = published(object, v1.ConditionAgentReady, metav1.ConditionTrue)
	if given.allEvacuating {
		h.Evacuating = given.evacuating
	} else {
		h.Evacuating = published(object, v1.ConditionEvacuating, metav1.ConditionTrue)
	}
	if given.allGone {
		h.Gone = given.gone
	} else {
		h.Gone = published(object, v1.ConditionNodeGone, metav1.ConditionTrue)
	}
	if given.allAssignable {
		h.Assignable = given.assignable
	} else {
		h.Assignable = object.Status.Placement != nil && object.Status.Placement.EgressAssignable
	}
	h.Awaited = sortedUnique(slices.Clone(given.awaited))
	h.Capacity, h.IPv6Capacity = capacityOf(object, given), ipv6CapacityOf(object, given)
	if ip, err := netip.ParseAddr(object.HostIP); err == nil && usableHost(ip) {
		h.IP = ip
	} else if object.HostIP == "" {
		r.problem(kindHostSubnet, h.Name, fieldHostIP, "", ReasonBadHost,
			"there is none yet, so the host takes no egress traffic: the controller sets it when a Node of that name reports its InternalIP.")
	} else {
		r.problem(kindHostSubnet, h.Name, fieldHostIP, object.HostIP, ReasonBadHost,
			"%q is not a valid host address, so the host takes no egress traffic. Set it to the node's InternalIP, of IPv4 if it has one.", object.HostIP)
	}
	h.Unheard, h.Confirmed = given.unheard, confirmed(h.IP, object)
	if agent := object.Status.Agent; agent != nil {
		h.Addresses, h.PodNetworks = readAddresses(agent.Addresses), readPodNetworks(agent.PodNetworks)
		h.PodsMissing = agent.PodNetworksMissing
		h.Overlaps = readOverlaps(agent.Overlaps)
		h.ServesIPv6 = slices.Contains(agent.Families, IPv6.String())
	}
	if placement := object.Status.Placement; placement != nil {
		h.Listed, h.PodsListed = readAddresses(placement.NodeAddresses), readPodNetworks(placement.PodNetworks)
	}
	h.Found = readFound(object.Status.FoundNetworks)
	h.Created = object.CreationTimestamp.Time
	h.Reports, h.Failing = reports(object), given.failing
	cloud := cloudNetworks(object, given)
	h.IPv6 = ipv6Networks(object.Status.IPv6Networks)
	r.networks(&h, object, cloud)
	r.claims(&h, object)
	r.ranges(&h, object.EgressCIDRs, cloud)
	if !h.Automatic {
		h.Excess = h.excess(object.EgressIPs)
	}
	return h
}

// confirmed reports whether the host's agent sees the address on the uplink.
func confirmed(ip netip.Addr, object *v1.HostSubnet) bool {
	if object.Status.Agent == nil {
		return false
	}
	uplink, err := netip.ParsePrefix(object.Status.Agent.UplinkCIDR)
	return err == nil && ip.IsValid() && uplink.Addr() == ip
}

// reports reads what the agent reports about claims.
func reports(object *v1.HostSubnet) map[netip.Addr]Report {
	if len(object.Status.EgressIPs) == 0 {
		return nil
	}
	byIP := make(map[netip.Addr]Report, len(object.Status.EgressIPs))
	for _, claim := range object.Status.EgressIPs {
		if ip, err := netip.ParseAddr(claim.IP); err == nil {
			byIP[ip] = Report{Configured: claim.Configured, Reason: Reason(claim.Reason), Message: claim.Message}
		}
	}
	return byIP
}

// excess are the claims beyond the capacity, counted in the order of the list: what
// worked goes on working when more is added behind it.
func (h *Host) excess(claims []string) []netip.Addr {
	if h.Capacity == 0 && h.IPv6Capacity == 0 {
		return nil
	}
	seen := make(map[netip.Addr]bool)
	var counts [2]int
	var beyond []netip.Addr
	for _, written := range claims {
		ip, ok := parseClaim(written)
		if !ok || invalidReason(ip) != "" || seen[ip] {
			continue
		}
		seen[ip] = true
		family, capacity := IPv4, h.Capacity // of both, unless there are two
		if ip.Is6() && h.IPv6Capacity != 0 {
			family, capacity = IPv6, h.IPv6Capacity
		}
		if counts[family]++; capacity != 0 && counts[family] > max(capacity, 0) {
			beyond = append(beyond, ip)
		}
	}
	return sortedUnique(beyond)
}

// published reports whether a condition is published with that status.
func published(object *v1.HostSubnet, condition string, status metav1.ConditionStatus) bool {
	return slices.ContainsFunc(object.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == condition && c.Status == status
	})
}

// publishedReason returns the reason of a condition, "" without one.
func publishedReason(object *v1.HostSubnet, condition string) string {
	for _, c := range object.Status.Conditions {
		if c.Type == condition {
			return c.Reason
		}
	}
	return ""
}

func (r *reader) claims(h *Host, object *v1.HostSubnet) {
	for _, written := range object.EgressIPs {
		ip, ok := parseClaim(written)
		why := invalidReason(ip)
		if !ok {
			why = "it is not an address"
			if f, known := familyOfText(written); known && f == IPv6 {
				why = "it has a zone or is an IPv4 address in the form of IPv6"
			}
		}
		if why == "" {
			h.Claims = append(h.Claims, ip)
			continue
		}
		if !slices.Contains(h.Invalid, written) {
			h.Invalid = append(h.Invalid, written)
			r.problem(kindHostSubnet, h.Name, fieldEgressIPs, written, ReasonBadAddress,
				"%q is not a valid egress IP: %s. Use a unicast %s.", written, why, addressLike(written))
		}
	}
	for _, written := range object.AssignedEgressIPs {
		// The controller has written it.
		if ip, err := netip.ParseAddr(written); err == nil && (h.Automatic || !slices.Contains(h.Claims, ip)) {
			h.Assigned = append(h.Assigned, ip)
		}
	}
	h.Assigned = sortedUnique(h.Assigned)
	h.Claims = sortedUnique(slices.Concat(h.Claims, h.Assigned))
	h.Managed = h.Automatic || h.Assignable || len(object.AssignedEgressIPs) > 0
}

func (r *reader) ranges(h *Host, ranges []string, cloud []netip.Prefix) {
	for _, written := range ranges {
		masked, exact, ok := parseRange(written)
		if !ok {
			r.problem(kindHostSubnet, h.Name, fieldEgressCIDRs, written, ReasonBadCIDR,
				"%q is not a CIDR of IPv4 or IPv6 and is ignored. Use one such as 192.168.7.128/25.", written)
			continue
		}
		networks := networksOf(cloud, FamilyOf(masked.Addr()))
		if len(networks) > 0 && !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return within(masked, n.Masked()) }) {
			r.problem(kindHostSubnet, h.Name, fieldEgressCIDRs, written, ReasonOutsideNetwork,
				"%s is not inside %s, the host's network as the cloud reports it, and is ignored. Use a range inside it.",
				written, networks[0].Masked())
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
