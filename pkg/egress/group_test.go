package egress_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// egressIP adds an EgressIP for the namespaces of team a, numbered from 3001 on.
func (g *given) egressIP(name string, ips ...string) *given {
	g.EgressIPs = append(g.EgressIPs, ovnv1.EgressIP{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: ovnv1.EgressIPSpec{
			EgressIPs:         ips,
			NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}},
		},
		Status: ovnv1.EgressIPStatus{NetID: new(3001 + uint32(len(g.EgressIPs)))},
	})
	return g
}

// web restricts the last EgressIP to the pods with label app=web.
func (g *given) web() *given {
	g.EgressIPs[len(g.EgressIPs)-1].Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	return g
}

// labelled is a host in a known network whose Node has the label for EgressIPs.
func (g *given) labelled(name string, assigned ...string) *given {
	g.host(name)
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Agent.UplinkCIDR = h.HostIP + "/24"
		h.AssignedEgressIPs = assigned
	})
	if g.Assignable == nil {
		g.Assignable = map[string]bool{}
	}
	g.Assignable[name] = true
	return g
}

func webPod(namespace string) egress.Pod {
	return egress.Pod{Namespace: namespace, Name: "web", IP: testenv.Addr("10.244.1.5"), Labels: labels.Set{"app": "web"}}
}

// An EgressIP that selects a pod comes before its NetNamespace, and of several EgressIPs the first by
// name does; the others are reported, and nothing is reported where only one says anything.
//
// Mutants killed: last-egressip-counts, empty-egressip-selects, unknown-namespace-has-no-egressip,
// netnamespace-overlap-is-not-told, selectors-are-joined.
func TestGroupsOfPods(t *testing.T) {
	const first, second, third = "192.168.7.200", "192.168.7.201", "192.168.7.202"
	teams := map[string]labels.Set{"red": {"team": "a"}, "blue": {"team": "b"}}
	web, plain := webPod("red"), egress.Pod{Namespace: "red", Name: "plain", IP: testenv.Addr("10.244.1.6")}
	overlap := func(used, ignored string) egress.Overlap {
		return egress.Overlap{Used: used, Ignored: ignored, Pod: "red/web"}
	}
	for name, c := range map[string]struct {
		given    *given
		pods     []egress.Pod
		want     string // the groups of the pods, "-" for one that is not known
		overlaps []egress.Overlap
	}{
		"no EgressIP":                  {new(given).namespace("red", first), []egress.Pod{web}, "", nil},
		"one selects the namespace":    {new(given).namespace("red").egressIP("x", first), []egress.Pod{web, plain}, "EgressIP/x EgressIP/x", nil},
		"one selects pods":             {new(given).namespace("red").egressIP("x", first).web(), []egress.Pod{web, plain}, "EgressIP/x ", nil},
		"another namespace":            {new(given).namespace("blue").egressIP("x", first), []egress.Pod{webPod("blue")}, "", nil},
		"two select a pod":             {new(given).namespace("red").egressIP("y", first).egressIP("x", second).web(), []egress.Pod{web, plain}, "EgressIP/x EgressIP/y", []egress.Overlap{overlap("EgressIP/x", "EgressIP/y")}},
		"three":                        {new(given).namespace("red").egressIP("z", first).egressIP("y", second).egressIP("x", third), []egress.Pod{web}, "EgressIP/x", []egress.Overlap{overlap("EgressIP/x", "EgressIP/y"), overlap("EgressIP/x", "EgressIP/z")}},
		"its NetNamespace, too":        {new(given).namespace("red", second).egressIP("x", first), []egress.Pod{web}, "EgressIP/x", []egress.Overlap{overlap("EgressIP/x", "red")}},
		"one requests nothing":         {new(given).namespace("red", second).egressIP("x"), []egress.Pod{web}, "", nil},
		"what it requests is unusable": {new(given).namespace("red").egressIP("x", "0.0.0.0"), []egress.Pod{web}, "EgressIP/x", nil},
		"the namespace is not known":   {new(given).namespace("green").egressIP("x", first), []egress.Pod{webPod("green")}, "-", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(c.given.Objects)
			pods, overlaps := egress.Grouped(cluster, c.pods, teams)
			var groups []string
			for _, want := range c.pods {
				i := slices.IndexFunc(pods, func(p egress.Pod) bool { return p.Name == want.Name })
				if i < 0 {
					groups = append(groups, "-")
				} else {
					groups = append(groups, pods[i].Group)
				}
			}
			if got := strings.Join(groups, " "); got != c.want || !slices.Equal(overlaps, c.overlaps) {
				t.Errorf("groups are %q, want %q; overlaps %v, want %v", got, c.want, overlaps, c.overlaps)
			}
		})
	}
}

