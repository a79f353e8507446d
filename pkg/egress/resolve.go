package egress

import (
	"net/netip"
	"slices"
)

// Resolve decides which namespace uses which egress IP on which host. Its
// rules, for each egress IP:
//
//   - it is assigned where one namespace requests it, one host claims it, and
//     that host claims no other egress IP of that namespace;
//   - an address that two namespaces request is assigned to none, and each namespace
//     that requests it is dropped entirely, whatever else it requests;
//   - an address that two hosts claim is assigned to none;
//   - an address of a host or an API server, or in a network of pods or services, or outside
//     the network of the host that claims it, is assigned to none;
//   - an address that a manual host claims beyond its capacity is assigned to none;
//   - while a host is being evacuated, is doubtful, or another machine answers for the
//     address, the namespace's egress IPs on other hosts are used, if there are any;
//   - a host whose agent has not confirmed its hostIP takes no traffic;
//   - two namespaces that request egress IPs and share a netid get none: the
//     overlay could not tell their packets apart. Nor does a namespace without a
//     netid get any: 0 is that of another.
//
// A namespace uses the first of its assigned egress IPs whose host is online
// (Ordered), or the one that it used last if it keeps that, or MaxActive of them (Balanced); with
// none it is dropped. A claim counts while
// its host is offline, so that no other host takes the address over by itself.
//
// Each family of addresses is decided by itself, by these rules: a namespace may have
// egress IPs of both, on different hosts, and what is wrong with those of one does not
// concern the other.
func Resolve(c Cluster) Resolution {
	return c.resolveEach(func(view Cluster) Resolution { return resolve(newIndex(view), nil) })
}

// resolve is Resolve. Results of an earlier resolution that still hold are taken over.
func resolve(x *index, before *earlier) Resolution {
	c := x.Cluster
	r := resolver{
		index:       x,
		eligibility: newEligibility(x),
		state:       make([]State, x.addresses.count()),
		missing:     podsMissing(c),
		overlaps:    overlapsOf(c),
		parted:      partedHosts(c),
	}
	resolution := Resolution{
		Groups: make([]GroupResult, 0, len(c.Groups)),
		Hosts:  make([]HostResult, 0, len(c.Hosts)),
	}
	held := make([]bool, len(c.Groups))
	for n := range c.Groups {
		result, holds := before.group(x, n)
		if !holds {
			result = r.group(n)
		}
		for i, a := range x.requested[n] {
			r.state[a.id] = result.Requests[i].State
		}
		held[n] = holds
		resolution.Groups = append(resolution.Groups, result)
	}
	for h := range c.Hosts {
		result, holds := before.host(x, h, held)
		if !holds {
			result = r.host(h)
		}
		resolution.Hosts = append(resolution.Hosts, result)
	}
	return resolution
}

// resolver states what the index decides as results with messages.
type resolver struct {
	*index
	eligibility *eligibility
	// state of each requested address, by its number, for the hosts that claim it.
	state []State
	// activeHosts are the hosts of the assignments that active returned last.
	activeHosts []int
	// missing are the hosts with pods in networks that are not known, parted those of each family.
	missing missingPods
	parted  parted
	// overlaps are, by group, those with others.
	overlaps map[string]groupOverlaps
}

func (r *resolver) group(n int) GroupResult {
	group := &r.Groups[n]
	result := GroupResult{
		Name: group.Name, NetID: group.NetID, Unnumbered: group.Unnumbered, Mode: group.Mode,
		Active: r.active(n),
	}
	result.Dropped = group.Requesting() && len(result.Active) == 0
	result.Drops[r.Family] = group.drops(r.Family, len(result.Active) > 0)
	result.Drops[r.Family.other()] = group.drops(r.Family.other(), false)
	if len(group.Requests) > 0 {
		result.Requests = make([]RequestResult, 0, len(group.Requests)+len(group.Invalid))
	}
	for _, a := range r.requested[n] {
		result.Requests = append(result.Requests, r.request(n, a, result.Active))
	}
	for _, written := range group.Invalid {
		kind, name := objectOf(group.Name)
		result.Requests = append(result.Requests, RequestResult{
			IP: written, State: Invalid, Reason: ReasonBadAddress, Message: badAddressMessage(kind, name, written),
		})
	}
	result.Ready, result.Reason, result.Message = r.summary(n, &result)
	result.Message += group.otherMessage(r.Family) + group.destinationsMessage(r.Included)
	return result
}

// active returns the assignments in use, and notes their hosts.
func (r *resolver) active(n int) []Assignment {
	r.activeHosts = r.activeHosts[:0]
	if reason, _ := r.groupConflict(n); reason != "" {
		return nil
	}
	best, count, kept := useless, 0, false
	for _, a := range r.requested[n] {
		t := r.tier(a)
		switch {
		case t < best:
			best, count, kept = t, 1, r.keeps(n, a)
		case t == best:
			count, kept = count+1, kept || r.keeps(n, a)
		}
	}
	if best == useless {
		return nil
	}
	count = min(count, r.Groups[n].Mode.limit())
	active := make([]Assignment, 0, count)
	for _, a := range r.requested[n] {
		if len(active) < count && r.tier(a) == best && (!kept || r.keeps(n, a)) {
			host := &r.Hosts[a.hosts[0]]
			active = append(active, Assignment{IP: a.ip, Host: host.Name, HostIP: host.IP})
			r.activeHosts = append(r.activeHosts, a.hosts[0])
		}
	}
	return active
}

