package agent

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Reasons of the condition AgentReady.
const (
	// ReasonReady: the kernel is as planned.
	ReasonReady = "Ready"
	// ReasonReadyWithWarnings: the kernel is as planned, and something on the
	// node deserves the admin's attention; condition Warnings says what.
	ReasonReadyWithWarnings = "ReadyWithWarnings"
	// ReasonWithdrawn: the host reaches neither the API server nor most hosts, or
	// has done so a moment ago, and has given up its egress IPs.
	ReasonWithdrawn = "Withdrawn"
	// ReasonApplyFailed: the kernel is not as planned; the message says why.
	// The agent keeps trying.
	ReasonApplyFailed = "ApplyFailed"
)

// ReasonNoWarnings is the reason of the condition Warnings where there are none.
const ReasonNoWarnings = "NoWarnings"

// ReasonNotInUse is the reason of the condition AddressInUse once no other machine has an
// egress IP of the host any more.
const ReasonNotInUse = "NotInUse"

// ReasonNotConfigured is the reason of an egress IP that the host must have and that
// the kernel is not, or not completely, configured for.
const ReasonNotConfigured = "NotConfigured"

// maxMessage bounds messages to what the API takes in a condition (32 KiB),
// with room to spare for the reader.
const maxMessage = 4096

// maxClaimMessage bounds the message of one claim: a host may have 512, and the API
// server refuses objects of more than about a megabyte.
const maxClaimMessage = 1024

// ownStatus is the agent's part of a HostSubnet's status.
type ownStatus struct {
	generation int64
	agent      v1.AgentStatus
	// claims in order of ip, each once.
	claims []v1.ClaimStatus
	// ready is the condition AgentReady without its time of transition.
	ready metav1.Condition
	// warnings is the condition Warnings without its time of transition.
	warnings metav1.Condition
	// inUse is the message of the condition AddressInUse; empty if no other machine
	// has an address of this host.
	inUse string
	// inUseKnown: the condition is there, and False while inUse is empty. Under
	// server-side apply a condition that is left out stays if anyone else wrote it too.
	inUseKnown bool
}

// statusOf returns the status for what was decided and found. It is pure.
// appliedGeneration is the generation that was applied to the kernel last.
func statusOf(o observation, version string, appliedGeneration int64) ownStatus {
	s := ownStatus{
		generation: appliedGeneration,
		agent:      v1.AgentStatus{Version: version, Uplink: o.report.Uplink},
		claims:     claimsOf(o),
		ready: metav1.Condition{
			Type:               v1.ConditionAgentReady,
			Status:             metav1.ConditionTrue,
			Reason:             ReasonReady,
			Message:            "The kernel is as planned.",
			ObservedGeneration: o.decision.generation,
		},
	}
	s.warnings = warningsCondition(o)
	s.inUse = inUseOf(s.claims)
	s.inUseKnown = s.inUse != ""
	if o.report.UplinkCIDR.IsValid() {
		s.agent.UplinkCIDR = o.report.UplinkCIDR.String()
	}
	s.agent.IPv6Reason = clipTo(o.report.IPv6.Reason, maxClaimMessage)
	if !o.decision.state.HostIP.Is6() {
		s.agent.Families = []string{v1.FamilyIPv4}
	}
	if o.report.IPv6.Known && o.report.IPv6.Reason == "" {
		s.agent.Families = append(s.agent.Families, v1.FamilyIPv6)
	}
	for _, network := range o.report.IPv6.Networks[:min(len(o.report.IPv6.Networks), egress.MaxUplinkNetworks)] {
		s.agent.UplinkNetworks = append(s.agent.UplinkNetworks, network.String())
	}
	for _, n := range o.decision.networks {
		other := v1.OtherNetwork{Interface: n.Interface, CIDR: n.CIDR.String()}
		if n.Gateway.IsValid() {
			other.Gateway = n.Gateway.String()
		}
		s.agent.OtherNetworks = append(s.agent.OtherNetworks, other)
	}
	s.agent.UplinkMTU = int32(min(max(o.report.UplinkMTU, 0), math.MaxInt32)) //nolint:gosec // bounded
	for _, ip := range o.decision.addresses {
		s.agent.Addresses = append(s.agent.Addresses, ip.String())
	}
	for _, network := range o.decision.podNetworks {
		s.agent.PodNetworks = append(s.agent.PodNetworks, network.String())
	}
	for _, overlap := range o.decision.overlaps {
		s.agent.Overlaps = append(s.agent.Overlaps, v1.Overlap{Used: overlap.Used, Ignored: overlap.Ignored, Pod: overlap.Pod})
	}
	s.agent.PodNetworksMissing = clipTo(o.missing, maxClaimMessage)
	s.agent.Backend, s.agent.IPTables = backendOf(o.report.Backends)
	s.agent.BackendReason = clip(o.report.BackendReason)
	s.agent.Kernel = o.report.Kernel
	for _, f := range o.report.Missing {
		s.agent.KernelLacks = append(s.agent.KernelLacks, f.String())
	}
	s.agent.IPv6 = ipv6Of(o)
	switch {
	case o.decision.withdrawn:
		s.ready.Status = metav1.ConditionFalse
		s.ready.Reason = ReasonWithdrawn
		s.ready.Message = "The host was cut off from the API server and from most hosts, and has given up its egress IPs."
	case o.err != nil:
		s.ready.Status = metav1.ConditionFalse
		s.ready.Reason = ReasonApplyFailed
		s.ready.Message = clip(o.err.Error())
	case len(o.report.Warnings) > 0:
		s.ready.Reason = ReasonReadyWithWarnings
		s.ready.Message = "The kernel is as planned. Condition Warnings says what deserves attention."
	}
	return s
}

