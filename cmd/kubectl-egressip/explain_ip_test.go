package main

import "testing"

// TestExplainIP: who has an address, and what would become of a request for it.
//
// Mutant killed: plugin-finds-no-claims.
func TestExplainIP(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	s.cluster(t)
	s.runs(t, "shop", "near", "node1", "10.244.1.5", nil)
	for ip, want := range map[string][]string{
		"10.1.8.200": {"requested by namespace shop: Active (Assigned), host node1.", "claimed by node1: Active (Assigned).", "had by node1, as its agent reports\n"},
		"10.1.8.201": {"requested by namespace test: Unassigned (NotClaimed), host -. No host claims 10.1.8.201"},
		"10.1.8.202": {"No object requests 10.1.8.202, no host claims it", "If a namespace requested it, it would be Unassigned (NotClaimed). No host claims 10.1.8.202"},
		"10.1.8.12":  {"in 10.1.8.12/32, by hostIP, host node2: inside\n", "it would be Invalid (HostAddress)"},
		"10.244.1.5": {"in 10.244.1.0/24, by podCIDR, host node1: inside\n", "pod shop/near on node1\n", "it would be Invalid (PodAddress)"},
	} {
		check(t, squeeze(s.says(t, "explain", "ip/"+ip)), want, nil)
	}
	check(t, s.says(t, "explain", "ip/10.1.8.200", "-o", "yaml"), []string{"address: 10.1.8.200\n", "step: had by\n"}, []string{"request:"})
}
