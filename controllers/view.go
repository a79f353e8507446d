package controllers

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// view is what one decision depends on, made by an observer. Nothing in it may be
// changed: it is shared with the caches.
type view struct {
	namespaces []*v1.NetNamespace // in order of name
	egressIPs  []*ovnv1.EgressIP  // in order of name
	hosts      []*v1.HostSubnet   // in order of name
	// probed, votes and verdicts are by host: the results of this controller's
	// probes, what agents report, and what follows from both and from Nodes.
	probed map[string]online.ProbeState
	// void holds the hosts whose ballots are void because the controller hears no other
	// host; see online.Alone.
	void     map[string]bool
	votes    map[string]online.Vote
	verdicts map[string]online.Verdict
	// evacuating, capacity and networks are by host, from annotations of Nodes.
	evacuating map[string]bool
	capacity   map[string]int
	networks   map[string][]netip.Prefix
	// onlyOn are, by EgressIP, the hosts that its pool selects.
	onlyOn map[string]*egress.HostSet
	// servesEgressIPs: EgressIPs are ours to serve.
	servesEgressIPs bool
	// assignable are the hosts whose Nodes have the label for EgressIPs.
	assignable map[string]bool
	// ipv6Capacity is by host too, of those for which a cloud gives one for each family.
	ipv6Capacity map[string]int
	// hostIPs are, by host, hostIP and, if that is one of IPv4, an IPv6 address of the Node.
	hostIPs map[string][]string
	// ipv6 are the IPv6 networks and addresses of Nodes, by host.
	ipv6 map[string][]string
	// listed are the addresses that Nodes list, by host.
	listed map[string][]string
	// podNetworks are those of hosts' agents in which the API server has Pods, by host.
	podNetworks map[string][]string
	// found are the networks that objects name, by the host whose status has them.
	found map[string][]v1.FoundNetwork
	// candidates are the hosts as witnesses of others.
	candidates map[string]candidate
	// gone are the hosts whose Node is gone, that were bound to it.
	gone map[string]bool
	// awaited are the claims, by host, that may wait for their NetNamespaces.
	awaited map[string][]netip.Addr
	// retention is how long a host is kept after its Node, for messages.
	retention time.Duration
	// included are the networks outside to which egress IPs apply; none for all.
	included []netip.Prefix
	// defaultCapacity is for hosts that are not in capacity.
	defaultCapacity int
	problems        []egress.Problem
	// failing are the egress IPs that hosts could not be configured for, unheard the
	// hosts whose agents have not reported in time, and changesIn is how long it takes
	// until that may change by itself; 0 for never.
	failing   map[string]map[netip.Addr]bool
	unheard   map[string]bool
	changesIn time.Duration
}

// decision is what the brain decides on a view.
type decision struct {
	problems   []egress.Problem
	resolution egress.Resolution
	allocation egress.Allocation
	// serving are the egress hosts, which need witnesses.
	serving []egress.Peer
}

// decide asks the brain.
func (v *view) decide(memo *egress.Memo) decision {
	d := memo.Decide(v.objects())
	return decision{
		problems:   slices.Concat(d.Problems, v.problems),
		resolution: d.Resolution,
		allocation: d.Allocation,
		serving:    egress.ServingHosts(d.Cluster, d.Resolution),
	}
}

// between are the addresses that the allocation gives to a host and that no list has
// yet, and those that a list must release first.
func (d *decision) between() map[string]bool {
	ips := make(map[string]bool)
	for _, release := range d.allocation.Released {
		ips[release.IP.String()] = true
	}
	for _, wanted := range d.allocation.Hosts {
		var listed []egress.ClaimResult // in order of address
		if i, ok := slices.BinarySearchFunc(d.resolution.Hosts, wanted.Host, func(h egress.HostResult, name string) int {
			return cmp.Compare(h.Name, name)
		}); ok {
			listed = d.resolution.Hosts[i].Claims
		}
		for _, ip := range wanted.All() {
			if _, ok := slices.BinarySearchFunc(listed, ip, func(c egress.ClaimResult, ip netip.Addr) int { return c.IP.Compare(ip) }); !ok {
				ips[ip.String()] = true
			}
		}
	}
	return ips
}