// keeps reports whether the namespace uses an address already, and wants to go on with it.
func (r *resolver) keeps(n int, a *address) bool {
	group := &r.Groups[n]
	return group.Mode == Ordered && len(group.Keeps) > 0 && slices.Contains(group.Keeps, a.ip)
}

// tier is how well the address suits the namespace that requests it.
func (r *resolver) tier(a *address) tier {
	if a.reason != ReasonAssigned {
		return useless
	}
	return tierOf(&r.Hosts[a.hosts[0]], a.ip)
}

// tier is how well an assignment suits. A namespace uses those of its best tier.
type tier int

const (
	// good: nothing speaks against it.
	good tier = iota
	// leaving: the host is being evacuated. That must not cause an outage.
	leaving
	// doubtful: the host is silent, by probes alone, which take no last way.
	doubtful
	// taken: another machine answers for the address, so that the host does not have
	// it: most likely the host that had it before, for a moment.
	taken
	// useless: nothing can be sent there.
	useless
)

func tierOf(host *Host, ip netip.Addr) tier {
	switch {
	case !host.Confirmed || !host.Online && !host.Doubtful:
		return useless
	case host.Reports[ip].taken():
		return taken
	case host.Doubtful:
		return doubtful
	case host.Evacuating:
		return leaving
	}
	return good
}

func (r *resolver) request(n int, a *address, active []Assignment) RequestResult {
	ip := a.ip
	result := RequestResult{IP: ip.String(), Reason: a.reason}
	if len(a.hosts) == 1 {
		result.Host = r.Hosts[a.hosts[0]].Name
	}
	if result.Reason == ReasonNotClaimed && r.eligibility.covered(ip, n) && !r.eligibility.fits(ip, n) {
		result.Reason = ReasonNoEligibleHost
	}
	result.State = stateOf(result.Reason)
	if result.Reason == ReasonAssigned {
		conflict, _ := r.groupConflict(n)
		switch {
		case conflict == "" && uses(active, ip):
			result.State = Active
		case !r.Hosts[a.hosts[0]].Confirmed:
			result.State, result.Reason = HostOffline, ReasonAgentUnknown
		case !r.Hosts[a.hosts[0]].Online:
			result.State, result.Reason = HostOffline, ReasonHostOffline
		case conflict != "":
			result.State, result.Reason = Standby, ReasonDropped
		default:
			result.State, result.Reason = Standby, r.standbyReason(n, a, active)
		}
	}
	result.Message = r.requestMessage(n, a, &result)
	return result
}

// standbyReason is why an egress IP of an online host is not used.
func (r *resolver) standbyReason(n int, a *address, active []Assignment) Reason {
	switch t := r.tier(a); {
	case t == taken:
		return ReasonAddressInUse
	case t == leaving:
		return ReasonEvacuated
	case r.Groups[n].Mode == Balanced && len(active) == MaxActive:
		return ReasonTooMany
	case r.Groups[n].Mode == Ordered && len(active) == 1 && r.earlier(n, a.ip, active[0].IP):
		return ReasonKept
	}
	return ReasonAssigned
}

// earlier reports whether an egress IP comes before another one in the namespace's list.
func (x *index) earlier(n int, ip, other netip.Addr) bool {
	requests := x.Groups[n].Requests
	return slices.Index(requests, ip) < slices.Index(requests, other)
}

func uses(active []Assignment, ip netip.Addr) bool {
	for _, assignment := range active {
		if assignment.IP == ip {
			return true
		}
	}
	return false
}

// stateOf is the state that belongs to a reason; for ReasonAssigned it depends on
// more.
func stateOf(reason Reason) State {
	switch reason {
	case ReasonMultipleNamespaces, ReasonMultipleHosts, ReasonSameHost, ReasonDuplicateNetID:
		return Conflict
	case ReasonHostAddress, ReasonPodAddress, ReasonServiceAddress, ReasonAPIServerAddress, ReasonOutsideNetwork, ReasonFamilyNotServed, ReasonBadAddress, ReasonBadNetID, ReasonBadHost:
		return Invalid
	default:
		return Unassigned
	}
}