// warningsCondition is the condition Warnings.
func warningsCondition(o observation) metav1.Condition {
	c := metav1.Condition{
		Type: v1.ConditionWarnings, Status: metav1.ConditionFalse, Reason: ReasonNoWarnings,
		Message: "Nothing was found on the host that weakens egress IPs.", ObservedGeneration: o.decision.generation,
	}
	if len(o.report.Warnings) > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, string(o.report.Warnings[0].Reason)
		c.Message = clip(warning.Lines(o.report.Warnings))
	}
	return c
}

// backendOf names the place of our rules, and the backends of iptables if it is there.
func backendOf(backends []dataplane.Backend) (name string, iptables []string) {
	for _, b := range backends {
		if b == dataplane.NFTables {
			return string(b), nil
		}
		name = "iptables"
		iptables = append(iptables, string(b))
	}
	return name, iptables
}

// ipv6Of says what becomes of the IPv6 traffic of pods whose namespaces request egress
// IPs, and that has none of IPv6 which it can leave with; nothing if there are none.
func ipv6Of(o observation) string {
	locked := func(p dataplane.Pod) bool {
		serves := o.report.IPv6.Known && o.report.IPv6.Reason == ""
		return !p.IP.Is4() && (p.Kind == dataplane.Drop || p.Kind == dataplane.Refuse || p.Kind != dataplane.Node && !serves)
	}
	switch {
	case !slices.ContainsFunc(o.decision.state.Pods, locked):
		return ""
	case o.report.IPv6Locked:
		return v1.IPv6Dropped
	}
	return v1.IPv6NotDropped
}

// claimsOf returns what became of each claim on this host.
func claimsOf(o observation) []v1.ClaimStatus {
	reports := make(map[netip.Addr]dataplane.HostedReport, len(o.report.Hosted))
	for _, h := range o.report.Hosted {
		reports[h.IP] = h
	}
	hosted := make(map[netip.Addr]dataplane.Hosted, len(o.decision.state.Hosted))
	for _, h := range o.decision.state.Hosted {
		hosted[h.IP] = h
	}
	var claims []v1.ClaimStatus
	for _, c := range o.decision.result.Claims {
		claim := v1.ClaimStatus{
			IP:      c.IP.String(),
			State:   v1.EgressIPState(c.State),
			Reason:  string(c.Reason),
			Message: clipTo(c.Message, maxClaimMessage),
		}
		if name, ok := egress.NameOfEgressIP(c.Group); ok {
			claim.EgressIP = name
		} else {
			claim.Namespace = c.Group
		}
		if h, has := hosted[c.IP]; has {
			report, known := reports[c.IP]
			claim.Configured = known && report.Configured
			claim.Interface = h.Interface
			if h.Interface != "" && !h.Gateway.IsValid() {
				claim.Message = clipTo(noGatewayMessage(h)+" "+claim.Message, maxClaimMessage)
			}
			if !claim.Configured {
				claim.Reason = ReasonNotConfigured
				claim.Message = clipTo(cmp.Or(report.Error, "The kernel is not configured for it yet."), maxClaimMessage)
			}
			if report.InUseBy != "" {
				claim.Reason = string(egress.ReasonAddressInUse)
				claim.Message = inUseMessage(c, report)
			}
		}
		claims = append(claims, claim)
	}
	for _, p := range o.decision.problems {
		if p.Field == "egressIPs" {
			claims = append(claims, v1.ClaimStatus{
				IP: p.Value, State: v1.StateInvalid, Reason: string(p.Reason), Message: clipTo(p.Message, maxClaimMessage),
			})
		}
	}
	// ip is the key of the list in the API.
	slices.SortStableFunc(claims, func(a, b v1.ClaimStatus) int { return cmp.Compare(a.IP, b.IP) })
	return slices.CompactFunc(claims, func(a, b v1.ClaimStatus) bool { return a.IP == b.IP })
}

