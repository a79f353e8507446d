package page

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestEgressIPs: an EgressIP is a group of its own, and the namespaces that it selects say so; if
// their labels are not known, that is not known.
func TestEgressIPs(t *testing.T) {
	t.Parallel()
	e := ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	e.Spec.EgressIPs = []string{"192.168.7.200"}
	e.Spec.NamespaceSelector.MatchLabels = map[string]string{"tier": "web"}
	e.Status.NetID = new(uint32(7))
	in := Input{
		Objects: egress.Objects{
			NetNamespaces: []v1.NetNamespace{objects.NetNamespace("shop", 1), objects.NetNamespace("till", 2), objects.NetNamespace("new", 3)},
			EgressIPs:     []ovnv1.EgressIP{e},
			HostSubnets:   []v1.HostSubnet{host("node1", "192.168.7.11")},
		},
		NamespaceLabels: map[string]map[string]string{"shop": {"tier": "web"}, "till": {}},
	}
	m := Make(in, nil)
	if g := m.groupNamed(t, "EgressIP/web"); g.Kind != kindEgressIP || g.Name != "web" || g.NetID != "7" || !g.Dropped || g.Level != LevelFailed {
		t.Errorf("the EgressIP is %+v", g)
	}
	for name, want := range map[string]struct {
		selecting []string
		known     bool
	}{"shop": {[]string{"web"}, true}, "till": {nil, true}, "new": {nil, false}} {
		if g := m.groupNamed(t, name); !slices.Equal(g.Selecting, want.selecting) || g.SelectingKnown != want.known {
			t.Errorf("%s is selected by %v (known: %v), want %v (%v)", name, g.Selecting, g.SelectingKnown, want.selecting, want.known)
		}
	}
	in.EgressIPs = nil
	if g := Make(in, nil).groupNamed(t, "new"); !g.SelectingKnown {
		t.Error("without EgressIPs it is not known that none selects the namespace")
	}
}

// TestGroupIssue: an issue has each message once, and is short also with many egress IPs.
func TestGroupIssue(t *testing.T) {
	t.Parallel()
	var ips []string
	for i := range 50 {
		ips = append(ips, "192.168.7."+string(rune('1'+i/25))+string(rune('0'+i%10)))
	}
	slices.Sort(ips)
	m := modelOf([]v1.NetNamespace{objects.NetNamespace("shop", 1, slices.Compact(ips)...)}, nil)
	issue := groupIssues(m.groupNamed(t, "shop"))[0]
	if len(issue.Text) > 3000 || !strings.Contains(issue.Text, "more of its egress IPs are not in order") {
		t.Errorf("the issue of 20 egress IPs without a host has %d characters:\n%s", len(issue.Text), issue.Text)
	}
	n := objects.NetNamespace("shop", 1, "192.168.7.200")
	n.Annotations = map[string]string{v1.AnnotationMode: "sideways"}
	g := modelOf([]v1.NetNamespace{n}, []v1.HostSubnet{host("node1", "192.168.7.11", "192.168.7.200")}).groupNamed(t, "shop")
	if g.Level != LevelDegraded || len(g.Problems) != 1 || !strings.Contains(groupIssues(g)[0].Text, "sideways") {
		t.Errorf("a mode that does not exist makes %s with %q", g.Level, g.Problems)
	}
}
