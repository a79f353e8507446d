package main

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

var update = flag.Bool("update", false, "write the golden files again") //nolint:gochecknoglobals // a flag

// TestConvertFiles: what the plugin prints for the objects of each file of testdata/convert is what
// the golden file of that name has: manifests, and behind them the report.
//
// Mutants killed: convert-hides-who-counts, convert-forgets-claims, convert-guesses-namespaces,
// convert-overtakes, convert-takes-from-requests, convert-uncovers.
func TestConvertFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "convert", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			kind, _, _ := strings.Cut(filepath.Base(file), "-")
			out, report := runPlugin(t, "", "convert", kind, "-f", file)
			got := out + "\n# The report:\n" + report
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("%v: want\n%s\ngot\n%s", err, want, got)
			}
		})
	}
}

// TestConvertReadsStdin: manifests are read from stdin and from files, once each.
func TestConvertReadsStdin(t *testing.T) {
	t.Parallel()
	const shop = `{"apiVersion": "network.openshift.io/v1", "kind": "NetNamespace", "metadata": {"name": "shop"}, "egressIPs": ["10.1.8.7"]}`
	file := filepath.Join("testdata", "convert", "egressips-openshift.yaml")
	out, _ := runPlugin(t, strings.Replace(shop, "shop", "more", 1), "convert", "egressips", "-f", file, "-f", "-")
	check(t, out, []string{"name: shop", "name: more"}, nil)
	for in, want := range map[string]string{
		shop:                                   "NetNamespace shop is there twice",
		`{"kind": ["a"]}`:                      "no object of Kubernetes",
		`{"metadata": {}}`:                     "no apiVersion and kind",
		"a: b: c":                              "read -: ",
		`{"apiVersion": "v1", "kind": "Node"}`: "a Node has no name",
		strings.Replace(shop, `["10.1.8.7"]`, "7", 1): "NetNamespace shop: ",
	} {
		cmd := rootCommand(new(bytes.Buffer), new(bytes.Buffer))
		cmd.SetIn(strings.NewReader(in))
		cmd.SetArgs([]string{"convert", "egressips", "-f", file, "-f", "-"})
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

// TestNodesThatAreGone: to apply the label of a Node that is not there would create it.
//
// Mutant killed: convert-creates-nodes.
func TestNodesThatAreGone(t *testing.T) {
	t.Parallel()
	in := input{Objects: given(), complete: true}
	c := toEgressIPs(in)
	if slices.ContainsFunc(c.documents, func(d document) bool { return d.Kind == kindNode }) || !reports(c, kindHostSubnet, "node1", "metadata.name") {
		t.Errorf("%+v", c)
	}
}

// drawNetNamespaces draws some that want the same few addresses.
func drawNetNamespaces(t *rapid.T) []v1.NetNamespace {
	ips := []string{"10.1.8.200", "10.1.8.201", "10.1.8.202", "10.1.8.203", "10.1.8.204", "2001:db8:0::7", "2001:db8::8", "127.0.0.1", "none"}
	var drawn []v1.NetNamespace
	for _, name := range []string{"a", "b", "c", "d"} {
		n := objects.NetNamespace(name, 7, rapid.SliceOfNDistinct(rapid.SampledFrom(ips), 0, 3, rapid.ID).Draw(t, "egress IPs")...)
		n.Annotations = make(map[string]string)
		for annotation, values := range map[string][]string{
			v1.AnnotationMode:        {"", v1.ModeOrdered, v1.ModeBalanced, "fast"},
			v1.AnnotationFailBack:    {"", v1.FailBackAlways, v1.FailBackNever, "later"},
			v1.AnnotationOtherFamily: {"", v1.OtherFamilyDropped, v1.OtherFamilyNode, "maybe"},
		} {
			if value := rapid.SampledFrom(values).Draw(t, annotation); value != "" {
				n.Annotations[annotation] = value
			}
		}
		drawn = append(drawn, n)
	}
	return drawn
}

// printed reads what a conversion prints.
func printed(t *rapid.T, c conversion) input {
	var out, report bytes.Buffer
	if err := c.print(&out, &report); err != nil {
		t.Fatal(err)
	}
	in, err := readFiles([]string{"-"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// reports reports whether the report names a field of an object.
func reports(c conversion, kind, name, field string) bool {
	return slices.ContainsFunc(c.report, func(p egress.Problem) bool { return p.Kind == kind && p.Name == name && p.Field == field })
}

// meaning is what egress IPs a group has and how it uses them. One address is used in any mode.
func meaning(g egress.Group, annotations map[string]string) []any {
	mode := g.Mode
	if len(g.Requests) < 2 {
		mode = egress.Ordered
	}
	return []any{g.Requests, mode, g.Other, annotations[v1.AnnotationFailBack] == v1.FailBackNever}
}

// TestPropertyConvertAndBack: NetNamespaces that become EgressIPs mean the same, and so do the
// NetNamespaces that these become. Each that is not carried over is reported. Nodes have what they had.
//
// Mutants killed: convert-forgets-the-order, convert-forgets-balance, convert-drops-annotations, convert-leaves-old-annotations,
// convert-sorts-addresses, convert-loses-items, convert-writes-empty-egressips.
func TestPropertyConvertAndBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := input{Objects: egress.Objects{NetNamespaces: drawNetNamespaces(t)}}
		there := toEgressIPs(in)
		shuffled := in
		shuffled.NetNamespaces = rapid.Permutation(in.NetNamespaces).Draw(t, "order")
		if again := toEgressIPs(shuffled); !reflect.DeepEqual(there, again) {
			t.Fatalf("another order of the file gives %+v, not %+v", again, there)
		}
		between := printed(t, there)
		hosted := make(map[string][]string)
		for i := range between.EgressIPs {
			e := &between.EgressIPs[i]
			if e.Annotations[v1.AnnotationMode] == v1.ModeBalanced {
				delete(e.Annotations, v1.AnnotationMode) // as OVN-Kubernetes has it
			}
			for _, ip := range e.Spec.EgressIPs {
				// Two objects with one address have it nowhere.
				if node := rapid.SampledFrom([]string{"", "node1", "node2", "node3"}).Draw(t, "node"); node != "" && !reports(there, kindNetNamespace, e.Name, fieldEgressIPs) {
					e.Status.Items = append(e.Status.Items, ovnv1.EgressIPStatusItem{EgressIP: ip, Node: node})
					hosted[node] = append(hosted[node], ip)
				}
			}
		}
		// What the annotations of NetNamespaces were meanwhile does not matter.
		for _, n := range drawNetNamespaces(t) {
			n.EgressIPs = nil
			between.NetNamespaces = append(between.NetNamespaces, n)
		}
		back := toNetNamespaces(between)
		after := printed(t, back)
		for i := range after.NetNamespaces {
			n := &after.NetNamespaces[i]
			old, _ := named(between.NetNamespaces, n.Name)
			maps.Copy(old.Annotations, n.Annotations) // as an apply does
			n.Annotations = old.Annotations
		}
		was, _ := egress.Snapshot(in.Objects)
		mid, _ := egress.Snapshot(egress.Objects{EgressIPs: between.EgressIPs})
		is, _ := egress.Snapshot(egress.Objects{NetNamespaces: after.NetNamespaces})
		for _, g := range was.Groups {
			m, converted := find(mid.Groups, egress.GroupOfEgressIP(g.Name))
			n, returned := find(is.Groups, g.Name)
			if !g.Requesting() {
				if converted || returned {
					t.Fatalf("%s requests nothing, and becomes %+v, %+v", g.Name, m, n)
				}
				continue
			}
			if len(g.Requests) == 0 {
				if converted || !reports(there, kindNetNamespace, g.Name, fieldEgressIPs) {
					t.Fatalf("%s has nothing usable: %+v, %+v", g.Name, m, there.report)
				}
				continue
			}
			original, _ := named(in.NetNamespaces, g.Name)
			e, _ := named(between.EgressIPs, g.Name)
			final, _ := named(after.NetNamespaces, g.Name)
			want := meaning(g, original.Annotations)
			if got := meaning(m, e.Annotations); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s means %v, as an EgressIP %v", g.Name, want, got)
			}
			if got := meaning(n, final.Annotations); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s means %v, and when it is back %v", g.Name, want, got)
			}
			for _, ip := range m.Requests {
				has := slices.ContainsFunc(e.Status.Items, func(i ovnv1.EgressIPStatusItem) bool { return i.EgressIP == ip.String() })
				if !has && !reports(back, kindEgressIP, g.Name, "status.items") {
					t.Fatalf("nobody has %s of %s, which is not reported", ip, g.Name)
				}
			}
		}
		got := make(map[string][]string)
		for _, h := range after.HostSubnets {
			got[h.Name] = h.EgressIPs
		}
		for _, ips := range []map[string][]string{got, hosted} {
			for node := range ips {
				slices.Sort(ips[node])
			}
		}
		if !maps.EqualFunc(got, hosted, slices.Equal) {
			t.Fatalf("nodes had %v, HostSubnets claim %v", hosted, got)
		}
	})
}

