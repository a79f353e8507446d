package main

import (
	"cmp"
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// convertCommand returns the command that converts one API's objects to the other's.
func convertCommand(out, errOut io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	var files []string
	convert := &cobra.Command{
		Use:   "convert",
		Short: "Print NetNamespaces and HostSubnets as EgressIPs and labels of Nodes, or the reverse",
		Long: `Print NetNamespaces and HostSubnets as EgressIPs and labels of Nodes, or the reverse.

Manifests go to stdout. What cannot be carried over, and the order of steps, go to stderr.
Nothing is changed. Without -f, the cluster is read; with it, these files alone, such as those that
"oc get netnamespaces,hostsubnets -o yaml" printed for another cluster.`,
	}
	convert.PersistentFlags().StringArrayVarP(&files, "filename", "f", nil, "`file` with objects, in YAML or JSON, to read instead of the cluster; - is stdin; may be repeated")
	add := func(use, short, example string, converted func(input) conversion) {
		convert.AddCommand(&cobra.Command{
			Use: use, Short: short, Example: example, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				in, err := readInput(cmd.Context(), config, files, cmd.InOrStdin())
				if err != nil {
					return err
				}
				c := converted(in)
				if len(in.ignored) > 0 {
					c.steps = append(c.steps, ignoredKinds(in.ignored))
				}
				return c.print(out, errOut)
			},
		})
	}
	add("egressips", "Print NetNamespaces as EgressIPs, and hosts as Nodes with the label",
		`  kubectl egressip convert egressips | `+applyCommand+`
  oc get netnamespaces,hostsubnets -o yaml | kubectl egressip convert egressips -f -`, toEgressIPs)
	add("netnamespaces", "Print EgressIPs of one namespace each as NetNamespaces, and where they are as HostSubnets",
		`  kubectl egressip convert netnamespaces | `+applyCommand+`
  oc get egressips,namespaces,nodes -o yaml | kubectl egressip convert netnamespaces -f -`, toNetNamespaces)
	return convert
}

// readInput reads the files, or the cluster if there are none.
func readInput(ctx context.Context, config clientcmd.ClientConfig, files []string, stdin io.Reader) (input, error) {
	if len(files) > 0 {
		return readFiles(files, stdin)
	}
	c, err := newClient(config)
	if err != nil {
		return input{}, err
	}
	return readCluster(ctx, c)
}

// applyCommand has a field manager of its own: an apply removes what the same manager has applied
// before and does not any more, such as other labels of a Node.
const applyCommand = "kubectl apply --server-side --field-manager=egressip-convert -f -"

// untilDropped ends the first step. NetNamespaces and EgressIPs reach an agent by separate watches: one that
// saw the second step first would let pods out with its node's address. What the objects say is what
// the controller has seen, and pods are dropped as soon as the host has seen it: hence the pause.
const untilDropped = "Wait until both objects say MultipleNamespaces (kubectl get netnamespaces,eip -o wide) and the pods are dropped, and then 30 seconds more: " +
	"agents see both kinds by separate watches, and need that long to find a definition of EgressIPs that was just installed."

const (
	kindNetNamespace = "NetNamespace"
	kindHostSubnet   = "HostSubnet"
	kindEgressIP     = "EgressIP"
	kindNode         = "Node"

	fieldEgressIPs   = "egressIPs"
	fieldEgressCIDRs = "egressCIDRs"
)

// toEgressIPs converts NetNamespaces to EgressIPs, and HostSubnets to labels of Nodes.
func toEgressIPs(in input) conversion {
	var c conversion
	in = in.sorted()
	cluster, problems := egress.Snapshot(egress.Objects{NetNamespaces: in.NetNamespaces, HostSubnets: in.HostSubnets})
	requests, taken := namespacesWith(in.NetNamespaces), egressIPsWith(in.EgressIPs)
	selecting := namespacesOf(in).selecting(in.EgressIPs)
	nodes := c.labels(in, cluster.Hosts)
	var egressIPs []document
	for _, g := range cluster.Groups {
		if !g.Requesting() {
			continue
		}
		if len(g.Requests) == 0 {
			c.lost(kindNetNamespace, g.Name, fieldEgressIPs, "none can be used, so no EgressIP is written: without a usable address it would select nothing, "+
				"and the pods, which are dropped now, would leave with the addresses of their nodes. Correct the list and convert again.")
			continue
		}
		object, _ := named(in.NetNamespaces, g.Name)
		old, _ := named(in.EgressIPs, g.Name)
		d := document{
			APIVersion: ovnv1.GroupVersion().String(), Kind: kindEgressIP,
			Metadata: documentMeta{Name: g.Name, Annotations: carried(g, object.Annotations, old.Annotations, egress.Balanced)},
			Spec: &ovnv1.EgressIPSpec{
				EgressIPs:         texts(g.Requests),
				NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: g.Name}},
			},
		}
		egressIPs = append(egressIPs, d)
		for _, ip := range g.Requests {
			c.shared(kindNetNamespace, g.Name, ip, slices.Concat(
				titles(kindNetNamespace, requests[ip], g.Name), titles(kindEgressIP, taken[ip], g.Name)))
		}
		c.replaced(in.EgressIPs, d)
		c.later(g.Name, selecting[g.Name])
		c.inOrder(g, object.Annotations)
		c.destinations(g)
	}
	for _, h := range cluster.Hosts {
		c.placement(h, requests, taken)
	}
	c.problems(problems, egressIPs, kindNetNamespace, kindHostSubnet)
	c.documents = slices.Concat(nodes, egressIPs)
	c.steps = stepsToEgressIPs(in, nodes, egressIPs)
	return c
}