// placement is what the decision depends on and no other part of a HostSubnet says.
func (v *view) placement(host string) *v1.PlacementStatus {
	capacity, ok := v.capacity[host]
	if !ok {
		capacity = atMost(v.defaultCapacity)
	}
	p := &v1.PlacementStatus{
		Capacity:         int32(max(capacity, 0)), //nolint:gosec // at most maxClaims
		EgressAssignable: v.assignable[host],
		Closed:           v.verdicts[host].Closed, NodeAddresses: append([]string{}, v.listed[host]...),
		PodNetworks: append([]string{}, v.podNetworks[host]...), Networks: []string{},
	}
	for _, network := range v.networks[host] {
		written := network.Masked().String()
		p.Networks = append(p.Networks, written)
		if network.Addr().Is4() && p.Network == "" {
			p.Network = written
		}
	}
	if own, differs := v.ipv6Capacity[host]; differs {
		p.IPv6Capacity = new(int32(max(own, 0))) //nolint:gosec // at most maxClaims
	}
	return p
}

// objects are the brain's input.
func (v *view) objects() egress.Objects {
	objects := egress.Objects{
		NetNamespaces: make([]v1.NetNamespace, 0, len(v.namespaces)),
		EgressIPs:     make([]ovnv1.EgressIP, 0, len(v.egressIPs)),
		HostSubnets:   make([]v1.HostSubnet, 0, len(v.hosts)),
		Verdicts:      v.verdicts, Evacuating: v.evacuating, Assignable: v.assignable, OnlyOn: v.onlyOn,
		Capacity: v.capacity, IPv6Capacity: v.ipv6Capacity, DefaultCapacity: atMost(v.defaultCapacity),
		Included: v.included, Networks: v.networks, Gone: v.gone, Awaited: v.awaited, Failing: v.failing, Unheard: v.unheard,
	}
	for _, n := range v.namespaces {
		objects.NetNamespaces = append(objects.NetNamespaces, *n)
	}
	for _, e := range v.egressIPs {
		objects.EgressIPs = append(objects.EgressIPs, *e)
	}
	for _, h := range v.hosts {
		objects.HostSubnets = append(objects.HostSubnets, *h)
	}
	return objects
}

// silentHosts are the hosts that are offline, and that probes alone find silent now.
func (v *view) silentHosts() []*v1.HostSubnet {
	var silent []*v1.HostSubnet
	for _, host := range v.hosts {
		e := online.Evidence{Probe: v.probed[host.Name], Vote: v.votes[host.Name]}
		if e.Silent() && !v.verdicts[host.Name].Online {
			silent = append(silent, host)
		}
	}
	return silent
}

// conditions are the verdict on a host as it is published, without times: Online and
// Evacuating, and NodeGone once it was true.
func (v *view) conditions(h *v1.HostSubnet) []metav1.Condition {
	verdict := v.verdicts[h.Name]
	isOnline := metav1.Condition{
		Type: v1.ConditionOnline, Status: onlineStatus(verdict), Reason: string(verdict.Reason), Message: verdict.Message,
	}
	evacuating := metav1.Condition{
		Type: v1.ConditionEvacuating, Status: metav1.ConditionFalse, Reason: reasonNotEvacuating,
		Message: fmt.Sprintf("Annotation %s: \"true\" on the Node would move the host's egress IPs away.", v1.AnnotationEvacuate),
	}
	if v.evacuating[h.Name] {
		evacuating.Status, evacuating.Reason = metav1.ConditionTrue, string(egress.ReasonEvacuated)
		evacuating.Message = fmt.Sprintf("The Node has annotation %s: remove it to end the evacuation.", v1.AnnotationEvacuate)
	}
	conditions := []metav1.Condition{isOnline, evacuating}
	switch {
	case v.gone[h.Name]:
		conditions = append(conditions, metav1.Condition{
			Type: v1.ConditionNodeGone, Status: metav1.ConditionTrue, Reason: string(egress.ReasonNodeGone),
			Message: fmt.Sprintf("There is no Node of that name any more. What users wrote here is kept for %s from then on, and serves again "+
				"as soon as a Node registers under the name.", v.retention),
		})
	case meta.FindStatusCondition(h.Status.Conditions, v1.ConditionNodeGone) != nil:
		conditions = append(conditions, metav1.Condition{
			Type: v1.ConditionNodeGone, Status: metav1.ConditionFalse, Reason: reasonNodeExists, Message: "The Node exists.",
		})
	}
	return conditions
}

// witnesses are the published witnesses of each host.
func (v *view) witnesses() map[string][]string {
	published := make(map[string][]string, len(v.hosts))
	for _, h := range v.hosts {
		published[h.Name] = h.Status.Witnesses
	}
	return published
}

