package egress

import (
	"fmt"
	"maps"
	"net/netip"
)

// maxAPIServers is the greatest number of endpoints of the API server that count.
const maxAPIServers = 64

// namedAPIServers are the addresses of API servers that the control plane names: no egress IP
// can be one of them, and nothing else may make it so. The endpoints are written by the API
// servers themselves, and who can change them has the traffic of all clients anyway. So they
// are believed where a Node is not, also about the address of a host whose agent does not run.
func namedAPIServers(c Cluster) map[netip.Addr]*Found {
	var named map[netip.Addr]*Found
	for h := range c.Hosts {
		for i := range c.Hosts[h].Found {
			f := &c.Hosts[h].Found[i]
			ip, ok := f.apiServer()
			if !ok {
				continue
			}
			if named == nil {
				named = make(map[netip.Addr]*Found)
			}
			// The word of now comes before that of a while ago, whichever host carries it.
			if named[ip] == nil || named[ip].Source == sourceFormerAPIServer {
				named[ip] = f
			}
		}
	}
	return named
}

// apiServer returns the address of the API server that is found; false if it is none.
func (f *Found) apiServer() (netip.Addr, bool) {
	return f.Network.Addr(), f.Use == UseAPIServers && f.Problem == "" && f.Network.IsValid() && f.Network.IsSingleIP()
}

func apiServerMessage(ip netip.Addr, f *Found) string {
	if f.Source == sourceFormerAPIServer {
		return fmt.Sprintf("%s was the address of an API server a while ago (EndpointSlice default/kubernetes), and is it again when that is back: "+
			"use another address in egressIPs. If that API server is gone for good, take the address out of all egressIPs, and add it again.", ip)
	}
	return fmt.Sprintf("%s is the address of an API server (%s): use an address in egressIPs that no machine has.", ip, f.Source)
}

// apiServers are the endpoints of the API server as networks. One that is requested or claimed
// as an egress IP is none, unless it cannot be one: a wrong request must not change how all
// pods with egress IPs reach the API server.
func apiServers(c Cluster, endpoints []netip.Addr) []netip.Prefix {
	valid := make(map[netip.Addr]bool, len(endpoints))
	for _, ip := range endpoints[:min(len(endpoints), maxAPIServers)] {
		if invalidReason(ip) == "" {
			valid[ip] = true
		}
	}
	others := maps.Clone(valid)
	withoutEgressIPs(c, others)
	refused := namedAPIServers(c)
	networks := make([]netip.Prefix, 0, len(valid))
	for ip := range valid {
		if others[ip] || refused[ip] != nil {
			networks = append(networks, single(ip))
		}
	}
	return networks // PlanFor sorts them
}