// labels are the Nodes of hosts that have egress IPs, or may get some, with the label for EgressIPs.
func (c *conversion) labels(in input, hosts []egress.Host) []document {
	var nodes []document
	for _, h := range hosts {
		object, _ := named(in.HostSubnets, h.Name)
		if len(object.EgressIPs)+len(object.EgressCIDRs) == 0 {
			continue
		}
		node, there := named(in.nodes, h.Name)
		if in.complete && !there {
			c.lost(kindHostSubnet, h.Name, "metadata.name", "there is no Node of that name, so no label is written: applying it would create the Node.")
			continue
		}
		nodes = append(nodes, document{APIVersion: "v1", Kind: kindNode, Metadata: documentMeta{
			// Any value counts. Another one would be a conflict with who has written it.
			Name: h.Name, Labels: map[string]string{ovnv1.LabelEgressAssignable: node.Labels[ovnv1.LabelEgressAssignable]},
		}})
	}
	return nodes
}

// shared reports an address that several objects request.
func (c *conversion) shared(kind, name string, ip netip.Addr, others []string) {
	if len(others) > 0 {
		c.lost(kind, name, fieldEgressIPs, "%s also requests %s: neither has it, and the pods of both are dropped, before and after. Remove it from one.",
			strings.Join(others, " and "), ip)
	}
}

// replaced reports an EgressIP that has the name of the one that is printed, and is another.
func (c *conversion) replaced(egressIPs []ovnv1.EgressIP, d document) {
	old, there := named(egressIPs, d.Metadata.Name)
	if there && !equality.Semantic.DeepEqual(old.Spec, *d.Spec) {
		c.lost(kindEgressIP, old.Name, "spec", "there is one of that name already, which would be replaced. Rename one of both.")
	}
}

// later reports EgressIPs that count for pods of the namespace now, and would not afterwards.
func (c *conversion) later(namespace string, egressIPs []string) {
	for _, name := range egressIPs {
		if name > namespace {
			c.lost(kindNetNamespace, namespace, "metadata.name", "EgressIP %s selects pods of this namespace, and comes before the NetNamespace. "+
				"Of two EgressIPs the first by name counts, which would be %s. Rename the one that is printed.", name, namespace)
		}
	}
}

// destinations reports that another software applies egress IPs to all destinations.
func (c *conversion) destinations(g egress.Group) {
	if g.Destinations != nil && !g.Destinations.All {
		c.lost(kindNetNamespace, g.Name, "annotations "+v1.AnnotationIncludeCIDRs+" and exclude-cidrs", "OVN-Kubernetes ignores them: "+
			"there, the egress IPs apply to all destinations. Here they apply to %s.", g.Destinations)
	}
}

// inOrder reports what becomes of a namespace that uses one of several addresses.
func (c *conversion) inOrder(g egress.Group, annotations map[string]string) {
	var families [2]int
	for _, ip := range g.Requests {
		families[egress.FamilyOf(ip)]++
	}
	if g.Mode != egress.Ordered || max(families[0], families[1]) < 2 {
		return
	}
	c.lost(kindNetNamespace, g.Name, "annotation "+v1.AnnotationMode, "OVN-Kubernetes has no mode %s and ignores the annotation: "+
		"it spreads connections over all addresses. There, request the first one of each family alone.", v1.ModeOrdered)
	if annotations[v1.AnnotationFailBack] == v1.FailBackNever {
		c.lost(kindNetNamespace, g.Name, "annotation "+v1.AnnotationFailBack, "which address is in use is not carried over: the EgressIP begins with the first that can be used. "+
			"To go on with another, list that first. OVN-Kubernetes ignores the annotation.")
	}
}

