package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// nodeView is what the agent of a node sees in the API, and what could not be read of it.
type nodeView struct {
	egress.Objects
	facts
	cluster    egress.Cluster
	problems   []egress.Problem
	node       string
	pods       []corev1.Pod
	namespaces map[string]labels.Set
	apiServers []netip.Addr
	hostIP     netip.Addr
	flags      agentFlags
	// unknown says what is not known, and what may be otherwise because of that.
	unknown []string
}

// viewOf reads what the agent of a node sees. Pods and Namespaces are needed; of all else that
// cannot be read it says so.
func viewOf(ctx context.Context, c client.Reader, o egress.Objects, node string) (nodeView, error) {
	v := nodeView{Objects: o, facts: readFacts(ctx, c), node: node}
	v.cluster, v.problems = egress.Snapshot(o)
	var err error
	if v.pods, err = podsOn(ctx, c, node); err != nil {
		return v, err
	}
	if len(o.EgressIPs) > 0 {
		if v.namespaces, err = namespaceLabels(ctx, c); err != nil {
			v.doubt("Labels of namespaces, by which EgressIPs select pods: %v.", err)
		}
	}
	if v.flags, err = readFlags(ctx, c); err != nil {
		v.doubt("The flags of the agents (%v): networks of --cluster-cidrs, --service-cidrs and --exclude-cidrs would be inside, too, and with --include-cidrs egress IPs would apply to those networks only. Strict mode is taken to be on, as by default.", err)
	}
	if v.apiServers, err = endpoints(ctx, c); err != nil {
		v.doubt("The endpoints of the API server, which are inside: %v.", err)
	}
	if v.servicesErr != nil && !isNoSuchKind(v.servicesErr) {
		v.doubt("Networks of services, which are inside: %v.", v.servicesErr)
	}
	if v.kubeadmErr != nil {
		v.doubt("The networks that kubeadm noted, which are inside: %v.", v.kubeadmErr)
	}
	var object corev1.Node
	switch err := c.Get(ctx, client.ObjectKey{Name: node}, &object); {
	case apierrors.IsNotFound(err):
		v.doubt("Whether the host still exists: there is no Node %s.", node)
	case err != nil:
		v.doubt("What Node %s says: %v.", node, err)
	}
	v.hostIP = internalIP(&object)
	return v, nil
}

func (v *nodeView) doubt(format string, args ...any) {
	v.unknown = append(v.unknown, fmt.Sprintf(format, args...))
}

// input is what the agent gives to the brain.
func (v *nodeView) input() egress.HostInput {
	in := egress.HostInput{
		Host: v.node, Cluster: v.cluster, HostIP: v.hostIP, Pods: egress.OwnPods(v.seen()), Namespaces: v.namespaces,
		Managed: make(map[string]bool), APIServers: v.apiServers, PodNetworks: v.flags.cluster, ClusterNetworks: v.kubeadm,
		Inside: slices.Concat(v.flags.cluster, v.flags.service, v.flags.exclude, v.serviceCIDRs()), Strict: v.flags.strict,
		Included: v.flags.include,
		Reach:    egress.Reach{Host: v.node, Silent: make(map[string]bool)},
	}
	for i := range v.NetNamespaces {
		in.Managed[v.NetNamespaces[i].Name], in.Managed[v.NetNamespaces[i].NetName] = true, true
	}
	if own := v.own(); own != nil && own.Status.Agent != nil {
		in.Uplink, _ = netip.ParsePrefix(own.Status.Agent.UplinkCIDR)
		for _, name := range own.Status.Agent.Silent {
			in.Reach.Silent[name] = true
		}
	}
	return in
}

// own is the HostSubnet of the node; nil without one.
func (v *nodeView) own() *v1.HostSubnet { return hostSubnetOf(v.HostSubnets, v.node) }

