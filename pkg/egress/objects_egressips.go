package egress

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// egressIP reads an EgressIP.
func (r *reader) egressIP(object *ovnv1.EgressIP) Group {
	id, numbered := object.ID()
	g := Group{Name: GroupOfEgressIP(object.Name), NetID: id, Unnumbered: !numbered}
	r.requests(&g, kindEgressIP, object.Name, object.Spec.EgressIPs)
	if r.annotations(&g, kindEgressIP, object, Balanced) {
		g.Keeps = activeIPs(object.Status.EgressIPs)
	}
	g.Selects = r.selection(object)
	return g
}

// selection reads the selectors of an EgressIP; nil if they cannot be used.
func (r *reader) selection(object *ovnv1.EgressIP) *Selection {
	read := func(field string, written *metav1.LabelSelector) labels.Selector {
		selector, err := metav1.LabelSelectorAsSelector(written)
		if err != nil {
			r.problem(kindEgressIP, object.Name, "spec."+field, "", ReasonBadSelector,
				"%v. The EgressIP selects no pod until that is corrected.", err)
			return nil
		}
		return selector
	}
	namespaces := read("namespaceSelector", &object.Spec.NamespaceSelector)
	pods := read("podSelector", &object.Spec.PodSelector)
	if namespaces == nil || pods == nil {
		return nil
	}
	return &Selection{namespaces: namespaces, pods: pods, demands: demandedBy(namespaces)}
}

// activeIPs are the egress IPs that a status says are in use.
func activeIPs(requests []v1.RequestStatus) (ips []netip.Addr) {
	for _, request := range requests {
		if ip := parsed(request.IP); ip.IsValid() && request.State == v1.StateActive {
			ips = append(ips, ip)
		}
	}
	return ips
}

func readOverlaps(written []v1.Overlap) []Overlap {
	var overlaps []Overlap
	for _, o := range written[:min(len(written), maxOverlaps)] {
		overlaps = append(overlaps, Overlap{Used: o.Used, Ignored: o.Ignored, Pod: o.Pod})
	}
	return overlaps
}

// String returns the mode as the API names it.
func (m Mode) String() string {
	if m == Ordered {
		return v1.ModeOrdered
	}
	return v1.ModeBalanced
}
