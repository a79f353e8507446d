package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// podExplanation is what becomes of one pod's packets.
type podExplanation struct {
	Pod  string `json:"pod"`
	Node string `json:"node,omitempty"`
	// Routes are by address of the pod; none of a pod that sends nothing of its own.
	Routes []podRoute `json:"routes"`
	// Why says why there are no routes.
	Why string `json:"why,omitempty"`
	// Unknown is what could not be seen, and what may be otherwise because of that.
	Unknown []string `json:"unknown,omitempty"`

	view *nodeView
}

// podRoute is the way of packets from one address of a pod.
type podRoute struct {
	Address string `json:"address"`
	// Steps are the way, in order.
	Steps []step `json:"steps"`
	// Outcome is what becomes of packets to the outside, or to Destination if there is one.
	Outcome egress.Outcome `json:"outcome"`
	// Sources are the addresses that the destination may see; none if they are not ours to say.
	Sources     []string `json:"sources,omitempty"`
	Destination string   `json:"destination,omitempty"`
	Why         string   `json:"why"`
	// Live is what kernels have, beside what is meant; nil if they were not asked.
	Live []live.Check `json:"live,omitempty"`

	trace *egress.Trace
}

// step is one step of the way.
type step struct {
	Step string `json:"step"`
	Text string `json:"text"`
}

func (r *podRoute) step(name, format string, args ...any) {
	r.Steps = append(r.Steps, step{name, fmt.Sprintf(format, args...)})
}

// explainPod reads a pod and what decides about it. to may be the zero value.
func explainPod(ctx context.Context, c client.Reader, o egress.Objects, namespace, name string, to netip.AddrPort) (podExplanation, error) {
	var pod corev1.Pod
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
		return podExplanation{}, fmt.Errorf("read pod %s/%s: %w; -n chooses the namespace", namespace, name, err)
	}
	e := podExplanation{Pod: namespace + "/" + name, Node: pod.Spec.NodeName}
	if e.Why = whyNoRoute(&pod); e.Why != "" {
		return e, nil
	}
	v, err := viewOf(ctx, c, o, pod.Spec.NodeName)
	if err != nil {
		return e, err
	}
	e.view = &v
	e.trace(&v, &pod, to)
	return e, nil
}

// whyNoRoute says why a pod sends nothing that has a way of its own; "" for one that does.
func whyNoRoute(pod *corev1.Pod) string {
	seen := seenPod(pod)
	switch {
	case pod.Spec.NodeName == "":
		return "It is on no node yet, so that it sends nothing."
	case seen.Ended:
		return "All its containers have ended: it sends nothing, and another pod may have its address."
	case seen.HostNetwork:
		return fmt.Sprintf("It uses the network of its node (hostNetwork): what it sends leaves with an address of node %s, whatever egress IPs its namespace has.", pod.Spec.NodeName)
	case len(seen.Addresses) == 0:
		return fmt.Sprintf("It has no address yet. The agent of node %s may know one from the container runtime already; the API does not have it.", pod.Spec.NodeName)
	}
	return ""
}

// trace adds the routes from the pod's addresses.
func (e *podExplanation) trace(v *nodeView, object *corev1.Pod, to netip.AddrPort) {
	in := v.input()
	for _, ip := range podAddresses(object) {
		i := slices.IndexFunc(in.Pods, func(p egress.Pod) bool { return p.IP == ip })
		if i < 0 {
			continue
		}
		r := podRoute{Address: ip.String()}
		if p := in.Pods[i]; p.UID != string(object.UID) {
			r.Outcome, r.Why = egress.OutcomeUnknown, fmt.Sprintf("Pod %s/%s is newer and has the address: what it sends from there is that pod's.", p.Namespace, p.Name)
			e.Routes = append(e.Routes, r)
			continue
		}
		t, ok := egress.TracePod(in, in.Pods[i])
		if !ok {
			r.Outcome, r.Why = egress.OutcomeUnknown, fmt.Sprintf("The address of node %s is not known: it has no HostSubnet with a hostIP, and its Node no InternalIP.", v.node)
			e.Routes = append(e.Routes, r)
			continue
		}
		r.trace = &t
		r.add(v, object, &t)
		if to.IsValid() {
			r.toward(v, &t, to)
		}
		e.Routes = append(e.Routes, r)
		e.doubtPaths(v, &t)
	}
	e.Unknown = append(e.Unknown, v.unknown...)
	slices.Sort(e.Unknown)
	e.Unknown = slices.Compact(e.Unknown)
}

