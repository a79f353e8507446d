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
//   - an address of a host, or outside the network of the host that claims it, is
//     assigned to none;
//   - an address that a manual host claims beyond its capacity is assigned to none;
//   - while a host is being evacuated, is doubtful, or another machine answers for the
//     address, the namespace's egress IPs on other hosts are used, if there are any;
//   - a host whose agent has not confirmed its hostIP takes no traffic;
//   - two namespaces that request egress IPs and share a netid get none: the
//     overlay could not tell their packets apart. Nor does a namespace without a
//     netid get any: 0 is that of another.
//
// A namespace uses the first of its assigned egress IPs whose host is online
// (Ordered), or MaxActive of them (Balanced); with none it is dropped. A claim counts while
// its host is offline, so that no other host takes the address over by itself.
func Resolve(c Cluster) Resolution {
	x := newIndex(c)
	r := resolver{
		index:       x,
		eligibility: newEligibility(x),
		state:       make(map[netip.Addr]State, len(x.addresses)),
	}
	resolution := Resolution{
		Namespaces: make([]NamespaceResult, 0, len(c.Namespaces)),
		Hosts:      make([]HostResult, 0, len(c.Hosts)),
	}
	for n := range c.Namespaces {
		resolution.Namespaces = append(resolution.Namespaces, r.namespace(n))
	}
	for h := range c.Hosts {
		resolution.Hosts = append(resolution.Hosts, r.host(h))
	}
	return resolution
}

// resolver states what the index decides as results with messages.
type resolver struct {
	*index
	eligibility *eligibility
	// state of each requested address, for the hosts that claim it.
	state map[netip.Addr]State
}

func (r *resolver) namespace(n int) NamespaceResult {
	namespace := r.Namespaces[n]
	result := NamespaceResult{
		Name: namespace.Name, NetID: namespace.NetID, Unnumbered: namespace.Unnumbered, Mode: namespace.Mode,
		Active: r.active(n),
	}
	result.Dropped = namespace.Requesting() && len(result.Active) == 0
	for _, ip := range namespace.Requests {
		result.Requests = append(result.Requests, r.request(n, ip, result.Active))
	}
	for _, written := range namespace.Invalid {
		result.Requests = append(result.Requests, RequestResult{
			IP: written, State: Invalid, Reason: ReasonBadAddress,
			Message: badAddressMessage(kindNetNamespace, namespace.Name, written),
		})
	}
	result.Ready, result.Reason, result.Message = r.summary(n, result)
	return result
}

func (r *resolver) active(n int) []Assignment {
	if reason, _ := r.namespaceConflict(n); reason != "" {
		return nil
	}
	var tiers [useless][]Assignment
	for _, ip := range r.Namespaces[n].Requests {
		if r.reasonFor(ip) != ReasonAssigned {
			continue
		}
		host := r.Hosts[r.addresses[ip].hosts[0]]
		if t := tierOf(host, ip); t < useless {
			tiers[t] = append(tiers[t], Assignment{IP: ip, Host: host.Name, HostIP: host.IP})
		}
	}
	for _, active := range tiers {
		if len(active) > 0 {
			return active[:min(len(active), r.Namespaces[n].Mode.limit())]
		}
	}
	return nil
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

func tierOf(host Host, ip netip.Addr) tier {
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

func (r *resolver) request(n int, ip netip.Addr, active []Assignment) RequestResult {
	result := RequestResult{IP: ip.String(), Reason: r.reasonFor(ip)}
	a := r.addresses[ip]
	if len(a.hosts) == 1 {
		result.Host = r.Hosts[a.hosts[0]].Name
	}
	if result.Reason == ReasonNotClaimed && r.eligibility.covered(ip) && !r.eligibility.fits(ip, n) {
		result.Reason = ReasonNoEligibleHost
	}
	result.State = stateOf(result.Reason)
	if result.Reason == ReasonAssigned {
		conflict, _ := r.namespaceConflict(n)
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
			result.State, result.Reason = Standby, r.standbyReason(n, ip, active)
		}
	}
	r.state[ip] = result.State
	result.Message = r.requestMessage(n, ip, result)
	return result
}

// standbyReason is why an egress IP of an online host is not used.
func (r *resolver) standbyReason(n int, ip netip.Addr, active []Assignment) Reason {
	switch t := tierOf(r.Hosts[r.addresses[ip].hosts[0]], ip); {
	case t == taken:
		return ReasonAddressInUse
	case t == leaving:
		return ReasonEvacuated
	case r.Namespaces[n].Mode == Balanced && len(active) == MaxActive:
		return ReasonTooMany
	}
	return ReasonAssigned
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
	case ReasonHostAddress, ReasonOutsideNetwork, ReasonBadAddress, ReasonBadNetID, ReasonBadHost:
		return Invalid
	default:
		return Unassigned
	}
}

