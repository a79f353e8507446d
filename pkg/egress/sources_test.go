package egress_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// source returns the kind of that resource and group.
func source(t *testing.T, crd string) egress.NetworkSource {
	t.Helper()
	for _, s := range egress.NetworkSources() {
		if s.CRD() == crd {
			return s
		}
	}
	t.Fatalf("%q is not read", crd)
	return egress.NetworkSource{}
}

// shown has each network on a line of its own: use, network, node, source, problem.
func shown(found []egress.NamedNetwork) string {
	var lines []string
	for _, f := range found {
		line := f.Use + " " + f.CIDR
		if f.Node != "" {
			line += " on " + f.Node
		}
		line += " by " + f.Source
		if f.Problem != "" {
			line += ": " + f.Problem
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// Objects as CNIs have them, and malformed ones: these are named, and harm nobody.
//
// Mutants killed: disabled-pools-are-pods, tunnels-are-pods, released-blocks-count,
// wanted-networks-hide-deployed.
func TestObjectsThatNameNetworks(t *testing.T) {
	const (
		pools, poolsV3 = "ippools.crd.projectcalico.org", "ippools.projectcalico.org"
		blocks         = "blockaffinities.crd.projectcalico.org"
		cilium, nodes  = "ciliumpodippools.cilium.io", "ciliumnodes.cilium.io"
		network        = "networks.config.openshift.io"
	)
	for name, test := range map[string]struct{ crd, object, want string }{
		"a pool of Calico": {
			pools, "{metadata: {name: default-ipv4-ippool}, spec: {cidr: 192.168.0.0/16, blockSize: 26, ipipMode: Always, natOutgoing: true, nodeSelector: all()}}",
			"Pods 192.168.0.0/16 by IPPool default-ipv4-ippool (crd.projectcalico.org)",
		},
		"one of the newer API": {
			poolsV3, "{metadata: {name: six}, spec: {cidr: 'fd00:10:244::/64', allowedUses: [Workload, Tunnel], disabled: false}}",
			"Pods fd00:10:244::/64 by IPPool six (projectcalico.org)",
		},
		"a pool that keeps Calico from translating": {
			pools, "{metadata: {name: lan}, spec: {cidr: 10.0.0.0/8, disabled: true}}",
			"Pods 10.0.0.0/8 by IPPool lan (crd.projectcalico.org): the pool is disabled: such a pool may name a network outside",
		},
		"a pool for tunnels": {
			pools, "{metadata: {name: tunnel}, spec: {cidr: 10.7.0.0/24, allowedUses: [Tunnel]}}",
			"Pods 10.7.0.0/24 by IPPool tunnel (crd.projectcalico.org): the pool is not for pods",
		},
		"a pool without a network": {pools, "{metadata: {name: a}, spec: {}}", "Pods  by IPPool a (crd.projectcalico.org): it is not a network"},
		"a pool with a number":     {pools, "{metadata: {name: a}, spec: {cidr: 7}}", "Pods 7 by IPPool a (crd.projectcalico.org): it is not a network"},
		"a pool with an essay": {
			pools, "{metadata: {name: a}, spec: {cidr: " + strings.Repeat("x", 100) + "}}",
			"Pods " + strings.Repeat("x", 64) + " by IPPool a (crd.projectcalico.org): it is not a network",
		},
		"a block": {
			blocks, "{metadata: {name: w1-10-244-7-64-26}, spec: {cidr: 10.244.7.64/26, node: w1, state: confirmed, deleted: 'false'}}",
			"NodePods 10.244.7.64/26 on w1 by BlockAffinity w1-10-244-7-64-26 (crd.projectcalico.org)",
		},
		"a block that is given back": {blocks, "{metadata: {name: a}, spec: {cidr: 10.244.7.64/26, node: w1, state: pendingDeletion, deleted: 'true'}}", ""},
		"a block that is deleted":    {blocks, "{metadata: {name: a}, spec: {cidr: 10.244.7.64/26, node: w1, state: confirmed, deleted: 'true'}}", ""},
		"a block of no host":         {blocks, "{metadata: {name: a}, spec: {cidr: 10.244.7.64/26, node: w1, type: virtual, state: confirmed}}", ""},
		"a pool of Cilium": {
			cilium, "{metadata: {name: default}, spec: {ipv4: {cidrs: [10.10.0.0/16, 10.11.0.0/16], maskSize: 27}, ipv6: {cidrs: ['fd00:100::/80'], maskSize: 96}}}",
			"Pods 10.10.0.0/16 by CiliumPodIPPool default (cilium.io)\nPods 10.11.0.0/16 by CiliumPodIPPool default (cilium.io)\nPods fd00:100::/80 by CiliumPodIPPool default (cilium.io)",
		},
		"a pool of Cilium whose list is none": {cilium, "{metadata: {name: a}, spec: {ipv4: {cidrs: 10.10.0.0/16}}}", "Pods 10.10.0.0/16 by CiliumPodIPPool a (cilium.io)"},
		"a node of Cilium": {
			nodes, "{metadata: {name: w1}, spec: {addresses: [{ip: 192.168.7.11, type: InternalIP}], ipam: {podCIDRs: [10.0.3.0/24]}}}",
			"NodePods 10.0.3.0/24 on w1 by CiliumNode w1 (cilium.io)",
		},
		"a node with parts of pools": {
			nodes, "{metadata: {name: w1}, spec: {ipam: {pools: {requested: [{pool: default}], allocated: [{pool: default, cidrs: [10.10.0.32/27]}, {pool: b, cidrs: ['fd00::/96']}, 7]}}}}",
			"NodePods 10.10.0.32/27 on w1 by CiliumNode w1 (cilium.io)\nNodePods fd00::/96 on w1 by CiliumNode w1 (cilium.io)",
		},
		"a node whose addresses are the cloud's": {nodes, "{metadata: {name: w1}, spec: {ipam: {pool: {10.1.0.7: {}}}, eni: {}}}", ""},
		"OpenShift": {
			network, "{metadata: {name: cluster}, spec: {clusterNetwork: [{cidr: 10.1.0.0/16}], serviceNetwork: [10.2.0.0/16]}, status: {clusterNetwork: [{cidr: 10.128.0.0/14, hostPrefix: 23}], serviceNetwork: [172.30.0.0/16]}}",
			"Pods 10.128.0.0/14 by Network cluster (config.openshift.io)\nServices 172.30.0.0/16 by Network cluster (config.openshift.io)",
		},
		"OpenShift that begins": {
			network, "{metadata: {name: cluster}, spec: {clusterNetwork: [{cidr: 10.128.0.0/14}], serviceNetwork: [172.30.0.0/16]}, status: {}}",
			"Pods 10.128.0.0/14 by Network cluster (config.openshift.io)\nServices 172.30.0.0/16 by Network cluster (config.openshift.io)",
		},
		"Service kubernetes": {
			"", "{metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:96::1']}}",
			"Services 10.96.0.1/32 by Service default/kubernetes\nServices fd00:96::1/128 by Service default/kubernetes",
		},
		"Service kubernetes of old": {"", "{metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1}}", "Services 10.96.0.1/32 by Service default/kubernetes"},
		"a Service without":         {"", "{metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: None}}", "Services None by Service default/kubernetes: it is not a network"},
	} {
		t.Run(name, func(t *testing.T) {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(test.object), &object); err != nil {
				t.Fatal(err)
			}
			if got := shown(source(t, test.crd).Read(object)); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	t.Run("ServiceCIDR", func(t *testing.T) {
		sources := egress.NetworkSources()
		s := sources[slices.IndexFunc(sources, func(s egress.NetworkSource) bool { return s.Kind == "ServiceCIDR" })]
		got := shown(s.Read(map[string]any{"metadata": map[string]any{"name": "kubernetes"}, "spec": map[string]any{"cidrs": []any{"10.96.0.0/16", "fd00:96::/112"}}}))
		if want := "Services 10.96.0.0/16 by ServiceCIDR kubernetes\nServices fd00:96::/112 by ServiceCIDR kubernetes"; got != want || s.CRD() != "" {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("EndpointSlice", func(t *testing.T) {
		sources := egress.NetworkSources()
		s := sources[slices.IndexFunc(sources, func(s egress.NetworkSource) bool { return s.Kind == "EndpointSlice" })]
		for written, want := range map[string]string{
			"[{addresses: [172.30.9.2], conditions: {ready: false}}, {addresses: [172.30.9.1, 'fd00::1', 172.30.9.2]}, 7]": "" +
				"APIServers 172.30.9.1/32 by EndpointSlice default/kubernetes\n" +
				"APIServers 172.30.9.2/32 by EndpointSlice default/kubernetes\n" +
				"APIServers fd00::1/128 by EndpointSlice default/kubernetes",
			"[{addresses: [api.example.com]}]": "APIServers api.example.com by EndpointSlice default/kubernetes: it is not a network",
			"[]":                               "",
			"[" + strings.Repeat("{addresses: [172.30.9.1]}, ", 100) + "]": "APIServers 172.30.9.1/32 by EndpointSlice default/kubernetes",
		} {
			var object map[string]any
			if err := yaml.Unmarshal([]byte("{metadata: {name: kubernetes, namespace: default}, endpoints: "+written+"}"), &object); err != nil {
				t.Fatal(err)
			}
			if got := shown(s.Read(object)); got != want || s.CRD() != "" {
				t.Errorf("%s: got\n%s\nwant\n%s", written, got, want)
			}
		}
	})
	for _, s := range egress.NetworkSources() {
		for i, object := range []map[string]any{nil, {}, {"metadata": 7, "spec": "x", "status": []any{1}, "endpoints": "x"}, {"spec": map[string]any{"ipam": 1, "ipv4": nil}}} {
			t.Run(fmt.Sprintf("%v, not even that, %d", s, i), func(t *testing.T) { s.Read(object) })
		}
	}
}

// Annotations of Nodes as CNIs and their administrators write them.
func TestAnnotationsThatNameNetworks(t *testing.T) {
	const router, old, ovn = "kube-router.io/pod-cidrs", "kube-router.io/pod-cidr", "k8s.ovn.org/node-subnets"
	for name, test := range map[string]struct{ key, value, want string }{
		"kube-router":       {router, "10.5.1.0/24, fd00:5:1::/64", "NodePods 10.5.1.0/24 on w1 by annotation " + router + " of the Node\nNodePods fd00:5:1::/64 on w1 by annotation " + router + " of the Node"},
		"kube-router, old":  {old, "10.5.1.0/24", "NodePods 10.5.1.0/24 on w1 by annotation " + old + " of the Node"},
		"OVN":               {ovn, `{"default":["10.128.2.0/23","fd01:0:0:3::/64"],"blue":["10.9.0.0/24"]}`, "NodePods 10.128.2.0/23 on w1 by annotation " + ovn + " of the Node\nNodePods fd01:0:0:3::/64 on w1 by annotation " + ovn + " of the Node"},
		"OVN, old":          {ovn, `{"default":"10.128.2.0/23"}`, "NodePods 10.128.2.0/23 on w1 by annotation " + ovn + " of the Node"},
		"OVN, others only":  {ovn, `{"blue":["10.9.0.0/24"]}`, ""},
		"OVN, something":    {ovn, `{"default":7}`, "NodePods 7 on w1 by annotation " + ovn + " of the Node: it is not a network"},
		"OVN, not JSON":     {ovn, "10.128.2.0/23,", "NodePods 10.128.2.0/23, on w1 by annotation " + ovn + " of the Node: it is not a network"},
		"one of no meaning": {"example.com/pod-cidr", "10.5.1.0/24", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := shown(egress.NodeNetworks("w1", map[string]string{test.key: test.value})); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}
