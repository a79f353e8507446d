package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// ReadPool reads a pool. namespaces are the labels of namespaces.
func ReadPool(object *v1alpha1.EgressIPPool, namespaces map[string]labels.Set) Pool {
	p := Pool{Name: object.Name, PerNamespace: -1}
	if object.Spec.PerNamespace != nil {
		p.PerNamespace = int(*object.Spec.PerNamespace)
	}
	for _, written := range object.Spec.CIDRs {
		cidr, _, ok := parseRange(written)
		if !ok {
			p.Broken = fmt.Sprintf("%q in spec.cidrs is not a CIDR.", written)
			continue
		}
		p.CIDRs = append(p.CIDRs, cidr)
	}
	selector, err := selectorOrAll(object.Spec.NamespaceSelector)
	if err != nil {
		p.Broken, selector = fmt.Sprintf("spec.namespaceSelector: %v.", err), labels.Nothing()
	}
	if _, err := selectorOrAll(object.Spec.NodeSelector); err != nil {
		p.Broken = fmt.Sprintf("spec.nodeSelector: %v.", err)
	}
	p.Allows = func(namespace string) bool {
		of, known := namespaces[namespace]
		return known && selector.Matches(of)
	}
	return p
}

// selectorOrAll reads a selector; nil selects all.
func selectorOrAll(written *metav1.LabelSelector) (labels.Selector, error) {
	if written == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(written)
}

// HostsOf returns the hosts to which a pool's addresses may be assigned, by the labels of their
// Nodes; nil for all. They may be on all while the selector cannot be used, so that none is taken
// from its host: the pool gives no new ones then.
func HostsOf(object *v1alpha1.EgressIPPool, nodes map[string]labels.Set) *HostSet {
	if object.Spec.NodeSelector == nil {
		return nil
	}
	selector, err := selectorOrAll(object.Spec.NodeSelector)
	if err != nil {
		return nil
	}
	hosts := make(map[string]bool)
	for name, of := range nodes {
		if selector.Matches(of) {
			hosts[name] = true
		}
	}
	return NewHostSet(hosts)
}

// OnlyOn returns, by EgressIP, the hosts to which the pool that gave its addresses restricts them.
// byPool are those that HostsOf returned, by pool.
func OnlyOn(egressIPs []*ovnv1.EgressIP, byPool map[string]*HostSet) map[string]*HostSet {
	onlyOn := make(map[string]*HostSet)
	for _, e := range egressIPs {
		g, given := ReadGiven(e)
		if hosts := byPool[g.Pool]; given && hosts != nil {
			onlyOn[e.Name] = hosts
		}
	}
	return onlyOn
}

// WriteGateways makes the EgressIP of a request name the gateways of its pool, and no others.
func WriteGateways(object *ovnv1.EgressIP, pool *v1alpha1.EgressIPPool) {
	if len(pool.Spec.Gateways) == 0 {
		delete(object.Annotations, gatewaysAnnotation)
		return
	}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, gatewaysAnnotation, strings.Join(pool.Spec.Gateways, ","))
}

// ReadPoolRequest reads a request.
func ReadPoolRequest(object *v1alpha1.EgressIPRequest) PoolRequest {
	r := PoolRequest{Namespace: object.Namespace, Name: object.Name, Pool: object.Spec.Pool, Created: object.CreationTimestamp.Time}
	if _, err := metav1.LabelSelectorAsSelector(&object.Spec.PodSelector); err != nil {
		r.Broken = fmt.Sprintf("spec.podSelector: %v.", err)
	}
	// As they are read of the EgressIP.
	var read reader
	passed := &metav1.ObjectMeta{Name: r.Namespace + "/" + r.Name}
	for _, key := range passedOn() {
		if value, has := object.Annotations[key]; has {
			metav1.SetMetaDataAnnotation(passed, key, value)
		}
	}
	read.annotations(&Group{}, "EgressIPRequest", passed, Balanced)
	mistakes := make([]string, 0, len(read.problems))
	for _, p := range read.problems {
		mistakes = append(mistakes, p.Message)
	}
	r.Mistakes = strings.Join(mistakes, " ")
	return r
}