// summary is the condition EgressReady.
func (r *resolver) summary(n int, result *GroupResult) (Readiness, Reason, string) {
	switch {
	case r.Groups[n].ofEgressIP() && r.Groups[n].Selects == nil:
		return ReadyFalse, ReasonBadSelector, "The EgressIP selects no pods."
	case !r.Groups[n].Requesting() && r.Groups[n].ofEgressIP():
		return ReadyTrue, ReasonNotRequested, "No egress IP is requested, so it changes nothing for the pods that it selects."
	case !r.Groups[n].Requesting():
		return ReadyTrue, ReasonNotRequested, "No egress IP is requested: traffic leaves with the node's address."
	case !result.Dropped:
		return r.activeSummary(n, result.Active)
	}
	reason, message := r.droppedSummary(n, result)
	return ReadyFalse, reason, message
}

// activeSummary reports the first active assignment that is not known to work. Those
// that are known not to work come first. Where all work, it may still be that the
// namespace sends with them to pods, too, or that some hosts do not reach them.
func (r *resolver) activeSummary(n int, active []Assignment) (Readiness, Reason, string) {
	unknown, unknownReason := "", Reason("")
	for i, a := range active {
		switch ready, reason, why := inUse(&r.Hosts[r.activeHosts[i]], a.IP); {
		case ready == ReadyFalse:
			return ReadyFalse, reason, why
		case ready == ReadyUnknown && unknown == "":
			unknown, unknownReason = why, reason
		}
	}
	if unknown != "" {
		return ReadyUnknown, unknownReason, unknown
	}
	if r.missing.hosts > 0 {
		return ReadyUnknown, ReasonPodNetworksMissing, activeMessage(active) + " " + r.missing.message()
	}
	if f, found := r.outOfReach(n); found {
		return ReadyUnknown, ReasonHostsOutOfReach, activeMessage(active) + " " + r.parted.message(f)
	}
	overlaps := r.overlaps[r.Groups[n].Name]
	if overlaps.ignored.pods > 0 {
		return ReadyFalse, ReasonOverlap, activeMessage(active) + overlaps.message()
	}
	return ReadyTrue, ReasonAssigned, activeMessage(active) + overlaps.message()
}

// inUse reports whether traffic that is sent to the host leaves with the egress IP, by
// what is known about the host.
func inUse(host *Host, ip netip.Addr) (Readiness, Reason, string) {
	report, reported := host.Reports[ip]
	switch {
	case reported && !report.Configured:
		reason := ReasonNotConfigured
		if report.Reason == ReasonAddressInUse {
			reason = ReasonAddressInUse
		}
		return ReadyFalse, reason, notConfiguredMessage(host, ip, report)
	case host.Doubtful:
		return ReadyUnknown, ReasonHostSilent, doubtfulMessage(host, ip)
	case host.AgentGone:
		return ReadyUnknown, ReasonAgentGone, agentGoneMessage(host, ip)
	case !reported:
		return ReadyUnknown, ReasonNotReported, notReportedMessage(host, ip)
	}
	return ReadyTrue, ReasonAssigned, ""
}

// droppedSummary is why the namespace has no active egress IP.
func (r *resolver) droppedSummary(n int, result *GroupResult) (Reason, string) {
	if conflict, ip := r.groupConflict(n); conflict != "" {
		if conflict == ReasonMultipleNamespaces {
			return conflict, dropped + r.multipleNamespacesMessage(r.addresses.get(ip))
		}
		return conflict, dropped + r.netIDMessage(n, conflict)
	}
	// If all requests fail for one reason, that is the reason. The first message
	// says what to do in any case.
	reason := result.Requests[0].Reason
	for _, request := range result.Requests[1:] {
		if request.Reason != reason {
			reason = ReasonDropped
			break
		}
	}
	return reason, dropped + result.Requests[0].Message
}

func (r *resolver) host(h int) HostResult {
	result := HostResult{Name: r.Hosts[h].Name, Invalid: r.Hosts[h].Invalid}
	if len(r.claimed[h]) > 0 {
		result.Claims = make([]ClaimResult, 0, len(r.claimed[h]))
	}
	for _, a := range r.claimed[h] {
		result.Claims = append(result.Claims, r.claim(h, a))
	}
	result.Ready, result.Reason, result.Message = r.summarizeHost(h, result)
	return result
}

func (r *resolver) claim(h int, a *address) ClaimResult {
	result := ClaimResult{IP: a.ip, Reason: a.reason}
	if len(a.groups) == 1 {
		group := &r.Groups[a.groups[0]]
		result.Group, result.NetID = group.Name, group.NetID
	}
	switch {
	case r.bad[h] != "":
		result.Reason = ReasonBadHost
	case !slices.Contains(a.hosts, h):
		result.Reason = ReasonNodeGone
	}
	result.State = stateOf(result.Reason)
	if result.Reason == ReasonAssigned {
		result.State = r.state[a.id]
		conflict, _ := r.groupConflict(a.groups[0])
		switch {
		case result.State == HostOffline && !r.Hosts[h].Confirmed:
			result.Reason = ReasonAgentUnknown
		case result.State == HostOffline:
			result.Reason = ReasonHostOffline
		case conflict != "":
			result.Reason = ReasonDropped
		}
	}
	result.Message = r.claimMessage(h, a, &result)
	return result
}
