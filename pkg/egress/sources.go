package egress

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// NetworkSource is a kind of object that names networks of pods or services, or addresses of
// API servers.
type NetworkSource struct {
	// Group, Version and Resource are those of the API. Kind is for messages.
	Group, Version, Resource, Kind string
	// Namespace and Name are those of the one object that is read, and no other. Both are
	// "" for objects without a namespace, all of which are read.
	Namespace, Name string
	read            func(object map[string]any) []NamedNetwork
}

// NamedNetwork is a network that an object names.
type NamedNetwork struct {
	v1.FoundNetwork
	// Node names the node that has the pods, for UseNodePods.
	Node string
}

// NetworkSources are all kinds of objects that are read. What each has is written by the
// control plane of the CNI or of the cluster, but for those of nodes.
//
// Not read, as they name no network: flannel, kindnet and Antrea take Node.spec.podCIDRs; the
// ENIConfigs of the AWS VPC CNI name subnets of the cloud, in which nodes are as well. Not
// read, as other machines may be there: IPPools of Antrea, and pools of addresses of load
// balancers. IPAMBlocks of Calico change with each pod, and BlockAffinities do not.
func NetworkSources() []NetworkSource {
	const calico, calicoV3, cilium = "crd.projectcalico.org", "projectcalico.org", "cilium.io"
	return []NetworkSource{
		{Group: calico, Version: "v1", Resource: "ippools", Kind: "IPPool", read: calicoPool},
		{Group: calicoV3, Version: "v3", Resource: "ippools", Kind: "IPPool", read: calicoPool},
		{Group: calico, Version: "v1", Resource: "blockaffinities", Kind: "BlockAffinity", read: calicoBlock},
		{Group: calicoV3, Version: "v3", Resource: "blockaffinities", Kind: "BlockAffinity", read: calicoBlock},
		{Group: cilium, Version: "v2alpha1", Resource: "ciliumpodippools", Kind: "CiliumPodIPPool", read: ciliumPool},
		{Group: cilium, Version: "v2", Resource: "ciliumnodes", Kind: "CiliumNode", read: ciliumNode},
		{Group: "config.openshift.io", Version: "v1", Resource: "networks", Kind: "Network", Name: "cluster", read: openShiftNetwork},
		{Version: "v1", Resource: "services", Kind: "Service", Namespace: "default", Name: "kubernetes", read: kubernetesService},
		{Group: networking, Version: "v1", Resource: "servicecidrs", Kind: "ServiceCIDR", read: serviceCIDR},
		{Group: discovery, Version: "v1", Resource: "endpointslices", Kind: "EndpointSlice", Namespace: "default", Name: "kubernetes", read: kubernetesEndpoints},
	}
}

// networking is the group of ServiceCIDRs, which Kubernetes has from 1.33 on; discovery is that
// of EndpointSlices.
const networking, discovery = "networking.k8s.io", "discovery.k8s.io"

// CRD is the name of the CustomResourceDefinition of the kind; "" for one that the API
// server has without.
func (s NetworkSource) CRD() string {
	if s.Group == "" || s.Group == networking || s.Group == discovery {
		return ""
	}
	return s.Resource + "." + s.Group
}

// String names the kind.
func (s NetworkSource) String() string {
	if s.CRD() == "" {
		return s.Kind
	}
	return s.Kind + " (" + s.Group + ")"
}

// Read reads an object. What is no network is returned with a problem.
func (s NetworkSource) Read(object map[string]any) []NamedNetwork {
	found := s.read(object)
	for i := range found {
		found[i].Source = s.nameOf(object)
		if found[i].Problem == "" {
			found[i].Problem = problemOf(found[i].CIDR)
		}
		found[i].CIDR = cut(found[i].CIDR, maxCIDRText)
	}
	return found
}

// nameOf names an object of the kind.
func (s NetworkSource) nameOf(object map[string]any) string {
	name := text(object, "metadata", "name")
	if namespace := text(object, "metadata", "namespace"); namespace != "" {
		name = namespace + "/" + name
	}
	if s.CRD() == "" {
		return s.Kind + " " + name
	}
	return s.Kind + " " + name + " (" + s.Group + ")"
}