// onlineStatus is the status of condition Online. Unknown means that probes alone find
// the host silent; see online.Verdict.
func onlineStatus(verdict online.Verdict) metav1.ConditionStatus {
	switch {
	case verdict.Doubtful, verdict.Unseen:
		return metav1.ConditionUnknown
	case verdict.Online:
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// allConfigured reports whether all hosts that are online have what the controller has assigned
// to them, as their agents report.
func (v *view) allConfigured() bool {
	for _, h := range v.hosts {
		if !v.verdicts[h.Name].Online {
			continue
		}
		has := configured(h)
		for _, ip := range assignedTo(h) {
			if !slices.Contains(has, ip) {
				return false
			}
		}
	}
	return true
}

// assignedTo is what the lists of a host have that the controller manages.
func assignedTo(h *v1.HostSubnet) []string {
	if len(h.EgressCIDRs) == 0 {
		return h.AssignedEgressIPs
	}
	return h.AllEgressIPs()
}

// requester is an object that requests egress IPs.
type requester struct {
	// group is its name for the brain.
	group     string
	egressIPs []string
	status    []v1.RequestStatus
}

// requesters are the NetNamespaces and EgressIPs.
func (v *view) requesters() []requester {
	all := make([]requester, 0, len(v.namespaces)+len(v.egressIPs))
	for _, n := range v.namespaces {
		all = append(all, requester{group: n.Name, egressIPs: n.EgressIPs, status: n.Status.EgressIPs})
	}
	for _, e := range v.egressIPs {
		all = append(all, requester{group: egress.GroupOfEgressIP(e.Name), egressIPs: e.Spec.EgressIPs, status: e.Status.EgressIPs})
	}
	return all
}

// requested is all that is requested, as it is written.
func (v *view) requested() []string {
	var all []string
	for _, r := range v.requesters() {
		all = append(all, r.egressIPs...)
	}
	return all
}

// configured are, by address, the hosts that are online and still have it, as their agents
// report.
func (v *view) configured() map[string][]string {
	hosts := make(map[string][]string)
	for _, h := range v.hosts {
		if !v.verdicts[h.Name].Online {
			continue
		}
		for _, claim := range h.Status.EgressIPs {
			if claim.Configured {
				hosts[claim.IP] = append(hosts[claim.IP], h.Name)
			}
		}
	}
	return hosts
}

// published are the addresses that statuses of requesters have assigned, each with its
// host.
func (v *view) published() map[hostAddress]bool {
	all := make(map[hostAddress]bool)
	for _, n := range v.requesters() {
		for _, request := range n.status {
			if assigned(request.State) {
				all[hostAddress{request.Host, request.IP}] = true
			}
		}
	}
	return all
}

// hostAddress is an address on a host, as it is written.
type hostAddress struct{ host, ip string }

// namespace returns the NetNamespace of that name, or nil.
func (v *view) namespace(name string) *v1.NetNamespace {
	i, ok := slices.BinarySearchFunc(v.namespaces, name, compareName[*v1.NetNamespace])
	if !ok {
		return nil
	}
	return v.namespaces[i]
}

// egressIP returns the EgressIP of that name, or nil.
func (v *view) egressIP(name string) *ovnv1.EgressIP {
	i, ok := slices.BinarySearchFunc(v.egressIPs, name, compareName[*ovnv1.EgressIP])
	if !ok {
		return nil
	}
	return v.egressIPs[i]
}

// host returns the HostSubnet of that name, or nil.
func (v *view) host(name string) *v1.HostSubnet {
	i, ok := slices.BinarySearchFunc(v.hosts, name, compareName[*v1.HostSubnet])
	if !ok {
		return nil
	}
	return v.hosts[i]
}

// object returns the object with that status, or nil.
func (v *view) object(key statusKey) client.Object {
	switch key.kind {
	case kindHostSubnet:
		if h := v.host(key.name); h != nil {
			return h
		}
	case kindEgressIP:
		if e := v.egressIP(key.name); e != nil {
			return e
		}
	default:
		if n := v.namespace(key.name); n != nil {
			return n
		}
	}
	return nil
}

func byObjectName[T metav1.Object](a, b T) int {
	return cmp.Compare(a.GetName(), b.GetName())
}

func compareName[T metav1.Object](object T, name string) int {
	return cmp.Compare(object.GetName(), name)
}