// doubtPaths says what else may decide and is not in the API.
func (e *podExplanation) doubtPaths(v *nodeView, t *egress.Trace) {
	if len(t.Group.Requests) > 1 && t.Planned == egress.OutcomeEgressIP {
		e.Unknown = append(e.Unknown, fmt.Sprintf(
			"Which hosts answer the probes of node %s: of several egress IPs, it prefers those whose hosts do. It reports as silent: %s.", v.node, orNone(silentTo(v.own()))))
	}
}

func silentTo(h *v1.HostSubnet) []string {
	if h == nil || h.Status.Agent == nil {
		return nil
	}
	return h.Status.Agent.Silent
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// add adds the steps to the outside.
func (r *podRoute) add(v *nodeView, object *corev1.Pod, t *egress.Trace) {
	r.step("pod", "%s/%s, %s, %s", object.Namespace, object.Name, object.Status.Phase, r.Address)
	r.step("node", "%s (%s); %s", v.node, t.Decided.Plan.HostIP, agentText(v.own()))
	r.addGroup(t)
	for _, request := range t.Group.Requests {
		host := ""
		if request.Host != "" {
			host = " on " + request.Host
		}
		r.step("egress IP", "%s: %s%s (%s)", request.IP, request.State, host, request.Reason)
	}
	switch t.Planned {
	case egress.OutcomeEgressIP:
		r.addHops(v.HostSubnets, t)
	case egress.OutcomeDropped, egress.OutcomeRefused:
		r.step("way", "%s", "none: dropped on "+v.node)
	default:
		r.step("way", "%s", "that of the node's main routing table, as without egress IPs")
		r.step("source", "%s", "as without egress IPs: the address of the node if the CNI masquerades, as usual, or else that of the pod")
	}
	r.Outcome, r.Why = t.Outcome, t.Why
}

// agentText says what is known about a host's agent.
func agentText(h *v1.HostSubnet) string {
	if h == nil {
		return "no HostSubnet"
	}
	c := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionAgentReady)
	if c == nil {
		return "its agent has not reported"
	}
	text := fmt.Sprintf("agent %s since %s", c.Reason, c.LastTransitionTime.UTC().Format("2006-01-02 15:04:05"))
	if c.Message != "" {
		text += ": " + c.Message
	}
	if on := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionOnline); on != nil {
		text += fmt.Sprintf("; online %s (%s)", on.Status, on.Reason)
	}
	return text
}

// addGroup adds which group decides, and why.
func (r *podRoute) addGroup(t *egress.Trace) {
	switch {
	case !t.GroupKnown:
		r.step("group", "%s", "unknown, as labels of the namespace are")
	case !t.InGroup:
		r.step("group", "none: there is no usable NetNamespace %s, and no EgressIP selects the pod", t.Pod.Namespace)
	default:
		text := fmt.Sprintf("%s, netid %s, mode %s", egress.Title(t.Group.Name), netID(t.Group), t.Group.Mode)
		if t.Pod.Group != "" {
			text += "; it selects the pod, which counts before the NetNamespace"
		}
		r.step("group", "%s", text)
		for _, ignored := range t.Ignored {
			r.step("overlap", "%s says the pod's egress IPs, too, and is ignored", egress.Title(ignored))
		}
	}
}

// addHops adds the egress hosts and the sources that they give.
func (r *podRoute) addHops(hosts []v1.HostSubnet, t *egress.Trace) {
	for _, hop := range t.Hops {
		host := orDash(hop.Host)
		if hop.Local {
			r.step("way", "from %s itself, which has the egress IP", host)
		} else {
			r.step("way", "over the overlay to %s (%s), network identifier %d", host, hop.HostIP, t.Path.NetID)
		}
		says := "its agent has not reported on it"
		switch {
		case hop.Reported && hop.Report.Configured:
			says = "configured, as its agent reports" + atInterface(hosts, hop)
		case hop.Reported:
			says = fmt.Sprintf("not configured (%s): %s", hop.Report.Reason, hop.Report.Message)
		}
		r.step("source", "%s, by source NAT on %s: %s", hop.Source, host, says)
		r.Sources = append(r.Sources, hop.Source.String())
	}
}

