package egress

import (
	"fmt"
	"net/netip"
	"slices"
)

// Outcome is what becomes of a packet.
type Outcome string

// The outcomes.
const (
	// OutcomeEgressIP: it leaves with one of the sources.
	OutcomeEgressIP Outcome = "EgressIP"
	// OutcomeAsIs: it leaves as it does without egress IPs, usually with the node's address.
	OutcomeAsIs Outcome = "AsIs"
	// OutcomeDropped: it is dropped. OutcomeRefused: so it is, and the pod is told.
	OutcomeDropped Outcome = "Dropped"
	OutcomeRefused Outcome = "Refused"
	// OutcomeInside: it stays inside the cluster, and is left alone.
	OutcomeInside Outcome = "Inside"
	// OutcomeNoFamily: the pod has no address of the destination's family.
	OutcomeNoFamily Outcome = "NoFamily"
	// OutcomeUnknown: what the objects say does not decide it.
	OutcomeUnknown Outcome = "Unknown"
)

// Hop is one egress host that takes packets of a pod, and the source that it gives them.
type Hop struct {
	// Host is its name; "" if no HostSubnet has the address HostIP.
	Host   string
	HostIP netip.Addr
	Source netip.Addr
	// Local: it is the pod's own host.
	Local bool
	// Reported: the host's agent reports on Source; Report is what.
	Reported bool
	Report   Report
}

// Trace is the way of one pod's packets to the outside, for reports. It follows from the same
// decision that the agent of the pod's host makes.
type Trace struct {
	Pod Pod
	// Decided is the decision about the pod's host.
	Decided HostDecision
	// GroupKnown: it is known which group decides. InGroup: there is one, and Group is what
	// becomes of it.
	GroupKnown, InGroup bool
	Group               GroupResult
	// Ignored are further groups that say the pod's egress IPs, in order of name.
	Ignored []string
	// PathKnown: the plan of the host has a path for the address, which is Path. Without one,
	// the pod is unknown to the agent.
	PathKnown bool
	Path      PodPath
	// Hops are the egress hosts of the path, in the order of its list.
	Hops []Hop
	// Planned is what the plan makes of packets to the outside, Outcome what becomes of them as
	// far as agents report that they carry it out, and Why says what decides.
	Planned, Outcome Outcome
	Why              string
	// notCarriedOut: nothing says that the pod's host carries the plan out; why says so.
	notCarriedOut string
	// applies are the destinations of the group.
	applies *Destinations
}

// TracePod traces the packets of one of the host's pods to the outside. The pod is one of
// in.Pods. It returns false where not even the host's address is known.
func TracePod(in HostInput, pod Pod) (Trace, bool) {
	decided, ok := DecideHost(in)
	if !ok {
		return Trace{}, false
	}
	t := Trace{Pod: pod, Decided: decided}
	cluster, _ := withSelf(in)
	t.group(cluster, in, pod)
	i, found := slices.BinarySearchFunc(decided.Plan.Pods, pod.IP, func(p PodPath, ip netip.Addr) int { return p.IP.Compare(ip) })
	if found {
		t.PathKnown, t.Path = true, decided.Plan.Pods[i]
	}
	t.hops(cluster, in.Host)
	t.plan(in.Strict)
	t.reported(in.Cluster, in.Host)
	return t, true
}

// group finds which group decides about the pod.
func (t *Trace) group(c Cluster, in HostInput, pod Pod) {
	known, overlaps := grouped(c, []Pod{pod}, in.Namespaces)
	if len(known) == 0 {
		return
	}
	t.GroupKnown, t.Pod = true, known[0]
	for _, o := range overlaps {
		t.Ignored = append(t.Ignored, o.Ignored)
	}
	paths, _ := pathsFrom(c, Resolve(c), in.Reach)
	t.Group, t.InGroup = paths.Group(t.Pod.group())
	if g, ok := c.group(t.Pod.group()); ok {
		t.applies = g.Destinations
	}
}

