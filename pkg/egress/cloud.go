package egress

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// AnnotationCloudConfig on a Node is where OpenShift's cloud network
// controller says how many egress IPs a node can have, and in which network.
const AnnotationCloudConfig = "cloud.network.openshift.io/egress-ipconfig"

// CloudConfig is what a cloud reports about a host.
type CloudConfig struct {
	// Capacity is the greatest number of egress IPs: 0 means that the cloud
	// does not say, a negative number none at all, as in Host.
	Capacity int
	// Network holds the addresses that the cloud routes to the host; invalid
	// where it does not say.
	Network netip.Prefix
}

// ParseCloudConfig reads the value of AnnotationCloudConfig: a JSON list, of
// which the first element counts, such as
//
//	[{"interface":"eth0","ifaddr":{"ipv4":"10.0.0.0/18"},"capacity":{"ip":10}}]
//
// capacity.ip is for both families together and wins over capacity.ipv4. An
// empty value means that the cloud says nothing.
func ParseCloudConfig(annotation string) (CloudConfig, error) {
	if annotation == "" {
		return CloudConfig{}, nil
	}
	var interfaces []struct {
		IfAddr struct {
			IPv4 string `json:"ipv4"`
		} `json:"ifaddr"`
		Capacity struct {
			IPv4 *int `json:"ipv4"`
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
	for _, capacity := range []*int{first.Capacity.IP, first.Capacity.IPv4} {
		if capacity != nil {
			config.Capacity = *capacity
			if config.Capacity == 0 {
				config.Capacity = -1
			}
			break
		}
	}
	if written := first.IfAddr.IPv4; written != "" {
		network, _, ok := parseRange(written)
		if !ok {
			return CloudConfig{}, fmt.Errorf("parse annotation %s: ifaddr.ipv4 %q is not an IPv4 CIDR", AnnotationCloudConfig, written)
		}
		config.Network = network
	}
	return config, nil
}
