package egress_test

import (
	"fmt"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/internal/testenv/steps"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestWorkGrowsWithTheCluster: the statements of each decision grow with the number of
// hosts and addresses, and not with their product: twice as much of something is little
// more than twice the work. What is remembered saves most of it.
//
// It notices an evacuation that looks at all addresses for each candidate. hack/mutants
// cannot plant that: the go command ignores -overlay where it instruments for coverage.
func TestWorkGrowsWithTheCluster(t *testing.T) {
	count, ok := steps.Counter(t, map[string]steps.Case{
		// A host of a full cluster is to be emptied, and no other can take anything.
		"evacuation": func(size int) func() {
			o := crowded(3, 150*size)
			o.Evacuating = map[string]bool{o.HostSubnets[0].Name: true}
			return allocate(o)
		},
		// Nothing is claimed yet.
		"first-placement": func(size int) func() {
			o := scale(20, 500*size)
			for h := range o.HostSubnets {
				o.HostSubnets[h].EgressIPs = nil
			}
			return allocate(o)
		},
		// Nothing is requested any more.
		"release": func(size int) func() {
			o := scale(20, 500*size)
			for n := range o.NetNamespaces {
				o.NetNamespaces[n].EgressIPs = nil
			}
			return allocate(o)
		},
		// Few namespaces with many egress IPs, and many hosts.
		"many-for-each": func(size int) func() {
			cluster, _ := egress.Snapshot(several(10, 50*size, 100))
			return func() { egress.Resolve(cluster) }
		},
		"many-for-each-placed": func(size int) func() {
			return allocate(several(10, 25*size, 50))
		},
		"agent-request":        func(size int) func() { return agent(size, true, changeRequest) },
		"agent-claim":          func(size int) func() { return agent(size, true, changeClaim) },
		"agent-without-memory": func(size int) func() { return agent(size, false, changeRequest) },
	})
	if !ok {
		return
	}
	for _, name := range []string{
		"evacuation", "first-placement", "release", "many-for-each", "many-for-each-placed", "agent-request", "agent-claim",
	} {
		once, twice := count(name, 1), count(name, 2)
		t.Logf("%s: %d statements, and %d for twice as much", name, once, twice)
		if once == 0 || float64(twice) > 2.3*float64(once) {
			t.Errorf("%s: %d statements, and %d for twice as much", name, once, twice)
		}
	}
	afresh := count("agent-without-memory", 2)
	for _, name := range []string{"agent-request", "agent-claim"} {
		if remembered := count(name, 2); remembered > afresh/4 {
			t.Errorf("%s: %d statements, and %d without a memory", name, remembered, afresh)
		}
	}
}

func allocate(o egress.Objects) func() {
	cluster, _ := egress.Snapshot(o)
	return func() { egress.Allocate(cluster) }
}

// crowded is a cluster in which each host has as many egress IPs as it can.
func crowded(hosts, each int) egress.Objects {
	o := scale(hosts, 0)
	for h := range o.HostSubnets {
		host := &o.HostSubnets[h]
		host.Status.Placement.Capacity = int32(each) //nolint:gosec // small
		for i := range each {
			ip := fmt.Sprintf("10.2.%d.%d", (h*each+i)/250, 1+(h*each+i)%250)
			n := objects.NetNamespace(fmt.Sprintf("ns-%d-%d", h, i), uint32(100+h*each+i), ip) //nolint:gosec // small
			host.EgressIPs = append(host.EgressIPs, ip)
			o.NetNamespaces = append(o.NetNamespaces, n)
		}
		objects.AgentReports(host)
	}
	return o
}

// several is a cluster of namespaces with many egress IPs, whose claims are spread evenly.
func several(namespaces, each, hosts int) egress.Objects {
	o := scale(hosts, 0)
	for n := range namespaces {
		object := objects.NetNamespace(fmt.Sprintf("ns-%05d", n), uint32(100+n)) //nolint:gosec // small
		for i := range each {
			ip := fmt.Sprintf("10.2.%d.%d", (n*each+i)/250, 1+(n*each+i)%250)
			object.EgressIPs = append(object.EgressIPs, ip)
			host := &o.HostSubnets[i%hosts]
			host.EgressIPs = append(host.EgressIPs, ip)
		}
		o.NetNamespaces = append(o.NetNamespaces, object)
	}
	for h := range o.HostSubnets {
		objects.AgentReports(&o.HostSubnets[h])
	}
	return o
}

// agent is the decision of a host's agent after a change, with or without what it
// remembers of the one before.
func agent(size int, remembers bool, change func(o *egress.Objects)) func() {
	o := scale(50*size, 500*size)
	memo := new(egress.Memo)
	decide := func() {
		cluster, _ := memo.Snapshot(o)
		egress.DecideHost(egress.HostInput{Host: o.HostSubnets[7].Name, Cluster: cluster.ForRouting(), Memo: memo})
	}
	decide()
	return func() {
		change(&o)
		if !remembers {
			memo = new(egress.Memo)
		}
		decide()
	}
}

func changeRequest(o *egress.Objects) {
	o.NetNamespaces[7].ResourceVersion = "2"
	o.NetNamespaces[7].EgressIPs = []string{"10.3.255.1"}
}

func changeClaim(o *egress.Objects) {
	o.HostSubnets[3].ResourceVersion = "2"
	o.HostSubnets[3].EgressIPs[0] = "10.3.255.2"
}
