package egress

import (
	"net/netip"
	"slices"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// capacityOf is the host's capacity as the caller knows it, or else as it is published.
func capacityOf(object *v1.HostSubnet, given given) int {
	if given.limited {
		return given.capacity
	}
	placement := object.Status.Placement
	switch {
	case given.defaultCapacity != 0 || placement == nil:
		return given.defaultCapacity
	case placement.Capacity == 0:
		return -1
	}
	return int(placement.Capacity)
}

// ipv6CapacityOf is that of IPv6 alone; 0 if the capacity is for both families together.
func ipv6CapacityOf(object *v1.HostSubnet, given given) int {
	switch {
	case given.limited:
		return given.ipv6Capacity
	case given.defaultCapacity != 0 || object.Status.Placement == nil || object.Status.Placement.IPv6Capacity == nil:
		return 0
	case *object.Status.Placement.IPv6Capacity == 0:
		return -1
	}
	return int(*object.Status.Placement.IPv6Capacity)
}

// cloudNetworks are the host's networks as a cloud reports them: as the caller knows them,
// or else as they are published.
func cloudNetworks(object *v1.HostSubnet, given given) []netip.Prefix {
	if given.allNetworked {
		return given.networks
	}
	if object.Status.Placement == nil {
		return nil
	}
	var networks []netip.Prefix
	if network, ok := parseNetwork4(object.Status.Placement.Network); ok {
		networks = append(networks, network)
	}
	for _, written := range object.Status.Placement.Networks {
		if network, _, ok := parseRange(written); ok && network.Addr().Is6() {
			networks = append(networks, network)
		}
	}
	return networks
}

func (r *reader) networks(h *Host, object *v1.HostSubnet, cloud []netip.Prefix) {
	if object.Subnet != "" {
		// A subnet of everything would make all traffic inside traffic, and
		// let it out with the node's address.
		if subnet, ok := parseNetwork4(object.Subnet); ok && subnet.Bits() > 0 {
			h.Subnets = []netip.Prefix{subnet}
		} else {
			r.problem(kindHostSubnet, h.Name, "subnet", object.Subnet, ReasonBadCIDR,
				"%q is not a valid IPv4 pod CIDR. Use one such as 10.244.1.0/24, or leave it empty.", object.Subnet)
		}
	}
	if networks := networksOf(cloud, IPv4); len(networks) > 0 {
		h.Networks, h.Cloud = []netip.Prefix{networks[0].Masked()}, true
	} else {
		r.uplink(h, object.Status.Agent)
	}
	ofIPv6 := networksOf(cloud, IPv6)
	if len(ofIPv6) == 0 && object.Status.Agent != nil {
		ofIPv6 = readUplinkNetworks(object.Status.Agent.UplinkNetworks)
	}
	for _, network := range ofIPv6 {
		h.Networks = append(h.Networks, network.Masked())
	}
	// A cloud leads to a host what is in the networks that it reports.
	if h.Clouded = len(cloud) > 0; !h.Clouded && object.Status.Agent != nil {
		h.FurtherNetworks = readFurther(object.Status.Agent.OtherNetworks)
	}
}

// uplink reads the network of IPv4 as the agent reports it.
func (r *reader) uplink(h *Host, agent *v1.AgentStatus) {
	if agent == nil || agent.UplinkCIDR == "" {
		return
	}
	network, _, ok := parseRange(agent.UplinkCIDR)
	if ok && network.Addr().Is6() {
		return // with the other networks of IPv6
	}
	if !ok {
		r.problem(kindHostSubnet, h.Name, "status.agent.uplinkCIDR", agent.UplinkCIDR, ReasonBadCIDR,
			"%q is not a CIDR: the uplink's network is not known.", agent.UplinkCIDR)
		return
	}
	// An uplink with a /32 does not tell which addresses its segment carries.
	if network.Bits() < 32 {
		h.Networks = []netip.Prefix{network}
	}
}

// MaxUplinkNetworks is the greatest number of networks of IPv6 that a host publishes of its
// uplink, and that are read of one.
const MaxUplinkNetworks = 16

// readUplinkNetworks reads the networks of IPv6 that an agent reports.
func readUplinkNetworks(written []string) []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range written[:min(len(written), MaxUplinkNetworks)] {
		network, _, ok := parseRange(text)
		if ok && network.Addr().Is6() && network.Bits() < 128 && invalidReason(network.Addr()) == "" {
			networks = append(networks, network)
		}
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(networks)
}

// readFurther reads the networks that an agent reports, in order of CIDR and interface. What is
// no network is left out. A network of IPv4 may have a gateway of IPv6.
func readFurther(written []v1.OtherNetwork) []FurtherNetwork {
	var networks []FurtherNetwork
	for _, w := range written[:min(len(written), MaxFurtherNetworks)] {
		cidr, _, ok := parseRange(w.CIDR)
		if !ok || w.Interface == "" || !isNetwork(cidr) {
			continue
		}
		n := FurtherNetwork{Interface: w.Interface, CIDR: cidr}
		if gateway, err := netip.ParseAddr(w.Gateway); err == nil && gateway.Zone() == "" && (gateway.Is6() || cidr.Addr().Is4()) && !gateway.Is4In6() {
			n.Gateway = gateway
		}
		networks = append(networks, n)
	}
	return sortFurther(networks)
}