// A selector that cannot be used selects nothing, and that is said.
//
// Mutant killed: bad-selector-is-ready.
func TestSelectorThatCannotBeUsed(t *testing.T) {
	g := new(given).namespace("red").egressIP("x", "192.168.7.200").labelled("w0", "192.168.7.200").reports("w0", "192.168.7.200", "")
	g.EgressIPs[0].Spec.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}
	cluster, problems := egress.Snapshot(g.Objects)
	if len(problems) != 1 || problems[0].Kind != "EgressIP" || problems[0].Name != "x" || !strings.Contains(problems[0].Message, "spec.podSelector") {
		t.Errorf("problems are %+v", problems)
	}
	x, _ := egress.Resolve(cluster).Group("EgressIP/x")
	if x.Ready != egress.ReadyFalse || x.Reason != egress.ReasonBadSelector {
		t.Errorf("it is %s, %s: %s", x.Ready, x.Reason, x.Message)
	}
	if pods, _ := egress.Grouped(cluster, []egress.Pod{webPod("red")}, map[string]labels.Set{"red": {"team": "a"}}); len(pods) != 1 || pods[0].Group != "" {
		t.Errorf("it selects %+v", pods)
	}
}

// given: an EgressIP that selects pods; when a selector is edited into one that cannot be used, then the
// pods that it selected keep its egress IP, as its status says which these are, and a problem names the
// selector. When it is corrected, the new one counts.
//
// Mutants killed: broken-selector-lets-go, former-selectors-count.
func TestSelectorThatBreaks(t *testing.T) {
	g := new(given).namespace("red").egressIP("x", "192.168.7.200").labelled("w0", "192.168.7.200").reports("w0", "192.168.7.200", "")
	e := &g.EgressIPs[0]
	e.Status.Selectors = egress.SelectorsInUse(e)
	for _, broken := range []func(*metav1.LabelSelector){
		func(s *metav1.LabelSelector) {
			s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: "in", Values: []string{"a"}}}
		},
		func(s *metav1.LabelSelector) { s.MatchLabels = map[string]string{"app": "not a label"} },
		func(s *metav1.LabelSelector) { s.MatchLabels = map[string]string{"not a key": "a"} },
	} {
		for field, selector := range map[string]*metav1.LabelSelector{"spec.namespaceSelector": &e.Spec.NamespaceSelector, "spec.podSelector": &e.Spec.PodSelector} {
			before := selector.DeepCopy()
			broken(selector)
			cluster, problems := egress.Snapshot(g.Objects)
			if len(problems) != 1 || problems[0].Field != field || problems[0].Reason != egress.ReasonBadSelector || !strings.Contains(problems[0].Message, "status.selectors count") {
				t.Errorf("problems are %+v", problems)
			}
			if x, _ := egress.Resolve(cluster).Group("EgressIP/x"); x.Ready != egress.ReadyTrue {
				t.Errorf("it is %s, %s: %s", x.Ready, x.Reason, x.Message)
			}
			if pods, _ := egress.Grouped(cluster, []egress.Pod{webPod("red")}, map[string]labels.Set{"red": {"team": "a"}}); len(pods) != 1 || pods[0].Group != "EgressIP/x" {
				t.Errorf("with a broken %s it selects %+v", field, pods)
			}
			if inUse := egress.SelectorsInUse(e); inUse != e.Status.Selectors {
				t.Errorf("with a broken %s, the status would be %+v", field, inUse)
			}
			*selector = *before
		}
	}
	e.Spec.NamespaceSelector = metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}
	cluster, _ := egress.Snapshot(g.Objects)
	if pods, _ := egress.Grouped(cluster, []egress.Pod{webPod("red")}, map[string]labels.Set{"red": {"team": "a"}}); len(pods) != 1 || pods[0].Group != "" {
		t.Errorf("corrected to other pods, it selects %+v", pods)
	}
}

// Pods of a namespace without a NetNamespace that an EgressIP selects have its path, and not that of
// the node, even while strict classification lets others of such namespaces pass.
//
// Mutant killed: selected-pods-are-unmanaged.
func TestSelectedPodWithoutNetNamespace(t *testing.T) {
	g := new(given).egressIP("x", "192.168.7.200").labelled("w0", "192.168.7.200")
	cluster, _ := egress.Snapshot(g.Objects)
	d, ok := egress.DecideHost(egress.HostInput{
		Host: "w0", Cluster: cluster, HostIP: testenv.Addr("192.168.7.10"), Strict: true,
		Pods: []egress.Pod{webPod("red")}, Namespaces: map[string]labels.Set{"red": {"team": "a"}},
		PodNetworks: []netip.Prefix{testenv.Prefix("10.244.0.0/16")},
	})
	if !ok || len(d.Plan.Pods) != 1 || d.Plan.Pods[0].Kind != egress.PathLocal || d.Plan.Pods[0].EgressIP != testenv.Addr("192.168.7.200") {
		t.Errorf("paths are %+v", d.Plan.Pods)
	}
}

