package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The messages of this file appear in conditions, events and kubectl output. Each
// names the objects and the field, says what is wrong, and what to do. If OpenShift
// SDN logged an error its key words are kept, so that runbooks still match.

const dropped = "Traffic to the outside is dropped. "

func badAddressMessage(kind, name, written string) string {
	return fmt.Sprintf("%q in egressIPs of %s %s is not a valid egress IP: use a unicast %s.",
		written, kind, name, addressLike(written))
}

// addressLike is an example of an address, for a user who wrote something else.
func addressLike(written string) string {
	if f, known := familyOfText(written); known && f == IPv6 {
		return "IPv6 address, such as 2001:db8:7::200"
	}
	return "IPv4 address, such as 192.168.7.200"
}

func activeMessage(active []Assignment) string {
	if len(active) == 1 {
		return usedMessage(active[0].IP.String(), active[0].Host)
	}
	list := make([]string, 0, len(active))
	for _, assignment := range active {
		list = append(list, assignment.IP.String()+" from host "+assignment.Host)
	}
	return "Traffic leaves with " + strings.Join(list, ", ") + "."
}

// usedMessage is the message of most requests, which is why it is not formatted.
func usedMessage(ip, host string) string {
	return "Traffic leaves with " + ip + " from host " + host + "."
}

func notConfiguredMessage(host *Host, ip netip.Addr, report Report) string {
	return fmt.Sprintf("Traffic is sent to host %s, which does not have %s: %s", host.Name, ip,
		cmp.Or(report.Message, "its agent reports that the kernel is not configured for it."))
}

func doubtfulMessage(host *Host, ip netip.Addr) string {
	return fmt.Sprintf("Traffic is sent to host %s for %s, because no other host can serve. Probes find that host silent, although its Node is Ready: "+
		"see condition Online of HostSubnet %s.", host.Name, ip, host.Name)
}

func agentGoneMessage(host *Host, ip netip.Addr) string {
	return fmt.Sprintf("Traffic is sent to host %s for %s. The host runs and its agent does not, so that nobody reports whether the traffic leaves: "+
		"see the pods of DaemonSet egressip-agent.", host.Name, ip)
}

func notReportedMessage(host *Host, ip netip.Addr) string {
	return fmt.Sprintf("Traffic is sent to host %s for %s. The host's agent has not reported yet that the kernel is configured for it.", host.Name, ip)
}

func agentUnknownMessage(host *Host) string {
	return fmt.Sprintf("The agent of host %s has not reported that %s is on the host's uplink, so the host takes no egress traffic: "+
		"see the pods of DaemonSet egressip-agent.", host.Name, host.IP)
}

func (x *index) capacityMessage(h int, ip netip.Addr) string {
	return fmt.Sprintf("Host %s claims %s beyond its capacity of %d egress IPs, counted in the order of egressIPs of the HostSubnet: "+
		"claim it on another host.", x.Hosts[h].Name, ip, max(x.Hosts[h].Capacity, 0))
}

func (x *index) multipleNamespacesMessage(a *address) string {
	if slices.ContainsFunc(a.groups, func(n int) bool { return x.Groups[n].ofEgressIP() }) {
		return fmt.Sprintf("Multiple objects (%s) claiming EgressIP %s: remove it from all but one of them.", x.titles(a.groups), a.ip)
	}
	return fmt.Sprintf("Multiple namespaces (%s) claiming EgressIP %s: remove it from egressIPs of all but one NetNamespace.",
		x.groupNames(a.groups), a.ip)
}

func (x *index) multipleHostsMessage(a *address) string {
	return fmt.Sprintf("Multiple nodes (%s) claiming EgressIP %s: remove it from egressIPs of all but one HostSubnet.",
		x.hostNames(a.hosts), a.ip)
}

func (x *index) sameHostMessage(a *address) string {
	group, host := x.Groups[a.groups[0]], x.Hosts[a.hosts[0]]
	var same []int
	for i, b := range x.requested[a.groups[0]] {
		if b.sameHost && b.hosts[0] == a.hosts[0] {
			same = append(same, i)
		}
	}
	return fmt.Sprintf("Multiple EgressIPs (%s) for %s (netid %d) on node %s: claim all but one of them on other HostSubnets.",
		names(same, func(i int) string { return group.Requests[i].String() }), Title(group.Name), group.NetID, host.Name)
}