// atInterface names the interface of an egress IP, if that is not the uplink.
func atInterface(hosts []v1.HostSubnet, hop egress.Hop) string {
	host := hostSubnetOf(hosts, hop.Host)
	if host == nil {
		return ""
	}
	for _, claim := range host.Status.EgressIPs {
		if claim.IP == hop.Source.String() && claim.Interface != "" {
			return ", at interface " + claim.Interface
		}
	}
	return ""
}

// toward adds the destination.
func (r *podRoute) toward(v *nodeView, t *egress.Trace, to netip.AddrPort) {
	d := t.Toward(to.Addr(), v.known())
	r.Destination = to.Addr().String()
	if to.Port() != 0 {
		r.Destination = to.String()
	}
	services := false
	for _, n := range d.Named {
		where := ""
		if n.Host != "" {
			where = " of " + n.Host
		}
		counts := "counts"
		if !n.Inside {
			counts = "does not count: " + n.Why
		}
		r.step("network", "%s, by %s%s, %s", networkOf(n), n.Source, where, counts)
		services = services || n.Services && n.Inside
	}
	switch {
	case d.Outcome == egress.OutcomeInside && d.Network.IsValid():
		r.step("destination", "%s is inside, in %s", to.Addr(), d.Network)
		r.Sources = nil
	case d.Excluded.IsValid():
		r.step("destination", "%s is outside, in %s, to which egress IPs do not apply", to.Addr(), d.Excluded)
		r.Sources = nil
	case d.Outcome == egress.OutcomeInside, d.Outcome == egress.OutcomeNoFamily:
		r.Sources = nil
	default:
		r.step("destination", "%s is outside: no network that counts has it", to.Addr())
	}
	r.Outcome, r.Why = d.Outcome, d.Why
	if services {
		r.Why += " It is in a network of services: where the Service leads elsewhere, the address of the endpoint decides, and not this one. Ask for that with --to."
	}
	if d.Outcome != egress.OutcomeInside && d.Outcome != egress.OutcomeNoFamily && to.Port() == v.flags.overlayPort {
		r.Why += fmt.Sprintf(" Of UDP it is dropped in any case: pods cannot send to port %d outside, which is that of the overlay (--overlay-port).", v.flags.overlayPort)
	}
}

// result sums up what the destination sees.
func (r *podRoute) result() string {
	destination := "a destination outside"
	if r.Destination != "" {
		destination = r.Destination
	}
	switch r.Outcome {
	case egress.OutcomeEgressIP:
		return fmt.Sprintf("%s sees %s.", destination, strings.Join(r.Sources, " or "))
	case egress.OutcomeAsIs:
		return fmt.Sprintf("%s sees what it sees without egress IPs, usually the address of the node.", destination)
	case egress.OutcomeInside:
		return fmt.Sprintf("%s sees what it sees without egress IPs, usually the address of the pod.", destination)
	case egress.OutcomeDropped:
		return fmt.Sprintf("%s sees nothing: the packet is dropped.", destination)
	case egress.OutcomeRefused:
		return fmt.Sprintf("%s sees nothing: the packet is dropped, and the pod is told, so that it tries the other family.", destination)
	case egress.OutcomeNoFamily:
		return "The pod cannot send there from this address."
	case egress.OutcomeUnknown:
	}
	return fmt.Sprintf("What %s sees is not known.", destination)
}

// print writes it for people.
func (e *podExplanation) print(w io.Writer) error {
	if len(e.Routes) == 0 {
		_, err := fmt.Fprintf(w, "Pod %s: %s\n", e.Pod, e.Why)
		return err
	}
	for i, r := range e.Routes {
		if i > 0 {
			fmt.Fprintln(w)
		}
		table := newTable(w)
		for _, s := range r.Steps {
			table.row(s.Step, s.Text)
		}
		table.row("result", capitalized(r.result()))
		table.row("rule", r.Why)
		if err := table.flush(""); err != nil {
			return err
		}
		if err := r.printLive(w); err != nil {
			return err
		}
	}
	lines := make([]string, 0, len(e.Unknown))
	for _, u := range e.Unknown {
		lines = append(lines, "Not known: "+u)
	}
	return printAll(w, lines)
}

func capitalized(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// parseDestination reads ADDRESS or ADDRESS:PORT, where one of IPv6 with a port is in brackets.
func parseDestination(written string) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(written); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), 0), nil
	}
	to, err := netip.ParseAddrPort(written)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("--to %q is no destination: give an address, such as 203.0.113.9, 203.0.113.9:443 or [2001:db8::9]:443; names are not looked up", written)
	}
	return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), nil
}