// What agents report of overlaps is said of both objects: the one that is ignored is not ready.
//
// Mutants killed: overlaps-are-forgotten, ignored-is-ready.
func TestOverlapsAreReported(t *testing.T) {
	const x, y = "192.168.7.200", "192.168.7.201"
	g := new(given).namespace("red", y).egressIP("x", x).labelled("w0", x).host("w1", y).reports("w0", x, "").reports("w1", y, "")
	for i := range g.NetNamespaces {
		g.NetNamespaces[i].UID, g.NetNamespaces[i].ResourceVersion = "uid", "1"
	}
	var memo egress.Memo
	states := func() [2]egress.GroupResult {
		r := memo.Decide(g.Objects).Resolution
		red, _ := r.Group("red")
		first, _ := r.Group("EgressIP/x")
		return [2]egress.GroupResult{red, first}
	}
	for _, s := range states() {
		if s.Ready != egress.ReadyTrue || strings.Contains(s.Message, "pod") {
			t.Errorf("without overlaps: %s %s", s.Ready, s.Message)
		}
	}
	g.edit("w1", func(h *v1.HostSubnet) {
		h.Status.Agent.Overlaps = []v1.Overlap{{Used: "EgressIP/x", Ignored: "red", Pod: "red/web"}}
	})
	s := states()
	if s[0].Ready != egress.ReadyFalse || s[0].Reason != egress.ReasonOverlap || !strings.Contains(s[0].Message, "pod red/web on host w1 leaves with the egress IPs of EgressIP x") {
		t.Errorf("the NetNamespace is %s, %s: %s", s[0].Ready, s[0].Reason, s[0].Message)
	}
	if s[1].Ready != egress.ReadyTrue || !strings.Contains(s[1].Message, "pod red/web on host w1, although namespace red") {
		t.Errorf("the EgressIP is %s: %s", s[1].Ready, s[1].Message)
	}
}

// Hosts with the label are given what EgressIPs request, as far as their network contains it, each
// address of one to another host; nothing that NetNamespaces request; and they keep what the
// administrator has listed for them, which counts for capacity and for who has what already.
//
// Mutants killed: labels-are-for-everyone, assigned-beside-a-sibling, by-hand-is-no-load.
func TestHostsWithTheLabel(t *testing.T) {
	const first, second, elsewhere = "192.168.7.200", "192.168.7.201", "192.168.9.1"
	for name, c := range map[string]struct {
		given *given
		want  string
	}{
		"each to another host":         {new(given).egressIP("x", first, second).labelled("w0").labelled("w1"), "w0: 192.168.7.200 w1: 192.168.7.201"},
		"one host":                     {new(given).egressIP("x", first, second).labelled("w0"), "w0: 192.168.7.200"},
		"of another network":           {new(given).egressIP("x", elsewhere).labelled("w0"), "w0:"},
		"a NetNamespace requests it":   {new(given).namespace("red", first).labelled("w0"), "w0:"},
		"an automatic host":            {new(given).egressIP("x", first).automatic("w0", "192.168.7.0/24"), "w0: 192.168.7.200"},
		"listed by hand elsewhere":     {new(given).egressIP("x", first).host("w0", first).labelled("w1"), "w1:"},
		"a sibling by hand":            {new(given).egressIP("x", first, second).labelled("w0").claims("w0", first), "w0:"},
		"a sibling by hand, elsewhere": {new(given).egressIP("x", first, second).labelled("w0").claims("w0", first).labelled("w1"), "w0: w1: 192.168.7.201"},
		"full by hand":                 {new(given).namespace("red", second).egressIP("x", first).labelled("w0").claims("w0", second).capacity("w0", 1), "w0:"},
		"room beside what is by hand":  {new(given).namespace("red", second).egressIP("x", first).labelled("w0").claims("w0", second).capacity("w0", 2), "w0: 192.168.7.200"},
		"the label is gone":            {new(given).egressIP("x", first).host("w0").claimsAssigned("w0", first), "w0:"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(c.given.Objects)
			var got []string
			for _, h := range egress.Allocate(cluster).Hosts {
				line := h.Host + ":"
				for _, ip := range h.Assigned {
					line += " " + ip.String()
				}
				got = append(got, line)
				if len(h.Claims) > 0 {
					t.Errorf("%s: egressIPs become %v", h.Host, h.Claims)
				}
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}

// claimsAssigned is what the controller has assigned to a host.
func (g *given) claimsAssigned(name string, ips ...string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.AssignedEgressIPs = ips })
	return g
}