func (x *index) netIDMessage(n int, reason Reason) string {
	id := x.Groups[n].NetID
	if name, ok := NameOfEgressIP(x.Groups[n].Name); ok && reason == ReasonNoNetID {
		return fmt.Sprintf("EgressIP %s has no netid yet: the controller gives it one.", name)
	}
	if reason == ReasonNoNetID {
		return fmt.Sprintf("NetNamespace %s has no netid yet: the controller gives it one when a Namespace of that name exists. Or set one that is free.",
			x.Groups[n].Name)
	}
	if reason == ReasonBadNetID {
		return fmt.Sprintf("netid %d of NetNamespace %s is greater than %d: set it to a free one.",
			id, x.Groups[n].Name, MaxNetID)
	}
	if sharing := x.sharing(id); slices.ContainsFunc(sharing, func(n int) bool { return x.Groups[n].ofEgressIP() }) {
		return fmt.Sprintf("Several objects (%s) request egress IPs and share netid %d, so their packets cannot be distinguished: "+
			"the controller gives an EgressIP another one.", x.titles(sharing), id)
	}
	return fmt.Sprintf("NetNamespaces (%s) request egress IPs and share netid %d, so their packets cannot be distinguished: "+
		"give each its own netid, or keep egressIPs in only one of them.",
		x.groupNames(x.sharing(id)), id)
}

func (x *index) hostAddressMessage(a *address) string {
	ip := a.ip
	if h, further := x.further[ip]; further {
		return fmt.Sprintf("%s is an address of host %s, as its agent reports (HostSubnet %s, status.agent.addresses): "+
			"use an address in egressIPs that no host has, or take it off the host.", ip, x.Hosts[h].Name, x.Hosts[h].Name)
	}
	if !a.hostIP {
		return x.invalidOnMessage(a.hosts[0], ip)
	}
	return fmt.Sprintf("%s is the address of host %s itself: use an address in egressIPs that no host has.",
		ip, x.hostNames(x.hostsByIP[ip]))
}

func (x *index) podAddressMessage(a *address) string {
	if a.podsOf == none {
		return namedMessage(a.ip, a.named)
	}
	host := &x.Hosts[a.podsOf]
	return fmt.Sprintf("%s is in a pod network of host %s (%s): use an address in egressIPs that is outside the cluster's pod networks.",
		a.ip, host.Name, prefixList(host.Subnets))
}

func (x *index) invalidOnMessage(h int, ip netip.Addr) string {
	_, why := x.invalidOn(h, ip)
	return fmt.Sprintf("Host %s cannot have %s: %s. Correct egressIPs of the HostSubnet, or claim the address on a host whose network contains it.",
		x.Hosts[h].Name, ip, why)
}

// defectMessage is the message for a reason that is the same for a request and a
// claim; "" for all others.
func (x *index) defectMessage(a *address, reason Reason) string {
	ip := a.ip
	switch reason {
	case ReasonHostAddress:
		return x.hostAddressMessage(a)
	case ReasonPodAddress, ReasonServiceAddress, ReasonAPIServerAddress:
		return x.podAddressMessage(a)
	case ReasonMultipleNamespaces:
		return x.multipleNamespacesMessage(a)
	case ReasonNoNetID, ReasonBadNetID, ReasonDuplicateNetID:
		return x.netIDMessage(a.groups[0], reason)
	case ReasonMultipleHosts:
		return x.multipleHostsMessage(a)
	case ReasonOutsideNetwork, ReasonBadAddress, ReasonFamilyNotServed:
		return x.invalidOnMessage(a.hosts[0], ip)
	case ReasonSameHost:
		return x.sameHostMessage(a)
	case ReasonCapacity:
		return x.capacityMessage(a.hosts[0], ip)
	default:
		return ""
	}
}

