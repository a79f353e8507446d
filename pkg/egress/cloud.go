package egress

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// AnnotationCloudConfig on a Node is where OpenShift's cloud network
// controller says how many egress IPs a node can have, and in which network.
const AnnotationCloudConfig = "cloud.network.openshift.io/egress-ipconfig"

// CloudConfig is what a cloud reports about a host.
type CloudConfig struct {
	// Capacity is the greatest number of egress IPs: 0 means that the cloud
	// does not say, a negative number none at all, as in Host.
	Capacity, IPv6Capacity int
	// Networks hold the addresses that the cloud routes to the host, as far as it says, that
	// of IPv4 first.
	Networks []netip.Prefix
}

// ParseCloudConfig reads the value of AnnotationCloudConfig: a JSON list, of
// which the first element counts, such as
//
//	[{"interface":"eth0","ifaddr":{"ipv4":"10.0.0.0/18"},"capacity":{"ip":10}}]
//
// capacity.ip is for both families together and wins over capacity.ipv4 and capacity.ipv6.
// An empty value means that the cloud says nothing.
func ParseCloudConfig(annotation string) (CloudConfig, error) {
	if annotation == "" {
		return CloudConfig{}, nil
	}
	var interfaces []struct {
		IfAddr struct {
			IPv4 string `json:"ipv4"`
			IPv6 string `json:"ipv6"`
		} `json:"ifaddr"`
		Capacity struct {
			IPv4 *int `json:"ipv4"`
			IPv6 *int `json:"ipv6"`
			IP   *int `json:"ip"`
		} `json:"capacity"`
	}
	if err := json.Unmarshal([]byte(annotation), &interfaces); err != nil {
		return CloudConfig{}, fmt.Errorf("parse annotation %s: %w", AnnotationCloudConfig, err)
	}
	if len(interfaces) == 0 {
		return CloudConfig{}, fmt.Errorf("parse annotation %s: no interface in it", AnnotationCloudConfig)
	}
	var config CloudConfig
	first := interfaces[0]
	limit := func(written *int, unless int) int {
		switch {
		case written == nil:
			return unless
		case *written == 0:
			return -1
		}
		return *written
	}
	config.Capacity = limit(first.Capacity.IP, limit(first.Capacity.IPv4, 0))
	if first.Capacity.IP == nil && (first.Capacity.IPv6 != nil || first.Capacity.IPv4 != nil && first.IfAddr.IPv6 != "") {
		// Where it limits IPv4 alone, IPv6 has the room of a list.
		config.IPv6Capacity = limit(first.Capacity.IPv6, maxListed)
	}
	for f, written := range []string{IPv4: first.IfAddr.IPv4, IPv6: first.IfAddr.IPv6} {
		if written == "" {
			continue
		}
		network, _, ok := parseRange(written)
		if family := Family(f); !ok || FamilyOf(network.Addr()) != family { //nolint:gosec // one of two
			return CloudConfig{}, fmt.Errorf("parse annotation %s: ifaddr.%s %q is not an %s CIDR",
				AnnotationCloudConfig, strings.ToLower(family.String()), written, family)
		}
		config.Networks = append(config.Networks, network)
	}
	return config, nil
}
