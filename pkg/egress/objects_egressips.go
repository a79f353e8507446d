package egress

import (
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// selection reads the selectors of an EgressIP; nil if they cannot be used, and never could.
func (r *reader) selection(object *ovnv1.EgressIP) *Selection {
	inUse := SelectorsInUse(object)
	otherwise := "The EgressIP selects no pod until that is corrected."
	if inUse != nil {
		otherwise = "Until that is corrected, status.selectors count, the last ones that the controller could use: their pods have the egress IPs."
	}
	for _, s := range []struct {
		field    string
		selector metav1.LabelSelector
	}{{"namespaceSelector", object.Spec.NamespaceSelector}, {"podSelector", object.Spec.PodSelector}} {
		if _, err := metav1.LabelSelectorAsSelector(&s.selector); err != nil {
			r.problem(kindEgressIP, object.Name, "spec."+s.field, "", ReasonBadSelector, "%v. %s", err, otherwise)
		}
	}
	if inUse == nil {
		return nil
	}
	return newSelection(*inUse)
}

// SelectorsInUse returns the selectors by which an EgressIP selects pods: those of its spec, or if one
// of them cannot be used, those that its status says it had before; nil without any.
func SelectorsInUse(object *ovnv1.EgressIP) *ovnv1.Selectors {
	wanted := ovnv1.Selectors{NamespaceSelector: object.Spec.NamespaceSelector, PodSelector: object.Spec.PodSelector}
	if newSelection(wanted) != nil {
		return &wanted
	}
	if before := object.Status.Selectors; before != nil && newSelection(*before) != nil {
		return before
	}
	return nil
}

// newSelection returns nil for selectors that cannot be used.
func newSelection(s ovnv1.Selectors) *Selection {
	namespaces, err := metav1.LabelSelectorAsSelector(&s.NamespaceSelector)
	pods, errPods := metav1.LabelSelectorAsSelector(&s.PodSelector)
	if err != nil || errPods != nil {
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

// gateways reads an annotation that lists gateways, at most one of each family.
func (r *reader) gateways(kind, name, written string) (gateways [2]netip.Addr) {
	if written == "" {
		return gateways
	}
	for text := range strings.SplitSeq(written, ",") {
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || ip.Zone() != "" || ip.Is4In6() || !ip.IsGlobalUnicast() && !ip.IsLinkLocalUnicast() {
			r.problem(kind, name, "annotation "+gatewaysAnnotation, written, ReasonBadGateways,
				"%q is not a gateway, and is ignored. Give the address of a router, such as 172.16.5.1 or fe80::1.", text)
			continue
		}
		if f := FamilyOf(ip); gateways[f].IsValid() {
			r.problem(kind, name, "annotation "+gatewaysAnnotation, written, ReasonBadGateways,
				"%v is a second gateway of %s, and is ignored: %v is used. Give one of each family.", ip, f, gateways[f])
		} else {
			gateways[f] = ip
		}
	}
	return gateways
}