func (r *resolver) requestMessage(n int, a *address, result *RequestResult) string {
	ip := a.ip
	switch {
	case result.State == Active:
		return usedMessage(result.IP, result.Host)
	case result.Reason == ReasonDropped:
		return fmt.Sprintf("Host %s has %s, but nothing uses it: traffic is dropped because of another of the egress IPs.", result.Host, ip)
	case result.Reason == ReasonEvacuated:
		return fmt.Sprintf("Host %s has %s and is being evacuated: another egress IP is used.", result.Host, ip)
	case result.Reason == ReasonTooMany:
		return fmt.Sprintf("Host %s has %s, and is not used: connections are balanced over %d egress IPs at most. Remove some from %s.",
			result.Host, ip, MaxActive, listOf(r.Groups[n].Name))
	case result.State == Standby && result.Reason == ReasonAddressInUse:
		return fmt.Sprintf("Host %s cannot take %s, because another machine answers for it: another egress IP is used.", result.Host, ip)
	case result.Reason == ReasonKept:
		return fmt.Sprintf("Host %s has %s; %s keeps the egress IP that it uses, as annotation %s says.", result.Host, ip, Title(r.Groups[n].Name), failBackAnnotation)
	case result.State == Standby:
		return "Host " + result.Host + " has " + result.IP + "; an earlier egress IP in " + listOf(r.Groups[n].Name) + " is used."
	case result.Reason == ReasonAgentUnknown:
		return agentUnknownMessage(&r.Hosts[a.hosts[0]])
	case result.State == HostOffline:
		return fmt.Sprintf("Host %s, which claims %s, is offline: repair it, or claim the address on another host.", result.Host, ip)
	case result.Reason == ReasonNoEligibleHost && r.Groups[n].ofEgressIP():
		return fmt.Sprintf("No host can take %s: each whose Node has label %s, and whose network or egressCIDRs contain the address, is offline, "+
			"has no agent that reports ready, has no capacity left, or claims another egress IP of %s. Label another Node, or add capacity.",
			ip, assignableLabel, Title(r.Groups[n].Name))
	case result.Reason == ReasonNoEligibleHost:
		return fmt.Sprintf("No host can take %s: each host with that address in egressCIDRs is offline, has no agent that reports ready, has no capacity left, "+
			"or claims another egress IP of namespace %s. Add a host, or capacity.", ip, r.Groups[n].Name)
	case result.Reason == ReasonNotClaimed && r.eligibility.covered(ip, n):
		return fmt.Sprintf("No host claims %s yet: the controller will assign it.", ip)
	case result.Reason == ReasonNotClaimed && r.Groups[n].ofEgressIP():
		return fmt.Sprintf("No host can have %s: give a Node whose network contains it label %s (kubectl label node NAME %s=), "+
			"or add it to egressIPs of a HostSubnet.", ip, assignableLabel, assignableLabel)
	case result.Reason == ReasonNotClaimed:
		return fmt.Sprintf("No host claims %s: add it to egressIPs of a HostSubnet, or add a range that contains it to egressCIDRs of HostSubnets.", ip)
	}
	return r.defectMessage(a, result.Reason)
}

func (r *resolver) claimMessage(h int, a *address, result *ClaimResult) string {
	switch {
	case result.Reason == ReasonBadHost:
		return fmt.Sprintf("Claims of HostSubnet %s do not count: %s.", r.Hosts[h].Name, r.bad[h])
	case result.Reason == ReasonNodeGone:
		return fmt.Sprintf("The Node of host %s is gone, and host %s claims %s: remove it here.",
			r.Hosts[h].Name, r.hostNames(a.hosts), result.IP)
	case result.Reason == ReasonDropped:
		return fmt.Sprintf("Traffic of %s is dropped because of another of its egress IPs; nothing uses %s.", Title(result.Group), result.IP)
	case result.Reason == ReasonNotRequested:
		return fmt.Sprintf("No namespace requests %s: add it to egressIPs of a NetNamespace, or remove it here.", result.IP)
	case result.State == Active:
		return "Traffic of " + Title(result.Group) + " leaves with " + result.IP.String() + "."
	case result.State == Standby && r.Hosts[h].Evacuating:
		return fmt.Sprintf("Ready for %s, which uses another egress IP while the host is being evacuated.", Title(result.Group))
	case result.State == Standby:
		return "Ready for " + Title(result.Group) + ", which uses another of its egress IPs."
	case result.Reason == ReasonAgentUnknown:
		return agentUnknownMessage(&r.Hosts[h])
	case result.State == HostOffline:
		return fmt.Sprintf("The host is offline; %s of %s is not used.", result.IP, Title(result.Group))
	}
	return r.defectMessage(a, result.Reason)
}