func find(groups []egress.Group, name string) (egress.Group, bool) {
	i := slices.IndexFunc(groups, func(g egress.Group) bool { return g.Name == name })
	if i < 0 {
		return egress.Group{}, false
	}
	return groups[i], true
}

// TestConvertOnARealAPIServer: what is printed for a cluster can be applied there with kubectl, changes
// nothing else of the objects, and back again gives what there was. A cluster without NetNamespaces,
// as one of OVN-Kubernetes, can be read too.
func TestConvertOnARealAPIServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd", "egressip")
	o := given()
	o.NetNamespaces[1].EgressIPs = []string{"10.1.8.203", "10.1.8.200"}
	for i := range o.NetNamespaces {
		s.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: o.NetNamespaces[i].Name}}, &o.NetNamespaces[i])
	}
	o.HostSubnets[1].EgressIPs = []string{"10.1.8.203"}
	for i := range o.HostSubnets {
		node := objects.Node(o.HostSubnets[i].Name, corev1.ConditionTrue)
		node.Labels = map[string]string{"zone": "a"}
		s.create(t, node, &o.HostSubnets[i])
	}
	convert := func(kind string) string {
		t.Helper()
		out, _ := runPlugin(t, "", "convert", kind, "--kubeconfig", s.kubeconfig)
		return out
	}
	there := convert("egressips")
	s.apply(t, there)
	if again := convert("egressips"); again != there {
		t.Errorf("applied, this is printed:\n%s\nand not\n%s", again, there)
	}
	var node corev1.Node
	s.get(t, "node1", &node)
	if _, label := node.Labels[ovnv1.LabelEgressAssignable]; !label || node.Labels["zone"] != "a" || len(node.Status.Conditions) != 1 {
		t.Errorf("the Node is %+v", node)
	}
	for _, name := range []string{"shop", "test"} {
		var n v1.NetNamespace
		s.get(t, name, &n)
		n.EgressIPs = nil
		if err := s.Update(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
	}
	var e ovnv1.EgressIP
	s.get(t, "shop", &e)
	e.Status.Items = []ovnv1.EgressIPStatusItem{{EgressIP: "10.1.8.203", Node: "node2"}, {EgressIP: "10.1.8.200", Node: "node1"}}
	if err := s.Status().Update(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	s.apply(t, convert("netnamespaces"), "--force-conflicts")
	for i := range o.NetNamespaces {
		var n v1.NetNamespace
		s.get(t, o.NetNamespaces[i].Name, &n)
		if !slices.Equal(n.EgressIPs, o.NetNamespaces[i].EgressIPs) || *n.NetID != *o.NetNamespaces[i].NetID || n.Annotations[v1.AnnotationMode] == v1.ModeBalanced {
			t.Errorf("%s is %+v, and was %+v", n.Name, n, o.NetNamespaces[i])
		}
	}
	for i := range o.HostSubnets {
		var h v1.HostSubnet
		s.get(t, o.HostSubnets[i].Name, &h)
		if !slices.Equal(h.EgressIPs, o.HostSubnets[i].EgressIPs) || h.HostIP != o.HostSubnets[i].HostIP || h.Subnet != o.HostSubnets[i].Subnet {
			t.Errorf("%s is %+v, and was %+v", h.Name, h, o.HostSubnets[i])
		}
	}

	other := startServer(t, "egressip")
	missing := egressIP("missing", "10.1.8.210")
	missing.Spec.NamespaceSelector.MatchLabels = map[string]string{"team": "none"}
	shop := egressIP("shop", "10.1.8.203")
	other.create(t, &missing, &shop)
	out, report := runPlugin(t, "", "convert", "netnamespaces", "--kubeconfig", other.kubeconfig)
	check(t, out, []string{"kind: NetNamespace\nmetadata:\n  name: shop\n"}, []string{"missing"})
	check(t, report, []string{"EgressIP missing, spec.namespaceSelector: it matches no Namespace.", "EgressIP shop, status.items: no node has 10.1.8.203"}, nil)
}

// apply applies manifests by the command that the plugin names.
func (s *server) apply(t *testing.T, manifests string, flags ...string) {
	t.Helper()
	args := slices.Concat(strings.Fields(applyCommand)[1:], []string{"--kubeconfig", s.kubeconfig}, flags)
	cmd := exec.CommandContext(t.Context(), s.env.ControlPlane.KubectlPath, args...)
	cmd.Stdin = strings.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func (s *server) get(t *testing.T, name string, object client.Object) {
	t.Helper()
	if err := s.Get(t.Context(), client.ObjectKey{Name: name}, object); err != nil {
		t.Fatal(err)
	}
}
