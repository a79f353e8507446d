package main

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// checkNodes: whether each Node is a host, and whether it is known where its pods are.
func (i *installation) checkNodes(f *findings) {
	var flags agentFlags
	if template := i.agentTemplate(); template != nil {
		args, _ := argumentsOf(template, componentAgent)
		flags = parseFlags(args)
	}
	cluster, _ := egress.Snapshot(i.Objects)
	for n := range i.nodes {
		node := &i.nodes[n]
		if hostSubnetOf(i.HostSubnets, node.Name) == nil {
			f.add(isError, "HostMissing", "Node "+node.Name, "see the controller's log", "it has no HostSubnet: the controller makes one for each Node")
			continue
		}
		host, _ := cluster.Host(node.Name)
		known := len(host.Subnets)+len(host.PodNetworks)+len(flags.cluster) > 0 ||
			slices.ContainsFunc(cluster.Hosts, func(h egress.Host) bool {
				return slices.ContainsFunc(h.Found, func(n egress.Found) bool {
					return n.Problem == "" && (n.Use == egress.UsePods || n.Use == egress.UseNodePods && h.Name == node.Name)
				})
			})
		if !known {
			f.add(isWarning, "PodNetworkUnknown", "Node "+node.Name, "set clusterCIDRs of the chart to the networks of pods",
				"it has no podCIDR, and nothing else says where its pods are: the first packets of new pods may leave with the node's address")
		}
	}
}

// checkHosts: what hosts report.
func (i *installation) checkHosts(f *findings) {
	for n := range i.HostSubnets {
		h := &i.HostSubnets[n]
		object := "HostSubnet " + h.Name
		i.checkHostIP(f, h, object)
		is := func(name string) *metav1.Condition { return meta.FindStatusCondition(h.Status.Conditions, name) }
		if c := is(v1.ConditionNodeGone); c != nil && c.Status == metav1.ConditionTrue {
			f.add(isWarning, "NodeGone", object, "nothing if the Node comes back; otherwise list its egress IPs for another host", "%s", c.Message)
			continue
		}
		if c := is(v1.ConditionAgentReady); c == nil {
			f.add(isError, "AgentSilent", object, "see the agent's log on that node, and whether it may write statuses", "no agent has reported from the host")
		} else if c.Status != metav1.ConditionTrue {
			f.add(isError, "AgentFails", object, "see the agent's log on that node", "%s: %s", c.Reason, c.Message)
		}
		if c := is(v1.ConditionOnline); c != nil && c.Status != metav1.ConditionTrue {
			f.add(isError, "HostOffline", object, "see docs/troubleshooting.md, A host is offline", "%s: %s", c.Reason, c.Message)
		}
		if c := is(v1.ConditionAddressInUse); c != nil && c.Status == metav1.ConditionTrue {
			f.add(isError, "AddressInUse", object, "find the machine with that MAC address, and take the address off it", "%s", c.Message)
		}
		if c := is(v1.ConditionWarnings); c != nil && c.Status == metav1.ConditionTrue {
			f.add(isWarning, "HostWarns", object, "see docs/troubleshooting.md, Condition Warnings", "%s: %s", c.Reason, strings.ReplaceAll(c.Message, "\n", "\n    "))
		}
		if a := h.Status.Agent; a != nil && a.PodNetworksMissing != "" {
			f.add(isWarning, "PodsOutside", object, "set clusterCIDRs of the chart to the networks of pods", "%s", a.PodNetworksMissing)
		}
		for _, claim := range h.Status.EgressIPs {
			if !claim.Configured && claim.Reason != "" && (claim.State == v1.StateActive || claim.State == v1.StateStandby) {
				f.add(isError, "NotConfigured", object, "see the agent's log on that node", "%s: %s: %s", claim.IP, claim.Reason, claim.Message)
			}
		}
	}
}

func (i *installation) checkHostIP(f *findings, h *v1.HostSubnet, object string) {
	switch {
	case h.HostIP == "":
		f.add(isError, "HostIPMissing", object, "give the kubelet its address with --node-ip, so that the Node reports an InternalIP", "it has no hostIP, so that the host takes no traffic")
	case h.Status.Agent != nil && h.Status.Agent.UplinkCIDR != "" && !strings.HasPrefix(h.Status.Agent.UplinkCIDR, h.HostIP+"/"):
		f.add(isError, "HostIPNotThere", object, "correct the InternalIP of the Node (--node-ip of the kubelet)", "its agent does not see hostIP %s on the uplink, but %s: the host takes no traffic", h.HostIP, h.Status.Agent.UplinkCIDR)
	}
}

// checkObjects: what cannot be used of objects.
func (i *installation) checkObjects(f *findings) {
	_, problems := egress.Snapshot(i.Objects)
	for _, p := range problems {
		if p.Reason == egress.ReasonBadHost {
			continue // checkHostIP says so
		}
		f.add(isWarning, "BadValue", p.Kind+" "+p.Name, "correct "+p.Field, "%s", p.Message)
	}
}

// checkGroups: whose traffic is dropped, or may be.
func (i *installation) checkGroups(f *findings) {
	cluster, _ := egress.Snapshot(i.Objects)
	for _, g := range egress.Resolve(cluster).Groups {
		object := "NetNamespace " + g.Name
		if name, ok := egress.NameOfEgressIP(g.Name); ok {
			object = "EgressIP " + name
		}
		remedy := fmt.Sprintf("kubectl egressip explain %s", strings.Replace(g.Name, "EgressIP/", "egressip/", 1))
		switch {
		case g.Dropped:
			f.add(isError, "Dropped", object, remedy, "%s", g.Message)
		case len(g.Requests) > 0 && g.Ready != egress.ReadyTrue:
			f.add(isWarning, "NotSure", object, remedy, "%s: %s", g.Reason, g.Message)
		}
	}
}

// checkEvents: what was refused lately. Other events report what statuses have, too.
func (i *installation) checkEvents(f *findings) {
	refusals := map[string]string{
		"OtherInstall":       "uninstall one of the two",
		"ClaimsNotFenced":    "find out what refuses the annotation, such as an admission webhook, and mend that",
		"NodeAddressRefused": "give the kubelet its address with --node-ip, or delete the stale Node that has the address",
		"RenumberingRefused": "withdraw the request to change the netid, or do it while the namespace requests no egress IPs",
		"SettingsKept":       "check that the object's egressIPs are meant for the Namespace or Node that exists",
	}
	for n := range i.events {
		e := &i.events[n]
		if remedy, ok := refusals[e.Reason]; ok {
			f.add(isWarning, e.Reason, e.InvolvedObject.Kind+" "+e.InvolvedObject.Name, remedy, "event of %s: %s", timeText(e.LastTimestamp), e.Message)
		}
	}
}
