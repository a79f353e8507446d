package egress

import (
	"fmt"
	"net/netip"
	"slices"
)

// SourceServiceFlag is the source of networks that the flag of the controller names. Agents
// have it, too, so that they are inside whatever else is there.
const SourceServiceFlag = "--service-cidrs"

// namedNetworks are the networks of all pods and services that the control plane names, in
// which no egress IP can be: packets to it would be inside traffic. apiServers are the
// addresses of API servers, which do not depend on what else is known of them.
type namedNetworks struct {
	found      map[netip.Prefix]*Found
	lengths    prefixLengths
	apiServers map[netip.Addr]*Found
}

// findNamedNetworks finds them. One that is not inside does not count, and neither does one
// with the address of a host, confirmed or not: a setting for all of 192.168.0.0/16 must not
// void the egress IPs of a segment there.
//
// What agents find does not count either: with it, whoever has broken into a node could take
// the egress IPs of others away.
func findNamedNetworks(c Cluster) namedNetworks {
	n := namedNetworks{found: make(map[netip.Prefix]*Found), apiServers: namedAPIServers(c)}
	var unusable func(netip.Prefix) string
	for h := range c.Hosts {
		for i := range c.Hosts[h].Found {
			f := &c.Hosts[h].Found[i]
			if f.Problem != "" || f.Use != UsePods && f.Use != UseServices || n.found[f.Network] != nil {
				continue
			}
			if unusable == nil {
				unusable = whyUnusable(c)
			}
			if unusable(f.Network) == "" {
				n.found[f.Network] = f
				n.lengths.add(f.Network)
			}
		}
	}
	for h := range c.Hosts {
		for prefix := range n.lengths.of(c.Hosts[h].IP) {
			delete(n.found, prefix)
		}
	}
	return n
}

// find returns the API server with the address, or else the widest network that has it; nil if
// none has.
func (n *namedNetworks) find(ip netip.Addr) *Found {
	if f := n.apiServers[ip]; f != nil {
		return f
	}
	for prefix := range n.lengths.of(ip) {
		if f := n.found[prefix]; f != nil {
			return f
		}
	}
	return nil
}

// refusal is why an address in the network cannot be an egress IP.
func (f *Found) refusal() Reason {
	switch f.Use {
	case UseAPIServers:
		return ReasonAPIServerAddress
	case UseServices:
		return ReasonServiceAddress
	default:
		return ReasonPodAddress
	}
}

func namedMessage(ip netip.Addr, f *Found) string {
	if f.Use == UseAPIServers {
		return apiServerMessage(ip, f)
	}
	of := "pod"
	if f.Use == UseServices {
		of = "service"
	}
	return fmt.Sprintf("%s is in a %s network of the cluster (%s, by %s): use an address in egressIPs that is outside the networks of pods and services.",
		ip, of, f.Network, f.Source)
}

// sameFound reports whether two hosts carry the same networks.
func (h *Host) sameFound(other *Host) bool { return slices.Equal(h.Found, other.Found) }