const (
	// maxCIDRText and maxSourceText are the lengths that the schema of FoundNetwork takes, the
	// latter also of a problem.
	maxCIDRText, maxSourceText = 64, 512

	problemNoNetwork = "it is not a network"
)

// problemOf is why a text is no network.
func problemOf(cidr string) string {
	if _, err := netip.ParsePrefix(cidr); err != nil {
		return problemNoNetwork
	}
	return ""
}

// calicoPool reads an IPPool. Calico does not translate traffic to the network of any pool,
// which is why some pools are there only to name networks outside: its documentation has
// them disabled.
func calicoPool(object map[string]any) []NamedNetwork {
	pool := named(v1.UsePods, text(object, "spec", "cidr"))
	disabled, _, _ := unstructured.NestedBool(object, "spec", "disabled")
	uses := texts(object, "spec", "allowedUses")
	switch {
	case disabled:
		pool[0].Problem = "the pool is disabled: such a pool may name a network outside"
	case len(uses) > 0 && !slices.Contains(uses, "Workload"):
		pool[0].Problem = "the pool is not for pods"
	}
	return pool
}

// calicoBlock reads a BlockAffinity: a part of a pool that a node gives addresses out of.
func calicoBlock(object map[string]any) []NamedNetwork {
	if text(object, "spec", "state") != "confirmed" || text(object, "spec", "deleted") == "true" ||
		!slices.Contains([]string{"", "host"}, text(object, "spec", "type")) {
		return nil
	}
	return ofNode(text(object, "spec", "node"), text(object, "spec", "cidr"))
}

// ciliumPool reads a CiliumPodIPPool.
func ciliumPool(object map[string]any) []NamedNetwork {
	return named(v1.UsePods, slices.Concat(texts(object, "spec", "ipv4", "cidrs"), texts(object, "spec", "ipv6", "cidrs"))...)
}

// ciliumNode reads what Cilium's operator, and in some modes its agent, has given to a node.
func ciliumNode(object map[string]any) []NamedNetwork {
	cidrs := texts(object, "spec", "ipam", "podCIDRs")
	allocated, _, _ := unstructured.NestedSlice(object, "spec", "ipam", "pools", "allocated")
	for _, pool := range allocated {
		if pool, ok := pool.(map[string]any); ok {
			cidrs = append(cidrs, texts(pool, "cidrs")...)
		}
	}
	return ofNode(text(object, "metadata", "name"), cidrs...)
}