func noGatewayMessage(h dataplane.Hosted) string {
	return fmt.Sprintf("It is at interface %s, for which the host's routes name no gateway: only machines of its network are reached, and the rest is dropped. "+
		"Add a default route over %[1]s, with a greater metric than the host's own, or name a gateway of that network, which is no address of the host, in annotation %[2]s or the EgressIPPool.", h.Interface, v1.AnnotationGateways)
}

func inUseMessage(c egress.ClaimResult, report dataplane.HostedReport) string {
	mac := report.InUseBy
	if report.Configured {
		return fmt.Sprintf("%s of %s is on this host, and %s says on the segment to have it too, so that answers may go there. "+
			"Find it by its MAC address and take the address off it, or request another.", c.IP, egress.Title(c.Group), mac)
	}
	return fmt.Sprintf("%s of %s is not put on this host: %s answers for it on the segment, which may be a host that was cut off "+
		"and has not given it up yet, or a machine that is not of this cluster. Find it by its MAC address and take the address off it, "+
		"or request another; the agent keeps trying.", c.IP, egress.Title(c.Group), mac)
}

// inUseOf lists the claims that another machine has; empty for none.
func inUseOf(claims []v1.ClaimStatus) string {
	var messages []string
	for _, c := range claims {
		if c.Reason == string(egress.ReasonAddressInUse) {
			messages = append(messages, c.Message)
		}
	}
	return clip(strings.Join(messages, "\n"))
}

func clip(s string) string { return clipTo(s, maxMessage) }

func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := strings.ToValidUTF8(s[:most], "")
	return fmt.Sprintf("%s ... (%d bytes more)", cut, len(s)-len(cut))
}

// ownPart returns the agent's part of the status that h has.
func ownPart(h *v1.HostSubnet) ownStatus {
	s := ownStatus{generation: h.Status.ObservedGeneration, claims: slices.Clone(h.Status.EgressIPs)}
	if h.Status.Agent != nil {
		s.agent = *h.Status.Agent
	}
	slices.SortFunc(s.claims, func(a, b v1.ClaimStatus) int { return cmp.Compare(a.IP, b.IP) })
	for _, c := range h.Status.Conditions {
		switch c.Type {
		case v1.ConditionAgentReady:
			s.ready = c
		case v1.ConditionWarnings:
			s.warnings = c
		case v1.ConditionAddressInUse:
			s.inUseKnown = true
			if c.Status == metav1.ConditionTrue {
				s.inUse = c.Message
			}
		}
	}
	return s
}

// equal reports whether both are the same, apart from times of transition.
func (s ownStatus) equal(t ownStatus) bool {
	return s.generation == t.generation &&
		sameKernel(s.agent, t.agent) && s.agent.Version == t.agent.Version &&
		s.agent.IPv6 == t.agent.IPv6 && s.agent.Probes == t.agent.Probes &&
		slices.Equal(s.agent.Silent, t.agent.Silent) && slices.Equal(s.agent.Addresses, t.agent.Addresses) &&
		slices.Equal(s.agent.PodNetworks, t.agent.PodNetworks) && s.agent.PodNetworksMissing == t.agent.PodNetworksMissing &&
		slices.Equal(s.agent.Overlaps, t.agent.Overlaps) &&
		slices.Equal(s.claims, t.claims) && s.inUse == t.inUse && s.inUseKnown == t.inUseKnown &&
		sameCondition(s.ready, t.ready) && sameCondition(s.warnings, t.warnings)
}

// sameKernel reports whether what the kernel has, and what is used of it, is the same.
func sameKernel(a, b v1.AgentStatus) bool {
	return a.Uplink == b.Uplink && a.UplinkCIDR == b.UplinkCIDR && a.UplinkMTU == b.UplinkMTU &&
		slices.Equal(a.UplinkNetworks, b.UplinkNetworks) && slices.Equal(a.OtherNetworks, b.OtherNetworks) && slices.Equal(a.Families, b.Families) && a.IPv6Reason == b.IPv6Reason &&
		a.Kernel == b.Kernel && slices.Equal(a.KernelLacks, b.KernelLacks) &&
		a.Backend == b.Backend && a.BackendReason == b.BackendReason && slices.Equal(a.IPTables, b.IPTables)
}

// sameCondition reports whether both are the same, apart from the time of transition.
func sameCondition(a, b metav1.Condition) bool {
	return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message && a.ObservedGeneration == b.ObservedGeneration
}

// wordless returns s without its messages: a lasting error may have another text, or
// other numbers, each time.
func (s ownStatus) wordless() ownStatus {
	s.ready.Message, s.warnings.Message, s.inUse = "", "", strings.Repeat("x", min(len(s.inUse), 1)) // whether, not what
	s.agent.PodNetworksMissing = strings.Repeat("x", min(len(s.agent.PodNetworksMissing), 1))
	s.agent.IPv6Reason = strings.Repeat("x", min(len(s.agent.IPv6Reason), 1))
	s.claims = slices.Clone(s.claims)
	for i := range s.claims {
		s.claims[i].Message = ""
	}
	return s
}