// hops lists the egress hosts of the path.
func (t *Trace) hops(c Cluster, self string) {
	add := func(hostIP, source netip.Addr) {
		hop := Hop{HostIP: hostIP, Source: source}
		for i := range c.Hosts {
			host := &c.Hosts[i]
			if host.IP != hostIP || host.Shadowed {
				continue
			}
			hop.Host, hop.Local = host.Name, host.Name == self
			hop.Report, hop.Reported = host.Reports[source]
		}
		t.Hops = append(t.Hops, hop)
	}
	switch t.Path.Kind {
	case PathLocal:
		add(t.Decided.Plan.HostIP, t.Path.EgressIP)
	case PathRemote:
		for i, via := range t.Path.Via {
			add(via, t.Path.Sources[i])
		}
	case PathNode, PathDrop, PathRefuse:
	}
}

// plan is what the plan makes of packets to the outside.
func (t *Trace) plan(strict bool) {
	ip := t.Pod.IP
	switch {
	case !t.PathKnown:
		t.planUnknown(strict)
	case t.Path.Kind == PathNode && !t.InGroup:
		t.Planned, t.Why = OutcomeAsIs, fmt.Sprintf("Namespace %s has no NetNamespace, and no EgressIP selects the pod.", t.Pod.Namespace)
	case t.Path.Kind == PathNode && t.Group.requests(FamilyOf(ip).other()):
		t.Planned, t.Why = OutcomeAsIs, fmt.Sprintf("%s requests egress IPs of %s only, and annotation %s lets %s leave as without egress IPs.",
			titled(t.Group.Name), FamilyOf(ip).other(), otherFamilyAnnotation, FamilyOf(ip))
	case t.Path.Kind == PathNode:
		t.Planned, t.Why = OutcomeAsIs, fmt.Sprintf("%s requests no egress IPs.", titled(t.Group.Name))
	case t.Path.Kind == PathRefuse:
		t.Planned, t.Why = OutcomeRefused, fmt.Sprintf("%s requests egress IPs, and none of %s.", titled(t.Group.Name), FamilyOf(ip))
	case t.Path.Kind == PathDrop && t.InGroup && t.Group.Drops[FamilyOf(ip)]:
		t.Planned, t.Why = OutcomeDropped, t.Group.Message
	case t.Path.Kind == PathDrop:
		t.Planned, t.Why = OutcomeDropped, fmt.Sprintf("Another pod has the address %s too, and its packets take another way: none of both is sent.", ip)
	default:
		t.Planned, t.Why = OutcomeEgressIP, fmt.Sprintf("%s has active egress IPs.", titled(t.Group.Name))
	}
}

// planUnknown is what becomes of packets of an address that the plan has no path for.
func (t *Trace) planUnknown(strict bool) {
	within := slices.ContainsFunc(t.Decided.Plan.Subnets, func(p netip.Prefix) bool { return p.Contains(t.Pod.IP) })
	why := fmt.Sprintf("Namespace %s has a NetNamespace that cannot be used, or none yet", t.Pod.Namespace)
	if !t.GroupKnown {
		why = fmt.Sprintf("The labels of namespace %s are not known, so that an EgressIP may select the pod", t.Pod.Namespace)
	}
	switch {
	case strict && within:
		t.Planned, t.Why = OutcomeDropped, why+": strict mode drops what it sends to the outside."
	case strict:
		t.Planned, t.Why = OutcomeAsIs, why+", and its address is in no network of the host's pods, so that strict mode does not see it."
	default:
		t.Planned, t.Why = OutcomeAsIs, why+", and strict mode is off."
	}
}

// reported compares the plan with what agents report: first that of the pod's host, and then
// those of egress hosts. What is not reported is not known.
func (t *Trace) reported(c Cluster, self string) {
	t.Outcome = t.Planned
	host, _ := c.Host(self)
	doubt := func(format string, args ...any) {
		t.notCarriedOut = " But " + fmt.Sprintf(format, args...)
		t.Outcome, t.Why = OutcomeUnknown, t.Why+t.notCarriedOut
	}
	switch {
	case t.Decided.NoHostSubnet && t.Planned != OutcomeAsIs:
		doubt("host %s has no HostSubnet, so that nothing says whether an agent runs there: the controller makes one for each Node.", self)
	case !host.Confirmed && t.Planned != OutcomeAsIs:
		doubt("no agent has reported from host %s that it has the address of the host: if none has run since it booted, packets leave as without egress IPs. "+
			"Check the pod of DaemonSet egressip-agent there.", self)
	case !host.Confirmed:
	case host.AgentGone:
		doubt("the agent of host %s does not run: what it left in the kernel still holds, and what changed since does not.", self)
	case !host.AgentReady:
		doubt("the agent of host %s does not report that the kernel is as planned.", self)
	case t.Planned == OutcomeEgressIP:
		t.arrive()
	}
}