// openShiftNetwork reads the configuration of the cluster: what is deployed, or else what
// is wanted.
func openShiftNetwork(object map[string]any) []NamedNetwork {
	for _, part := range []string{"status", "spec"} {
		var pods []string
		entries, _, _ := unstructured.NestedSlice(object, part, "clusterNetwork")
		for _, entry := range entries {
			if entry, ok := entry.(map[string]any); ok {
				pods = append(pods, text(entry, "cidr"))
			}
		}
		found := append(named(v1.UsePods, pods...), named(v1.UseServices, texts(object, part, "serviceNetwork")...)...)
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// serviceCIDR reads a ServiceCIDR.
func serviceCIDR(object map[string]any) []NamedNetwork {
	return named(v1.UseServices, texts(object, "spec", "cidrs")...)
}

// kubernetesService reads the one Service that each cluster has: its addresses are in the
// service networks, of which nothing else may be known.
func kubernetesService(object map[string]any) []NamedNetwork {
	ips := texts(object, "spec", "clusterIPs")
	if len(ips) == 0 {
		ips = []string{text(object, "spec", "clusterIP")}
	}
	return named(v1.UseServices, singles(ips)...)
}

// kubernetesEndpoints reads where that Service leads: to the API servers, which write these
// endpoints themselves. One that is not ready is an API server all the same.
func kubernetesEndpoints(object map[string]any) []NamedNetwork {
	var ips []string
	endpoints, _, _ := unstructured.NestedSlice(object, "endpoints")
	for _, endpoint := range endpoints {
		if endpoint, ok := endpoint.(map[string]any); ok {
			ips = append(ips, texts(endpoint, "addresses")...)
		}
	}
	slices.Sort(ips)
	ips = slices.Compact(ips)
	return named(v1.UseAPIServers, singles(ips[:min(len(ips), maxAPIServers)])...)
}

// singles writes addresses as networks. What is no address stays as it is.
func singles(ips []string) []string {
	for i, written := range ips {
		if ip, err := netip.ParseAddr(written); err == nil {
			ips[i] = single(ip).String()
		}
	}
	return ips
}

// The annotations of Nodes in which CNIs have the networks of their pods.
const (
	annotationKubeRouter    = "kube-router.io/pod-cidrs"
	annotationKubeRouterOld = "kube-router.io/pod-cidr"
	annotationOVN           = "k8s.ovn.org/node-subnets"
)

// NodeNetworkAnnotations are the annotations that NodeNetworks reads.
func NodeNetworkAnnotations() []string {
	return []string{annotationKubeRouter, annotationKubeRouterOld, annotationOVN}
}

// NodeNetworks reads the annotations of a Node. They may be by the CNI, by the kubelet, or
// by the administrator.
func NodeNetworks(node string, annotations map[string]string) []NamedNetwork {
	var all []NamedNetwork
	for _, key := range NodeNetworkAnnotations() {
		written, ok := annotations[key]
		if !ok {
			continue
		}
		var found []NamedNetwork
		if key == annotationOVN {
			found = ovnSubnets(node, written)
		} else {
			found = ofNode(node, commas(written)...)
		}
		for i := range found {
			found[i].Source = "annotation " + key + " of the Node"
			if found[i].Problem == "" {
				found[i].Problem = problemOf(found[i].CIDR)
			}
			found[i].CIDR = cut(found[i].CIDR, maxCIDRText)
		}
		all = append(all, found...)
	}
	return all
}

// ovnSubnets reads those of the default network, the only one whose addresses are those of
// the pods' status: one network, or a list of them.
func ovnSubnets(node, written string) []NamedNetwork {
	var networks map[string]json.RawMessage
	if err := json.Unmarshal([]byte(written), &networks); err != nil {
		return ofNode(node, written)
	}
	of := networks["default"]
	if len(of) == 0 {
		return nil
	}
	var several []string
	if json.Unmarshal(of, &several) == nil {
		return ofNode(node, several...)
	}
	var one string
	if json.Unmarshal(of, &one) != nil {
		one = string(of)
	}
	return ofNode(node, one)
}

func commas(list string) (parts []string) {
	for part := range strings.SplitSeq(list, ",") {
		parts = append(parts, strings.TrimSpace(part))
	}
	return parts
}

func named(use string, cidrs ...string) []NamedNetwork {
	found := make([]NamedNetwork, 0, len(cidrs))
	for _, cidr := range cidrs {
		found = append(found, NamedNetwork{FoundNetwork: v1.FoundNetwork{CIDR: cidr, Use: use}})
	}
	return found
}

func ofNode(node string, cidrs ...string) []NamedNetwork {
	found := named(v1.UseNodePods, cidrs...)
	for i := range found {
		found[i].Node = node
	}
	return found
}

// text returns a field as text, "" if it is missing; texts a list of such.
func text(object map[string]any, fields ...string) string {
	value, _, err := unstructured.NestedFieldNoCopy(object, fields...)
	if err != nil || value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

func texts(object map[string]any, fields ...string) []string {
	value, found, err := unstructured.NestedFieldNoCopy(object, fields...)
	if !found || err != nil || value == nil {
		return nil
	}
	list, ok := value.([]any)
	if !ok {
		return []string{fmt.Sprint(value)}
	}
	all := make([]string, 0, len(list))
	for _, item := range list {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}
