package main

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// toNetNamespaces converts EgressIPs of one namespace each to NetNamespaces, and which node has
// which address to HostSubnets.
func toNetNamespaces(in input) conversion {
	var c conversion
	in = in.sorted()
	cluster, problems := egress.Snapshot(egress.Objects{EgressIPs: in.EgressIPs})
	spaces := namespacesOf(in)
	// counts is the EgressIP that counts in a namespace, of those that select all its pods.
	counts := make(map[string]string)
	hosts := placements{claims: make(map[string][]netip.Addr), placed: make(map[netip.Addr]bool)}
	taken := egressIPsWith(in.EgressIPs)
	requested := namespacesWith(in.NetNamespaces)
	selecting := spaces.selecting(in.EgressIPs)
	var netNamespaces, converted []document
	for _, g := range cluster.Groups {
		name, _ := egress.NameOfEgressIP(g.Name)
		e, _ := named(in.EgressIPs, name)
		namespace, ok := c.namespaceOf(e, g, spaces, counts)
		if !ok {
			continue
		}
		old, _ := named(in.NetNamespaces, namespace)
		netNamespaces = append(netNamespaces, document{
			APIVersion: v1.GroupVersion().String(), Kind: kindNetNamespace, EgressIPs: texts(g.Requests),
			Metadata: documentMeta{Name: namespace, Annotations: carried(g, e.Annotations, old.Annotations, egress.Ordered)},
		})
		converted = append(converted, document{Metadata: documentMeta{Name: name}})
		for _, ip := range g.Requests {
			c.shared(kindEgressIP, name, ip, slices.Concat(
				titles(kindEgressIP, taken[ip], name), titles(kindNetNamespace, requested[ip], namespace)))
		}
		if len(old.EgressIPs) > 0 && !slices.Equal(old.EgressIPs, texts(g.Requests)) {
			c.lost(kindNetNamespace, namespace, fieldEgressIPs, "it requests %s, which EgressIP %s hides now and what is printed would replace. Remove one of both.",
				strings.Join(old.EgressIPs, ", "), name)
		}
		c.narrowed(e, namespace)
		c.hidden(name, namespace, selecting[namespace])
		c.items(e, g.Requests, hosts)
	}
	hostSubnets := c.hostSubnets(in, hosts)
	c.labelled(in, hosts)
	c.problems(problems, converted, kindEgressIP)
	slices.SortFunc(netNamespaces, func(a, b document) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	c.documents = slices.Concat(hostSubnets, netNamespaces)
	c.steps = stepsToNetNamespaces(in, converted)
	return c
}

// namespaceOf returns the namespace whose NetNamespace an EgressIP becomes; false if it becomes
// none, which is reported.
func (c *conversion) namespaceOf(e *ovnv1.EgressIP, g egress.Group, spaces namespaces, counts map[string]string) (string, bool) {
	const selector = "spec.namespaceSelector"
	given, ofRequest := egress.ReadGiven(e)
	switch {
	case !g.Requesting() && ofRequest:
		// To delete it would give the address to others.
		c.lost(kindEgressIP, e.Name, fieldEgressIPs, "it keeps addresses of pool %s for EgressIPRequest %s, which is gone, and becomes nothing. "+
			"The controller removes it in time.", given.Pool, given.Request)
		return "", false
	case !g.Requesting():
		c.lost(kindEgressIP, e.Name, fieldEgressIPs, "it requests nothing and selects nothing, so it becomes nothing. Delete it.")
		return "", false
	case g.Selects == nil:
		return "", false // the problem is reported
	}
	all, selected := isEmpty(&e.Spec.PodSelector), spaces.selectedBy(e)
	for _, namespace := range selected {
		if all && counts[namespace] == "" {
			counts[namespace] = e.Name
		}
	}
	switch {
	case ofRequest:
		c.lost(kindEgressIP, e.Name, "metadata.annotations", "the controller makes it for EgressIPRequest %s, and would make it again with another address. "+
			"Keep it, or delete the request first: its pods leave without the address then.", given.Request)
	case !all:
		c.lost(kindEgressIP, e.Name, "spec.podSelector", "a NetNamespace is for all pods of its namespace. Move these pods to a namespace of their own, or keep the EgressIP.")
	case len(selected) == 0 && !spaces.complete:
		c.lost(kindEgressIP, e.Name, selector, "it matches none of the Namespaces that are given. Add them with -f, or keep the EgressIP.")
	case len(selected) == 0:
		c.lost(kindEgressIP, e.Name, selector, "it matches no Namespace. Delete the EgressIP, or give one the labels.")
	case len(selected) > 1:
		c.lost(kindEgressIP, e.Name, selector, "it matches %d namespaces (%s), which cannot share an egress IP. Give each its own, or keep the EgressIP.",
			len(selected), strings.Join(selected, ", "))
	case !spaces.given[selected[0]] && !onlyName(&e.Spec.NamespaceSelector):
		c.lost(kindEgressIP, e.Name, selector, "which Namespaces it matches is not known. Add them with -f, or keep the EgressIP.")
	case counts[selected[0]] != e.Name:
		c.lost(kindEgressIP, e.Name, selector, "in namespace %s EgressIP %s counts, the first by name, and this one is ignored. Delete this one, which changes nothing, or keep both.",
			selected[0], counts[selected[0]])
	case len(g.Requests) == 0:
		c.lost(kindEgressIP, e.Name, fieldEgressIPs, "none can be used, so no NetNamespace is written. Correct the list and convert again.")
	default:
		return selected[0], true
	}
	return "", false
}

// narrowed reports a selector that may match other namespaces later.
func (c *conversion) narrowed(e *ovnv1.EgressIP, namespace string) {
	if !onlyName(&e.Spec.NamespaceSelector) {
		c.lost(kindEgressIP, e.Name, "spec.namespaceSelector", "the NetNamespace is for namespace %s alone, which it matches now. "+
			"Namespaces that it would match later need NetNamespaces of their own.", namespace)
	}
}

// hidden reports EgressIPs that come after one that is converted and select the same pods, or some. They
// are kept and ignored now, and count before the NetNamespace when the first one is gone.
func (c *conversion) hidden(name, namespace string, selecting []string) {
	later := slices.DeleteFunc(slices.Clone(selecting), func(other string) bool { return other <= name })
	if len(later) > 0 {
		c.lost(kindEgressIP, name, "metadata.name", "when it is deleted, these EgressIPs count for pods of namespace %s, before the NetNamespace: %s. "+
			"Change their selectors or delete them first, or keep this one.", namespace, strings.Join(later, ", "))
	}
}

// placements are the egress IPs that nodes have.
type placements struct {
	claims map[string][]netip.Addr
	placed map[netip.Addr]bool
}

// items notes which nodes have the egress IPs of an EgressIP, and reports those that none has.
func (c *conversion) items(e *ovnv1.EgressIP, requests []netip.Addr, hosts placements) {
	for _, item := range e.Status.Items {
		ip, err := netip.ParseAddr(item.EgressIP)
		// An address on two HostSubnets is used by neither.
		if err == nil && slices.Contains(requests, ip) && !hosts.placed[ip] {
			hosts.placed[ip] = true
			hosts.claims[item.Node] = append(hosts.claims[item.Node], ip)
		}
	}
	missing := texts(slices.DeleteFunc(slices.Clone(requests), func(ip netip.Addr) bool { return hosts.placed[ip] }))
	if len(missing) > 0 {
		c.lost(kindEgressIP, e.Name, "status.items", "no node has %s, so no HostSubnet lists it. Add it to egressIPs of one, or its network to egressCIDRs of some.",
			strings.Join(missing, ", "))
	}
}

// hostSubnets are the manifests of those that claim egress IPs, with what they claim already: an
// apply replaces the list.
func (c *conversion) hostSubnets(in input, hosts placements) []document {
	var documents []document
	for _, name := range slices.Sorted(maps.Keys(hosts.claims)) {
		ips := hosts.claims[name]
		slices.SortFunc(ips, netip.Addr.Compare)
		old, there := named(in.HostSubnets, name)
		if there && len(old.EgressCIDRs) > 0 {
			c.lost(kindHostSubnet, name, fieldEgressIPs, "%s is not listed: as the HostSubnet has egressCIDRs, the list is the controller's. "+
				"It assigns addresses in the ranges of its hosts. Check that these contain it.", strings.Join(texts(ips), ", "))
			continue
		}
		claims := texts(ips)
		if there {
			claims, _ = egress.CanonicalClaims(slices.Concat(old.EgressIPs, claims))
		}
		documents = append(documents, document{
			APIVersion: v1.GroupVersion().String(), Kind: kindHostSubnet, Metadata: documentMeta{Name: name}, EgressIPs: claims,
		})
	}
	return documents
}

// labelled reports Nodes that EgressIPs may use and NetNamespaces may not.
func (c *conversion) labelled(in input, hosts placements) {
	for i := range in.nodes {
		node := &in.nodes[i]
		_, label := node.Labels[ovnv1.LabelEgressAssignable]
		old, _ := named(in.HostSubnets, node.Name)
		if label && len(hosts.claims[node.Name]) == 0 && len(old.EgressCIDRs) == 0 {
			c.lost(kindNode, node.Name, "label "+ovnv1.LabelEgressAssignable, "the Node has none of these egress IPs, so nothing is written for it. "+
				"To have the controller choose among hosts, give their HostSubnets egressCIDRs with the network, instead of egressIPs.")
		}
	}
}

func stepsToNetNamespaces(in input, converted []document) []string {
	if len(converted) == 0 {
		return []string{"No EgressIP can be converted."}
	}
	apply := "1. Apply what is printed: " + applyCommand
	if in.complete {
		apply += ", and --force-conflicts where another tool has written egressIPs"
	}
	steps := []string{
		"In this order no packet leaves with another address, in a cluster with this operator:",
		apply + ". Two objects request each address then, so nobody has it, and the pods are dropped. " + untilDropped,
		"2. Delete the EgressIPs: kubectl delete egressip " + strings.ReplaceAll(namesOf(converted), ",", "") + ". The pods leave with their addresses again.",
		"3. Remove label " + ovnv1.LabelEgressAssignable + " from the Nodes, if no EgressIP is left.",
		"An address that a HostSubnet without egressCIDRs lists stays there: no other host takes over when that one fails.",
		"In another cluster than the one that the objects are of: withdraw the addresses from that one first, and give HostSubnets the names of its Nodes.",
	}
	if !in.complete {
		// The target may have what the files do not.
		steps = append(steps, "The lists of what is printed replace those that HostSubnets and NetNamespaces have there, with the addresses of others. "+
			"Add these to it first. A conflict says that another tool has written such a list: do not force it without a look at that.")
	}
	return steps
}

// namespaces are those that selectors choose from.
type namespaces struct {
	labels map[string]labels.Set
	// given are those whose labels are known. Of others only a selector has the name.
	given    map[string]bool
	complete bool
}

// namespacesOf are the Namespaces of the input, and those that selectors of EgressIPs name.
func namespacesOf(in input) namespaces {
	n := namespaces{labels: make(map[string]labels.Set), given: make(map[string]bool), complete: in.complete}
	for i := range in.EgressIPs {
		if selector := &in.EgressIPs[i].Spec.NamespaceSelector; onlyName(selector) {
			name := selector.MatchLabels[corev1.LabelMetadataName]
			n.labels[name] = labels.Set{corev1.LabelMetadataName: name}
		}
	}
	for i := range in.NetNamespaces {
		name := in.NetNamespaces[i].Name
		n.labels[name] = labels.Set{corev1.LabelMetadataName: name}
	}
	for i := range in.namespaces {
		object := &in.namespaces[i]
		// The API server gives each Namespace this label, which a file may lack.
		n.labels[object.Name] = labels.Merge(object.Labels, labels.Set{corev1.LabelMetadataName: object.Name})
		n.given[object.Name] = true
	}
	return n
}

// selectedBy are the namespaces that an EgressIP selects, in order.
func (n namespaces) selectedBy(e *ovnv1.EgressIP) []string {
	selector, err := metav1.LabelSelectorAsSelector(&e.Spec.NamespaceSelector)
	if err != nil {
		return nil
	}
	var selected []string
	for _, name := range slices.Sorted(maps.Keys(n.labels)) {
		if selector.Matches(n.labels[name]) {
			selected = append(selected, name)
		}
	}
	return selected
}

// selecting are the EgressIPs that select pods of each namespace.
func (n namespaces) selecting(egressIPs []ovnv1.EgressIP) map[string][]string {
	selecting := make(map[string][]string)
	for i := range egressIPs {
		if e := &egressIPs[i]; len(e.Spec.EgressIPs) > 0 {
			for _, namespace := range n.selectedBy(e) {
				selecting[namespace] = append(selecting[namespace], e.Name)
			}
		}
	}
	return selecting
}

// onlyName reports whether a selector asks for the namespace of one name.
func onlyName(s *metav1.LabelSelector) bool {
	return len(s.MatchExpressions) == 0 && len(s.MatchLabels) == 1 && s.MatchLabels[corev1.LabelMetadataName] != ""
}

func isEmpty(s *metav1.LabelSelector) bool { return len(s.MatchLabels)+len(s.MatchExpressions) == 0 }

// egressIPsWith are the EgressIPs that request each address.
func egressIPsWith(objects []ovnv1.EgressIP) map[netip.Addr][]string {
	with := make(map[netip.Addr][]string)
	for i := range objects {
		for _, written := range objects[i].Spec.EgressIPs {
			noteRequest(with, written, objects[i].Name)
		}
	}
	return with
}

// namespacesWith are the NetNamespaces that request each address.
func namespacesWith(objects []v1.NetNamespace) map[netip.Addr][]string {
	with := make(map[netip.Addr][]string)
	for i := range objects {
		for _, written := range objects[i].EgressIPs {
			noteRequest(with, written, objects[i].Name)
		}
	}
	return with
}

func noteRequest(with map[netip.Addr][]string, written, name string) {
	if ip, err := netip.ParseAddr(written); err == nil && !slices.Contains(with[ip], name) {
		with[ip] = append(with[ip], name)
	}
}

// object is what every API object has.
type object[T any] interface {
	*T
	GetName() string
}

// named returns the object with that name, or an empty one and false.
func named[T any, P object[T]](list []T, name string) (P, bool) {
	for i := range list {
		if o := P(&list[i]); o.GetName() == name {
			return o, true
		}
	}
	return P(new(T)), false
}

func texts(ips []netip.Addr) []string {
	texts := make([]string, 0, len(ips))
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return texts
}

// titles names objects of a kind in messages, but for one.
func titles(kind string, names []string, except string) []string {
	var titles []string
	for _, name := range names {
		if name != except {
			titles = append(titles, kind+" "+name)
		}
	}
	return titles
}

func namesOf(documents []document) string {
	names := make([]string, 0, len(documents))
	for _, d := range documents {
		names = append(names, d.Metadata.Name)
	}
	return strings.Join(names, ", ")
}