func hostSubnetOf(hostSubnets []v1.HostSubnet, name string) *v1.HostSubnet {
	i := slices.IndexFunc(hostSubnets, func(h v1.HostSubnet) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return &hostSubnets[i]
}

func (v *nodeView) seen() []egress.SeenPod {
	seen := make([]egress.SeenPod, 0, len(v.pods))
	for i := range v.pods {
		seen = append(seen, seenPod(&v.pods[i]))
	}
	return seen
}

func (v *nodeView) serviceCIDRs() (networks []netip.Prefix) {
	for i := range v.services {
		for _, cidr := range v.services[i].Spec.CIDRs {
			networks = append(networks, prefixes(cidr)...)
		}
	}
	return networks
}

// known are the networks that may be inside, with where each is from. What is inside is what the
// brain decides; these are its names.
func (v *nodeView) known() []egress.Network {
	all := slices.Concat(egress.Networks(v.cluster), egress.NotedNetworks(v.cluster, v.kubeadm))
	add := func(source egress.Source, services bool, networks ...netip.Prefix) {
		for _, p := range networks {
			all = append(all, egress.Network{Network: p, Source: source, Inside: true, Services: services})
		}
	}
	add("--cluster-cidrs of the agents", false, v.flags.cluster...)
	add("--service-cidrs of the agents", true, v.flags.service...)
	add("--exclude-cidrs of the agents", false, v.flags.exclude...)
	add("link-local addresses", false, egress.LinkLocal())
	for _, ip := range v.apiServers {
		add("EndpointSlice default/kubernetes", false, netip.PrefixFrom(ip, ip.BitLen()))
	}
	for i := range v.services {
		for _, cidr := range v.services[i].Spec.CIDRs {
			add(egress.Source("ServiceCIDR "+v.services[i].Name), true, prefixes(cidr)...)
		}
	}
	return all
}

// podsOn are the pods that the API server has on a node.
func podsOn(ctx context.Context, c client.Reader, node string) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := c.List(ctx, &list, client.MatchingFields{"spec.nodeName": node}); err != nil {
		return nil, fmt.Errorf("list the pods of node %s: %w", node, err)
	}
	return list.Items, nil
}

func namespaceLabels(ctx context.Context, c client.Reader) (map[string]labels.Set, error) {
	var list corev1.NamespaceList
	if err := c.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list Namespaces: %w", err)
	}
	of := make(map[string]labels.Set, len(list.Items))
	for i := range list.Items {
		of[list.Items[i].Name] = list.Items[i].Labels
	}
	return of, nil
}

// endpoints are the addresses of the API server's own service.
func endpoints(ctx context.Context, c client.Reader) (ips []netip.Addr, err error) {
	var slice discoveryv1.EndpointSlice
	if err := c.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, &slice); err != nil {
		return nil, fmt.Errorf("read EndpointSlice default/kubernetes: %w", err)
	}
	for i := range slice.Endpoints {
		for _, written := range slice.Endpoints[i].Addresses {
			ip, parseErr := netip.ParseAddr(written)
			if parseErr != nil {
				err = errors.Join(err, parseErr)
				continue
			}
			ips = append(ips, ip)
		}
	}
	return ips, err
}

// internalIP is the address that the controller would write as hostIP; invalid if there is none.
func internalIP(node *corev1.Node) netip.Addr {
	var listed []netip.Addr
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			listed = append(listed, ip)
		}
	}
	if usable := egress.HostIPs(listed); len(usable) > 0 {
		return usable[0]
	}
	return netip.Addr{}
}

// seenPod reads a pod for the brain.
func seenPod(pod *corev1.Pod) egress.SeenPod {
	life := egress.PodLife{
		Terminal: pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
		Deleted:  pod.DeletionTimestamp != nil,
		AllEnded: len(pod.Status.ContainerStatuses) > 0,
	}
	for _, s := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		life.Running = life.Running || s.State.Running != nil
	}
	for _, s := range pod.Status.ContainerStatuses {
		life.AllEnded = life.AllEnded && s.State.Terminated != nil
	}
	return egress.SeenPod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Labels: pod.Labels, Addresses: podAddresses(pod),
		Created: pod.CreationTimestamp.Time, HostNetwork: pod.Spec.HostNetwork, Terminating: life.Deleted, Ended: life.Ended(),
	}
}

// podAddresses are the addresses of a pod, of both families.
func podAddresses(pod *corev1.Pod) (ips []netip.Addr) {
	for _, written := range append([]corev1.PodIP{{IP: pod.Status.PodIP}}, pod.Status.PodIPs...) {
		ip, err := netip.ParseAddr(written.IP)
		if ip = ip.Unmap(); err == nil && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}