// arrive is what egress hosts make of the packets, as their agents report.
func (t *Trace) arrive() {
	configured := 0
	for _, hop := range t.Hops {
		switch {
		case hop.Reported && hop.Report.Configured:
			configured++
		case hop.Reported:
			t.Outcome, t.Why = OutcomeDropped, t.Why+fmt.Sprintf(" But host %s does not have %s (%s): %s", hop.Host, hop.Source, hop.Report.Reason, hop.Report.Message)
		default:
			t.Outcome, t.Why = OutcomeUnknown, t.Why+fmt.Sprintf(" But the agent of host %s has not reported on %s yet.", hop.Host, hop.Source)
		}
	}
	if configured > 0 && configured < len(t.Hops) {
		t.Outcome = OutcomeUnknown // it depends on the connection
	}
}

// titled is Title at the beginning of a sentence.
func titled(group string) string {
	if _, ok := NameOfEgressIP(group); ok {
		return Title(group)
	}
	return "Namespace " + group
}

// Destination is what decides about packets to one address.
type Destination struct {
	To      netip.Addr
	Outcome Outcome
	// Network is the network that makes it inside; invalid if it is not.
	Network netip.Prefix
	// Excluded is the network outside that has it and to which egress IPs do not apply; invalid if they
	// do.
	Excluded netip.Prefix
	// Named are the networks that have the address, of those that the caller knows, with where each
	// is from: those that count, and those that do not.
	Named []Network
	Why   string
}

// Toward traces packets to one destination. known are networks with where they are from, for
// reports; what is inside is what the plan says.
func (t *Trace) Toward(to netip.Addr, known []Network) Destination {
	d := Destination{To: to, Outcome: t.Outcome, Why: t.Why}
	for _, n := range known {
		if n.Network.IsValid() && n.Network.Contains(to) {
			d.Named = append(d.Named, n)
		}
	}
	switch {
	case FamilyOf(to) != FamilyOf(t.Pod.IP):
		d.Outcome, d.Why = OutcomeNoFamily, fmt.Sprintf("%s is an address of %s, and %s one of %s.", to, FamilyOf(to), t.Pod.IP, FamilyOf(t.Pod.IP))
		return d
	case to.IsMulticast() || to.IsLoopback() || to.IsUnspecified() || to.Is6() && to.IsLinkLocalUnicast():
		d.Outcome, d.Why = OutcomeInside, fmt.Sprintf("%s is no unicast address of a machine elsewhere: nothing is decided about it here.", to)
		return d
	}
	d.Network = t.Decided.Plan.inside(to)
	switch excluded := smallest(t.Path.Excluded, to); {
	case d.Network.IsValid():
		d.Outcome, d.Why = OutcomeInside, fmt.Sprintf("%s is inside: traffic to %s is left alone, whether the pod has egress IPs or not, and even while it is dropped.", to, d.Network)
	case excluded.IsValid():
		d.Excluded = excluded
		d.Outcome, d.Why = OutcomeAsIs, fmt.Sprintf("Egress IPs do not apply to %s, which is in %s: %s.", to, excluded, t.destinations())
		if t.notCarriedOut != "" {
			d.Outcome, d.Why = OutcomeUnknown, d.Why+t.notCarriedOut
		}
	}
	return d
}

// destinations says what decides to which destinations egress IPs apply.
func (t *Trace) destinations() string {
	if t.applies == nil {
		return "--include-cidrs of the agents"
	}
	return fmt.Sprintf("those of %s apply to %s", Title(t.Group.Name), t.applies)
}

// inside returns the smallest network of a plan that makes an address inside; invalid for one that is
// outside.
func (p *Plan) inside(to netip.Addr) netip.Prefix {
	if slices.Contains(p.Hosts, to) {
		return single(to)
	}
	return smallest(p.Inside, to)
}

// smallest returns the smallest of the networks that has an address; invalid if none has.
func smallest(networks []netip.Prefix, to netip.Addr) (found netip.Prefix) {
	for _, network := range networks {
		if network.Contains(to) && (!found.IsValid() || network.Bits() > found.Bits()) {
			found = network
		}
	}
	return found
}
