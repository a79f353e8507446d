package agent

import (
	"fmt"
	"net/netip"
	"time"
)

// missingAfter is how long a pod may be in no network that all nodes know until that is
// reported: what the agent finds must be published, and read, first.
const missingAfter = 15 * time.Second

// missing is a pod in no network that all nodes know, and since when. The zero value is
// ready.
type missing struct {
	ip    netip.Addr
	since time.Time
}

// lasting returns what to report of the pod outside that was decided on; empty if there is
// none, or only for a short while.
func (m *missing) lasting(d *decision, now time.Time) string {
	ip := d.outside.IP
	if ip != m.ip {
		m.ip, m.since = ip, now
	}
	if !ip.IsValid() || now.Sub(m.since) < missingAfter {
		return ""
	}
	why := "the API server has no Pod of this Node with such an address, or the controller may not list Pods"
	switch {
	case d.podNetworksOmitted > 0:
		why = fmt.Sprintf("the node has %d networks of pods more than it can publish", d.podNetworksOmitted)
	case len(d.podNetworks) == 0:
		why = "the kernel of this node has no route to it by which CNIs lead to pods"
	}
	return fmt.Sprintf("Pod %s/%s has the address %v, which is in no network that is known to be inside the cluster: %s. "+
		"Pods with egress IPs on other nodes reach it by their egress hosts, with an egress IP as source. "+
		"Add its network to --cluster-cidrs (in the chart: clusterCIDRs).", d.outside.Namespace, d.outside.Name, ip, why)
}