// placement reports that which host has which address is not kept.
func (c *conversion) placement(h egress.Host, requests, taken map[netip.Addr][]string) {
	if h.Automatic {
		c.lost(kindHostSubnet, h.Name, fieldEgressCIDRs, "ranges are not carried over: any Node with the label may get an address that is in its network. "+
			"Label only hosts that may. Remove the ranges when no NetNamespace requests egress IPs.")
		return
	}
	var kept, unused []string
	for _, ip := range h.Claims {
		switch _, assigned := slices.BinarySearchFunc(h.Assigned, ip, netip.Addr.Compare); {
		case assigned, len(requests[ip]) == 0 && len(taken[ip]) > 0: // an EgressIP has it already
		case len(requests[ip]) > 0:
			kept = append(kept, ip.String())
		default:
			unused = append(unused, ip.String())
		}
	}
	if len(kept) > 0 {
		c.lost(kindHostSubnet, h.Name, fieldEgressIPs, "EgressIPs do not say which host has an address. With this operator, the host keeps %s as long as that is listed here, "+
			"and no other host takes over. Remove it in step 3 to let the controller choose. OVN-Kubernetes chooses at once.", strings.Join(kept, ", "))
	}
	if len(unused) > 0 {
		c.lost(kindHostSubnet, h.Name, fieldEgressIPs, "no NetNamespace requests %s, so it becomes nothing. Remove it, or request it.", strings.Join(unused, ", "))
	}
}

// problems reports what was wrong with the objects, as far as it concerns what is converted.
func (c *conversion) problems(problems []egress.Problem, documents []document, kinds ...string) {
	for _, p := range problems {
		annotation := strings.HasPrefix(p.Field, "annotation ")
		wanted := p.Field == fieldEgressIPs || p.Field == fieldEgressCIDRs || p.Reason == egress.ReasonBadSelector ||
			annotation && slices.ContainsFunc(documents, func(d document) bool { return d.Metadata.Name == p.Name })
		if wanted && slices.Contains(kinds, p.Kind) {
			c.report = append(c.report, p)
		}
	}
	slices.SortStableFunc(c.report, func(a, b egress.Problem) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), strings.Compare(a.Field, b.Field))
	})
}

// carried are the annotations of an object that has the same requests, where unless is the mode of
// one without annotations. What an annotation means is carried, not what it says. An apply leaves
// those that the object has already, so they are written, too.
func carried(g egress.Group, annotations, already map[string]string, unless egress.Mode) map[string]string {
	carried := make(map[string]string)
	var destinations egress.Destinations
	if g.Destinations != nil {
		destinations = *g.Destinations
	}
	_, mode := already[v1.AnnotationMode]
	if mode || annotations[v1.AnnotationMode] == g.Mode.String() || g.Mode != unless && len(g.Requests) > 1 {
		carried[v1.AnnotationMode] = g.Mode.String()
	}
	for annotation, values := range map[string][]string{ // the first is what counts without it
		v1.AnnotationFailBack:    {v1.FailBackAlways, v1.FailBackNever},
		v1.AnnotationOtherFamily: {v1.OtherFamilyDropped, v1.OtherFamilyNode},
	} {
		if value := annotations[annotation]; slices.Contains(values, value) {
			carried[annotation] = value
		} else if _, there := already[annotation]; there {
			carried[annotation] = values[0]
		}
	}
	for annotation, networks := range map[string][]netip.Prefix{
		v1.AnnotationExcludeCIDRs: destinations.Exclude,
		v1.AnnotationIncludeCIDRs: destinations.Include,
	} {
		_, there := already[annotation]
		if len(networks) > 0 || there {
			carried[annotation] = commaSeparated(networks)
		}
	}
	if gateways := annotations[v1.AnnotationGateways]; gateways != "" || already[v1.AnnotationGateways] != "" {
		carried[v1.AnnotationGateways] = gateways
	}
	return carried
}

func commaSeparated(networks []netip.Prefix) string {
	texts := make([]string, 0, len(networks))
	for _, n := range networks {
		texts = append(texts, n.String())
	}
	return strings.Join(texts, ",")
}

func stepsToEgressIPs(in input, nodes, egressIPs []document) []string {
	if len(egressIPs) == 0 {
		return []string{"No NetNamespace requests an egress IP that can be converted."}
	}
	steps := []string{
		"In this order no packet leaves with another address, in a cluster with this operator:",
		"1. Apply what is printed: " + applyCommand + ". Two objects request each address then, so nobody has it, and the pods are dropped. " + untilDropped,
		"2. Empty egressIPs of each NetNamespace (" + namesOf(egressIPs) + `): kubectl patch netnamespace NAME --type=merge -p '{"egressIPs": []}'. The pods leave with their addresses again.`,
		"3. Remove the addresses from egressIPs of HostSubnets, where the controller shall choose the host.",
		"In another cluster than the one that the objects are of: withdraw the addresses from that one first. Two machines with one address break both.",
		"OVN-Kubernetes lets pods leave with their node's address while no node has their egress IP. docs/compatibility.md lists what else differs.",
	}
	if len(nodes) == 0 {
		steps = append(steps, "No HostSubnet has egress IPs, so no Node is labelled: label some with "+ovnv1.LabelEgressAssignable+"=.")
	} else if !in.complete {
		steps = append(steps, "Give Nodes the names that they have where you apply them: a Node that is not there would be created.")
	}
	return steps
}