// passedOn are the annotations of a request that its EgressIP gets.
func passedOn() []string {
	return []string{v1.AnnotationMode, v1.AnnotationIncludeCIDRs, v1.AnnotationExcludeCIDRs}
}

// SamePassedOn reports whether two versions of a request pass on the same.
func SamePassedOn(before, after metav1.Object) bool {
	return !slices.ContainsFunc(passedOn(), func(key string) bool {
		was, had := before.GetAnnotations()[key]
		is, has := after.GetAnnotations()[key]
		return was != is || had != has
	})
}

// passOn gives the EgressIP the annotations of its request. One that the request does not have any
// more is removed if it came from there: administrators may annotate EgressIPs themselves.
func passOn(object *ovnv1.EgressIP, request *v1alpha1.EgressIPRequest) {
	before := strings.Split(object.Annotations[v1alpha1.AnnotationFromRequest], ",")
	var now []string
	for _, key := range passedOn() {
		value, has := request.Annotations[key]
		switch {
		case has:
			metav1.SetMetaDataAnnotation(&object.ObjectMeta, key, value)
			now = append(now, key)
		case slices.Contains(before, key):
			delete(object.Annotations, key)
		}
	}
	if len(now) == 0 {
		delete(object.Annotations, v1alpha1.AnnotationFromRequest)
		return
	}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, v1alpha1.AnnotationFromRequest, strings.Join(now, ","))
}

// ReadGiven reads what an EgressIP says that its request was given; false for one that no request
// has made.
func ReadGiven(object *ovnv1.EgressIP) (Given, bool) {
	g := Given{Name: object.Name, Request: object.Annotations[v1alpha1.AnnotationRequest], Pool: object.Annotations[v1alpha1.AnnotationPool]}
	namespace, name, _ := strings.Cut(g.Request, "/")
	if g.Request == "" || namespace+"."+name != object.Name {
		return Given{}, false
	}
	for written := range strings.SplitSeq(object.Annotations[v1alpha1.AnnotationAddresses], ",") {
		if ip, err := netip.ParseAddr(written); err == nil {
			g.Addresses = append(g.Addresses, ip)
		}
	}
	g.ReleasedAt, _ = time.Parse(time.RFC3339, object.Annotations[v1alpha1.AnnotationReleasedAt])
	return g, true
}

// Write makes the EgressIP say that the request was given the addresses. Whatever else it says
// stays, but for the annotations that the request passes on. request is nil for one that is gone: no
// pods are selected then.
func (g Given) Write(object *ovnv1.EgressIP, request *v1alpha1.EgressIPRequest) {
	ips := make([]string, 0, len(g.Addresses))
	for _, ip := range g.Addresses {
		ips = append(ips, ip.String())
	}
	namespace, _, _ := strings.Cut(g.Request, "/")
	object.Name = g.Name
	for key, value := range map[string]string{
		v1alpha1.AnnotationRequest: g.Request, v1alpha1.AnnotationPool: g.Pool, v1alpha1.AnnotationAddresses: strings.Join(ips, ","),
	} {
		metav1.SetMetaDataAnnotation(&object.ObjectMeta, key, value)
	}
	before := object.Spec.PodSelector
	object.Spec = ovnv1.EgressIPSpec{
		EgressIPs:         ips,
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{metadataName: namespace}},
	}
	if request == nil {
		object.Spec.EgressIPs = []string{}
		metav1.SetMetaDataAnnotation(&object.ObjectMeta, v1alpha1.AnnotationReleasedAt, g.ReleasedAt.UTC().Format(time.RFC3339))
		return
	}
	delete(object.Annotations, v1alpha1.AnnotationReleasedAt)
	passOn(object, request)
	object.Spec.PodSelector = *request.Spec.PodSelector.DeepCopy()
	if _, err := metav1.LabelSelectorAsSelector(&request.Spec.PodSelector); err != nil {
		object.Spec.PodSelector = before // it would select nothing, and the pods would leave with other addresses
	}
}

// metadataName is the label of each Namespace that has its name, which nobody can change.
const metadataName = "kubernetes.io/metadata.name"