// summarizeHost summarizes a host: what is wrong with its claims, or else with its pods.
func (r *resolver) summarizeHost(h int, result HostResult) (bool, Reason, string) {
	ready, reason, message := r.summarizeClaims(h, result)
	if missing := r.Hosts[h].PodsMissing; ready && missing != "" {
		return false, ReasonPodNetworksMissing, missing
	}
	return ready, reason, message
}

// summarizeClaims reports the first claim that is not in order, if any.
func (r *resolver) summarizeClaims(h int, result HostResult) (bool, Reason, string) {
	host := &r.Hosts[h]
	if why := r.bad[h]; why != "" {
		return false, ReasonBadHost, fmt.Sprintf("HostSubnet %s takes no egress traffic: %s. Correct hostIP.", host.Name, why)
	}
	if len(host.Invalid) > 0 {
		return false, ReasonBadAddress, badAddressMessage(kindHostSubnet, host.Name, host.Invalid[0])
	}
	if len(host.Excess) > 0 {
		return false, ReasonCapacity, fmt.Sprintf("Host %s claims %d egress IPs and has capacity for %d: the last %d in egressIPs are not used. Move them to other hosts.",
			host.Name, len(host.Claims), max(host.Capacity, 0), len(host.Excess))
	}
	assigned := 0
	for i := range result.Claims {
		claim := &result.Claims[i]
		if claim.State == Conflict || claim.State == Invalid {
			return false, claim.Reason, claim.Message
		}
		if claim.Assigned() {
			assigned++
		}
	}
	if assigned > 0 && !host.serves() {
		return idleHost(host)
	}
	if reason, why := failedClaim(host, result.Claims); reason != "" {
		return false, reason, why
	}
	switch {
	case host.Evacuating && assigned > 0:
		return true, ReasonEvacuated, r.evacuatingMessage(h, assigned)
	case host.Capacity != 0 && len(host.Claims) > max(host.Capacity, 0):
		return false, ReasonCapacity, fmt.Sprintf("Host %s claims %d egress IPs and has capacity for %d: move some to other hosts.",
			host.Name, len(host.Claims), max(host.Capacity, 0))
	case len(host.Claims) == 0:
		return true, ReasonNotClaimed, "The host claims no egress IP."
	case assigned == 0:
		return true, ReasonNotRequested, "No namespace requests any of the host's egress IPs."
	}
	return true, ReasonAssigned, fmt.Sprintf("The host has %d egress IPs.", assigned)
}

// failedClaim is why the host does not have a claim that it should have, as its agent
// reports: that of the first; "" if there is none. What is not reported yet is not
// missing: the NetNamespace says that it is not known.
func failedClaim(host *Host, claims []ClaimResult) (Reason, string) {
	for i := range claims {
		report, reported := host.Reports[claims[i].IP]
		if !claims[i].Assigned() || !reported || report.Configured {
			continue
		}
		reason := ReasonNotConfigured
		if report.taken() {
			reason = ReasonAddressInUse
		}
		return reason, fmt.Sprintf("Host %s does not have %s of %s: %s", host.Name, claims[i].IP, Title(claims[i].Group),
			cmp.Or(report.Message, "its agent reports that the kernel is not configured for it."))
	}
	return "", ""
}

// serves reports whether nothing speaks against sending traffic to the host.
func (h *Host) serves() bool { return h.Confirmed && h.Online }

// idleHost is why traffic is not sent to a host that has egress IPs.
func idleHost(host *Host) (bool, Reason, string) {
	switch {
	case !host.Confirmed:
		return false, ReasonAgentUnknown, agentUnknownMessage(host)
	case host.Doubtful:
		return false, ReasonHostSilent, fmt.Sprintf("Probes find host %s silent, although its Node is Ready: "+
			"its egress IPs are used only by namespaces that have no other. See condition Online.", host.Name)
	}
	return false, ReasonHostOffline, fmt.Sprintf("Host %s is offline; its egress IPs are not used.", host.Name)
}

// evacuatingMessage reports the progress of an evacuation.
func (r *resolver) evacuatingMessage(h, assigned int) string {
	used := 0
	for _, a := range r.claimed[h] {
		if r.state[a.id] == Active {
			used++
		}
	}
	return fmt.Sprintf("The host is being evacuated: it has %d egress IPs, %d of which are in use because no other can replace them.",
		assigned, used)
}

