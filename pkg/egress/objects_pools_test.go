package egress_test

import (
	"maps"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The EgressIP of a request has the annotations of the request that say how egress IPs are used, and
// no more once the request has not; those that an administrator gave the EgressIP stay, and all of
// them while there is no request.
//
// Mutant killed: requests-pass-on-for-ever.
func TestRequestsPassAnnotationsOn(t *testing.T) {
	t.Parallel()
	g := egress.Given{Name: "shop.out", Request: "shop/out", Pool: "p"}
	object := &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1.AnnotationExcludeCIDRs: "192.0.2.0/24", "theirs": "x"}}}
	base := map[string]string{"theirs": "x", v1alpha1.AnnotationRequest: "shop/out", v1alpha1.AnnotationPool: "p", v1alpha1.AnnotationAddresses: ""}
	before := &v1alpha1.EgressIPRequest{}
	for i, c := range []struct{ request, want map[string]string }{
		{nil, map[string]string{v1.AnnotationExcludeCIDRs: "192.0.2.0/24"}},
		{map[string]string{v1.AnnotationMode: "ordered", "more": "y"}, map[string]string{v1.AnnotationExcludeCIDRs: "192.0.2.0/24", v1.AnnotationMode: "ordered", v1alpha1.AnnotationFromRequest: v1.AnnotationMode}},
		{
			map[string]string{v1.AnnotationMode: "balanced", v1.AnnotationIncludeCIDRs: "", v1.AnnotationExcludeCIDRs: "10.0.0.0/8"},
			map[string]string{
				v1.AnnotationMode: "balanced", v1.AnnotationIncludeCIDRs: "", v1.AnnotationExcludeCIDRs: "10.0.0.0/8",
				v1alpha1.AnnotationFromRequest: v1.AnnotationMode + "," + v1.AnnotationIncludeCIDRs + "," + v1.AnnotationExcludeCIDRs,
			},
		},
		{map[string]string{v1.AnnotationIncludeCIDRs: "203.0.113.0/24"}, map[string]string{v1.AnnotationIncludeCIDRs: "203.0.113.0/24", v1alpha1.AnnotationFromRequest: v1.AnnotationIncludeCIDRs}},
		{nil, nil},
	} {
		request := &v1alpha1.EgressIPRequest{ObjectMeta: metav1.ObjectMeta{Annotations: c.request}}
		if i > 0 && egress.SamePassedOn(before, request) {
			t.Errorf("%v and %v count as the same", before.Annotations, c.request)
		}
		before = request
		g.Write(object, request)
		want := maps.Clone(base)
		maps.Copy(want, c.want)
		if !maps.Equal(object.Annotations, want) {
			t.Errorf("request %v: %v", c.request, object.Annotations)
		}
	}
	g.Write(object, &v1alpha1.EgressIPRequest{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1.AnnotationMode: "ordered"}}})
	g.Write(object, nil)
	if object.Annotations[v1.AnnotationMode] != "ordered" {
		t.Errorf("without a request: %v", object.Annotations)
	}
}

// What is wrong with these annotations of a request is in what becomes of it, whether it has an address
// or not, and does not keep it from one.
func TestMistakesInAnnotationsOfRequests(t *testing.T) {
	t.Parallel()
	for _, pool := range []string{"p", "q"} {
		in := egress.Drawing{Pools: []egress.Pool{egress.ReadPool(&v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.EgressIPPoolSpec{CIDRs: []string{"192.168.7.8/30"}}}, nil)}}
		in.Pools[0].Allows = func(string) bool { return true }
		for _, annotations := range []map[string]string{
			{v1.AnnotationMode: "random", v1.AnnotationExcludeCIDRs: "10.0.0.1/8"},
			{v1.AnnotationMode: "ordered", v1.AnnotationExcludeCIDRs: "10.0.0.0/8", v1.AnnotationGateways: "nothing"},
		} {
			in.Requests = []egress.PoolRequest{egress.ReadPoolRequest(&v1alpha1.EgressIPRequest{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "out", Annotations: annotations}, Spec: v1alpha1.EgressIPRequestSpec{Pool: pool},
			})}
			drawn := egress.Draw(in).Requests[0]
			wrong := annotations[v1.AnnotationMode] == "random"
			if said := strings.Contains(drawn.Message, `EgressIPRequest shop/out, annotation `+v1.AnnotationExcludeCIDRs+": 10.0.0.1/8 has host bits") &&
				strings.Contains(drawn.Mistakes, `"random" is not a valid mode`); said != wrong || (drawn.Mistakes != "") != wrong {
				t.Errorf("pool %s, %v: %q, mistakes %q", pool, annotations, drawn.Message, drawn.Mistakes)
			}
			if given := len(drawn.Addresses) == 1 && drawn.Addresses[0] == testenv.Addr("192.168.7.8"); given != (pool == "p") {
				t.Errorf("pool %s: given %v", pool, drawn.Addresses)
			}
		}
	}
}