// summary is the condition EgressReady.
func (r *resolver) summary(n int, result NamespaceResult) (Readiness, Reason, string) {
	switch {
	case !r.Namespaces[n].Requesting():
		return ReadyTrue, ReasonNotRequested, "No egress IP is requested: traffic leaves with the node's address."
	case !result.Dropped:
		return r.activeSummary(result.Active)
	}
	reason, message := r.droppedSummary(n, result)
	return ReadyFalse, reason, message
}

// activeSummary reports the first active assignment that does not work as far as is
// known, those that are known not to work first.
func (r *resolver) activeSummary(active []Assignment) (Readiness, Reason, string) {
	unknown, unknownReason := "", Reason("")
	for _, a := range active {
		host, _ := r.Host(a.Host)
		switch ready, reason, why := inUse(host, a.IP); {
		case ready == ReadyFalse:
			return ReadyFalse, reason, why
		case ready == ReadyUnknown && unknown == "":
			unknown, unknownReason = why, reason
		}
	}
	if unknown != "" {
		return ReadyUnknown, unknownReason, unknown
	}
	return ReadyTrue, ReasonAssigned, activeMessage(active)
}

// inUse reports whether traffic that is sent to the host leaves with the egress IP, by
// what is known about the host.
func inUse(host Host, ip netip.Addr) (Readiness, Reason, string) {
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
func (r *resolver) droppedSummary(n int, result NamespaceResult) (Reason, string) {
	if conflict, ip := r.namespaceConflict(n); conflict != "" {
		if conflict == ReasonMultipleNamespaces {
			return conflict, dropped + r.multipleNamespacesMessage(ip)
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
	host := r.Hosts[h]
	result := HostResult{Name: host.Name, Invalid: host.Invalid}
	for _, ip := range host.Claims {
		result.Claims = append(result.Claims, r.claim(h, ip))
	}
	result.Ready, result.Reason, result.Message = r.summarizeHost(h, result)
	return result
}

func (r *resolver) claim(h int, ip netip.Addr) ClaimResult {
	result := ClaimResult{IP: ip, Reason: r.reasonFor(ip)}
	a := r.addresses[ip]
	if len(a.namespaces) == 1 {
		namespace := r.Namespaces[a.namespaces[0]]
		result.Namespace, result.NetID = namespace.Name, namespace.NetID
	}
	switch {
	case r.badHost(h) != "":
		result.Reason = ReasonBadHost
	case !slices.Contains(a.hosts, h):
		result.Reason = ReasonNodeGone
	}
	result.State = stateOf(result.Reason)
	if result.Reason == ReasonAssigned {
		result.State = r.state[ip]
		conflict, _ := r.namespaceConflict(a.namespaces[0])
		switch {
		case result.State == HostOffline && !r.Hosts[h].Confirmed:
			result.Reason = ReasonAgentUnknown
		case result.State == HostOffline:
			result.Reason = ReasonHostOffline
		case conflict != "":
			result.Reason = ReasonDropped
		}
	}
	result.Message = r.claimMessage(h, result)
	return result
}