func (a *allocator) releaseMessage(gone claim, reason Reason) string {
	host := a.Hosts[gone.host].Name
	switch reason {
	case ReasonAgentUnknown:
		return fmt.Sprintf("Host %s releases %s: its agent does not report, so it is not known whether the host can have egress IPs. "+
			"See the pods of DaemonSet egressip-agent.", host, gone.ip)
	case ReasonHostSilent:
		return fmt.Sprintf("Host %s releases %s to another host: probes find it silent.", host, gone.ip)
	case ReasonNotConfigured:
		return fmt.Sprintf("Host %s releases %s to another host: its kernel could not be configured for it.", host, gone.ip)
	case ReasonNotRequested:
		return fmt.Sprintf("Host %s releases %s: nothing requests it any more.", host, gone.ip)
	case ReasonHostOffline:
		return fmt.Sprintf("Host %s releases %s: the host is offline.", host, gone.ip)
	case ReasonOutsideRange:
		if a.addresses.get(gone.ip).ofEgressIP(a.index) {
			return fmt.Sprintf("Host %s releases %s: its Node has no label %s any more, or is none of those that the pool selects, and none of its egressCIDRs contains the address.",
				host, gone.ip, assignableLabel)
		}
		return fmt.Sprintf("Host %s releases %s: none of its egressCIDRs contains it.", host, gone.ip)
	case ReasonCapacity:
		return fmt.Sprintf("Host %s releases %s: it has capacity for %d egress IPs.", host, gone.ip, max(a.Hosts[gone.host].Capacity, 0))
	case ReasonSameHost:
		return fmt.Sprintf("Host %s releases %s: it has another egress IP of the same pods.", host, gone.ip)
	case ReasonEvacuated:
		return fmt.Sprintf("Host %s releases %s to another host: it is being evacuated.", host, gone.ip)
	case ReasonRebalanced:
		return fmt.Sprintf("Host %s releases %s to a host that has less than half of its share.", host, gone.ip)
	case ReasonMultipleHosts:
		return fmt.Sprintf("Host %s releases %s: another host claims it too.", host, gone.ip)
	case ReasonBadHost:
		return fmt.Sprintf("Host %s releases %s: %s.", host, gone.ip, a.bad[gone.host])
	case ReasonOutsideNetwork, ReasonBadAddress, ReasonFamilyNotServed:
		_, why := a.invalidOn(gone.host, gone.ip)
		return fmt.Sprintf("Host %s releases %s: %s.", host, gone.ip, why)
	default:
		return fmt.Sprintf("Host %s releases %s. %s", host, gone.ip, a.defectMessage(a.addresses.get(gone.ip), reason))
	}
}

func unplacedMessage(ip netip.Addr, group string) string {
	if _, ok := NameOfEgressIP(group); ok {
		return fmt.Sprintf("No host can take %s of %s: no host whose Node has label %s, and whose network contains the address, is online, has capacity left "+
			"and has no other egress IP of it. Label another Node, or add capacity.", ip, Title(group), assignableLabel)
	}
	return fmt.Sprintf("No host can take %s of namespace %s: no host with that address in egressCIDRs is online, has capacity left "+
		"and has no other egress IP of the namespace. Add a host, extend egressCIDRs of a HostSubnet, or add capacity.", ip, group)
}

func (x *index) hostNames(hosts []int) string {
	return names(hosts, func(h int) string { return x.Hosts[h].Name })
}

func (x *index) groupNames(groups []int) string {
	return names(groups, func(n int) string { return x.Groups[n].Name })
}

func (x *index) titles(groups []int) string {
	return names(groups, func(n int) string { return Title(x.Groups[n].Name) })
}

// ofEgressIP reports whether an EgressIP alone requests the address.
func (a *address) ofEgressIP(x *index) bool {
	return len(a.groups) == 1 && x.Groups[a.groups[0]].ofEgressIP()
}

// listOf names the field with the requests of a group.
func listOf(group string) string {
	if kind, _ := objectOf(group); kind == kindEgressIP {
		return "spec.egressIPs of the EgressIP"
	}
	return "egressIPs of the NetNamespace"
}

// maxNames keeps messages readable, and small enough for an API object, if a mistake
// concerns thousands of objects.
const maxNames = 10

func names(positions []int, name func(int) string) string {
	var list []string
	for _, p := range positions {
		if len(list) == maxNames {
			list = append(list, "...")
			break
		}
		list = append(list, name(p))
	}
	return strings.Join(list, ", ")
}
