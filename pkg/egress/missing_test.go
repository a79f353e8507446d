package egress_test

import (
	"strings"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// notFound is what an agent reports about one of its pods.
const notFound = "Pod shop/a is nowhere."

// missing has a host's agent report that.
func (g *given) missing(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.Status.Agent.PodNetworksMissing = notFound })
	return g
}

// A pod that nobody knows to be inside makes its host not ready; and no namespace with
// egress IPs is known to use them for nothing but the outside.
//
// Mutants killed: missing-networks-are-ready, namespaces-do-not-care, the-dead-miss-pods.
func TestPodsInNetworksThatNobodyKnows(t *testing.T) {
	const ip = "192.168.7.200"
	cluster := func() *given {
		return new(given).namespace("plain").namespace("red", ip).host("w0", ip).reports("w0", ip, "").host("w1").host("w2")
	}
	for name, test := range map[string]struct {
		given *given
		// red is what EgressReady of the namespace is.
		red    egress.Readiness
		reason egress.Reason
		says   string
		// host is the reason of EgressReady of w1.
		host egress.Reason
	}{
		"all are known":         {cluster(), egress.ReadyTrue, egress.ReasonAssigned, ip, egress.ReasonNotClaimed},
		"one is not":            {cluster().missing("w1"), egress.ReadyUnknown, egress.ReasonPodNetworksMissing, "host w1 has", egress.ReasonPodNetworksMissing},
		"on the egress host":    {cluster().missing("w0"), egress.ReadyUnknown, egress.ReasonPodNetworksMissing, "host w0 has", egress.ReasonNotClaimed},
		"on several hosts":      {cluster().missing("w2").missing("w1"), egress.ReadyUnknown, egress.ReasonPodNetworksMissing, "host w1 and 1 more have", egress.ReasonPodNetworksMissing},
		"the agent is gone":     {cluster().missing("w1").agentGone("w1"), egress.ReadyTrue, egress.ReasonAssigned, ip, egress.ReasonPodNetworksMissing},
		"the Node is gone":      {cluster().missing("w1").gone("w1"), egress.ReadyTrue, egress.ReasonAssigned, ip, egress.ReasonPodNetworksMissing},
		"a host that may lie":   {cluster().uplink("w1", "192.168.7.99/24").missing("w1"), egress.ReadyTrue, egress.ReasonAssigned, ip, egress.ReasonPodNetworksMissing},
		"worse is known":        {cluster().missing("w1").reports("w0", ip, egress.ReasonNotConfigured), egress.ReadyFalse, egress.ReasonNotConfigured, ip, egress.ReasonPodNetworksMissing},
		"nothing leaves at all": {cluster().missing("w1").offline("w0"), egress.ReadyFalse, egress.ReasonHostOffline, "w0", egress.ReasonPodNetworksMissing},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := egress.Snapshot(test.given.Objects)
			r := egress.Resolve(c)
			plain, red, host := r.Groups[0], r.Groups[1], r.Hosts[1]
			if plain.Ready != egress.ReadyTrue || plain.Reason != egress.ReasonNotRequested {
				t.Errorf("a namespace without egress IPs is %s, %s", plain.Ready, plain.Reason)
			}
			if red.Ready != test.red || red.Reason != test.reason || !strings.Contains(red.Message, test.says) || !strings.Contains(red.Message, ip) {
				t.Errorf("the namespace is %s, %s, want %s, %s: %s", red.Ready, red.Reason, test.red, test.reason, red.Message)
			}
			missing := test.host == egress.ReasonPodNetworksMissing
			if host.Reason != test.host || host.Ready == missing || missing && host.Message != notFound {
				t.Errorf("the host is ready %t, %s, want reason %s: %s", host.Ready, host.Reason, test.host, host.Message)
			}
		})
	}
}
