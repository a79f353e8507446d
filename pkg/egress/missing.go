package egress

import "fmt"

// missingPods are the hosts with pods in networks that nothing says are inside: how many,
// and the first by name.
type missingPods struct {
	hosts int
	first string
}

// podsMissing finds them by what the hosts' agents report. Of an agent that is gone, and of
// a host that may be another machine's name, nothing is known.
//
// What is missing on one host concerns all namespaces with egress IPs. A packet of theirs
// to such a pod is one to the outside, on each node but the pod's own: it takes the overlay
// and arrives with an egress IP as source, so that NetworkPolicies and logs see another
// sender; and it does not arrive at all without an egress host. What leaves the cluster is
// not affected, and answers are not: they take the way that the request came.
func podsMissing(c Cluster) missingPods {
	var m missingPods
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if host.PodsMissing == "" || !host.Confirmed || host.Gone || host.AgentGone {
			continue
		}
		if m.hosts++; m.hosts == 1 {
			m.first = host.Name
		}
	}
	return m
}

// message says what that means for a namespace. It does not name the pods: they come and
// go, and each namespace has this message.
func (m missingPods) message() string {
	have := "has"
	if m.hosts > 1 {
		have = "have"
	}
	return fmt.Sprintf("But %s %s pods in networks that are not known to be inside the cluster, and what this namespace sends to them "+
		"may leave by the egress host, with an egress IP as source. EgressReady of HostSubnet %s names one: "+
		"add the networks of such pods to --cluster-cidrs (in the chart: clusterCIDRs).", countedHosts(m.first, m.hosts), have, m.first)
}

// countedHosts names the first of some hosts, and counts the others.
func countedHosts(first string, hosts int) string {
	if hosts == 1 {
		return "host " + first
	}
	return fmt.Sprintf("host %s and %d more", first, hosts-1)
}
